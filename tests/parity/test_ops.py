"""Ops and layers against torchvision's."""

import keras
import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import _resize_image_and_masks
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as TorchResNet
from torchvision.ops.feature_pyramid_network import (
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from kerasvision.backbones.resnet import ResNet
from kerasvision.layers import ConvolutionBlock, FeaturePyramid
from kerasvision.ops.resizing import ResizeRule


def _to_torch(channels_last):
    return torch.from_numpy(np.moveaxis(channels_last, -1, 1).copy())


def _to_numpy(channels_first):
    return np.moveaxis(channels_first.detach().numpy(), 1, -1)


@pytest.mark.parametrize(("shortest", "longest"), [(800, 1333), (320, 533), (333, 640), (800, 10**9)])
def test_shortest_side_sizes_equal_torchvision(shortest, longest):
    rule = ResizeRule("shortest_side", shortest=shortest, longest=longest)
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(20, 3000, (60, 2)).tolist()]
    # Ratios like 49 * (800 / 49) fall just under the whole number in floating point, and torchvision floors.
    sizes += [(side, side) for side in range(1, 60)]
    for height, width in sizes:
        scale = min(shortest / min(height, width), longest / max(height, width))
        # One row or column tells as much as an image, and fits in memory.
        expected = tuple(
            torch.nn.functional.interpolate(
                torch.zeros(1, 1, side), scale_factor=scale, mode="linear", recompute_scale_factor=True
            ).shape[-1]
            for side in (height, width)
        )
        assert rule.scaled_hw(height, width) == expected, (height, width)


