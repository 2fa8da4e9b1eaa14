"""Train the embedded `streets` weights: `python -m zoo.recipes.streets retinanet_resnet10_fpn --run-dir runs/r`.

The scenes come from a seeded generator, so nothing is downloaded and another machine trains on the same pixels.
"""

import argparse
import json
from pathlib import Path

import keras

import zoo
from kerasvision.data import Augmentation, CachedProposals, pipeline
from kerasvision.data.streets import CLASSES, MASK_CLASSES, Streets
from kerasvision.models.base import Detector
from kerasvision.training import load_model, train
from zoo.embedded import embed
from zoo.native import load_weights

# Over 400 scenes each, the most boxes of one scene were 12 (easy) and 25 (hard); more would be an error, not a loss.
MAX_BOXES = 40

AUGMENTATION = {
    "detection": Augmentation(scale=(0.8, 1.3), colour=0.2),
    "segmentation": Augmentation(scale=(0.9, 1.2), colour=0.2),
}


class StopAfter(keras.callbacks.Callback):
    """End the training early, on the learning rates of the longer one."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        """Stop after the given number of epochs."""
        self.model.stop_training = epoch + 1 >= self.epochs


def main():
    """Train a model, best a small one, from random weights; with --embed, measure it and put it into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=zoo.list_models())
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--stop-after", type=int, help="stop after so many epochs of the schedule of --epochs")
    parser.add_argument("--resume", action="store_true", help="go on from the last epoch in --run-dir")
    parser.add_argument("--embed", action="store_true", help="store the best epoch's weights in zoo/embedded")
    parser.add_argument("--embed-only", action="store_true", help="the same for a run that is finished")
    parser.add_argument("--recorded-command", help="what to record as the recipe of a run of several commands")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    task = zoo.info(arguments.model).task
    names = CLASSES if task == "detection" else MASK_CLASSES
    if not arguments.embed_only:
        train(
            zoo.get(arguments.model, weights=None, num_classes=len(names), class_names=names),
            Streets("train", count=arguments.scenes),
            Streets("validation"),
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            run_dir=arguments.run_dir,
            resume=arguments.resume,
            augment=AUGMENTATION[task],
            cache=True,
            max_boxes=MAX_BOXES,
            verbose=2,
            callbacks=[] if arguments.stop_after is None else [StopAfter(arguments.stop_after)],
        )
    if arguments.embed or arguments.embed_only:
        command = arguments.recorded_command or (
            f"python -m zoo.recipes.streets {arguments.model} --run-dir RUN --epochs {arguments.epochs} "
            + (f"--stop-after {arguments.stop_after} " if arguments.stop_after else "")
            + f"--scenes {arguments.scenes} --batch-size {arguments.batch_size} --embed"
        )
        store(arguments.model, load_model(arguments.run_dir / "best.keras"), command)


def store(name, model, command):
    """Embed a model's weights with the figures that the stored file, rounded to float16, reaches on unseen scenes."""
    path = embed(model, name, "streets", measured={}, recipe=command)
    load_weights(model, path)
    measured = {}
    for variant in ("streets", "streets:hard"):
        scenes = Streets("test", hard=variant.endswith("hard"))
        batches = pipeline(
            scenes,
            task="detection" if isinstance(model, Detector) else "segmentation",
            resize=model.resize_rule,
            batch_size=10,
            max_boxes=MAX_BOXES,
            proposals=None if model.proposer is None else CachedProposals(model.proposer),
        )
        figures = dict(model.evaluate(batches, return_dict=True, verbose=0))
        for figure in ("AP", "AP50", "AP75", "mIoU", "pixel_accuracy", "dice"):
            if figure in figures:
                measured[f"{variant} test ({len(scenes)}) {figure}"] = round(float(figures[figure]), 4)
    embed(model, name, "streets", measured=measured, recipe=command)
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
