"""UNet-S5-D16, U-Net++ and attention U-Net against segmentation_models.pytorch and our own readings.

mmsegmentation is not installed: its network is read here from its configuration and the names of its tensors; attention
U-Net from equations 1 and 2 of the paper, in two dimensions.
"""

import itertools

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import tensorflow as tf
import torch
from torch import nn
from torch.nn import functional

import zoo
from kerasvision.models.attention_unet import attention_unet
from kerasvision.models.auxiliary import auxiliary_logits
from kerasvision.models.unet_plus_plus import unet_plus_plus
from tests.parity.unet_pairs import (
    assert_equal_logits,
    assert_equal_training,
    image_batch,
    masks_of,
    randomise,
    to_torch,
)
from zoo.converters.assign import Assignment, assign, kernel_from_torch
from zoo.converters.unet import MMSEG_UNET_S5_D16, SMP_UNET_PLUS_PLUS

WIDTHS = (6, 8, 12, 16, 24)


def _conv_bn(channels, width, kernel_size):
    convolution = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.ModuleDict({"conv": convolution, "bn": nn.BatchNorm2d(width)})


def _run(parts, x):
    return parts["bn"](parts["conv"](x)).relu()


# --- UNet-S5-D16


class S5D16(nn.Module):
    """The configuration fcn_unet_s5-d16: backbone, decode head and auxiliary head, without dropout."""

    def __init__(self, widths, classes, head):
        super().__init__()
        encoder, decoder = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(widths):
            block = self._two(3 if index == 0 else widths[index - 1], width)
            encoder.append(nn.ModuleList([block] if index == 0 else [nn.MaxPool2d(2), block]))
        for skip, channels in itertools.pairwise(widths):
            enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            up = nn.ModuleDict({"interp_upsample": nn.ModuleList([enlarge, _conv_bn(channels, skip, 1)])})
            decoder.append(nn.ModuleDict({"upsample": up, "conv_block": self._two(2 * skip, skip)}))
        self.backbone = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.decode_head, self.auxiliary_head = (
            nn.ModuleDict({"convs": nn.ModuleList([_conv_bn(width, head, 3)]), "conv_seg": nn.Conv2d(head, classes, 1)})
            for width in widths[:2]
        )

    @staticmethod
    def _two(channels, width):
        return nn.ModuleDict({"convs": nn.ModuleList([_conv_bn(channels, width, 3), _conv_bn(width, width, 3)])})

    def forward(self, x):
        size, features = x.shape[2:], []
        for *pooling, block in self.backbone["encoder"]:
            x = pooling[0](x) if pooling else x
            for parts in block["convs"]:
                x = _run(parts, x)
            features.append(x)
        outputs = [features.pop()]
        for step in list(self.backbone["decoder"])[::-1]:
            enlarge, reduce = step["upsample"]["interp_upsample"]
            x = torch.cat([features.pop(), _run(reduce, enlarge(outputs[-1]))], 1)
            for parts in step["conv_block"]["convs"]:
                x = _run(parts, x)
            outputs.append(x)
        heads = ((self.decode_head, outputs[4]), (self.auxiliary_head, outputs[3]))
        logits = (head["conv_seg"](_run(head["convs"][0], x)) for head, x in heads)
        return tuple(functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in logits)


def test_unet_s5_d16_loads_mmsegmentations_layout_and_equals_it(tmp_path):
    theirs = randomise(S5D16(WIDTHS, 5, 7))
    state = theirs.state_dict()
    # Names as they stand in mmsegmentation's files.
    assert {
        "backbone.encoder.0.0.convs.0.conv.weight",
        "backbone.encoder.4.1.convs.1.bn.running_var",
        "backbone.decoder.3.upsample.interp_upsample.1.conv.weight",
        "backbone.decoder.0.conv_block.convs.1.bn.weight",
        "decode_head.convs.0.conv.weight",
        "auxiliary_head.conv_seg.bias",
    } <= set(state)
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "mmseg.pth")
    options = {"weights": tmp_path / "mmseg.pth", "widths": WIDTHS, "head_filters": 7, "dropout": 0.0}
    ours = zoo.get("unet_s5_d16", **options)
    assert ours.num_classes == 5
    images = image_batch(64, 96)
    assert_equal_logits(ours, theirs, images)
    with torch.no_grad():
        expected = theirs(to_torch(images))[1].permute(0, 2, 3, 1).numpy()
    (found,) = auxiliary_logits(ours(images))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4 * np.abs(expected).max())
    ours = zoo.get("unet_s5_d16", dtype="float64", **options)
    pairs = MMSEG_UNET_S5_D16.assignments(ours)
    assert_equal_training(ours, theirs, images, masks_of(images, 5), pairs, auxiliary_weight=0.4)


