"""DeepLabV3 on MobileNetV3 against torchvision's, DeepLabV3+ against segmentation_models.pytorch's, and DeepLabV2
against a reading of the layout of its PyTorch weights, with random weights handed over in `.pth` files.
"""

from collections import OrderedDict

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import segmentation

import zoo
from kerasvision.backbones.resnet import ResNet
from kerasvision.data.streets import Streets
from kerasvision.models.auxiliary import auxiliary_logits
from kerasvision.models.deeplab_v2 import DeepLabV2
from tests.parity.torch_models import assert_gradients_equal, randomize, relative_difference, to_torch
from zoo.converters import deeplab as converters
from zoo.converters import torchvision as torchvision_converters


def _images(size_hw, count=1):
    return np.stack([sample.image for sample in Streets("test", count=count, size_hw=size_hw)])


def _masks(size_hw, count=1):
    return np.stack([np.asarray(sample.mask) for sample in Streets("test", count=count, size_hw=size_hw)])


def _saved(theirs, folder):
    path = folder / "weights.pth"
    torch.save(theirs.state_dict(), path)
    return path


def _torch_cross_entropy(logits, masks):
    return functional.cross_entropy(logits, torch.from_numpy(masks.astype(np.int64)), ignore_index=255)


# --- DeepLabV3 on MobileNetV3


def test_deeplabv3_mobilenet_v3_large_equals_torchvision(tmp_path):
    theirs = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
    theirs = randomize(theirs)
    ours = zoo.get("deeplabv3_mobilenet_v3_large", weights=_saved(theirs, tmp_path))
    for size_hw in ((96, 128), (67, 113)):
        images = _images(size_hw)
        with torch.no_grad():
            expected = theirs(to_torch(images))
        logits = ours(images.astype(np.float32))
        assert relative_difference(logits, expected["out"]) < 1e-4
        assert relative_difference(auxiliary_logits(logits)[0], expected["aux"]) < 1e-4
    images, masks = _images((64, 96), 2), _masks((64, 96), 2)
    outputs = theirs(to_torch(images))
    loss = _torch_cross_entropy(outputs["out"], masks) + 0.5 * _torch_cross_entropy(outputs["aux"], masks)
    loss.backward()
    assert_gradients_equal(
        ours,
        lambda: sum(ours.compute_losses(images, masks).values()),
        theirs,
        torchvision_converters.DEEPLABV3_MOBILENET_V3,
    )


# --- DeepLabV3+


@pytest.mark.parametrize(("encoder", "output_stride"), [("resnet50", 16), ("resnet50", 8), ("mobilenet_v2", 16)])
def test_deeplabv3plus_equals_segmentation_models_pytorch(encoder, output_stride, tmp_path):
    theirs = randomize(
        smp.DeepLabV3Plus(encoder, encoder_weights=None, classes=14, encoder_output_stride=output_stride)
    )
    ours = zoo.get(f"deeplabv3plus_{encoder}", weights=_saved(theirs, tmp_path), output_stride=output_stride)
    images, masks = _images((64, 96), 2), _masks((64, 96), 2)
    logits = theirs(to_torch(images))
    assert relative_difference(ours(images.astype(np.float32)), logits) < 1e-4
    loss = _torch_cross_entropy(logits, masks)
    loss.backward()
    losses = ours.compute_losses(images, masks)
    np.testing.assert_allclose(losses["cross_entropy"], loss.item(), rtol=1e-4)
    assert_gradients_equal(
        ours,
        lambda: sum(ours.compute_losses(images, masks).values()),
        theirs,
        converters.SMP_DEEPLABV3PLUS,
        tolerance=0.01,  # MobileNetV2's activations have two bends
    )


# --- DeepLabV2


def _unit(inputs, outputs, size=1, *, strides=1, dilation=1, relu=True):
    margin = dilation * (size - 1) // 2
    parts = [
        ("conv", nn.Conv2d(inputs, outputs, size, strides, margin, dilation, bias=False)),
        ("bn", nn.BatchNorm2d(outputs)),
    ]
    return nn.Sequential(OrderedDict(parts + [("relu", nn.ReLU())] * relu))


class _Bottleneck(nn.Module):
    """The paper's residual block: the stride is in the first convolution."""

    def __init__(self, inputs, width, strides, dilation):
        super().__init__()
        self.reduce = _unit(inputs, width, strides=strides)
        self.conv3x3 = _unit(width, width, 3, dilation=dilation)
        self.increase = _unit(width, 4 * width, relu=False)
        projects = inputs != 4 * width
        self.shortcut = _unit(inputs, 4 * width, strides=strides, relu=False) if projects else nn.Identity()

    def forward(self, x):
        return functional.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


