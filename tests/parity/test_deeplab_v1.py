"""DeepLab-LargeFOV against a reading of the authors' Caffe network in PyTorch: logits, loss, gradients.

The layers below are those of the released DeepLab-LargeFOV (train.prototxt and test.prototxt), with fewer channels.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

from kerasvision.models.deeplab_v1 import deeplab_v1_vgg16

CLASSES = 5
WIDTHS = (6, 8, 8, 10, 12)
FC = 16


class LargeFOV(nn.Module):
    """VGG-16 with 3x3 poolings, holes in conv5 and fc6, 8 pixels a cell."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList()
        channels = 3
        for block, (width, depth) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True), start=1):
            hole = 2 if block == 5 else 1
            for _ in range(depth):
                self.convolutions.append(nn.Conv2d(channels, width, 3, padding=hole, dilation=hole))
                channels = width
        self.fc6 = nn.Conv2d(channels, FC, 3, padding=12, dilation=12)
        self.fc7 = nn.Conv2d(FC, FC, 1)
        self.fc8 = nn.Conv2d(FC, CLASSES, 1)

    def forward(self, data):
        x = data
        for number, convolution in enumerate(self.convolutions, start=1):
            x = torch.relu(convolution(x))
            if number in (2, 4, 7):
                x = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
            elif number in (10, 13):
                x = nn.functional.max_pool2d(x, 3, 1, 1, ceil_mode=True)
        x = nn.functional.avg_pool2d(x, 3, 1, 1)  # pool5a
        x = self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        # Interp, zoom_factor 8: n + 7 (n - 1) pixels, the first and the last of which are cells.
        size = [n + 7 * (n - 1) for n in x.shape[2:]]
        x = nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)
        return x[:, :, : data.shape[2], : data.shape[3]]

    def pairs(self, ours):
        """Yield our layers and the modules that they equal."""
        yield from zip([layer for layer in ours.backbone.layers if layer.weights], self.convolutions, strict=True)
        yield from ((ours.fc6, self.fc6), (ours.fc7, self.fc7), (ours.score, self.fc8))


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    theirs = LargeFOV()
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            assert module.bias is not None
            module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    ours = deeplab_v1_vgg16(CLASSES, widths=WIDTHS, fc_filters=FC, dropout=0.0)
    pairs = list(theirs.pairs(ours))
    for layer, module in pairs:
        layer.kernel.assign(module.weight.detach().permute(2, 3, 1, 0).numpy())
        layer.bias.assign(module.bias.detach().numpy())
    assert 2 * len(pairs) == len(ours.weights)
    return ours, theirs


def _batch(size_hw):
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 255, (2, *size_hw, 3)).astype(np.float32)
    masks = generator.integers(0, CLASSES, (2, *size_hw)).astype(np.int32)
    masks[:, : size_hw[0] // 3] = 255
    return images, masks


def _theirs_input(ours, images):
    return torch.from_numpy(keras.ops.convert_to_numpy(ours.image_normalization(images))).permute(0, 3, 1, 2)


def _assert_close(found, expected, tolerance=1e-4):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57), (64, 64), (65, 97), (321, 321)])
def test_logits_equal_the_authors_network(pair, size_hw):
    ours, theirs = pair
    images, _ = _batch(size_hw)
    with torch.no_grad():
        expected = theirs(_theirs_input(ours, images)).permute(0, 2, 3, 1).numpy()
    assert expected.shape == (2, *size_hw, CLASSES)
    _assert_close(ours(images), expected)


def test_loss_and_gradients_equal_the_authors_network(pair):
    ours, theirs = pair
    images, masks = _batch((65, 94))
    logits = theirs(_theirs_input(ours, images))
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
