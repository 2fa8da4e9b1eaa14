"""Fit detectors and segmenters to a handful of real photos in VOC layout, from random weights to near-perfect.

    python -m examples.finetune_voc_photos                           RetinaNet and U-Net
    python -m examples.finetune_voc_photos --models fcn8s_vgg8,unet  these
    python -m examples.finetune_voc_photos --models all              every small model, and narrow forms of a few others

The photos are three VOC 2011 pictures that the package labelme ships under its `examples/`, with boxes and masks. They
are fetched from the package registry as labelme's source archive, which is unpacked, never installed or imported
(labelme is GPL-3.0). Pass `--voc DIR` to use your own folders instead.

Overfitting three photos shows that targets, losses, gradients, decoding and metrics fit together on real data: a
mistake in any of them keeps the figures from 1. Training ends when AP50 or mIoU reaches `--target`. A table of what was
reached and a picture of each model's results are written to `--out`.
"""

import argparse
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import keras
from rich.console import Console
from rich.table import Table

import zoo
from benchmarks.environment import describe
from kerasvision import data, visualize
from kerasvision.files import write_json
from kerasvision.inference import Predictor
from kerasvision.models.recipe import Recipe
from kerasvision.ops.resizing import ResizeRule

console = Console()
RULE = ResizeRule("letterbox", size_hw=(256, 320))
# One step an epoch, all photos at once; figures that were looked at are those of every so many epochs.
LOOK_EVERY = 10
# A model with fewer parameters is a small one: wider ones take minutes on a CPU, and three photos teach them no more.
SMALL = 3_000_000
_WIDTHS = (16, 32, 64, 128, 256)
# Architectures of which the zoo has no small model.
NARROW = {name: {"widths": _WIDTHS} for name in ("unet", "unet_batch_norm", "unet_s5_d16", "unet_plus_plus")}
RATES = {"detection": (1e-3, 10.0), "segmentation": (2e-3, 1.0)}
SHOWN = {"detection": ("AP50", "AP"), "segmentation": ("mIoU", "pixel_accuracy", "dice")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="retinanet_resnet10_fpn,unet_resnet10", help="names with commas, or 'all'")
    parser.add_argument("--voc", type=Path, help="VOC folder with boxes; default: labelme's photos")
    parser.add_argument("--voc-masks", type=Path, help="VOC folder with masks; default: --voc")
    parser.add_argument("--out", type=Path, default=Path("demo/voc_photos"))
    parser.add_argument("--epochs", type=int, default=200, help="at most so many")
    parser.add_argument("--target", type=float, default=0.95, help="AP50 or mIoU at which training ends")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    boxes, masks = arguments.voc, arguments.voc_masks or arguments.voc
    if boxes is None:
        boxes, masks = fetch_photos(arguments.out)
    folders = {"detection": boxes, "segmentation": masks}
    results = {}
    for name in all_models() if arguments.models == "all" else arguments.models.split(","):
        task = zoo.info(name).task
        photos = data.load(f"voc:{folders[task]}", classes="auto", task=task)
        model, results[name] = fit(name, photos, task, arguments)
        console.print(f"{name} on its {len(photos)} training photos: {results[name]}")
        visualize.save_image(draw(model, photos, task), arguments.out / f"{name}.png")
        write_json(arguments.out / "results.json", {"environment": describe(), "models": results})
    for task in SHOWN:
        print_table(task, {name: result for name, result in results.items() if zoo.info(name).task == task})


def all_models():
    """Return the names of the zoo's small models, and of the architectures in `NARROW`."""
    return [name for name in zoo.list_models() if zoo.info(name).parameters < SMALL or name in NARROW]


def fetch_photos(folder):
    """Return the folders of labelme's examples with boxes and with masks, fetching them first if need be."""
    archives = list(folder.glob("labelme-*.tar.gz"))
    if not archives:
        console.print("fetching labelme's source archive from the package registry ...")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "labelme", "--dest", str(folder)], check=True)  # noqa: S603 (fixed arguments)
        archives = list(folder.glob("labelme-*.tar.gz"))
    with tarfile.open(archives[0]) as archive:
        members = [member for member in archive if "/examples/" in member.name and "_voc/" in member.name]
        archive.extractall(folder, members=members, filter="data")
    examples = next(folder.glob("labelme-*/examples"))
    return examples / "bbox_detection/data_dataset_voc", examples / "instance_segmentation/data_dataset_voc"


class StopAtTarget(keras.callbacks.Callback):
    """Measure the training photos every few epochs, and end the training when they are learnt."""

    def __init__(self, batches, name, target):
        super().__init__()
        self.batches = batches
        self.name = name
        self.target = target

    def on_epoch_end(self, epoch, logs=None):
        """Measure, with the layers as in inference."""
        if (epoch + 1) % LOOK_EVERY == 0:
            figures = self.model.evaluate(self.batches, return_dict=True, verbose=0)
            self.model.stop_training = float(figures[self.name]) >= self.target


def fit(name, photos, task, arguments):
    """Fit a model with random weights to the photos; return it and what it reaches on them."""
    keras.utils.set_random_seed(0)
    rate, clip_norm = RATES[task]
    classes = photos.classes if task == "detection" else photos.mask_classes
    model = zoo.get(
        name,
        weights=None,
        num_classes=len(classes),
        class_names=classes,
        resize_rule=RULE,
        recipe=Recipe(learning_rate=rate, batch_size=len(photos), weight_decay=0, warmup_steps=20, clip_norm=clip_norm),
        **NARROW.get(name, {}),
    )
    batches = data.pipeline(photos, task=task, resize=RULE, batch_size=len(photos), cache=True)
    began = time.perf_counter()
    stop = StopAtTarget(batches, SHOWN[task][0], arguments.target)
    history = model.fit(batches, epochs=arguments.epochs, verbose=0, shuffle=False, callbacks=[stop])
    seconds = time.perf_counter() - began
    figures = model.evaluate(batches, return_dict=True, verbose=0)
    result = {figure: round(float(figures[figure]), 4) for figure in SHOWN[task]}
    return model, {**result, "epochs": len(history.epoch), "seconds": round(seconds)}


def draw(model, photos, task):
    """Return a sheet of the photos with what the model sees in them."""
    images = [photo.image for photo in photos]
    if task == "detection":
        pictures = [
            visualize.draw_detections(image, found.boxes, found.labels, found.scores, found.class_names)
            for image, found in zip(images, Predictor(model, score_threshold=0.3)(images), strict=True)
        ]
    else:
        pictures = [
            visualize.draw_mask(image, seen.mask, seen.class_names, photos.palette)
            for image, seen in zip(images, Predictor(model)(images), strict=True)
        ]
    return visualize.grid(pictures, len(pictures), None)


def print_table(task, results):
    """Print the figures of the models of a task."""
    if not results:
        return
    table = Table("model", *SHOWN[task], "epochs", "seconds", title=f"{task}, on the training photos")
    for name, result in results.items():
        table.add_row(name, *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in result.values()))
    console.print(table)


if __name__ == "__main__":
    main()