class _Classifier(nn.Module):
    def __init__(self, inputs, classes, rates):
        super().__init__()
        for index, rate in enumerate(rates):
            self.add_module(f"c{index}", nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate))

    def forward(self, x):
        return sum(branch(x) for branch in self.children())


class _TorchDeepLabV2(nn.Module):
    """The layout of `deeplabv2_resnet101_msc`, read from its tensors' names and the paper, with fewer channels."""

    def __init__(self, classes, depths, widths, rates, scales):
        super().__init__()
        self.scales = scales
        channels = widths[0]
        stem = [("conv1", _unit(3, channels, 7, strides=2)), ("pool", nn.MaxPool2d(3, 2, 1, ceil_mode=True))]
        layers = [("layer1", nn.Sequential(OrderedDict(stem)))]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for index in range(depth):
                strides = 2 if (stage, index) == (1, 0) else 1
                blocks.append((f"block{index + 1}", _Bottleneck(channels, width, strides, (1, 1, 2, 4)[stage])))
                channels = 4 * width
            layers.append((f"layer{stage + 2}", nn.Sequential(OrderedDict(blocks))))
        self.base = nn.Sequential(OrderedDict([*layers, ("aspp", _Classifier(channels, classes, rates))]))

    def forward(self, x):
        """Return the maximum over the scales and the logits of each, enlarged to the image."""
        parts = [self.base(x)]
        for scale in self.scales:
            parts.append(self.base(functional.interpolate(x, scale_factor=scale, mode="bilinear")))
        size = parts[0].shape[2:]
        enlarged = [functional.interpolate(part, size=size, mode="bilinear") for part in parts]
        whole = [torch.stack(enlarged).max(dim=0)[0], *parts]
        return [functional.interpolate(part, size=x.shape[2:], mode="bilinear") for part in whole]


def _deeplabv2_pair(folder):
    depths, widths, rates, scales = (1, 2, 2, 1), (6, 8, 12, 16), (2, 4), (0.5, 0.75)
    theirs = randomize(_TorchDeepLabV2(14, depths, widths, rates, scales))
    backbone = ResNet(
        "bottleneck",
        depths,
        widths=widths,
        stem_filters=6,
        output_stride=8,
        dilate_first_blocks=True,
        strided_convolution="1x1",
        ceil_mode=True,
        momentum=0.999,
    )
    ours = DeepLabV2(
        backbone, 14, rates=rates, scales=scales, image_mean=(122.675, 116.669, 104.008), image_std=(1, 1, 1)
    )
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    converters.KAZUTO_DEEPLABV2.apply(ours, tensors, origin="test", target="deeplabv2")
    return theirs, ours


def _bgr(images):
    pixels = images[..., ::-1].astype(np.float32) - np.array([104.008, 116.669, 122.675], np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("size_hw", [(64, 96), (65, 97), (51, 94)])
def test_deeplabv2_equals_a_reading_of_its_layout(size_hw, tmp_path):
    theirs, ours = _deeplabv2_pair(tmp_path)
    images = _images(size_hw)
    with torch.no_grad():
        expected = theirs(_bgr(images))
    logits = ours(images.astype(np.float32))
    found = [logits, *auxiliary_logits(logits)]
    assert len(found) == len(expected) == 4
    for mine, wanted in zip(found, expected, strict=True):
        assert relative_difference(mine, wanted) < 1e-4


def test_deeplabv2_losses_and_gradients_equal_a_reading_of_its_layout(tmp_path):
    theirs, ours = _deeplabv2_pair(tmp_path)
    images, masks = _images((64, 96), 2), _masks((64, 96), 2)
    main, *scales = (_torch_cross_entropy(logits, masks) for logits in theirs(_bgr(images)))
    sum([main, *scales]).backward()
    losses = ours.compute_losses(images, masks)
    np.testing.assert_allclose(losses["cross_entropy"], main.item(), rtol=1e-4)
    np.testing.assert_allclose(losses["auxiliary_cross_entropy"], sum(part.item() for part in scales), rtol=1e-4)
    assert_gradients_equal(
        ours, lambda: sum(ours.compute_losses(images, masks).values()), theirs, converters.KAZUTO_DEEPLABV2
    )