@pytest.mark.parametrize("size", [(49, 49), (47, 94), (375, 500), (33, 55), (200, 20), (98, 131)])
def test_shortest_side_pixels_equal_torchvision(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    expected, _ = _resize_image_and_masks(_to_torch(image[None])[0], 80, 133)
    found = ResizeRule("shortest_side", shortest=80, longest=133).apply(image)
    assert found.shape[:2] == tuple(expected.shape[1:])
    np.testing.assert_allclose(found, expected.permute(1, 2, 0).numpy(), atol=0.02)


def _random_batch_norm(channels, epsilon=1e-5):
    generator = torch.Generator().manual_seed(1)
    norm = torch.nn.BatchNorm2d(channels, eps=epsilon)
    for tensor, low, high in (
        (norm.weight, 0.5, 1.5),
        (norm.bias, -1, 1),
        (norm.running_mean, -1, 1),
        (norm.running_var, 0.2, 2),
    ):
        tensor.data.copy_(low + (high - low) * torch.rand(channels, generator=generator))
    return norm


def _fill_convolution(block, convolution, norm=None):
    block.kernel.assign(convolution.weight.detach().numpy().transpose(2, 3, 1, 0))
    if convolution.bias is not None:
        block.bias.assign(convolution.bias.detach().numpy())
    if norm is not None:
        for variable, tensor in (
            (block.normalization.gamma, norm.weight),
            (block.normalization.beta, norm.bias),
            (block.normalization.moving_mean, norm.running_mean),
            (block.normalization.moving_variance, norm.running_var),
        ):
            variable.assign(tensor.detach().numpy())


@pytest.mark.parametrize(
    ("kernel_size", "strides", "dilation"),
    [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (7, 2, 1), (3, 1, 2), (3, 1, 3), (2, 2, 1), (4, 1, 1), (2, 1, 1)],
)
@pytest.mark.parametrize("size", [(9, 13), (8, 12)])
@pytest.mark.parametrize("normalization", ["batch", "frozen_batch"])
def test_convolution_block_equals_torch(kernel_size, strides, dilation, size, normalization):
    torch.manual_seed(0)
    padding = dilation * (kernel_size - 1) // 2
    convolution = torch.nn.Conv2d(5, 6, kernel_size, strides, padding, dilation, bias=True)
    norm = _random_batch_norm(6, epsilon=1e-3)
    block = ConvolutionBlock(
        6,
        kernel_size,
        strides=strides,
        dilation=dilation,
        normalization=normalization,
        epsilon=1e-3,
        activation="relu",
        use_bias=True,
    )
    block.build((None, None, None, 5))
    _fill_convolution(block, convolution, norm)
    inputs = np.random.default_rng(0).normal(size=(2, *size, 5)).astype(np.float32)

    expected = _to_numpy(norm.eval()(convolution(_to_torch(inputs))).relu())
    found = block(inputs, training=False)
    assert tuple(found.shape) == block.compute_output_shape(inputs.shape) == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if normalization == "batch":
        expected = _to_numpy(norm.train()(convolution(_to_torch(inputs))).relu())
        np.testing.assert_allclose(block(inputs, training=True), expected, atol=1e-4)
        # Keras keeps the biased variance of the batch, torch the unbiased one: n / (n - 1).
        np.testing.assert_allclose(block.normalization.moving_mean, norm.running_mean.numpy(), atol=1e-5)
        count = expected[..., 0].size
        old = _random_batch_norm(6).running_var.numpy()
        torch_batch = (norm.running_var.numpy() - 0.9 * old) / 0.1
        keras_batch = (np.asarray(block.normalization.moving_variance) - 0.9 * old) / 0.1
        np.testing.assert_allclose(keras_batch, torch_batch * (count - 1) / count, rtol=1e-3)


@pytest.mark.parametrize("coarse_levels", ["p6p7_from_p5", "p6p7_from_c5", "pool", None])
@pytest.mark.parametrize("size", [(8, 12), (4, 20)])
def test_feature_pyramid_equals_torchvision(coarse_levels, size):
    torch.manual_seed(0)
    channels = (3, 4, 5)
    extra = {
        "p6p7_from_p5": LastLevelP6P7(6, 6),
        "p6p7_from_c5": LastLevelP6P7(5, 6),
        "pool": LastLevelMaxPool(),
        None: None,
    }[coarse_levels]
    theirs = FeaturePyramidNetwork(channels, 6, extra_blocks=extra)
    for parameter in theirs.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    ours = FeaturePyramid(6, coarse_levels=coarse_levels)
    ours.build([(None, None, None, c) for c in channels])
    for level in range(3):
        _fill_convolution(ours.laterals[level], theirs.inner_blocks[level][0])
        _fill_convolution(ours.outputs[level], theirs.layer_blocks[level][0])
    if coarse_levels in ("p6p7_from_p5", "p6p7_from_c5"):
        _fill_convolution(ours.p6, extra.p6)
        _fill_convolution(ours.p7, extra.p7)
    rng = np.random.default_rng(0)
    features = [
        rng.normal(size=(2, size[0] * 2 ** (2 - i), size[1] * 2 ** (2 - i), c)).astype(np.float32)
        for i, c in enumerate(channels)
    ]
    expected = theirs({str(i): _to_torch(feature) for i, feature in enumerate(features)}).values()
    found = ours(features)
    shapes = ours.compute_output_shape([feature.shape for feature in features])
    assert len(found) == len(expected) == len(shapes)
    for level, wanted, shape in zip(found, expected, shapes, strict=True):
        assert tuple(level.shape) == tuple(shape)
        np.testing.assert_allclose(level, _to_numpy(wanted), atol=1e-4)


def _torch_convolutions(model):
    """Yield (convolution, norm, our name) of a torchvision ResNet."""
    yield model.conv1, model.bn1, "stem"
    for stage in range(1, 5):
        for index, block in enumerate(getattr(model, f"layer{stage}")):
            for number in (1, 2, 3):
                if hasattr(block, f"conv{number}"):
                    name = f"stage{stage}_block{index}_conv{number}"
                    yield getattr(block, f"conv{number}"), getattr(block, f"bn{number}"), name
            if block.downsample is not None:
                yield *block.downsample, f"stage{stage}_block{index}_downsample"


@pytest.mark.parametrize(("block", "torch_block"), [("basic", BasicBlock), ("bottleneck", Bottleneck)])
def test_resnet_features_equal_torchvision(block, torch_block):
    torch.manual_seed(0)
    theirs = TorchResNet(torch_block, [2, 1, 1, 2])
    ours = ResNet(block, (2, 1, 1, 2))
    filled = set()
    for convolution, norm, name in _torch_convolutions(theirs):
        norm.load_state_dict(_random_batch_norm(norm.num_features).state_dict())
        _fill_convolution(ours.get_layer(name), convolution, norm)
        filled.add(name)
    assert filled == {layer.name for layer in ours.layers if isinstance(layer, ConvolutionBlock)}
    image = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    with torch.no_grad():
        x = theirs.eval().bn1(theirs.conv1(_to_torch(image))).relu()
        expected, x = [x], theirs.maxpool(x)
        for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            x = stage(x)
            expected.append(x)
    for found, wanted in zip(ours(image, training=False), expected, strict=True):
        wanted = _to_numpy(wanted)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_image_normalization_equals_torchvision_on_unit_range():
    from torchvision.transforms.functional import normalize

    from kerasvision.layers import ImageNormalization

    image = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3), np.uint8)
    unit = _to_torch(image.astype(np.float32) / 255)
    expected = _to_numpy(normalize(unit, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ImageNormalization()(image)), expected, atol=1e-5)
