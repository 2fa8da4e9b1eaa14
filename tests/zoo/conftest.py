"""Files as PyTorch writes them, made byte by byte so that these tests need no torch; and a tiny model."""

import struct
import sys
import types
import zipfile

import keras
import numpy as np
import pytest

from kerasvision.ops.resizing import ResizeRule
from zoo import registry
from zoo.converters.assign import Assignment, Converter, kernel_from_torch
from zoo.registry import Entry, Weights

# Triton, loaded after TensorFlow, ends the process with a segmentation fault (triton 3.7.1, TensorFlow 2.21).
# torchvision and torch.optim import it where it is installed, and do without where it is not.
if "torch" not in sys.modules:
    sys.modules.setdefault("triton", None)

_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value):
    return b"J" + struct.pack("<i", value)


def _integers(values):
    return b"(" + b"".join(_integer(int(value)) for value in values) + b"t"


def _tensor(key, array):
    strides = [step // array.itemsize for step in array.strides]
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu")
    storage += _integer(array.size) + b"tQ"
    window = _integer(0) + _integers(array.shape) + _integers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + window + b"\x89" + _ORDERED_DICT + b"tR"


def _pickled_state_dict(arrays):
    """Return the pickle of an OrderedDict of float32 tensors, as torch.save writes it (protocol 2)."""
    items = b"".join(_text(name) + _tensor(str(index), array) for index, (name, array) in enumerate(arrays.items()))
    return b"\x80\x02" + _ORDERED_DICT + b"(" + items + b"u."


def write_zip(path, pickled, arrays=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for index, array in enumerate(arrays):
            archive.writestr(f"archive/data/{index}", np.asarray(array, "<f4").tobytes())
    return path


def write_state_dict(path, arrays):
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return write_zip(path, _pickled_state_dict(arrays), arrays.values())


@pytest.fixture
def pickled_state_dict():
    """`pickled_state_dict({name: array})` gives the bytes of a state dict's pickle."""
    return _pickled_state_dict


@pytest.fixture
def write_pth():
    """`write_pth(path, {name: array})` writes what `torch.save` writes for a state dict."""
    return write_state_dict


@pytest.fixture
def write_pickle():
    """`write_pickle(path, bytes)` writes a `.pth` whose pickle is these bytes."""
    return write_zip


@keras.saving.register_keras_serializable("tests.zoo")
class TinyModel(keras.Model):
    """Two convolutions: a body, and a head with one output a class."""

    def __init__(self, num_classes, *, scale=1.0, class_names=None, resize_rule=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.scale, self.class_names = num_classes, scale, class_names
        self.resize_rule = ResizeRule(**resize_rule) if isinstance(resize_rule, dict) else resize_rule
        self.backbone = keras.layers.Conv2D(4, 3)  # unnamed, as a user's layers are
        self.head = keras.layers.Conv2D(num_classes, 1)
        self.backbone.build((None, None, None, 3))
        self.head.build((None, None, None, 4))
        self.built = True

    def call(self, images):
        return self.head(self.backbone(images)) * self.scale

    def get_config(self):
        rule = None if self.resize_rule is None else self.resize_rule.get_config()
        return {
            "num_classes": self.num_classes,
            "scale": self.scale,
            "class_names": self.class_names,
            "resize_rule": rule,
            "name": self.name,
        }


def build_tiny(num_classes=5, **options):
    return TinyModel(num_classes, **options)


def _backbone(model):
    yield Assignment("body.weight", model.backbone.kernel, kernel_from_torch)
    yield Assignment("body.bias", model.backbone.bias)


def _whole(model):
    yield from _backbone(model)
    yield Assignment("head.weight", model.head.kernel, kernel_from_torch, head=True)
    yield Assignment("head.bias", model.head.bias, head=True)


@pytest.fixture
def tiny(monkeypatch):
    """Register "tiny" with weights "v1" for 3 classes, in a registry of its own; gives the source tensors."""
    module = types.ModuleType("tiny_architecture")
    module.TinyModel, module.build_tiny = TinyModel, build_tiny
    module.WHOLE = Converter(
        layout="tiny checkpoint",
        recognises=lambda names: "head.weight" in names,
        assignments=_whole,
        ignored=(r".*\.num_batches_tracked",),
        num_classes=lambda tensors: len(tensors["head.bias"]),
    )
    module.BACKBONE = Converter(
        layout="tiny classifier",
        part="backbone",
        recognises=lambda names: "fc.weight" in names,
        assignments=_backbone,
        scope=lambda model: model.backbone,
        ignored=(r"fc\.weight",),
    )
    monkeypatch.setitem(sys.modules, "tiny_architecture", module)
    registry.list_models()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register(
        Entry(
            name="tiny",
            task="segmentation",
            builder="tiny_architecture:build_tiny",
            architecture="tiny_architecture:TinyModel",
            paper="none",
            weights=(
                Weights(
                    tag="v1",
                    source="http://127.0.0.1:9/tiny-0123abcd.pth",  # port 9 discards: nobody listens
                    sha256="0123abcd",
                    converter="tiny_architecture:WHOLE",
                    license="none",
                    num_classes=3,
                    class_names=("a", "b", "c"),
                    resize_rule=ResizeRule("stretch", size_hw=(8, 8)),
                    options={"scale": 2.0},
                ),
            ),
            default="v1",
            converters=("tiny_architecture:BACKBONE",),
        )
    )
    generator = np.random.default_rng(0)
    return {
        "body.weight": generator.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "body.bias": generator.normal(size=4).astype(np.float32),
        "head.weight": generator.normal(size=(3, 4, 1, 1)).astype(np.float32),
        "head.bias": generator.normal(size=3).astype(np.float32),
    }
