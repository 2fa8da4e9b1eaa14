"""Configurations: every argument of every architecture, with a value that is not its default, comes back."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from kerasvision.backbones.base import Backbone
from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.backbones.resnet import ResNet
from kerasvision.backbones.vgg import VGG
from kerasvision.data import SlidingWindows
from kerasvision.layers import ConvolutionBlock
from kerasvision.models.recipe import Recipe, WarmupSchedule
from kerasvision.models.retinanet import octave_sizes
from kerasvision.ops.resizing import ResizeRule
from zoo.registry import import_attribute

# A value for each constructor argument, other than its default; True and False are turned round. A new argument
# fails the test below until it is here.
VALUES = {
    "num_classes": 3,
    "class_names": ("car", "bus", "sign"),
    "resize_rule": ResizeRule("letterbox", size_hw=(64, 96), antialias=True),
    "image_mean": (1.0, 2.0, 3.0),
    "image_std": (50.0, 60.0, 70.0),
    "recipe": Recipe("sgd", 0.5, 4, 0.01, 0.5, 7, "step", (0.5, 0.75), 3, 2.0, (("head", 2.0),), "this test"),
    "name": "another",
    "anchor_sizes": octave_sizes(8),
    "aspect_ratios": (0.25, 1.0),
    "pyramid_filters": 16,
    "coarse_levels": "p6p7_from_c5",
    "foreground_iou": 0.6,
    "background_iou": 0.3,
    "score_threshold": 0.005,
    "candidates_per_level": 7,
    "iou_threshold": 0.6,
    "max_detections": 5,
    "proposer": keras.saving.serialize_keras_object(SlidingWindows((16,), max_proposals=9)),
    "crop_size": 48,
    "context": 5,
    "regions_per_step": 12,
    "regions_at_once": 6,
    "svm_negative_iou": 0.2,
    "svm_cost": 0.01,
    "regression_iou": 0.7,
    "regression_penalty": 10.0,
    "proposal_convolutions": 2,
    "anchors_per_image": 32,
    "anchor_foreground_share": 0.25,
    "anchor_foreground_iou": 0.65,
    "anchor_background_iou": 0.25,
    "anchor_beta": 0.5,
    "max_proposals": 11,
    "training_candidates_per_level": 9,
    "training_proposals": 13,
    "proposal_iou_threshold": 0.8,
    "proposal_score_threshold": 0.001,
    "pyramid_normalization": "frozen_batch",
    "pool_size": 3,
    "sampling_ratio": 1,
    "head_units": (12, 8),
    "head_convolutions": 1,
    "head_normalization": "batch",
    "head_dropout": 0.1,
    "regions_per_image": 8,
    "foreground_share": 0.5,
    "box_beta": 0.75,
    "box_weights": (1.0, 2.0, 3.0, 4.0),
    "decoder_filters": (16, 8, 8, 4, 4),
    "upsampling": "bilinear",
    "normalization": "frozen_batch",
    "head_kernel_size": 5,
    "dropout": 0.25,
    "head_filters": 6,
    "attention_filters": 5,
    "branch": 2,
    "stride": 16,
    "margin": 110,
    "fc_kernel_size": 5,
    "fc_filters": 8,
    "fc_dilation": 2,
    "skip_scales": (0.5,),
    "filters": 8,
    "rates": (1, 2),
    "scales": (0.25,),
    "low_level_filters": 4,
    "before": 0,
    "after": 2,
    "epsilon": 1e-3,
    "auxiliary_feature": 1,
}
# Where an architecture takes other values than those of the same name.
OWN_VALUES = {
    "kerasvision.models.fast_rcnn:FastRCNN": {"background_iou": (0.1, 0.4)},
    "kerasvision.models.faster_rcnn:FasterRCNN": {"background_iou": (0.1, 0.4)},
}
# What the test gives itself, or subclasses make.
_GIVEN = ("head", "dtype")
# Arguments of a base class that an architecture does not take.
_REFUSED = {
    "kerasvision.models.deeplab_v2:DeepLabV2": ("auxiliary", "auxiliary_feature"),
    "kerasvision.models.fast_rcnn:FastRCNN": ("pooling",),  # "pool" goes without a pyramid only: see below
    "kerasvision.models.faster_rcnn:FasterRCNN": ("pooling",),
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
# Of architectures that do not take a ResNet: class and arguments.
_VGG = {"depths": (1, 1, 2, 1, 1), "widths": (4, 4, 8, 8, 8), "pooled": True, "frozen_stages": 2, "name": "other_vgg"}
BACKBONES = {
    "kerasvision.models.fcn:FCN": (VGG, {**_VGG, "normalization": "frozen_batch", "epsilon": 1e-3}),
    "kerasvision.models.deeplab_v1:DeepLabV1": (VGG, {**_VGG, "pool_size": 3, "output_stride": 8}),
}


def _arguments(cls):
    """Return {name: default} of a class's constructor and, where it passes others on, of its bases' up to Keras."""
    found = {}
    for base in cls.__mro__:
        if base is Backbone or base.__module__.startswith("keras."):
            break  # what their constructors take, the class built, not its user
        if "__init__" in vars(base):
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(parameter.name, parameter.default)
    return {name: default for name, default in found.items() if name not in ("self", "backbone")}


def _settings(model):
    """Return {path: (dtype policy, trainable)} of a model and of all layers that it holds."""
    found = {"": (model.dtype_policy.name, model.trainable)}

    def visit(layer, path):
        for child in layer._flatten_layers(include_self=False, recursive=False):
            found[f"{path}/{child.name}"] = (child.dtype_policy.name, child.trainable)
            visit(child, f"{path}/{child.name}")

    visit(model, "")
    return found


def _trained(model):
    """Return which of the model's weights are trained."""
    return [bool(weight.trainable) for weight in model.weights]