def test_unet_s5_d16_has_the_parameters_of_the_reading():
    with torch.device("meta"):
        theirs = S5D16((64, 128, 256, 512, 1024), 19, 64)
    statistics = sum(buffer.numel() for name, buffer in theirs.named_buffers() if "running" in name)
    count = sum(parameter.numel() for parameter in theirs.parameters()) + statistics
    assert count == zoo.info("unet_s5_d16").parameters


# --- U-Net++


def test_unet_plus_plus_resnet34_equals_smp(tmp_path):
    theirs = randomise(smp.UnetPlusPlus("resnet34", encoder_weights=None, classes=5))
    torch.save(theirs.state_dict(), tmp_path / "smp.pth")
    ours = zoo.get("unet_plus_plus_resnet34", weights=tmp_path / "smp.pth")
    assert ours.num_classes == 5
    images = image_batch(64, 96)
    assert_equal_logits(ours, theirs, images)
    pairs = SMP_UNET_PLUS_PLUS.assignments(ours)
    assert_equal_training(ours, theirs, images, masks_of(images, 5), pairs, training=False)


class Nested(nn.Module):
    """Figure 1 of the U-Net++ paper with deep supervision, three levels written out node by node."""

    def __init__(self, a, b, c, classes):
        super().__init__()
        self.x00, self.x10, self.x20 = self._two(3, a), self._two(a, b), self._two(b, c)
        self.up10, self.up20, self.up11 = (nn.ConvTranspose2d(i, o, 2, 2) for i, o in ((b, a), (c, b), (b, a)))
        self.x01, self.x11, self.x02 = self._two(2 * a, a), self._two(2 * b, b), self._two(3 * a, a)
        self.head1, self.head2 = nn.Conv2d(a, classes, 1), nn.Conv2d(a, classes, 1)

    @staticmethod
    def _two(channels, width):
        return nn.ModuleList([_conv_bn(channels, width, 3), _conv_bn(width, width, 3)])

    def branches(self, x):
        def two(parts, *inputs):
            return _run(parts[1], _run(parts[0], torch.cat(inputs, 1)))

        x00 = two(self.x00, x)
        x10 = two(self.x10, functional.max_pool2d(x00, 2))
        x20 = two(self.x20, functional.max_pool2d(x10, 2))
        x01 = two(self.x01, self.up10(x10), x00)
        x11 = two(self.x11, self.up20(x20), x10)
        x02 = two(self.x02, self.up11(x11), x01, x00)
        return self.head1(x01), self.head2(x02)

    def forward(self, x):
        first, second = self.branches(x)
        return (first + second) / 2

    def pairs(self, model):
        levels = [getattr(layer, "convolutions", layer) for layer in model.backbone.layers if "level" in layer.name]
        parts = dict(zip(("x00", "x10", "x20"), levels, strict=True))
        for name, node, up in (("x01", "0_1", "up10"), ("x11", "1_1", "up20"), ("x02", "0_2", "up11")):
            parts[name] = model.nodes[node].convolutions
            yield from _convolution(up, model.nodes[node].up)
        for name, part in parts.items():
            yield from _conv_bn_pairs(f"{name}.0", part.first)
            yield from _conv_bn_pairs(f"{name}.1", part.second)
        yield from _convolution("head1", model.heads[0])
        yield from _convolution("head2", model.heads[1])


def _convolution(name, layer):
    yield Assignment(f"{name}.weight", layer.kernel, kernel_from_torch)
    if layer.bias is not None:
        yield Assignment(f"{name}.bias", layer.bias)


def _conv_bn_pairs(name, block):
    yield Assignment(f"{name}.conv.weight", block.kernel, kernel_from_torch)
    norm = block.normalization
    yield Assignment(f"{name}.bn.weight", norm.gamma)
    yield Assignment(f"{name}.bn.bias", norm.beta)
    yield Assignment(f"{name}.bn.running_mean", norm.moving_mean)
    yield Assignment(f"{name}.bn.running_var", norm.moving_variance)


def _fill(ours, theirs):
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    assign(ours, state, theirs.pairs(ours), origin="the reading", target="ours")


