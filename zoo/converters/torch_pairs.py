"""Pairs that all layouts from PyTorch are made of: a convolution block and its normalisation."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasvision.layers import DepthwiseConvolutionBlock
from zoo.converters.assign import Assignment, Transform, kernel_from_torch

Pairs = Iterator[Assignment]

# PyTorch's batch normalisation counts its batches; nothing here does.
BATCH_COUNTERS = r".*\.num_batches_tracked"


def depthwise_from_torch(array: np.ndarray) -> np.ndarray:
    """Turn a depthwise kernel (C, 1, H, W) into (H, W, C, 1)."""
    return array.transpose(2, 3, 0, 1)


def block_pairs(
    name: str, block: Any, *, norm: str | None = None, transform: Transform | None = None, head: bool = False
) -> Pairs:
    """Pair a convolution block with a torch convolution and its batch normalisation.

    Args:
        name: Of the torch convolution.
        block: `ConvolutionBlock` or `DepthwiseConvolutionBlock`.
        norm: Name of the torch normalisation; not used if the block has none.
        transform: Of the kernel; default: by the kind of block.
        head: See `Assignment`.
    """
    if transform is None:
        is_depthwise = isinstance(block, DepthwiseConvolutionBlock)
        transform = depthwise_from_torch if is_depthwise else kernel_from_torch
    yield Assignment(f"{name}.weight", block.kernel, transform, head=head)
    if block.bias is not None:
        yield Assignment(f"{name}.bias", block.bias, head=head)
    if norm is not None and block.normalization is not None:
        yield Assignment(f"{norm}.weight", block.normalization.gamma)
        yield Assignment(f"{norm}.bias", block.normalization.beta)
        yield Assignment(f"{norm}.running_mean", block.normalization.moving_mean)
        yield Assignment(f"{norm}.running_var", block.normalization.moving_variance)
