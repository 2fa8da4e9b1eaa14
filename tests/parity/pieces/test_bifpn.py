"""BiFPN against effdet's, of five levels over three of a backbone."""

import numpy as np
import pytest
import torch
from effdet.config import get_efficientdet_config
from effdet.efficientdet import BiFpn

from kerasvision.layers import BiFPN
from tests.parity.pieces.modules import check_module, convolution_pairs

CHANNELS = (5, 6, 7)


def _reference(image_hw, filters, repeats, fusion, tensorflow, use_bias):
    config = get_efficientdet_config("tf_efficientdet_d0" if tensorflow else "efficientdet_d0")
    config.image_size = image_hw
    config.fpn_channels = filters
    config.fpn_cell_repeats = repeats
    config.redundant_bias = use_bias
    config.fpn_name = {"fast": "bifpn_fa", "softmax": "bifpn_attn", "sum": "bifpn_sum"}[fusion]
    return BiFpn(config, [{"num_chs": count} for count in CHANNELS])


def _separable_pairs(block, convolution):
    yield block.depthwise.kernel, convolution.conv_dw.weight
    yield from convolution_pairs(block.pointwise, convolution.conv_pw, convolution.bn)


def _pairs(ours, theirs):
    if ours.projection is not None:
        yield from convolution_pairs(ours.projection, theirs.resample["3"].conv.conv, theirs.resample["3"].conv.bn)
    for mine, cell in zip(ours.cells, theirs.cell, strict=True):
        last = len(mine.down_projections) - 1
        # effdet lists the nodes in the order in which they are made.
        nodes = [(level, mine.down_projections, mine.down_fusions, mine.down_convolutions) for level in range(last)]
        nodes.reverse()
        nodes += [(level, mine.up_projections, mine.up_fusions, mine.up_convolutions) for level in range(last)]
        for (level, projections, fusions, convolutions), node in zip(nodes, cell.fnode, strict=True):
            if fusions[level].edge_weights is not None:
                yield fusions[level].edge_weights, node.combine.edge_weights
            if projections[level] is not None:
                own = next(iter(node.combine.resample.values())).conv
                yield from convolution_pairs(projections[level], own.conv, own.bn)
            yield from _separable_pairs(convolutions[level], node.after_combine.conv)


@pytest.mark.parametrize(
    ("fusion", "tensorflow", "training", "image_hw", "repeats"),
    [
        ("fast", True, False, (136, 72), 1),  # levels of 17x9, 9x5, 5x3, 3x2, 2x1
        ("fast", True, True, (256, 256), 2),
        ("softmax", False, False, (128, 192), 1),
        ("sum", False, True, (264, 264), 1),
    ],
)
def test_bifpn_equals_effdet(fusion, tensorflow, training, image_hw, repeats):
    torch.manual_seed(0)
    filters = 16
    # Under the statistics of a batch, the gradient of a bias before them is zero, and would be rounding only.
    use_bias = tensorflow and not training
    theirs = _reference(image_hw, filters, repeats, fusion, tensorflow, use_bias)
    ours = BiFPN(
        filters,
        repeats,
        fusion=fusion,
        padding="same" if tensorflow else "symmetric",
        use_bias=use_bias,
    )
    ours.build([(None, None, None, count) for count in CHANNELS])
    rng = np.random.default_rng(0)
    features = [
        rng.normal(size=(2, -(-image_hw[0] // stride), -(-image_hw[1] // stride), count)).astype(np.float32)
        for stride, count in zip((8, 16, 32), CHANNELS, strict=True)
    ]
    name = f"effdet BiFpn, {fusion}{', TensorFlow padding' if tensorflow else ''}"
    check_module("layers.BiFPN", name, ours, theirs, _pairs(ours, theirs), features, training=training)
