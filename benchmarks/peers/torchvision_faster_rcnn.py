"""Faster R-CNN beside torchvision's eager models: same weights, same images, same process, by turns.

```
python -m benchmarks.peers.torchvision_faster_rcnn [--models fasterrcnn_resnet50_fpn ...] [--size 800] [--repeats 9]
```

End to end, both sides start from a JPEG file and end with boxes in the image's own pixels. The weights are random but
not trivial, and the classifier is scaled so that some hundred pairs of region and class score above the threshold. A
training step is forward, four losses, backward and SGD, of two images of 512 x 512 with eight boxes each.

Needs the `parity` extra (torch and torchvision), which only this folder and tests/parity import.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.peers.torchvision_retinanet import agree
from benchmarks.peers.turns import (
    compare_models,
    figures,
    figures_as_text,
    heading,
    randomize_normalization,
    timed,
    times_by_turns,
)
from benchmarks.timing import END_TO_END, STAGES, run_batch

MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
CLASSES = 91  # the background included, as torchvision counts
TRAIN_SIZE, TRAIN_IMAGES, TRAIN_BOXES = 512, 2, 8


def random_peer(name: str, image, *, passing: int = 300, seed: int = 0):
    """Return torchvision's model in eval mode with random weights that find something.

    Args:
        name: Of torchvision's builder.
        image: Tensor (3, H, W) in [0, 1] to calibrate on.
        passing: How many pairs of region and class shall score above the threshold.
        seed: Of the weights.
    """
    import torch
    from torchvision.models import detection

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    randomize_normalization(model, generator)
    model.eval()
    seen = []
    predictor = model.roi_heads.box_predictor
    handle = predictor.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0].double()))
    with torch.no_grad():
        model.rpn.head.bbox_pred.weight.mul_(5)
        model([image])
        handle.remove()
        logits = seen[0] - predictor.cls_score.bias
        scale = 2.0 / float(logits.std())  # logits of a trained network spread over several units
        predictor.cls_score.weight.mul_(scale)
        predictor.cls_score.bias.zero_()
        logits = logits * scale
        # The background's bias at which so many scores pass, by bisection.
        low, high = -20.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            shifted = torch.cat([logits[:, :1] + middle, logits[:, 1:]], dim=1).softmax(dim=1)[:, 1:]
            low, high = (middle, high) if int((shifted > 0.05).sum()) > passing else (low, middle)
        predictor.cls_score.bias[0] = high
    return model


def compare(name: str, size: int, *, repeats: int = 9, seed: int = 0) -> dict:
    """Time both sides of one model on a square image, and in a training step.

    Args:
        name: One of `MODELS`.
        size: Side of the image in pixels, which both resize by the model's rule.
        repeats: Timed runs of each side.
        seed: Of the weights and the scene.

    Returns:
        Medians in seconds and their ratios, stages of ours, how far the detections agree, and the environment.
    """
    import torch
    from torchvision.io import ImageReadMode, read_image

    import zoo
    from kerasvision.data.streets import Streets
    from kerasvision.inference import Predictor
    from kerasvision.visualize import save_image

    with tempfile.TemporaryDirectory(prefix="kerasvision-peer-") as folder:
        picture = Streets("test", size_hw=(size, size), seed=seed)[0].image
        path = save_image(picture, Path(folder) / "scene.jpg", quality=95)
        theirs = random_peer(name, read_image(str(path), ImageReadMode.RGB) / 255, seed=seed)
        torch.save(theirs.state_dict(), Path(folder) / "weights.pth")
        options: dict[str, Any] = (
            {"epsilon": 1e-5} if name == "fasterrcnn_resnet50_fpn" else {}
        )  # that of COCO's weights is 0
        ours = zoo.get(name, weights=Path(folder) / "weights.pth", normalization="batch", frozen_stages=0, **options)
        predictor = Predictor(ours, freeze=True)
        stages: list[dict[str, float]] = []

        @torch.inference_mode()
        def their_run():
            return theirs([read_image(str(path), ImageReadMode.RGB) / 255])[0]

        def our_seconds() -> float:
            seconds, _, _ = run_batch(predictor, [path])
            stages.append(seconds)
            return seconds[END_TO_END]

        times = times_by_turns({"ours": our_seconds, "theirs": lambda: timed(their_run)[0]}, repeats, 0.3)
        _, results, _ = run_batch(predictor, [path])
        found = their_run()
        agreement = agree(results[0], {**found, "labels": found["labels"] - 1})
        train = _train(theirs, ours, repeats, seed)
    return {
        "model": name,
        "image_hw": [size, size],
        "repeats": repeats,
        "end_to_end": figures(times),
        "stages_seconds": {stage: statistics.median(run[stage] for run in stages[-repeats:]) for stage in STAGES},
        "agreement": agreement,
        "training_step": {**train, "images": TRAIN_IMAGES, "size_hw": [TRAIN_SIZE, TRAIN_SIZE]},
        "their_threads": torch.get_num_threads(),
        "environment": environment.describe(),
    }


def _train(theirs, ours, repeats, seed) -> dict:
    """Return the times of a training step."""
    import keras
    import torch

    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (TRAIN_IMAGES, TRAIN_SIZE, TRAIN_SIZE, 3)).astype(np.uint8)
    corners = generator.uniform(0, 0.6 * TRAIN_SIZE, (TRAIN_IMAGES, TRAIN_BOXES, 2))
    sizes = generator.uniform(20, 0.4 * TRAIN_SIZE, corners.shape)
    boxes = np.concatenate([corners, corners + sizes], axis=-1).astype(np.float32)
    labels = generator.integers(0, CLASSES - 1, (TRAIN_IMAGES, TRAIN_BOXES)).astype(np.int64)
    theirs.transform.min_size, theirs.transform.max_size = (TRAIN_SIZE,), TRAIN_SIZE  # no resizing on either side
    pixels = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images]
    targets = [
        {"boxes": torch.from_numpy(box), "labels": torch.from_numpy(label) + 1}
        for box, label in zip(boxes, labels, strict=True)
    ]
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9, weight_decay=1e-4)
    theirs.train()
    # Hardly a step at all on both sides: weights that find something are no place to learn from.
    ours.compile(keras.optimizers.SGD(1e-6, momentum=0.9, weight_decay=1e-4))

    def their_step():
        optimizer.zero_grad()
        sum(theirs(pixels, targets).values()).backward()
        optimizer.step()

    our_targets = {"boxes": boxes, "labels": labels.astype(np.int32)}
    runs = {"ours": lambda: ours.train_on_batch(images, our_targets), "theirs": their_step}
    return figures(times_by_turns({side: lambda run=run: timed(run)[0] for side, run in runs.items()}, repeats, 0.3))


def as_text(result: dict) -> str:
    """Return what `compare` measured as lines to read."""
    step, agreement = result["training_step"], result["agreement"]
    parts = ", ".join(f"{stage} {seconds * 1e3:.1f}" for stage, seconds in result["stages_seconds"].items())
    return "\n".join(
        [
            *heading(result),
            figures_as_text("end to end", result["end_to_end"]),
            figures_as_text(f"training step, {step['images']} x {'x'.join(map(str, step['size_hw']))}", step),
            f"  ours, ms: {parts}",
            f"  detections: ours {agreement['ours']}, torchvision {agreement['theirs']}, "
            f"the same {agreement['paired']}",
        ]
    )


def main() -> None:
    """Print the comparisons; ``--json`` writes them to a file."""
    compare_models((__doc__ or "").splitlines()[0], MODELS, compare, as_text, size=800, smallest=64)


if __name__ == "__main__":
    main()