def test_unet_plus_plus_with_deep_supervision_equals_the_paper():
    theirs = randomise(Nested(6, 8, 12, 3))
    images = image_batch(32, 48)
    options = {"widths": (6, 8, 12), "deep_supervision": True}
    ours = unet_plus_plus(3, **options)
    _fill(ours, theirs)
    assert_equal_logits(ours, theirs, images)  # the mean of both branches
    with torch.no_grad():
        branches = [branch.permute(0, 2, 3, 1).numpy() for branch in theirs.branches(to_torch(images))]
    for number, expected in enumerate(branches, start=1):
        selected = unet_plus_plus(3, **options, branch=number)
        selected.set_weights(ours.get_weights())
        np.testing.assert_allclose(selected(images).numpy(), expected, atol=1e-4 * np.abs(expected).max())
    # Each branch has its own loss; the mean of them is minimised, whichever answers.
    masks = masks_of(images, 3)
    target = torch.from_numpy(masks).long()
    losses = [
        functional.cross_entropy(branch, target, ignore_index=255) for branch in theirs.branches(to_torch(images))
    ]
    for model in (ours, selected):
        found = model.compute_losses(images, tf.constant(masks))["cross_entropy"]
        np.testing.assert_allclose(float(found), sum(loss.item() for loss in losses) / 2, rtol=1e-4)


# --- attention U-Net


class Attention(nn.Module):
    """U-Net of three levels; the middle skip connection is gated by the bottom, the finest is not."""

    def __init__(self, a, b, c, classes):
        super().__init__()
        self.x0, self.x1, self.x2 = Nested._two(3, a), Nested._two(a, b), Nested._two(b, c)
        self.theta = nn.Conv2d(b, b, 2, 2, bias=False)
        self.phi, self.psi = nn.Conv2d(c, b, 1), nn.Conv2d(b, 1, 1)
        self.up1, self.up0 = nn.ConvTranspose2d(c, b, 2, 2), nn.ConvTranspose2d(b, a, 2, 2)
        self.y1, self.y0 = Nested._two(2 * b, b), Nested._two(2 * a, a)
        self.head = nn.Conv2d(a, classes, 1)

    def forward(self, x):
        def two(parts, x):
            return _run(parts[1], _run(parts[0], x))

        x0 = two(self.x0, x)
        x1 = two(self.x1, functional.max_pool2d(x0, 2))
        x2 = two(self.x2, functional.max_pool2d(x1, 2))
        attention = torch.sigmoid(self.psi(torch.relu(self.theta(x1) + self.phi(x2))))
        gated = x1 * functional.interpolate(attention, size=x1.shape[2:], mode="bilinear", align_corners=False)
        y1 = two(self.y1, torch.cat([self.up1(x2), gated], 1))
        return self.head(two(self.y0, torch.cat([self.up0(y1), x0], 1)))

    def pairs(self, model):
        levels = [getattr(layer, "convolutions", layer) for layer in model.backbone.layers if "level" in layer.name]
        steps = [block.convolutions for block in model.decoder]
        for name, part in zip(("x0", "x1", "x2", "y1", "y0"), [*levels, *steps], strict=True):
            yield from _conv_bn_pairs(f"{name}.0", part.first)
            yield from _conv_bn_pairs(f"{name}.1", part.second)
        (gate,) = model.gates
        for name, layer in (("theta", gate.theta), ("phi", gate.phi), ("psi", gate.psi), ("head", model.head)):
            yield from _convolution(name, layer)
        for name, block in zip(("up1", "up0"), model.decoder, strict=True):
            yield from _convolution(name, block.up)


def test_attention_unet_equals_the_paper():
    theirs = randomise(Attention(6, 8, 12, 3))
    ours = attention_unet(3, widths=(6, 8, 12))
    _fill(ours, theirs)
    images = image_batch(48, 64)
    assert_equal_logits(ours, theirs, images)
    ours = attention_unet(3, widths=(6, 8, 12), dtype="float64")
    _fill(ours, theirs)
    assert_equal_training(ours, theirs, images, masks_of(images, 3), theirs.pairs(ours))


@pytest.mark.parametrize("size", [(1, 1), (31, 57)])
def test_attention_unet_of_any_size_equals_the_paper_on_padded_images(size):
    theirs = randomise(Attention(6, 8, 12, 3))
    ours = attention_unet(3, widths=(6, 8, 12))
    _fill(ours, theirs)
    images = image_batch(*size)
    rows, columns = (-side % 4 for side in size)
    with torch.no_grad():
        expected = theirs(functional.pad(to_torch(images), (0, columns, 0, rows)))
    expected = expected.permute(0, 2, 3, 1).numpy()[:, : size[0], : size[1]]
    np.testing.assert_allclose(ours(images).numpy(), expected, atol=1e-4 * np.abs(expected).max())
