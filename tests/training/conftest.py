"""Tiny data, tiny models, and eager functions: these tests take steps, not many."""

import keras
import numpy as np
import pytest

from kerasvision.backbones.resnet import resnet10
from kerasvision.data.streets import CLASSES, MASK_CLASSES, Streets
from kerasvision.models import RetinaNet, UNet
from kerasvision.models.retinanet import octave_sizes
from kerasvision.ops.resizing import ResizeRule

SIZE_HW = (64, 96)
RULE = ResizeRule("letterbox", size_hw=SIZE_HW)


@pytest.fixture(autouse=True)
def _eager(eager):
    """All tests of this folder."""


def _backbone():
    return resnet10(widths=(8, 8, 16, 16), stem_filters=8)


def _detector(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return RetinaNet(
        _backbone(),
        len(CLASSES),
        anchor_sizes=octave_sizes(16),
        pyramid_filters=8,
        head_convolutions=1,
        resize_rule=RULE,
        **options,
    )


def _segmenter(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return UNet(
        _backbone(),
        len(MASK_CLASSES),
        decoder_filters=(16, 16, 8, 8, 8),
        upsampling="nearest",
        normalization="batch",
        resize_rule=RULE,
        **options,
    )


@pytest.fixture(params=["detector", "segmenter"])
def make_model(request):
    """`make_model(seed)` builds a detector, or a segmenter."""
    return {"detector": _detector, "segmenter": _segmenter}[request.param]


@pytest.fixture
def make_detector():
    """`make_detector(seed)` builds a detector."""
    return _detector


@pytest.fixture
def make_segmenter():
    """`make_segmenter(seed)` builds a segmenter."""
    return _segmenter


@pytest.fixture
def scenes():
    """Eight scenes to train on."""
    return Streets("train", count=8, size_hw=SIZE_HW)


@pytest.fixture
def unseen():
    """Two scenes to validate on."""
    return Streets("validation", count=2, size_hw=SIZE_HW)


@pytest.fixture
def masks():
    """A batch of images and masks."""
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (2, *SIZE_HW, 3)).astype(np.float32)
    return images, generator.integers(0, len(MASK_CLASSES), (2, *SIZE_HW)).astype(np.int32)


@pytest.fixture
def boxes():
    """A batch of images and boxes."""
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (2, *SIZE_HW, 3)).astype(np.float32)
    targets = {
        "boxes": np.array([[[8, 8, 40, 40]], [[20, 10, 80, 60]]], np.float32),
        "labels": np.array([[1], [2]], np.int32),
    }
    return images, targets