def _copies(model, folder):
    """Return the model after a round trip through its configuration as JSON, and through a file."""
    config = json.loads(json.dumps(model.get_config()))
    model.save(folder / "model.keras")
    return type(model).from_config(config), keras.saving.load_model(folder / "model.keras")


def _plain(value):
    """Return what JSON makes of a value: lists for tuples, dicts for dataclasses."""
    return json.loads(json.dumps(value, default=vars))


@pytest.mark.parametrize("architecture", sorted({zoo.info(name).architecture for name in zoo.list_models()}))
def test_config_of_every_argument_comes_back(architecture, tmp_path):
    cls = import_attribute(architecture)
    left_out = (*_GIVEN, *_REFUSED.get(architecture, ()))
    arguments = {name: default for name, default in _arguments(cls).items() if name not in left_out}
    values = {name: not default for name, default in arguments.items() if isinstance(default, bool)}
    missing = set(arguments) - set(VALUES) - set(values)
    assert not missing, f"give VALUES a value that is not the default for {sorted(missing)}"
    values |= {name: VALUES[name] for name in arguments if name not in values}
    values |= OWN_VALUES.get(architecture, {})
    for name, default in arguments.items():
        assert _plain(values[name]) != _plain(default if default is not inspect.Parameter.empty else None), name

    keras.utils.set_random_seed(0)
    network, options = BACKBONES.get(architecture, (ResNet, BACKBONE))
    model = cls(network(**options), dtype="mixed_bfloat16", **values)
    config = model.get_config()
    for name, value in values.items():
        assert _plain(config[name]) == _plain(value), name
    for name, value in options.items():
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
        assert _settings(other) == _settings(model)
        assert _trained(other) == _trained(model)
        outputs = other(image)
        for mine, theirs in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
            np.testing.assert_array_equal(*(ops.convert_to_numpy(ops.cast(t, "float32")) for t in (mine, theirs)))


# What somebody may freeze: everything, the backbone, all of the backbone but its last layers, parts of what follows.
def _freeze_model(model):
    model.trainable = False


def _freeze_backbone(model):
    model.backbone.trainable = False


def _freeze_backbone_but_its_end(model):
    model.backbone.trainable = False
    for layer in model.backbone.layers[-3:]:
        layer.trainable = True


def _freeze_layer_by_layer(model):
    for layer in model.backbone.layers:
        layer.trainable = False


def _freeze_a_part(model):
    after = [layer for layer in model._flatten_layers() if layer not in list(model.backbone._flatten_layers())]
    part = next(layer for layer in after if isinstance(layer, ConvolutionBlock))
    part.trainable = False


def _unfreeze_all(model):
    model.trainable = True


