"""Configurations: every argument of every architecture, with a value that is not its default, comes back."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from kerasvision.backbones.resnet import ResNet
from kerasvision.models.recipe import Recipe, WarmupSchedule
from kerasvision.models.retinanet import octave_sizes
from kerasvision.models.unet import ContractingPath
from kerasvision.ops.resizing import ResizeRule
from zoo.registry import import_attribute

# A value for each constructor argument, other than its default. A new argument fails the test below until it is here.
VALUES = {
    "num_classes": 3,
    "class_names": ("car", "bus", "sign"),
    "resize_rule": ResizeRule("letterbox", size_hw=(64, 96), antialias=True),
    "image_mean": (1.0, 2.0, 3.0),
    "image_std": (50.0, 60.0, 70.0),
    "recipe": Recipe("sgd", 0.5, 4, 0.01, 0.5, 7, "step", (0.5, 0.75), 3, 2.0, "this test"),
    "name": "another",
    "anchor_sizes": octave_sizes(8),
    "aspect_ratios": (0.25, 1.0),
    "pyramid_filters": 16,
    "head_convolutions": 1,
    "coarse_levels": "p6p7_from_c5",
    "foreground_iou": 0.6,
    "background_iou": 0.3,
    "score_threshold": 0.005,
    "candidates_per_level": 7,
    "iou_threshold": 0.6,
    "max_detections": 5,
    "decoder_filters": (16, 8, 8, 4, 4),
    "upsampling": "nearest",
    "normalization": "batch",
    "head_kernel_size": 3,
}
BACKBONE = {
    "block": "basic",
    "depths": (1, 1, 2, 1),
    "widths": (4, 4, 8, 8),
    "stem_filters": 4,
    "normalization": "frozen_batch",
    "epsilon": 1e-3,
    "frozen_stages": 2,
    "name": "other_resnet",
}


def _arguments(cls):
    """Return {name: default} of a class's constructor and, where it passes others on, of its bases' up to Keras."""
    found = {}
    for base in cls.__mro__:
        if base.__module__.startswith("keras."):
            break
        if "__init__" in vars(base):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(parameter.name, parameter.default)
    return {name: default for name, default in found.items() if name not in ("self", "backbone")}


def _plain(value):
    """Return what JSON makes of a value: lists for tuples, dicts for dataclasses."""
    return json.loads(json.dumps(value, default=vars))


@pytest.mark.parametrize("architecture", sorted({zoo.info(name).architecture for name in zoo.list_models()}))
def test_config_of_every_argument_comes_back(architecture, tmp_path):
    cls = import_attribute(architecture)
    arguments = _arguments(cls)
    missing = set(arguments) - set(VALUES)
    assert not missing, f"give VALUES a value that is not the default for {sorted(missing)}"
    values = {name: VALUES[name] for name in arguments}
    for name, default in arguments.items():
        assert _plain(values[name]) != _plain(default if default is not inspect.Parameter.empty else None), name

    keras.utils.set_random_seed(0)
    model = cls(ResNet(**BACKBONE), dtype="mixed_bfloat16", **values)
    config = model.get_config()
    for name, value in values.items():
        assert _plain(config[name]) == _plain(value), name
    for name, value in BACKBONE.items():
        assert _plain(config["backbone"]["config"][name]) == _plain(value), name

    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype(np.float32)
    expected = model(image)
    model.save(tmp_path / "model.keras")
    copy = cls.from_config(json.loads(json.dumps(config)))
    copy.set_weights(model.get_weights())
    for other in (copy, keras.saving.load_model(tmp_path / "model.keras")):
        assert other.get_config() == config
        assert other.dtype_policy.name == "mixed_bfloat16"
        assert other.recipe == VALUES["recipe"]
        assert other.resize_rule == VALUES["resize_rule"]
        assert other.class_names == VALUES["class_names"]
        assert len(other.trainable_variables) == len(model.trainable_variables)
        outputs = other(image)
        for mine, theirs in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
            np.testing.assert_array_equal(*(ops.convert_to_numpy(ops.cast(t, "float32")) for t in (mine, theirs)))


def test_contracting_path_config_comes_back():
    values = {"widths": (4, 8, 16), "normalization": "batch", "dropout": 0.25, "name": "left"}
    assert set(_arguments(ContractingPath)) == set(values)
    path = ContractingPath(**values)
    assert {name: path.get_config()[name] for name in values} == values
    copy = ContractingPath.from_config(json.loads(json.dumps(path.get_config())))
    assert _plain(copy.get_config()) == _plain(values)
    assert [output.shape for output in copy.outputs] == [output.shape for output in path.outputs]


def test_warmup_schedule_config_comes_back():
    values = {
        "peak": 0.5, "warmup_steps": 3, "total_steps": 30, "decay": "step", "milestones": (0.5,), "start": 4,
    }  # fmt: skip
    assert set(_arguments(WarmupSchedule)) == set(values)
    assert WarmupSchedule(**values).get_config() == values
    saved = keras.saving.serialize_keras_object(WarmupSchedule(**values))
    assert keras.saving.deserialize_keras_object(saved).get_config() == values
