"""VGG and AlexNet against torchvision's, with the same random weights: features before and after pooling, gradients.

Batch-norm statistics are random too. Sizes that do not halve evenly are rounded down there, and up if it is told to.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import torch
from torchvision import models

from kerasvision.backbones import alexnet, vgg
from zoo.converters.torchvision_vgg import ALEXNET_BACKBONE, VGG_BACKBONE

NAMES = ["vgg11", "vgg13_bn", "vgg16", "vgg19", "alexnet"]


def _torch_model(name):
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # the dense layers need not exist
        model = getattr(models, name)(weights=None)
    model.features.to_empty(device="cpu")
    for module in model.features:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
            module.bias.data.uniform_(-0.1, 0.1, generator=generator)
        elif isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def _ours(name, theirs, **options):
    builder = alexnet.alexnet_torchvision if name == "alexnet" else getattr(vgg, name.removesuffix("_bn"))
    if name.endswith("_bn"):
        options["normalization"] = "batch"
    model = builder(**options)
    converter = ALEXNET_BACKBONE if name == "alexnet" else VGG_BACKBONE
    tensors = {f"features.{key}": tensor.numpy() for key, tensor in theirs.features.state_dict().items()}
    tensors |= {name: np.zeros(0) for name in theirs.state_dict() if name.startswith("classifier.")}
    assert converter.recognises(tensors)
    assert converter.apply(SimpleNamespace(backbone=model), tensors, origin="state dict", target=name) == []
    return model


def _features(theirs, image):
    """Return torchvision's features before each pooling, and after."""
    before, after, x = [], [], image
    for module in theirs.features:
        if isinstance(module, torch.nn.MaxPool2d):
            before.append(x)
        x = module(x)
        if isinstance(module, torch.nn.MaxPool2d):
            after.append(x)
    return before, after


def _image(size_hw):
    return np.random.default_rng(1).normal(size=(1, *size_hw, 3)).astype(np.float32)


def _assert_close(found, expected, tolerance=1e-4):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def _channels_last(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_features_equal_torchvision(name, ceil_mode):
    theirs = _torch_model(name)
    for module in theirs.features:
        if isinstance(module, torch.nn.MaxPool2d):
            module.ceil_mode = ceil_mode
    image = _image((71, 101))
    with torch.no_grad():
        before, after = _features(theirs, torch.from_numpy(image).permute(0, 3, 1, 2))
    for pooled, expected in ((False, before), (True, after)):
        model = _ours(name, theirs, pooled=pooled, ceil_mode=ceil_mode)
        for found, wanted in zip(model(image, training=False), expected, strict=True):
            _assert_close(found, _channels_last(wanted))


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "alexnet"])
def test_gradients_equal_torchvision(name):
    theirs = _torch_model(name)
    model = _ours(name, theirs, ceil_mode=False)
    image = _image((71, 101))
    before, _ = _features(theirs, torch.from_numpy(image).permute(0, 3, 1, 2))
    sum((feature**2).mean() for feature in before).backward()
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(feature**2) for feature in model(image, training=False))
    convolutions = [layer for layer in model.layers if layer.weights]
    expected = [m.weight.grad for m in theirs.features if isinstance(m, torch.nn.Conv2d)]
    gradients = tape.gradient(loss, [layer.kernel.value for layer in convolutions])
    for found, wanted in zip(gradients, expected, strict=True):
        _assert_close(found, wanted.permute(2, 3, 1, 0))
