"""Train the embedded `streets` weights: `python -m zoo.recipes.streets retinanet_resnet10_fpn --run-dir runs/r`.

The scenes come from a seeded generator, so nothing is downloaded and another machine trains on the same pixels.
"""

import argparse
from pathlib import Path

from kerasvision.data import Augmentation
from kerasvision.data.streets import CLASSES, MASK_CLASSES, Streets
from kerasvision.models.retinanet import retinanet_resnet10_fpn
from kerasvision.models.unet import unet_resnet10
from kerasvision.training import train

# The most objects that a scene of the generator was seen to have is 24; see tests/data/test_streets.py.
MAX_BOXES = 40

RECIPES = {
    "retinanet_resnet10_fpn": {
        "build": lambda: retinanet_resnet10_fpn(len(CLASSES), class_names=CLASSES),
        "augment": Augmentation(scale=(0.8, 1.3), colour=0.2),
    },
    "unet_resnet10": {
        "build": lambda: unet_resnet10(len(MASK_CLASSES), class_names=MASK_CLASSES),
        "augment": Augmentation(scale=(0.9, 1.2), colour=0.2),
    },
}


def main():
    """Train one of the models from random weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()

    import keras

    keras.utils.set_random_seed(0)
    recipe = RECIPES[arguments.model]
    train(
        recipe["build"](),
        Streets("train", count=arguments.scenes),
        Streets("validation"),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        run_dir=arguments.run_dir,
        resume=arguments.resume,
        augment=recipe["augment"],
        cache=True,
        max_boxes=MAX_BOXES,
        verbose=2,
    )


if __name__ == "__main__":
    main()
