"""RetinaNet R50-FPN beside torchvision's eager model: same weights, same images, same process, by turns.

```
python -m benchmarks.peers.torchvision_retinanet --size 800 --repeats 9
```

Both sides start from a JPEG file and end with boxes in the image's own pixels. The weights are random but not
trivial: normalisation statistics differ from 0 and 1, and the classification head is scaled so that about as
many anchors score above the threshold as on a photograph: a network that finds nothing has no NMS to do.

Needs the `parity` extra (torch and torchvision), which only this folder and tests/parity import.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import environment
from benchmarks.peers.turns import randomize_normalization, timed, times_by_turns
from benchmarks.timing import END_TO_END, STAGES, input_shape, run_batch, synchronize

NAME = "retinanet_resnet50_fpn"


def random_peer(seed: int = 0):
    """Return torchvision's model in eval mode with random weights that find something."""
    import torch
    from torchvision.models.detection import retinanet_resnet50_fpn

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    randomize_normalization(model, generator)
    return model.eval()


def calibrate(model, image, share: float = 2e-4) -> None:
    """Scale the classification head so that `share` of all (anchor, class) scores pass the threshold.

    Of the 11 million scores at 800 x 800, some 2000 do, as on a photograph of a busy street.
    """
    import torch

    head = model.head.classification_head.cls_logits
    threshold = np.log(model.score_thresh / (1 - model.score_thresh))
    with torch.no_grad():
        head.bias.zero_()
        transformed, _ = model.transform([image])
        features = list(model.backbone(transformed.tensors).values())
        logits = model.head(features)["cls_logits"].flatten().double()
        head.weight.mul_(2.0 / float(logits.std()))  # 2: logits of a trained network spread over several units
        logits = logits * (2.0 / float(logits.std()))
        passing = max(1, int(share * logits.numel()))
        head.bias.fill_(float(threshold - logits.kthvalue(logits.numel() - passing).values))


def overlapping_outputs(anchors: list[np.ndarray], num_classes: int, box_xyxy, *, classes: int) -> dict:
    """Return raw outputs of one image in which every anchor claims the same box with a high score.

    Args:
        anchors: Of each level, (A_l, 4) xyxy.
        num_classes: K.
        box_xyxy: The box that all deltas point to.
        classes: How many of the classes score high, each for its share of the anchors.

    Returns:
        ``logits`` and ``deltas``: lists of float32 (1, A_l, K) and (1, A_l, 4).
    """
    x1, y1, x2, y2 = np.asarray(box_xyxy, np.float64)
    rng = np.random.default_rng(0)
    raw: dict[str, list[np.ndarray]] = {"logits": [], "deltas": []}
    for level in anchors:
        sizes = level[:, 2:] - level[:, :2]  # (A_l, 2)
        centres = level[:, :2] + sizes / 2
        shift = (np.array([(x1 + x2) / 2, (y1 + y2) / 2]) - centres) / sizes
        stretch = np.log(np.array([x2 - x1, y2 - y1]) / sizes)
        logits = np.full((len(level), num_classes), -12.0, np.float32)
        logits[np.arange(len(level)), rng.integers(0, classes, len(level))] = rng.uniform(1, 4, len(level))
        raw["logits"].append(logits[None])
        raw["deltas"].append(np.concatenate([shift, stretch], axis=1).astype(np.float32)[None])
    return raw


def compare(size_hw: tuple[int, int], *, repeats: int = 9, seed: int = 0, pause: float = 0.3) -> dict:
    """Time both sides on one image.

    Args:
        size_hw: Size of the image in pixels; its short side is resized to 800 by both.
        repeats: Timed runs of each side.
        seed: Of the weights and the scene.
        pause: Seconds of rest before each run.

    Returns:
        Medians in seconds, their ratio, the share of decoding and NMS, the worst case of all boxes
        overlapping, how far the detections agree, and the environment.
    """
    import torch
    from torchvision.io import ImageReadMode, read_image

    import zoo
    from kerasvision.data.streets import Streets
    from kerasvision.inference import Predictor
    from kerasvision.visualize import save_image

    with tempfile.TemporaryDirectory(prefix="kerasvision-peer-") as folder:
        picture = Streets("test", size_hw=size_hw, seed=seed)[0].image
        path = save_image(picture, Path(folder) / "scene.jpg", quality=95)
        theirs = random_peer(seed)
        calibrate(theirs, read_image(str(path), ImageReadMode.RGB) / 255)
        torch.save(theirs.state_dict(), Path(folder) / "weights.pth")
        predictor = Predictor(zoo.get(NAME, weights=Path(folder) / "weights.pth"), freeze=True)

        @torch.inference_mode()
        def their_run():
            return theirs([read_image(str(path), ImageReadMode.RGB) / 255])[0]

        stages: list[dict[str, float]] = []

        def our_seconds() -> float:
            seconds, _, _ = run_batch(predictor, [path])
            stages.append(seconds)
            return seconds[END_TO_END]

        times = times_by_turns({"ours": our_seconds, "theirs": lambda: timed(their_run)[0]}, repeats, pause)
        _, results, inputs = run_batch(predictor, [path])
        agreement = agree(results[0], their_run())
        worst = _worst_case(predictor, theirs, picture, repeats)
    ours, peer = (statistics.median(times[side]) for side in ("ours", "theirs"))
    kept = stages[-repeats:]
    parts = {stage: statistics.median(seconds[stage] for seconds in kept) for stage in STAGES}
    rest = ours - parts["postprocess"]
    return {
        "image_hw": list(size_hw),
        "input_hw": list(input_shape(inputs)[1:3]),
        "repeats": repeats,
        "ours_seconds": ours,
        "theirs_seconds": peer,
        "ratio": ours / peer,
        "stages_seconds": parts,
        "decoding_share": parts["postprocess"] / ours,
        "worst_case": {
            name: {**case, "share_of_end_to_end": case["ours_seconds"] / (rest + case["ours_seconds"])}
            for name, case in worst.items()
        },
        "agreement": agreement,
        "their_threads": torch.get_num_threads(),
        "environment": environment.describe(),
    }


