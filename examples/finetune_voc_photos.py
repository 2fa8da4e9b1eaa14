"""Fine-tune RetinaNet and U-Net on a handful of real photos in VOC layout, from random weights to near-perfect.

The photos are three VOC 2011 pictures that the package labelme ships under its `examples/`, with boxes and masks. They
are fetched from the package registry as labelme's source archive, which is unpacked, never installed or imported
(labelme is GPL-3.0). Pass `--voc DIR` to use your own folders instead.

Overfitting three photos shows that targets, losses, gradients, decoding and metrics fit together on real data: a
mistake in any of them keeps the figures from 1.
"""

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
from rich.console import Console

import zoo
from kerasvision import data, visualize
from kerasvision.inference import Predictor
from kerasvision.models.recipe import Recipe
from kerasvision.ops.resizing import ResizeRule

console = Console()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, help="VOC folder with boxes; default: labelme's photos")
    parser.add_argument("--voc-masks", type=Path, help="VOC folder with masks; default: --voc")
    parser.add_argument("--out", type=Path, default=Path("demo/voc_photos"))
    parser.add_argument("--epochs", type=int, default=150)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    boxes, masks = arguments.voc, arguments.voc_masks or arguments.voc
    if boxes is None:
        boxes, masks = fetch_photos(arguments.out)
    detect(boxes, arguments)
    segment(masks, arguments)


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


def detect(folder, arguments):
    """Fit RetinaNet to the photos' boxes and draw what it finds."""
    photos = data.load(f"voc:{folder}", classes="auto", task="detection")
    rule = ResizeRule("letterbox", size_hw=(256, 320))
    recipe = Recipe(learning_rate=1e-3, batch_size=len(photos), weight_decay=0, warmup_steps=20, clip_norm=10.0)
    model = zoo.get(
        "retinanet_resnet10_fpn",
        weights=None,
        num_classes=len(photos.classes),
        class_names=photos.classes,
        resize_rule=rule,
        recipe=recipe,
    )
    batches = data.pipeline(photos, task="detection", resize=rule, batch_size=len(photos))
    model.fit(batches, epochs=arguments.epochs, verbose=0, shuffle=False)
    figures = model.evaluate(batches, return_dict=True, verbose=0)
    console.print(f"RetinaNet on its {len(photos)} training photos: AP50 {figures['AP50']:.3f}, AP {figures['AP']:.3f}")
    images = [photo.image for photo in photos]
    pictures = [
        visualize.draw_detections(image, found.boxes, found.labels, found.scores, found.class_names)
        for image, found in zip(images, Predictor(model, score_threshold=0.3)(images), strict=True)
    ]
    visualize.save_image(visualize.grid(pictures, 3, None), arguments.out / "retinanet.png")
    return figures


def segment(folder, arguments):
    """Fit U-Net to the photos' masks and draw them."""
    photos = data.load(f"voc:{folder}", classes="auto", task="segmentation")
    rule = ResizeRule("letterbox", size_hw=(256, 320))
    recipe = Recipe(learning_rate=2e-3, batch_size=len(photos), weight_decay=0, warmup_steps=20, clip_norm=1.0)
    model = zoo.get(
        "unet_resnet10",
        weights=None,
        num_classes=len(photos.mask_classes),
        class_names=photos.mask_classes,
        resize_rule=rule,
        recipe=recipe,
    )
    batches = data.pipeline(photos, task="segmentation", resize=rule, batch_size=len(photos))
    model.fit(batches, epochs=arguments.epochs, verbose=0, shuffle=False)
    figures = model.evaluate(batches, return_dict=True, verbose=0)
    console.print(
        f"U-Net on its {len(photos)} training photos: mIoU {figures['mIoU']:.3f}, "
        f"pixel accuracy {figures['pixel_accuracy']:.3f}"
    )
    images = [photo.image for photo in photos]
    pictures = [
        visualize.draw_mask(image, seen.mask, seen.class_names, photos.palette)
        for image, seen in zip(images, Predictor(model)(images), strict=True)
    ]
    visualize.save_image(visualize.grid(pictures, 3, None), arguments.out / "unet.png")
    return figures


if __name__ == "__main__":
    main()
