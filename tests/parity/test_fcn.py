"""FCN-32s, 16s, 8s and FCN-AlexNet against a reading of the authors' Caffe networks in PyTorch.

The layers below are those of fcn.berkeleyvision.org, voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce and
voc-fcn-alexnet, line by line, with fewer channels; their crop offsets are the prototxts' numbers.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

from kerasvision.models import fcn

CLASSES = 5
WIDTHS = (6, 8, 8, 10, 12)
ALEXNET_WIDTHS = (8, 12, 8, 8, 12)
FC = 16


def _bilinear(size):
    """Return surgery.py's bilinear filter."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    line = 1 - abs(torch.arange(size) - centre) / factor
    return torch.outer(line, line)


def _deconvolution(size, stride):
    layer = nn.ConvTranspose2d(CLASSES, CLASSES, size, stride, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(CLASSES), range(CLASSES)] = _bilinear(size)
    return layer


def _crop(maps, like, offset):
    return maps[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


class CaffeFCN(nn.Module):
    """VGG-16 with a margin of 100 pixels, pooled sizes rounded up, and the skips of one of the three strides."""

    def __init__(self, stride, scales=(1.0, 1.0)):
        super().__init__()
        self.stride, self.scales = stride, scales
        self.convolutions = nn.ModuleList()
        channels = 3
        for width, depth in zip(WIDTHS, (2, 2, 3, 3, 3), strict=True):
            for _ in range(depth):
                self.convolutions.append(nn.Conv2d(channels, width, 3, padding=1 if len(self.convolutions) else 100))
                channels = width
        self.fc6 = nn.Conv2d(channels, FC, 7)
        self.fc7 = nn.Conv2d(FC, FC, 1)
        self.score_fr = nn.Conv2d(FC, CLASSES, 1)
        if stride < 32:
            self.upscore2 = _deconvolution(4, 2)
            self.score_pool4 = nn.Conv2d(WIDTHS[3], CLASSES, 1)
        if stride < 16:
            self.upscore_pool4 = _deconvolution(4, 2)
            self.score_pool3 = nn.Conv2d(WIDTHS[2], CLASSES, 1)
        self.last = _deconvolution({32: 64, 16: 32, 8: 16}[stride], stride)

    def forward(self, data):
        pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        x, pooled = data, {}
        for number, convolution in enumerate(self.convolutions, start=1):
            x = torch.relu(convolution(x))
            if number in (2, 4, 7, 10, 13):
                x = pooled[number] = pool(x)
        score = self.score_fr(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        if self.stride == 32:
            return _crop(self.last(score), data, 19)
        upscore2 = self.upscore2(score)
        fuse = upscore2 + _crop(self.score_pool4(self.scales[0] * pooled[10]), upscore2, 5)
        if self.stride == 16:
            return _crop(self.last(fuse), data, 27)
        upscore_pool4 = self.upscore_pool4(fuse)
        fuse = upscore_pool4 + _crop(self.score_pool3(self.scales[1] * pooled[7]), upscore_pool4, 9)
        return _crop(self.last(fuse), data, 31)

    def pairs(self, ours):
        """Yield our layers and the modules that they equal."""
        blocks = [layer for layer in ours.backbone.layers if layer.weights]
        yield from zip(blocks, self.convolutions, strict=True)
        yield from ((ours.fc6, self.fc6), (ours.fc7, self.fc7), (ours.score, self.score_fr))
        if self.stride < 32:
            yield ours.skips[0].score, self.score_pool4
        if self.stride < 16:
            yield ours.skips[1].score, self.score_pool3


class CaffeFCNAlexNet(nn.Module):
    """voc-fcn-alexnet, or the same with torchvision's AlexNet."""

    def __init__(self, layout):
        super().__init__()
        groups = 2 if layout == "caffe" else 1
        one, two, three, four, five = ALEXNET_WIDTHS
        self.conv1 = nn.Conv2d(3, one, 11, stride=4, padding=100)
        self.conv2 = nn.Conv2d(one, two, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(two, three, 3, padding=1)
        self.conv4 = nn.Conv2d(three, four, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(four, five, 3, padding=1, groups=groups)
        self.norm = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0) if layout == "caffe" else nn.Identity()
        self.fc6 = nn.Conv2d(five, FC, 6)
        self.fc7 = nn.Conv2d(FC, FC, 1)
        self.score_fr = nn.Conv2d(FC, CLASSES, 1)
        self.upscore = _deconvolution(63, 32)

    def forward(self, data):
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        x = self.norm(pool(torch.relu(self.conv1(data))))
        x = self.norm(pool(torch.relu(self.conv2(x))))
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        x = pool(torch.relu(self.conv5(x)))
        score = self.score_fr(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        return _crop(self.upscore(score), data, 18)

    def pairs(self, ours):
        """Yield our layers, one a group, and the modules that they equal."""
        for number in range(1, 6):
            module = getattr(self, f"conv{number}")
            layers = [layer for layer in ours.backbone.layers if layer.weights and layer.name[:5] == f"conv{number}"]
            assert len(layers) == module.groups
            for index, layer in enumerate(layers):
                yield layer, _Group(module, index)
        yield from ((ours.fc6, self.fc6), (ours.fc7, self.fc7), (ours.score, self.score_fr))


class _Group:
    """One group of a convolution: its share of the filters."""

    def __init__(self, module, index):
        filters = module.out_channels // module.groups
        part = slice(index * filters, (index + 1) * filters)
        self.weight, self.bias = _Part(module.weight, part), _Part(module.bias, part)


class _Part:
    def __init__(self, tensor, part):
        self.tensor, self.part = tensor, part

    def detach(self):
        return self.tensor.detach()[self.part]

    @property
    def grad(self):
        return self.tensor.grad[self.part]


def _randomise(theirs):
    """Give the convolutions weights that keep the size of their features, and random biases."""
    generator = torch.Generator().manual_seed(0)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            assert module.bias is not None
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return theirs


def _copy(ours, theirs):
    for layer, module in theirs.pairs(ours):
        layer.kernel.assign(module.weight.detach().permute(2, 3, 1, 0).numpy())
        layer.bias.assign(module.bias.detach().numpy())
    filled = sum(2 for _ in theirs.pairs(ours))
    return filled


OPTIONS = {"widths": WIDTHS, "fc_filters": FC, "dropout": 0.0}
VGG_CASES = {
    "fcn32s": (fcn.fcn32s_vgg16, CaffeFCN(32), {}),
    "fcn16s": (fcn.fcn16s_vgg16, CaffeFCN(16), {}),
    "fcn8s": (fcn.fcn8s_vgg16, CaffeFCN(8), {}),
    "fcn8s-atonce": (fcn.fcn8s_vgg16, CaffeFCN(8, (0.01, 0.0001)), {"skip_scales": (0.01, 0.0001)}),
    "alexnet": (fcn.fcn32s_alexnet, CaffeFCNAlexNet("caffe"), {"widths": ALEXNET_WIDTHS}),
    "alexnet-torchvision": (
        fcn.fcn32s_alexnet,
        CaffeFCNAlexNet("torchvision"),
        {"widths": ALEXNET_WIDTHS, "layout": "torchvision"},
    ),
}


@pytest.fixture(scope="module", params=VGG_CASES)
def pair(request):
    """Return our model and the reference with the same weights."""
    build, theirs, options = VGG_CASES[request.param]
    _randomise(theirs)
    ours = build(CLASSES, **{**OPTIONS, **options})
    # All but the fixed bilinear kernels, which ours does not have.
    assert _copy(ours, theirs) == len(ours.weights)
    return ours, theirs


def _batch(size_hw):
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 255, (2, *size_hw, 3)).astype(np.float32)
    masks = generator.integers(0, CLASSES, (2, *size_hw)).astype(np.int32)
    masks[:, : size_hw[0] // 3] = 255
    return images, masks


def _theirs_input(ours, images):
    pixels = keras.ops.convert_to_numpy(ours.image_normalization(images))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _assert_close(found, expected, tolerance=1e-4):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57), (64, 64), (65, 97)])
def test_logits_equal_the_authors_networks(pair, size_hw):
    ours, theirs = pair
    images, _ = _batch(size_hw)
    with torch.no_grad():
        expected = theirs(_theirs_input(ours, images)).permute(0, 2, 3, 1).numpy()
    assert expected.shape == (2, *size_hw, CLASSES)
    _assert_close(ours(images), expected)


def test_loss_and_gradients_equal_the_authors_networks(pair):
    ours, theirs = pair
    images, masks = _batch((31, 57))
    theirs.zero_grad()
    logits = theirs(_theirs_input(ours, images))
    # Caffe's SoftmaxWithLoss with ignore_label 255; normalised, as voc-fcn-alexnet has it.
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(masks).long(), ignore_index=255)
    expected.backward()
    with tf.GradientTape() as tape:
        losses = ours.compute_losses(images, masks, training=True)
    assert set(losses) == {"cross_entropy"}
    np.testing.assert_allclose(float(losses["cross_entropy"]), expected.item(), rtol=1e-4)
    pairs = list(theirs.pairs(ours))
    variables = [variable.value for layer, _ in pairs for variable in (layer.kernel, layer.bias)]
    gradients = iter(tape.gradient(losses["cross_entropy"], variables))
    for _, module in pairs:
        _assert_close(next(gradients), module.weight.grad.permute(2, 3, 1, 0))
        _assert_close(next(gradients), module.bias.grad)


