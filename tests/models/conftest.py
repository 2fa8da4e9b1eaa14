"""Tiny models, and eager functions: these tests take steps, not many."""

import keras
import numpy as np
import pytest

from kerasvision.backbones.resnet import resnet10
from kerasvision.models import RetinaNet, UNet
from kerasvision.ops.resizing import ResizeRule

SIZE_HW = (64, 96)


@pytest.fixture(autouse=True)
def _eager(request):
    """All tests of this folder, unless one asks for `compiled`."""
    if "compiled" not in request.fixturenames:
        request.getfixturevalue("eager")


@pytest.fixture
def compiled():
    """Ask for compiled functions."""


@pytest.fixture
def detector():
    """A detector of three classes."""
    keras.utils.set_random_seed(0)
    backbone = resnet10(widths=(8, 8, 8, 8), stem_filters=8)
    return RetinaNet(backbone, 3, pyramid_filters=8, head_convolutions=1, score_threshold=0.0, max_detections=20)


@pytest.fixture
def segmenter():
    """A segmenter of three classes."""
    keras.utils.set_random_seed(0)
    backbone = resnet10(widths=(8, 8, 8, 8), stem_filters=8)
    return UNet(
        backbone,
        3,
        decoder_filters=(8, 8, 8, 8, 8),
        upsampling="nearest",
        normalization="batch",
        resize_rule=ResizeRule("letterbox", size_hw=SIZE_HW),
    )


@pytest.fixture
def images():
    """Four images."""
    return np.random.default_rng(0).uniform(0, 255, (4, *SIZE_HW, 3)).astype(np.float32)


class Listed(keras.utils.PyDataset):
    """Batches of given pairs of images and targets, as a user's own data set yields them."""

    def __init__(self, *batches):
        super().__init__()
        self.batches_given = batches

    def __len__(self):
        return len(self.batches_given)

    def __getitem__(self, index):
        return self.batches_given[index]


@pytest.fixture
def listed():
    """`listed((images, targets), ...)` is a PyDataset of these batches."""
    return Listed
