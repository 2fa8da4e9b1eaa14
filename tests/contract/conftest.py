"""Models of the zoo one by one, and one small batch that each of them can learn."""

import contextlib
import functools
import os

import keras
import numpy as np
import pytest

import zoo
from kerasvision.data import SelectiveSearch
from kerasvision.models.base import Detector

# Of which the training step is compiled by XLA, which takes minutes: one of each task, and one with auxiliary heads.
COMPILED = ("retinanet_resnet10_fpn", "unet_resnet10", "deeplabv3_resnet10")
SIZE_HW = (64, 96)
# Options that make a model's tests affordable where only its width makes it heavy.
_NARROW = {"widths": (8, 16, 32, 64, 128)}
_NARROW_VGG = {"widths": (8, 12, 16, 16, 16), "fc_filters": 32}
_FEW_REGIONS = {"max_proposals": 20, "training_proposals": 20, "regions_per_image": 16, "head_units": (32,)}
_FEW_PROPOSALS = {"proposer": SelectiveSearch(max_proposals=20), "regions_per_image": 16, "head_units": (32,)}
_FEW_CROPS = {"proposer": SelectiveSearch(max_proposals=8), "regions_per_step": 8, "head_units": (16, 16)}
SMALLEST = {
    "rcnn_alexnet": {**_FEW_CROPS, "widths": (8, 8, 8, 8, 8)},
    "rcnn_vgg16": {**_FEW_CROPS, "widths": (4, 4, 4, 4, 4), "crop_size": 64},
    "rcnn_vgg8": {"proposer": SelectiveSearch(max_proposals=40)},
    "fast_rcnn_resnet50_fpn": _FEW_PROPOSALS,
    "fast_rcnn_vgg16": {**_FEW_PROPOSALS, "widths": (8, 12, 16, 16, 16)},
    "fasterrcnn_resnet50_fpn": _FEW_REGIONS,
    "fasterrcnn_resnet50_fpn_v2": {**_FEW_REGIONS, "pyramid_filters": 32},
    "fasterrcnn_mobilenet_v3_large_fpn": _FEW_REGIONS,
    "fasterrcnn_mobilenet_v3_large_320_fpn": _FEW_REGIONS,
    "fasterrcnn_vgg16": {**_FEW_REGIONS, "widths": (8, 12, 16, 16, 16)},
    "unet": _NARROW,
    "unet_valid": _NARROW,
    "unet_batch_norm": _NARROW,
    "unet_s5_d16": _NARROW,
    "unet_plus_plus": _NARROW,
    "attention_unet": _NARROW,
    **{f"fcn{stride}s_vgg16": _NARROW_VGG for stride in (32, 16, 8)},
    **{f"fcn{stride}s_alexnet": _NARROW_VGG for stride in (32, 16, 8)},
    "deeplab_v1_vgg16": _NARROW_VGG,
}


def pytest_collection_modifyitems(config, items):
    """Leave costly tests, and all under PyTorch and JAX, to the smallest model of each architecture."""
    if os.environ.get("KERASVISION_WHOLE_CONTRACT"):
        return
    left_out = [item for item in items if not _is_affordable(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_affordable(item):
    name = getattr(item, "callspec", None) and item.callspec.params.get("name")
    if name not in zoo.list_models() or name in _smallest_of_each_architecture():
        return True
    return keras.backend.backend() == "tensorflow" and not item.get_closest_marker("costly")


@functools.cache
def _smallest_of_each_architecture():
    """Return the names of the models that have the fewest parameters of their class."""
    entries = sorted(map(zoo.info, zoo.list_models()), key=lambda entry: entry.parameters, reverse=True)
    return set({entry.architecture: entry.name for entry in entries}.values())


@pytest.fixture(scope="module", params=zoo.list_models())
def name(request):
    """Each model of the zoo; module scope makes pytest run all tests of one before the next is built."""
    return request.param


@pytest.fixture(scope="module")
def is_compiled(name):
    """Whether the model's training step is compiled in its tests."""
    return name in COMPILED or bool(os.environ.get("KERASVISION_WHOLE_CONTRACT"))


@pytest.fixture(scope="module")
def get(name):
    """`get(num_classes)` builds the model with random weights in its smallest form."""

    def build(num_classes):
        keras.utils.set_random_seed(0)
        return zoo.get(name, weights=None, num_classes=num_classes, **SMALLEST.get(name, {}))

    return build


@pytest.fixture(scope="module")
def built(get):
    """The model with three classes. Do not train it: `model` is for that."""
    return get(3)


@pytest.fixture
def model(built):
    """The model, whose weights are put back after the test."""
    before = built.get_weights()
    yield built
    built.set_weights(before)


@pytest.fixture
def batch(built):
    """Two images of a bright square on noise, with the square's box or mask."""
    return make_batch(isinstance(built, Detector))


@pytest.fixture
def detection_batch():
    """The batch with boxes."""
    return make_batch(True)


def make_batch(detection):
    generator = np.random.default_rng(0)
    height, width = SIZE_HW
    images = generator.uniform(0, 120, (2, height, width, 3)).astype(np.float32)
    corners = [(8, 16, 40, 48), (40, 8, 88, 56)]
    masks = np.zeros((2, height, width), np.int32)
    for index, (x1, y1, x2, y2) in enumerate(corners):
        images[index, y1:y2, x1:x2, index] += 130
        masks[index, y1:y2, x1:x2] = index + 1
    masks[:, :4] = 255
    if not detection:
        return images, masks
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[:, 0] = corners
    labels = np.full((2, 3), -1, np.int32)
    labels[:, 0] = (1, 2)
    return images, {"boxes": boxes, "labels": labels}


@pytest.fixture(autouse=True)
def _eager(request):
    """All tests of this folder, unless one of a model in `COMPILED` asks for `compiled`."""
    if not ("compiled" in request.fixturenames and request.getfixturevalue("is_compiled")):
        request.getfixturevalue("eager")


@pytest.fixture
def compiled():
    """Ask for compiled functions on small models."""


@pytest.fixture
def precision():
    """Give a context manager that sets the global dtype policy."""

    @contextlib.contextmanager
    def policy(name):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(name)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)

    return policy