def test_learned_upsampling_equals_the_papers_deconvolutions():
    theirs = _randomise(CaffeFCN(8))
    ours = fcn.fcn8s_vgg16(CLASSES, learned_upsampling=True, **OPTIONS)
    filled = _copy(ours, theirs)
    deconvolutions = (theirs.upscore2, theirs.upscore_pool4)
    for skip, module in zip(ours.skips, deconvolutions, strict=True):
        _assert_close(skip.enlarge.kernel.value, module.weight.detach().permute(2, 3, 1, 0), 1e-6)  # bilinear at first
        module.weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        skip.enlarge.kernel.assign(module.weight.detach().permute(2, 3, 1, 0).numpy())
    assert filled + 2 == len(ours.trainable_variables) == len(ours.weights)
    images, masks = _batch((31, 57))
    logits = theirs(_theirs_input(ours, images))
    _assert_close(ours(images), logits.detach().permute(0, 2, 3, 1))
    nn.functional.cross_entropy(logits, torch.from_numpy(masks).long(), ignore_index=255).backward()
    with tf.GradientTape() as tape:
        loss = ours.compute_losses(images, masks)["cross_entropy"]
    gradients = tape.gradient(loss, [skip.enlarge.kernel.value for skip in ours.skips])
    for found, module in zip(gradients, deconvolutions, strict=True):
        assert module.weight.grad is not None
        _assert_close(found, module.weight.grad.permute(2, 3, 1, 0))
