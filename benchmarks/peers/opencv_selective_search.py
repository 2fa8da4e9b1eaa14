"""Selective search beside OpenCV's: time, number of boxes and recall on the same images.

```
python -m benchmarks.peers.opencv_selective_search --voc DIR --scenes 20 --opencv /path/to/other/python
```

OpenCV has it in its contrib modules alone, whose package cannot be installed beside opencv-python-headless: both own
the folder cv2. So its side runs in another interpreter, `--opencv`, of an environment with
opencv-contrib-python-headless and numpy; left out, this one is tried.

Recall is that of the first `--proposals` boxes, which both give in an order of their own. Both use one thread; time is
the processor's, since neither waits for anything.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODES = ("fast", "quality")


def main(arguments=None):
    """Measure both sides and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="VOC folder with boxes, such as that of labelme's photos")
    parser.add_argument("--scenes", type=int, default=20, help="scenes of streets; 0 for none")
    parser.add_argument("--proposals", type=int, default=2000)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--opencv", default=sys.executable, help="Python whose cv2 has ximgproc")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve, options.modes)
        return None
    results = {"proposals": options.proposals, "data": {}}
    most = options.proposals
    version = None
    for name, samples in _data_sets(options):
        version, theirs = _of_opencv(options.opencv, [sample.image for sample in samples], options.modes)
        results["data"][name] = {
            "images": len(samples),
            "objects": sum(int((~sample.ignored).sum()) for sample in samples),
            "ours": {mode: _figures(samples, _of_ours(samples, mode), most) for mode in options.modes},
            "opencv": {mode: _figures(samples, theirs[mode], most) for mode in options.modes},
        }
    results["opencv_version"] = version
    from benchmarks import environment

    results["environment"] = environment.describe()
    text = json.dumps(results, indent=2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    return results


def _data_sets(options):
    """Yield a name and samples of each data set asked for."""
    from kerasvision import data

    if options.voc is not None:
        yield "voc", list(data.load(f"voc:{options.voc}", classes="auto", task="detection"))
    if options.scenes:
        scenes = data.load("streets", split="test")
        yield "streets", [scenes[index] for index in range(options.scenes)]


def _of_ours(samples, mode):
    """Return seconds and boxes of each image."""
    from kerasvision.data import SelectiveSearch

    search = SelectiveSearch(mode, max_proposals=100_000)
    search(samples[0].image)  # imports what it needs
    seconds, boxes = [], []
    for sample in samples:
        start = time.process_time()
        boxes.append(search(sample.image))
        seconds.append(time.process_time() - start)
    return seconds, boxes


def _figures(samples, side, most):
    """Return what is reported of one side's seconds and boxes."""
    from kerasvision.metrics.proposal_recall import best_overlaps

    seconds, boxes = side
    kept = [best_overlaps(s.boxes[~s.ignored], found[:most]) for s, found in zip(samples, boxes, strict=True)]
    everything = [best_overlaps(s.boxes[~s.ignored], found) for s, found in zip(samples, boxes, strict=True)]
    overlaps, overlaps_of_all = np.concatenate(kept), np.concatenate(everything)
    return {
        "seconds_per_image": float(np.mean(seconds)),
        "boxes_per_image": float(np.mean([len(found) for found in boxes])),
        "recall_at_0.5": float((overlaps >= 0.5).mean()),
        "recall_at_0.5_of_all_boxes": float((overlaps_of_all >= 0.5).mean()),
        "average_best_overlap": float(overlaps.mean()),
    }


def _of_opencv(python, images, modes):
    """Return the version of OpenCV and {mode: (seconds, boxes)}, from a process of the other interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "images.npz", *images)
        command = [python, str(Path(__file__).resolve()), "--serve", folder, "--modes", *modes]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (the user's own)
        if done.returncode:
            raise SystemExit(f"--opencv {python}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        found = {}
        for mode in modes:
            with np.load(Path(folder) / f"{mode}.npz") as file:
                seconds = file["seconds"].tolist()
                found[mode] = seconds, [file[f"boxes{index}"] for index in range(len(images))]
        return (Path(folder) / "version").read_text(), found


def serve(folder: Path, modes) -> None:
    """Search the images of a folder by OpenCV; runs in the other interpreter, with numpy and cv2 alone."""
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise SystemExit(
            f"cv2 {cv2.__version__} has no ximgproc; as --opencv, give a Python with opencv-contrib-python-headless"
        )
    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)
    (folder / "version").write_text(cv2.__version__)
    with np.load(folder / "images.npz") as file:
        images = [file[f"arr_{index}"] for index in range(len(file.files))]
    for mode in modes:
        seconds, boxes = [], {}
        for index, image in enumerate(images):
            start = time.process_time()
            search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
            search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
            getattr(search, f"switchToSelectiveSearch{mode.title()}")()
            found = search.process()  # x, y, width, height
            seconds.append(time.process_time() - start)
            boxes[f"boxes{index}"] = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
        np.savez(folder / f"{mode}.npz", seconds=seconds, **boxes)


if __name__ == "__main__":
    main()
