"""MobileNetV2, MobileNetV3 and Xception against torchvision's, segmentation_models_pytorch's and timm's.

With the same random weights and batch-norm statistics, every feature. Gradients and training mode are compared in
pieces/test_backbones.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torchvision import models

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from kerasvision.backbones.xception import xception65
from tests.parity.torch_models import randomize, relative_difference
from tests.parity.xception_pairs import small_xceptions, xception_pairs
from zoo.converters.assign import assign
from zoo.converters.torchvision_mobilenet import (
    MOBILENET_V2_BACKBONE,
    MOBILENET_V3_BACKBONE,
    mobilenet_v2_pairs,
    mobilenet_v3_pairs,
)
from zoo.pth import read_pth

COUNTERS = (r".*\.num_batches_tracked",)


def _image(size_hw):
    return np.random.default_rng(1).normal(size=(1, *size_hw, 3)).astype(np.float32)


def _to_torch(image):
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def _fill(model, module, pairs, ignored=()):
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    assert assign(model, tensors, pairs(model), origin="state dict", target="it", ignored=(*COUNTERS, *ignored)) == []
    return model


def _assert_equal(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.numpy()).max() > 0.1
        assert relative_difference(ours, theirs) < 1e-4


def _at(features, indices):
    """Return a function of images that gives the outputs of the layers with these numbers."""

    def call(x):
        outputs = []
        for index, layer in enumerate(features):
            x = layer(x)
            if index in indices:
                outputs.append(x)
        return outputs

    return call


# --- MobileNetV2


@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_mobilenet_v2_equals_smp(output_stride):
    theirs = randomize(smp.encoders.get_encoder("mobilenet_v2", weights=None, output_stride=output_stride))
    ours = _fill(mobilenet_v2(output_stride=output_stride), theirs, mobilenet_v2_pairs)
    assert tuple(feature.shape[-1] for feature in ours.outputs) == tuple(theirs.out_channels[1:])
    image = _image((70, 101))
    with torch.no_grad():
        expected = theirs(_to_torch(image))[1:]
    _assert_equal(ours(image), expected)


@pytest.mark.parametrize("width_multiplier", [0.35, 1.4])
def test_mobilenet_v2_of_other_widths_equals_torchvision(width_multiplier):
    theirs = randomize(models.mobilenet_v2(width_mult=width_multiplier).features)
    ours = mobilenet_v2(width_multiplier=width_multiplier, feature_indices=range(19))
    _fill(ours, theirs, lambda model: mobilenet_v2_pairs(model, ""))
    image = _image((45, 64))
    with torch.no_grad():
        _assert_equal(ours(image), _at(theirs, range(19))(_to_torch(image)))


# --- MobileNetV3


@pytest.mark.parametrize(
    ("name", "their_options", "options"),
    [
        ("large", {"dilated": True}, {"output_stride": 16}),
        ("large", {"reduced_tail": True, "width_mult": 0.75}, {"reduced_tail": True, "width_multiplier": 0.75}),
        ("small", {}, {}),
        ("small", {"reduced_tail": True, "dilated": True}, {"reduced_tail": True, "output_stride": 16}),
    ],
)
def test_mobilenet_v3_equals_torchvision(name, their_options, options):
    theirs = randomize(getattr(models, f"mobilenet_v3_{name}")(**their_options).features)
    ours = MobileNetV3(name, feature_indices=range(len(theirs)), **options)
    _fill(ours, theirs, lambda model: mobilenet_v3_pairs(model, ""))
    image = _image((70, 101))
    with torch.no_grad():
        _assert_equal(ours(image), _at(theirs, range(len(theirs)))(_to_torch(image)))


@pytest.mark.parametrize("name", ["deeplabv3", "lraspp"])
def test_mobilenet_v3_of_torchvisions_segmenters_is_read_from_their_file(name, tmp_path):
    if name == "deeplabv3":
        options = {"weights": None, "weights_backbone": None, "aux_loss": True}
        theirs, names = models.segmentation.deeplabv3_mobilenet_v3_large(**options), ("aux", "out")
    else:
        options = {"weights": None, "weights_backbone": None}
        theirs, names = models.segmentation.lraspp_mobilenet_v3_large(**options), ("low", "high")
    torch.save(randomize(theirs).state_dict(), tmp_path / "model.pth")
    ours = mobilenet_v3_large(output_stride=16, feature_indices=(4, 16))
    others = r"(classifier|aux_classifier)\..*"
    tensors, pairs = read_pth(tmp_path / "model.pth"), mobilenet_v3_pairs(ours, "backbone.")
    assign(ours, tensors, pairs, origin="model.pth", target=name, ignored=(*COUNTERS, others))
    assert ours.strides == (8, 16)
    image = _image((65, 90))
    with torch.no_grad():
        expected = theirs.backbone(_to_torch(image))
    _assert_equal(ours(image), [expected[key] for key in names])


def test_mobilenet_v3_of_ssdlite_equals_torchvision():
    theirs = randomize(models.mobilenet_v3_large(reduced_tail=True).features)
    ours = mobilenet_v3_large(reduced_tail=True, feature_indices=(13, 16), expanded_features=(13,))
    _fill(ours, theirs, lambda model: mobilenet_v3_pairs(model, ""))
    assert ours.strides == (16, 32)
    image = _image((64, 96))
    with torch.no_grad():
        before = theirs[:13](_to_torch(image))
        expected = [theirs[13].block[0](before), theirs[13:](before)]
    _assert_equal(ours(image), expected)


@pytest.mark.parametrize(
    ("name", "build", "converter", "indices"),
    [
        ("mobilenet_v2", mobilenet_v2, MOBILENET_V2_BACKBONE, (1, 3, 6, 13, 18)),
        ("mobilenet_v2", mobilenet_v2, MOBILENET_V2_BACKBONE, (3, 17)),
        ("mobilenet_v3_small", mobilenet_v3_small, MOBILENET_V3_BACKBONE, (0, 1, 3, 8, 12)),
    ],
)
def test_mobilenets_are_read_from_torchvisions_classifiers(name, build, converter, indices, tmp_path):
    theirs = randomize(getattr(models, name)())
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    tensors = read_pth(tmp_path / "model.pth")
    assert converter.recognises(tensors)
    assert [other.recognises(tensors) for other in (MOBILENET_V2_BACKBONE, MOBILENET_V3_BACKBONE)].count(True) == 1
    ours = build(feature_indices=indices)
    converter.apply(SimpleNamespace(backbone=ours), tensors, origin="model.pth", target=name)
    image = _image((33, 40))
    with torch.no_grad():
        _assert_equal(ours(image), _at(theirs.features, indices)(_to_torch(image)))


# --- Xception


@pytest.mark.parametrize(("size", "output_stride"), [("65", 16), ("small", 8), ("small", 32)])
def test_xception_equals_timm(size, output_stride):
    if size == "small":
        theirs, ours = small_xceptions(output_stride)
        randomize(theirs)
    else:
        theirs = randomize(timm.create_model("xception65", num_classes=0, output_stride=output_stride))
        ours = xception65(output_stride=output_stride)
    _fill(ours, theirs, xception_pairs)
    assert ours.strides == tuple(info["reduction"] for info in theirs.feature_info)
    image = _image((70, 49))
    with torch.no_grad():
        _assert_equal(ours(image), theirs.forward_intermediates(_to_torch(image), intermediates_only=True))