def agree(result, their_result) -> dict:
    """Return how far two sets of detections agree.

    Each of theirs is paired with our box of the same class that lies nearest: by rank, two scores that differ in the
    last bit would swap places and pair boxes at different ends of the picture.

    Args:
        result: A `Detections`.
        their_result: torchvision's dict of ``boxes``, ``scores`` and ``labels``.

    Returns:
        ``ours`` and ``theirs``, the numbers of detections; ``paired``, how many of theirs have one of ours within a
        pixel; the largest differences of score and of coordinates among these pairs, None without any.
    """
    boxes, scores, labels = (their_result[name].numpy() for name in ("boxes", "scores", "labels"))
    ours = np.asarray(result.boxes, np.float64)
    distance = np.abs(boxes[:, None].astype(np.float64) - ours[None]).max(axis=-1)  # (theirs, ours)
    distance[labels[:, None] != np.asarray(result.labels)[None]] = np.inf
    nearest = distance.argmin(axis=1) if ours.size else np.zeros(len(boxes), int)
    error = distance[np.arange(len(boxes)), nearest] if ours.size else np.full(len(boxes), np.inf)
    paired = error <= 1
    score_error = np.abs(scores[paired] - np.asarray(result.scores)[nearest[paired]])
    return {
        "ours": len(ours),
        "theirs": len(boxes),
        "paired": int(paired.sum()),
        "largest_score_difference": float(score_error.max()) if paired.any() else None,
        "largest_box_difference": float(error[paired].max()) if paired.any() else None,
    }


def _worst_case(predictor, theirs, picture: np.ndarray, repeats: int) -> dict[str, dict]:
    """Time decoding and NMS of both sides where all anchors claim one box."""
    import keras
    import torch

    inputs, metas = predictor.preprocess([picture])
    anchors = predictor.model.anchors(inputs)
    host_anchors = [np.asarray(keras.ops.convert_to_numpy(level)) for level in anchors]
    height, width = input_shape(inputs)[1:3]
    box = (0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height)
    cases = {}
    for name, classes in (("one class", 1), ("all classes", predictor.model.num_classes)):
        raw = overlapping_outputs(host_anchors, predictor.model.num_classes, box, classes=classes)
        ours_raw = keras.tree.map_structure(keras.ops.convert_to_tensor, raw)
        split = {
            "cls_logits": [torch.from_numpy(level) for level in raw["logits"]],
            "bbox_regression": [torch.from_numpy(level) for level in raw["deltas"]],
        }
        their_anchors = [[torch.from_numpy(level) for level in host_anchors]]

        def ours(raw=ours_raw) -> float:
            synchronize(raw)
            return timed(lambda: list(predictor.postprocess(raw, inputs, metas)))[0]

        @torch.inference_mode()
        def their_decoding(split=split, their_anchors=their_anchors):
            return theirs.postprocess_detections(split, their_anchors, [(height, width)])

        times = times_by_turns({"ours": ours, "theirs": lambda run=their_decoding: timed(run)[0]}, repeats, 0.05)
        cases[name] = {
            "boxes": sum(len(level) for level in host_anchors),
            "ours_seconds": statistics.median(times["ours"]),
            "theirs_seconds": statistics.median(times["theirs"]),
        }
    return cases


def as_text(result: dict) -> str:
    """Return what `compare` measured as lines to read."""
    parts = ", ".join(f"{stage} {seconds * 1e3:.1f}" for stage, seconds in result["stages_seconds"].items())
    agreement, machine = result["agreement"], result["environment"]
    size = "x".join(str(side) for side in result["image_hw"])
    lines = [
        f"{NAME} at {size}, batch 1, {result['repeats']} runs each by turns",
        f"  {machine['backend']} {machine['precision']}, {machine['cpu']}, {machine['cores']} cores",
        f"  end to end   ours {result['ours_seconds']:.3f} s   torchvision {result['theirs_seconds']:.3f} s"
        f"   ratio {result['ratio']:.3f}",
        f"  ours, ms     {parts}",
        f"  decoding and NMS: {result['decoding_share']:.1%} of end to end",
    ]
    for name, case in result["worst_case"].items():
        ours, theirs = case["ours_seconds"] * 1e3, case["theirs_seconds"] * 1e3
        lines.append(
            f"  all {case['boxes']} boxes overlap, {name}: ours {ours:.1f} ms = "
            f"{case['share_of_end_to_end']:.1%} of end to end, torchvision {theirs:.1f} ms"
        )
    lines.append(
        f"  detections   ours {agreement['ours']}, torchvision {agreement['theirs']}, the same {agreement['paired']}; "
        f"largest box difference {agreement['largest_box_difference']} pixels"
    )
    return "\n".join(lines)


def main() -> None:
    """Print the comparison; ``--json`` writes it to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[800], metavar="PIXELS", help="side, or H W")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each side")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the scene")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    if len(options.size) > 2 or min(options.size) < 64 or options.repeats < 3:
        parser.error("--size takes one or two sides of at least 64 pixels, --repeats at least 3")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        parser.error("torchvision is not installed; pip install 'kerasvision[parity]'")
    size_hw = (options.size[0], options.size[-1])
    result = compare(size_hw, repeats=options.repeats, seed=options.seed)
    print(as_text(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
