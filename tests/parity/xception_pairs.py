"""Which tensor of timm's Xception is which variable of ours, and both of them small."""

import functools

import torch
from timm.models.xception_aligned import XceptionAligned

from kerasvision.backbones.xception import Xception
from zoo.converters.assign import Assignment, kernel_from_torch


def xception_pairs(model):
    """Pair an `Xception` with timm's `XceptionAligned`."""

    def block(convolution, norm, layer, *, transform=kernel_from_torch):
        yield Assignment(f"{convolution}.weight", layer.kernel, transform)
        for source, variable in (
            ("weight", layer.normalization.gamma),
            ("bias", layer.normalization.beta),
            ("running_mean", layer.normalization.moving_mean),
            ("running_var", layer.normalization.moving_variance),
        ):
            yield Assignment(f"{norm}.{source}", variable)

    for index in (0, 1):
        yield from block(f"stem.{index}.conv", f"stem.{index}.bn", model.get_layer(f"stem{index + 1}"))
    separable = [layer for layer in model.layers if "separable" in layer.name]
    names = list(dict.fromkeys(layer.name.split("_")[0] for layer in separable))
    for layer in separable:
        name, part = layer.name.split("_separable")
        prefix = f"blocks.{names.index(name)}.stack.conv{int(part) + 1}"
        yield from block(
            f"{prefix}.conv_dw", f"{prefix}.bn_dw", layer.depthwise, transform=lambda array: array.transpose(2, 3, 0, 1)
        )
        yield from block(f"{prefix}.conv_pw", f"{prefix}.bn_pw", layer.pointwise)
    for layer in model.layers:
        if layer.name.endswith("_shortcut"):
            prefix = f"blocks.{names.index(layer.name.split('_')[0])}.shortcut"
            yield from block(f"{prefix}.conv", f"{prefix}.bn", layer)


def small_xceptions(output_stride=32):
    """Return a small network of Xception-71's shape, timm's and ours; the stem has timm's 32 and 64 channels."""
    entry = ((16, 2), (24, 1), (24, 2), (32, 1), (32, 2))
    rows = zip((64, 16, 24, 24, 32), entry, strict=True)
    blocks = [
        *({"in_chs": channels, "out_chs": filters, "stride": stride} for channels, (filters, stride) in rows),
        {"in_chs": 32, "out_chs": 32, "stride": 1},
        {"in_chs": 32, "out_chs": (32, 48, 48), "stride": 2},
        {"in_chs": 48, "out_chs": (56, 56, 64), "stride": 1, "no_skip": True, "start_with_relu": False},
    ]
    norm = functools.partial(torch.nn.BatchNorm2d, eps=1e-3)
    theirs = XceptionAligned(blocks, num_classes=0, norm_layer=norm, output_stride=output_stride)
    return theirs, Xception(entry, 1, exit_filters=(48, 56, 64), output_stride=output_stride)
