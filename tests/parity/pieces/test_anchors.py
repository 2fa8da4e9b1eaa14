"""Anchors against torchvision's and effdet's; YOLO's decoding against darknet's formula."""

import numpy as np
import pytest
import torch
from effdet.anchors import Anchors
from keras import ops
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchAnchors
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as TorchDefaultBoxes
from torchvision.models.detection.image_list import ImageList

from kerasvision.layers import AnchorGenerator, DefaultBoxGenerator, OctaveAnchorGenerator, PriorBoxGenerator
from kerasvision.ops.anchors import decode_yolo
from tests.parity.pieces.compare import check

SSD300 = {"scales": [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05], "steps": [8, 16, 32, 64, 100, 300]}
SSD512 = {"scales": [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05], "steps": [8, 16, 32, 64, 128, 256, 512]}


def _grids(size_hw, strides):
    return [tuple(-(-side // stride) for side in size_hw) for stride in strides]


def _check(piece, reference, layer, expected, grids, size_hw):
    check(
        piece,
        reference,
        lambda: ops.concatenate(layer(grids_hw=grids, image_hw=size_hw)),
        lambda: np.asarray(expected),
        [],
        numpy_reference=True,
    )


def _theirs(generator, size_hw, grids):
    features = [torch.zeros(1, 1, *grid) for grid in grids]
    (boxes,) = generator(ImageList(torch.zeros(1, 3, *size_hw), [size_hw]), features)
    return boxes.numpy()


@pytest.mark.parametrize("size", [(64, 96), (100, 75), (37, 211)])
def test_retinanet_anchors_equal_torchvision(size):
    sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128))
    ratios, grids = (0.5, 1.0, 2.0), _grids(size, (8, 16, 32))
    expected = _theirs(TorchAnchors(sizes, (ratios,) * 3), size, grids)
    _check(
        "layers.AnchorGenerator", "torchvision AnchorGenerator", AnchorGenerator(sizes, ratios), expected, grids, size
    )


def test_rpn_anchors_equal_torchvision():
    sizes, size, grids = ((32,), (64,)), (50, 70), _grids((50, 70), (4, 8))
    expected = _theirs(TorchAnchors(sizes, ((0.5, 1.0, 2.0),) * 2), size, grids)
    _check("layers.AnchorGenerator", "torchvision AnchorGenerator", AnchorGenerator(sizes), expected, grids, size)


@pytest.mark.parametrize(
    ("ratios", "size", "grids", "options"),
    [
        ([[2], [2, 3], [2, 3], [2, 3], [2], [2]], (300, 300), [(s, s) for s in (38, 19, 10, 5, 3, 1)], SSD300),
        ([[2], *[[2, 3]] * 4, [2], [2]], (512, 512), [(s, s) for s in (64, 32, 16, 8, 4, 2, 1)], SSD512),
        ([[2, 3]] * 6, (320, 320), [(s, s) for s in (20, 10, 5, 3, 2, 1)], {"min_ratio": 0.2, "max_ratio": 0.95}),
        ([[2], [3]], (200, 320), [(7, 10), (4, 5)], {"clip": False, "scales": [0.3, 0.9, 1.2]}),
    ],
)
def test_default_boxes_equal_torchvision(ratios, size, grids, options):
    names = {"min_ratio": "smallest", "max_ratio": "largest", "clip": "clipped"}
    layer = DefaultBoxGenerator(ratios, **{names.get(name, name): value for name, value in options.items()})
    expected = _theirs(TorchDefaultBoxes(ratios, **options), size, grids)
    assert [len(level) + len(level) + 2 for level in ratios] == list(layer.anchors_per_cell)
    _check("layers.DefaultBoxGenerator", "torchvision DefaultBoxGenerator", layer, expected, grids, size)


@pytest.mark.parametrize(
    ("size", "ratios", "scale"),
    [
        ((128, 256), ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), 4.0),
        ((128, 128), (1.0, 2.0, 0.5), 5.0),
    ],
)
def test_octave_anchors_equal_effdet(size, ratios, scale):
    theirs = Anchors(3, 7, 3, list(ratios), scale, size)
    expected = theirs.boxes.numpy()[:, [1, 0, 3, 2]]  # effdet has yxyx
    grids = theirs.feat_sizes[3:]
    layer = OctaveAnchorGenerator(5, 3, ratios, scale)
    assert layer.anchors_per_cell == theirs.get_anchors_per_location()
    _check("layers.OctaveAnchorGenerator", "effdet Anchors", layer, expected, grids, size)


@pytest.mark.parametrize("scale_xy", [1.0, 1.2])
def test_yolo_boxes_equal_darknets_formula(scale_xy):
    priors, grid, stride = np.array([[10.0, 13.0], [33.0, 23.0]], np.float32), (3, 5), 8
    outputs = np.random.default_rng(0).uniform(-4, 4, (2, 3, 5, 2, 4)).astype(np.float32)

    def ours(values):
        (cells,) = PriorBoxGenerator([priors.tolist()])(grids_hw=[grid], image_hw=(24, 40))
        return decode_yolo(ops.reshape(values, (2, -1, 4)), cells, stride, scale_xy=scale_xy)

    def theirs(values):
        """Follow the model's output layer: x = (i + s sigmoid(t) - (s - 1) / 2) / columns, w = exp(t) prior / width."""
        row = torch.arange(3.0)[:, None, None]
        column = torch.arange(5.0)[None, :, None]
        shift = (scale_xy - 1) / 2
        widths, heights = torch.from_numpy(priors).T
        x = (column + torch.sigmoid(values[..., 0]) * scale_xy - shift) / 5 * 40
        y = (row + torch.sigmoid(values[..., 1]) * scale_xy - shift) / 3 * 24
        w, h = torch.exp(values[..., 2]) * widths, torch.exp(values[..., 3]) * heights
        return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).reshape(2, -1, 4)

    check("ops.anchors.decode_yolo", "darknet's yolo_layer.c, its formula in torch", ours, theirs, [outputs])
