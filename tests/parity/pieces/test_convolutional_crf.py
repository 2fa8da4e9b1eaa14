"""Convolutional CRF against dense mean field over all pairs, and against windows unfolded by PyTorch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from kerasvision.ops.convolutional_crf import convolutional_crf
from tests.parity.pieces.compare import check


def _arrays(height, width, classes=4, batch=2):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (batch, height, width, classes))
    images = rng.integers(0, 100, (batch, height, width, 3))
    weights = rng.uniform(0.5, 3, (2, classes))
    compatibility = rng.normal(0, 0.2, (classes, classes)) - np.eye(classes)
    sigmas = np.array([1.7, 6.0, 25.0])
    return [array.astype(np.float32) for array in (logits, images, *weights, compatibility, sigmas)]


def _ours(kernel_size, stride, iterations):
    def refine(logits, images, first, second, compatibility, sigmas):
        return convolutional_crf(
            logits,
            images,
            iterations=iterations,
            kernel_size=kernel_size,
            stride=stride,
            position_weight=first,
            position_sigma=sigmas[0],
            bilateral_weight=second,
            bilateral_position_sigma=sigmas[1],
            bilateral_color_sigma=sigmas[2],
            compatibility=compatibility,
        )

    return refine


def _first_class(function):
    """Return the function for one class: over all, what the sigmas change nearly cancels, to float32's rounding."""
    return lambda *arrays: function(*arrays)[..., 0]


def _in_double(function):
    """Return the function computed in float64."""
    return lambda *arrays: function(*(array.double() for array in arrays)).float()


def _normalised(kernel):
    """Return D^-1/2 K D^-1/2 of (B, N, N)."""
    norm = kernel.sum(-1).rsqrt()
    return norm[:, :, None] * kernel * norm[:, None, :]


def _dense(iterations, reach=None, stride=1):
    """Return mean field with kernels of all pairs of pixels (N, N); those more than `reach` apart are cut off."""

    def refine(logits, images, first, second, compatibility, sigmas):
        batch, height, width, classes = logits.shape
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = stride * torch.stack([y, x], -1).reshape(-1, 2).to(logits.dtype)
        apart = places[:, None] - places
        window = (
            torch.ones(len(places), len(places), dtype=logits.dtype)
            if reach is None
            else (apart.abs() <= reach * stride).all(-1)
        )
        squares = apart.square().sum(-1)
        colors = images.reshape(batch, -1, 3)
        color_squares = (colors[:, :, None] - colors[:, None]).square().sum(-1)
        near = _normalised(window * torch.exp(-squares / (2 * sigmas[0] ** 2))[None])
        alike = torch.exp(-squares / (2 * sigmas[1] ** 2) - color_squares / (2 * sigmas[2] ** 2))
        alike = _normalised(window * alike)
        unary = logits.reshape(batch, -1, classes)
        energy = unary
        for _ in range(iterations):
            marginals = energy.softmax(-1)
            messages = first * (near @ marginals) + second * (alike @ marginals)
            energy = unary - messages @ compatibility.T
        return energy.reshape(logits.shape)

    return refine


def _unfolded(kernel_size, stride, iterations):
    """Return mean field at a stride, windows unfolded, cells by average pooling, pixels by interpolation."""

    def windows(cells):
        batch, channels, height, width = cells.shape
        return functional.unfold(cells, kernel_size, padding=kernel_size // 2).reshape(
            batch, channels, -1, height, width
        )

    def normalised_sum(kernel, values):
        norm = kernel.sum(1, keepdim=True).rsqrt()
        return norm * (kernel[:, None] * windows(norm * values)).sum(2)

    def shrink(values):
        return functional.avg_pool2d(values, stride, ceil_mode=True, count_include_pad=False)

    def refine(logits, images, first, second, compatibility, sigmas):
        logits, images = logits.permute(0, 3, 1, 2), shrink(images.permute(0, 3, 1, 2))
        inside = windows(torch.ones_like(images[:, :1]))[:, 0]
        steps = stride * (torch.arange(kernel_size) - kernel_size // 2).to(logits.dtype)
        squares = (steps[:, None] ** 2 + steps**2).reshape(1, -1, 1, 1)
        color_squares = (windows(images) - images[:, :, None]).square().sum(1)
        near = inside * torch.exp(-squares / (2 * sigmas[0] ** 2))
        alike = inside * torch.exp(-squares / (2 * sigmas[1] ** 2) - color_squares / (2 * sigmas[2] ** 2))
        energy = logits
        for _ in range(iterations):
            marginals = shrink(energy.softmax(1))
            messages = first[:, None, None] * normalised_sum(near, marginals)
            messages = messages + second[:, None, None] * normalised_sum(alike, marginals)
            messages = torch.einsum("kc,bchw->bkhw", compatibility, messages)
            messages = functional.interpolate(messages, scale_factor=stride, mode="bilinear", align_corners=False)
            energy = logits - messages[:, :, : logits.shape[2], : logits.shape[3]]
        return energy.permute(0, 2, 3, 1)

    return refine


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_window_over_the_picture_equals_dense_mean_field(iterations):
    check(
        "ops.convolutional_crf, whole window",
        "dense mean field over all pairs in torch",
        _ours(5, 1, iterations),
        _in_double(_dense(iterations)),
        _arrays(3, 3),
    )


def test_a_small_window_equals_dense_mean_field_cut_off():
    check(
        "ops.convolutional_crf",
        "dense mean field over all pairs in torch, cut off",
        _first_class(_ours(3, 1, 2)),
        _first_class(_in_double(_dense(2, reach=1))),
        _arrays(6, 7),
    )


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 6)])
def test_strides_equal_torch(height, width):
    check(
        "ops.convolutional_crf, strided",
        "unfold, avg_pool2d and interpolate of torch",
        _first_class(_ours(3, 4, 2)),
        _first_class(_in_double(_unfolded(3, 4, 2))),
        _arrays(height, width),
    )
