"""FCN and DeepLabV3 beside torchvision's eager models: same weights, same images, same process, by turns.

```
python -m benchmarks.peers.torchvision_segmentation [--models fcn_resnet50 ...] [--size 520] [--repeats 9]
```

End to end, both sides start from a JPEG file and end with the class of each pixel. A training step is forward, losses
of both heads, backward and SGD, on images and masks in memory; ours is one compiled step of `train_on_batch`.

Needs the `parity` extra (torch and torchvision), which only this folder and tests/parity import.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import environment
from benchmarks.peers.turns import (
    compare_models,
    figures,
    figures_as_text,
    heading,
    randomize_normalization,
    timed,
    times_by_turns,
)

MODELS = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large")
CLASSES = 21


def random_peer(name: str, seed: int = 0):
    """Return torchvision's model with an auxiliary head, in eval mode, with random weights."""
    import torch
    from torchvision.models import segmentation

    torch.manual_seed(seed)
    build = getattr(segmentation, name)
    model = build(weights=None, weights_backbone=None, aux_loss=True, num_classes=CLASSES)
    randomize_normalization(model, torch.Generator().manual_seed(seed))
    return model.eval()


def compare(name: str, size: int, *, repeats: int = 9, train_size: int = 256, train_batch: int = 2) -> dict:
    """Time both sides of one model: an image end to end, and a training step.

    Args:
        name: One of `MODELS`.
        size: Side of the image in pixels; both resize its short side to 520.
        repeats: Timed runs of each side.
        train_size: Side of the images of a training step.
        train_batch: Their number.

    Returns:
        Medians in seconds and their ratios, the share of pixels of equal classes, and the environment.
    """
    import torch

    import zoo
    from kerasvision.data.streets import Streets
    from kerasvision.visualize import save_image

    with tempfile.TemporaryDirectory(prefix="kerasvision-peer-") as folder:
        scenes = Streets("test", count=train_batch, size_hw=(size, size))
        path = save_image(scenes[0].image, Path(folder) / "scene.jpg", quality=95)
        theirs = random_peer(name)
        torch.save(theirs.state_dict(), Path(folder) / "weights.pth")
        ours = zoo.get(name, weights=Path(folder) / "weights.pth")
        predict, equal = _predict(theirs, ours, path, repeats)
        train = _train(theirs, ours, (train_batch, train_size), repeats)
    return {
        "model": name,
        "image_hw": [size, size],
        "repeats": repeats,
        "end_to_end": predict,
        "equal_pixels": equal,
        "training_step": {**train, "images": train_batch, "size_hw": [train_size, train_size]},
        "their_threads": torch.get_num_threads(),
        "environment": environment.describe(),
    }


def _predict(theirs, ours, path, repeats):
    """Return the times of an image end to end, and the share of pixels on whose class both agree."""
    import torch
    from torchvision.io import ImageReadMode, read_image
    from torchvision.transforms._presets import SemanticSegmentation

    from kerasvision.inference import Predictor

    preset = SemanticSegmentation(resize_size=520)
    predictor = Predictor(ours, freeze=True)

    @torch.inference_mode()
    def their_run():
        image = read_image(str(path), ImageReadMode.RGB)
        return theirs(preset(image)[None])["out"][0].argmax(dim=0).numpy()

    def our_run():
        return predictor(path)[0].mask

    runs = {"ours": our_run, "theirs": their_run}
    times = times_by_turns({side: lambda run=run: timed(run)[0] for side, run in runs.items()}, repeats, 0.3)
    return figures(times), float(np.mean(our_run() == their_run()))


def _train(theirs, ours, shape, repeats):
    """Return the times of a training step."""
    import torch
    from torch.nn import functional

    count, size = shape
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    masks = generator.integers(0, CLASSES, (count, size, size)).astype(np.int64)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(masks)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    theirs.train()
    ours.compile()
    small = masks.astype(np.uint8)

    def their_step():
        optimizer.zero_grad()
        outputs = theirs(pixels)
        losses = [functional.cross_entropy(outputs[head], labels, ignore_index=255) for head in ("out", "aux")]
        (losses[0] + 0.5 * losses[1]).backward()
        optimizer.step()

    runs = {"ours": lambda: ours.train_on_batch(images, small), "theirs": their_step}
    return figures(times_by_turns({side: lambda run=run: timed(run)[0] for side, run in runs.items()}, repeats, 0.3))


def as_text(result: dict) -> str:
    """Return what `compare` measured as lines to read."""
    step = result["training_step"]
    return "\n".join(
        [
            *heading(result),
            figures_as_text("end to end", result["end_to_end"]),
            figures_as_text(f"training step, {step['images']} x {'x'.join(map(str, step['size_hw']))}", step),
            f"  pixels of equal classes: {result['equal_pixels']:.4%}",
        ]
    )


def main() -> None:
    """Print the comparisons; ``--json`` writes them to a file."""
    compare_models((__doc__ or "").splitlines()[0], MODELS, compare, as_text, size=520, smallest=32)


if __name__ == "__main__":
    main()
