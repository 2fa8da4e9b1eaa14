"""The main job from end to end, on the embedded data: fine-tune, evaluate, benchmark, draw. `make demo` runs this.

The embedded weights were trained on `streets`, drawn by day. Here they are fine-tuned on `streets:hard` - night, rain,
blur, crowds of small objects - and compared before and after on scenes that neither training has seen.
"""

import argparse
import shutil
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import zoo
from benchmarks.run import benchmark
from benchmarks.timing import percentile_text
from kerasvision import data, visualize
from kerasvision.inference import Predictor
from kerasvision.training import train

MODELS = {"detector": "retinanet_resnet10_fpn.streets", "segmenter": "unet_resnet10.streets"}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for pictures, models and report")
    parser.add_argument("--scenes", type=int, default=320, help="scenes to fine-tune on")
    parser.add_argument("--validation", type=int, default=40, help="scenes to validate on after each epoch")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=100, help="unseen scenes to benchmark on")
    parser.add_argument("--seconds", type=float, default=10, help="bound of each timing in the benchmark")
    arguments = parser.parse_args(words)
    console = Console()
    console.width = max(console.width, 120)  # the table needs it; a narrower terminal wraps
    out, start = arguments.out, time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    train_scenes = data.load("streets:hard", split="train", count=arguments.scenes)
    validation_scenes = data.load("streets:hard", split="validation", count=arguments.validation)
    draw_samples(out / "streets_hard.png")

    models = []
    for role, name in MODELS.items():
        console.print(f"{role}: {name}, fine-tuned on {len(train_scenes)} scenes of {train_scenes.name}")
        models.append((f"{name} (embedded)", zoo.get(name)))
        model = zoo.get(name)
        model.recipe = model.recipe.replace(learning_rate=5e-4, warmup_steps=10)  # it starts near the goal
        run_dir = out / role
        shutil.rmtree(run_dir, ignore_errors=True)
        train(
            model,
            train_scenes,
            validation_scenes,
            epochs=arguments.epochs,
            batch_size=8,
            run_dir=run_dir,
            cache=True,
            augment=data.Augmentation(scale=(0.9, 1.2), colour=0.2),
            verbose=2,
        )
        models.append((f"{name} (fine-tuned)", model))

    console.print("predictions")
    draw_predictions(dict(models), out)
    console.print(f"benchmark on {arguments.images} unseen scenes")
    results = benchmark(
        models,
        "streets:hard",
        split="test",
        limit=arguments.images,
        batch_sizes=(1, 8),
        max_seconds=arguments.seconds,
    )
    report = results.write(out)
    console.print(table_of(results.document))
    console.print(f"{report} and PNGs in {out}/ after {time.perf_counter() - start:.0f} s")


def draw_samples(path):
    """Draw easy and hard scenes with their annotations."""
    pictures, titles = [], []
    for name in ("streets", "streets:hard"):
        scenes = data.load(name, split="test", count=3)
        for index, scene in enumerate(scenes):
            picture = visualize.draw_mask(scene.image, scene.mask, scenes.mask_classes, scenes.palette)
            if index < 2:
                picture = visualize.draw_detections(scene.image, scene.boxes, scene.labels, None, scenes.classes)
            pictures.append(picture)
            titles.append(scene.name)
    visualize.save_image(visualize.grid(pictures, 3, titles), path)


def draw_predictions(models, out):
    """Draw what each fine-tuned model sees in the same unseen scenes."""
    scenes = data.load("streets:hard", split="test", count=4)
    images = [scene.image for scene in scenes]
    for role, name in MODELS.items():
        predictor = Predictor(models[f"{name} (fine-tuned)"], score_threshold=0.4 if role == "detector" else None)
        pictures = []
        for image, result in zip(images, predictor(images), strict=True):
            if role == "detector":
                picture = visualize.draw_detections(
                    image, result.boxes, result.labels, result.scores, result.class_names
                )
            else:
                picture = visualize.draw_mask(image, result.mask, result.class_names, scenes.palette)
            pictures.append(picture)
        visualize.save_image(visualize.grid(pictures, 2, [scene.name for scene in scenes]), out / f"{role}.png")


def table_of(document):
    """Return the benchmark's main figures as a table."""
    table = Table("model", "AP50", "AP", "mIoU", "pixel acc.", "p50 ms, batch 1", "images/s, batch 8", "M params")
    for model in document["models"]:
        metrics = model["accuracy"]["metrics"]
        single, many = model["timing"]
        cells = [metrics.get(name) for name in ("AP50", "AP", "mIoU", "pixel_accuracy")]
        table.add_row(
            model["name"],
            *("" if value is None or np.isnan(value) else f"{value:.3f}" for value in cells),
            percentile_text(single["stages"]["end_to_end"], "p50", digits=0),
            f"{many['images_per_second']:.0f}",
            f"{model['parameters'] / 1e6:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