FREEZES = [
    _freeze_model, _freeze_backbone, _freeze_backbone_but_its_end, _freeze_layer_by_layer, _freeze_a_part,
    _unfreeze_all,
]  # fmt: skip
# Small forms of the models that there is one of each kind of backbone and decoder.
SMALLEST = {
    "retinanet_resnet10_fpn": {"pyramid_filters": 4, "head_convolutions": 1},
    "fasterrcnn_resnet10_fpn": {"pyramid_filters": 4, "head_units": (4,), "head_convolutions": 1},
    "fast_rcnn_resnet10_fpn": {"pyramid_filters": 4, "head_units": (4,), "head_convolutions": 1},
    "fasterrcnn_vgg16": {"widths": (4, 4, 4, 4, 4), "head_units": (4, 4)},
    "unet": {"widths": (4, 8, 16)},
    "unet_s5_d16": {"widths": (4, 8, 16), "head_filters": 4},
    "unet_plus_plus": {"widths": (4, 8, 16), "deep_supervision": True},
    "attention_unet": {"widths": (4, 8, 16)},
    "unet_resnet10": {"decoder_filters": (4, 4, 4, 4, 4)},
    "fcn8s_vgg16": {"widths": (4, 4, 4, 4, 4), "fc_filters": 4},
    "fcn32s_alexnet": {"widths": (4, 4, 4, 4, 4), "fc_filters": 4},
    "deeplab_v1_vgg16": {"widths": (4, 4, 4, 4, 4), "fc_filters": 4},
}
# Their siblings, of which nothing else is tested here.
NARROW = {
    "rcnn_alexnet": {"widths": (4, 4, 4, 4, 4), "head_units": (4, 4)},
    "rcnn_vgg16": {"widths": (4, 4, 4, 4, 4), "head_units": (4, 4)},
    "fast_rcnn_vgg16": {"widths": (4, 4, 4, 4, 4), "head_units": (4, 4)},
    **{f"fcn{stride}s_{name}": SMALLEST["fcn8s_vgg16"] for stride in (32, 16, 8) for name in ("vgg16", "alexnet")},
}


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("freeze", FREEZES)
def test_config_keeps_policies_and_what_is_frozen_of_all_layers(name, freeze, tmp_path):
    model = zoo.get(name, weights=None, num_classes=2, dtype="mixed_bfloat16", **SMALLEST[name])
    freeze(model)
    settings = _settings(model)
    assert {policy for policy, _ in settings.values()} <= {"mixed_bfloat16", "float32"}
    for copy in _copies(model, tmp_path):
        assert _settings(copy) == settings
        assert _trained(copy) == _trained(model)
        assert copy.get_config() == model.get_config()


@pytest.mark.parametrize("name", zoo.list_models())
def test_get_with_a_dtype_gives_it_to_every_layer(name):
    model = zoo.get(name, weights=None, dtype="mixed_bfloat16", **{**SMALLEST, **NARROW}.get(name, {}))
    others = {path: policy for path, (policy, _) in _settings(model).items() if policy != "mixed_bfloat16"}
    assert set(others) == {f"/{model.backbone.name}/images"}  # Keras's InputLayer, which has nothing to compute


def test_frozen_backbone_of_a_unet_by_count(tmp_path):
    model = zoo.get("unet_resnet10", weights=None)
    assert len(model.trainable_variables) == 68
    model.backbone.trainable = False
    # Five decoder steps of two convolutions with kernel, gamma and beta, and the head's kernel and bias.
    assert len(model.trainable_variables) == 5 * 2 * 3 + 2
    for copy in _copies(model, tmp_path):
        assert len(copy.trainable_variables) == 32


def test_configuration_of_an_older_version_loads():
    config = ResNet(**BACKBONE).get_config()
    del config["trainable_parts"]
    network = ResNet.from_config(config)
    assert _trained(network) == _trained(ResNet(**BACKBONE))
    assert not any(_trained(ResNet.from_config({**config, "trainable": False})))


def test_trainable_parts_that_are_not_there_are_named():
    config = ResNet(**BACKBONE).get_config()
    config["trainable_parts"]["stage9_block0"] = False
    with pytest.warns(UserWarning, match="`trainable_parts` of other_resnet names stage9_block0, which it does not"):
        ResNet.from_config(config)


def test_contracting_path_config_comes_back():
    values = {
        "widths": (4, 8, 16), "normalization": "batch", "dropout": 0.25, "padding": "valid", "round_down": True,
        "dtype": "mixed_bfloat16", "name": "left",
    }  # fmt: skip
    assert set(_arguments(ContractingPath)) == set(values)
    path = ContractingPath(**values)
    config = path.get_config()
    assert config["dtype"]["config"]["name"] == "mixed_bfloat16"
    assert {name: config[name] for name in values} == {**values, "dtype": config["dtype"]}
    copy = ContractingPath.from_config(json.loads(json.dumps(config)))
    assert _plain(copy.get_config()) == _plain(config)
    assert _settings(copy) == _settings(path)
    assert [output.shape for output in copy.outputs] == [output.shape for output in path.outputs]


def test_warmup_schedule_config_comes_back():
    values = {
        "peak": 0.5, "warmup_steps": 3, "total_steps": 30, "decay": "step", "milestones": (0.5,), "start": 4,
    }  # fmt: skip
    assert set(_arguments(WarmupSchedule)) == set(values)
    assert WarmupSchedule(**values).get_config() == values
    saved = keras.saving.serialize_keras_object(WarmupSchedule(**values))
    assert keras.saving.deserialize_keras_object(saved).get_config() == values
