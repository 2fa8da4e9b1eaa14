"""U-Nets against segmentation_models.pytorch and against our own readings of the paper's and milesial's layouts.

Weights and statistics are random. milesial's network (github.com/milesial/Pytorch-UNet) is under the GPL: what is here
was written from the names and shapes of its tensors and the order of its operations alone.
"""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional

import zoo
from kerasvision.models.unet import unet_batch_norm, unet_valid
from tests.parity.unet_pairs import (
    assert_equal_logits,
    assert_equal_training,
    image_batch,
    masks_of,
    randomise,
    to_torch,
)
from zoo.converters.assign import Assignment, assign, kernel_from_torch
from zoo.converters.unet import MILESIAL_UNET, SMP_UNET

WIDTHS = (6, 8, 12, 16, 24)


class PaperUNet(nn.Module):
    """Figure 1 of the paper: unpadded convolutions with ReLU, pooling, up-convolutions, skips cropped to the centre."""

    def __init__(self, widths, classes):
        super().__init__()
        channels = 3
        self.down, self.up, self.joined = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width in widths:
            self.down.append(nn.ModuleList([nn.Conv2d(channels, width, 3), nn.Conv2d(width, width, 3)]))
            channels = width
        for width in widths[-2::-1]:
            self.up.append(nn.ConvTranspose2d(channels, width, 2, 2))
            self.joined.append(nn.ModuleList([nn.Conv2d(2 * width, width, 3), nn.Conv2d(width, width, 3)]))
            channels = width
        self.last = nn.Conv2d(channels, classes, 1)

    def tile(self, x):
        """Return the logits of a tile, smaller than it by the network's context."""
        skips = []
        for index, convolutions in enumerate(self.down):
            x = functional.max_pool2d(x, 2) if index else x
            for convolution in convolutions:
                x = convolution(x).relu()
            skips.append(x)
        skips.pop()
        for up, convolutions in zip(self.up, self.joined, strict=True):
            x, skip = up(x), skips.pop()
            top, left = ((skip.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = torch.cat([x, skip], 1)
            for convolution in convolutions:
                x = convolution(x).relu()
        return self.last(x)

    def forward(self, x):
        """Return the logits of the whole image, mirrored by numpy at its borders."""
        height, width = x.shape[2:]
        # Logits have 16 k + 4 pixels a side, and 92 less at each end than the tile.
        more = [-(size - 4) % 16 for size in (height, width)]
        margins = [(0, 0), (0, 0), (92, 92 + more[0]), (92, 92 + more[1])]
        places = torch.arange(height * width).reshape(1, 1, height, width)
        places = torch.from_numpy(np.pad(places.numpy(), margins, mode="reflect"))
        mirrored = x.flatten(2)[:, :, places.flatten()].reshape(*x.shape[:2], *places.shape[2:])
        return self.tile(mirrored)[:, :, :height, :width]

    def pairs(self, model):
        """Yield which of our variables has which of these weights."""
        levels = [getattr(layer, "convolutions", layer) for layer in model.backbone.layers if "level" in layer.name]
        blocks = [block.convolutions for block in model.decoder]
        for name, parts in (("down", levels), ("joined", blocks)):
            for index, part in enumerate(parts):
                for number, convolution in enumerate((part.first, part.second)):
                    yield from _convolution(f"{name}.{index}.{number}", convolution)
        for index, block in enumerate(model.decoder):
            yield from _convolution(f"up.{index}", block.up)
        yield from _convolution("last", model.head)


def _convolution(name, layer):
    yield Assignment(f"{name}.weight", layer.kernel, kernel_from_torch)
    yield Assignment(f"{name}.bias", layer.bias)


@pytest.fixture(scope="module")
def paper():
    theirs = randomise(PaperUNet(WIDTHS, 2))
    ours = unet_valid(2, widths=WIDTHS, dropout=0.0)
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    assign(ours, tensors, theirs.pairs(ours), origin="the paper's", target="ours")
    return theirs, ours


def test_paper_sizes_are_572_and_388(paper):
    theirs, ours = paper
    images = image_batch(388, 388, count=1)
    assert tuple(ours.prepare(images).shape) == (1, 572, 572, 3)
    with torch.no_grad():
        tile = theirs.tile(torch.zeros(1, 3, 572, 572))
    assert tuple(tile.shape) == (1, 2, 388, 388)
    assert_equal_logits(ours, theirs, images)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (31, 57), (100, 20)])
def test_valid_unet_equals_the_paper_on_mirrored_images(paper, size):
    theirs, ours = paper
    assert_equal_logits(ours, theirs, image_batch(*size))


def test_valid_unet_of_a_tile_within_an_image_equals_the_whole(paper):
    """What the overlap-tile strategy rests on: 92 pixels of real context give the logits that mirroring cannot know."""
    theirs, ours = paper
    images = image_batch(240, 228)
    with torch.no_grad():
        # 204 - 184 = 20 logits a side. Pooling groups pixels from -92 on: tiles begin at -92 + 96 and -92 + 112.
        tile = theirs.tile(to_torch(images)[:, :, 4:208, 20:224])
    found = ours(images).numpy()[:, 96:116, 112:132]
    np.testing.assert_allclose(found, tile.permute(0, 2, 3, 1).numpy(), atol=1e-4 * np.abs(found).max())


def test_valid_unet_losses_and_gradients_equal_the_paper(paper):
    theirs, ours = paper
    images = image_batch(33, 50)
    # There are no statistics, and no dropout in this one.
    assert_equal_training(ours, theirs, images, masks_of(images, 2), theirs.pairs(ours), training=False)


# --- milesial's layout


def _double(channels, width, middle=None):
    middle = middle or width
    parts = []
    for before, after in ((channels, middle), (middle, width)):
        parts += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.ModuleDict({"double_conv": nn.Sequential(*parts)})


class BatchNormUNet(nn.Module):
    """Our reading of milesial's layout."""

    def __init__(self, widths, classes, bilinear):
        super().__init__()
        *upper, bottom = widths
        widths = [*upper, bottom // 2 if bilinear else bottom]
        self.levels = len(widths)
        self.bilinear = bilinear
        self.inc = _double(3, widths[0])
        for index in range(1, self.levels):
            pooled = nn.Sequential(nn.MaxPool2d(2), _double(widths[index - 1], widths[index]))
            self.add_module(f"down{index}", nn.ModuleDict({"maxpool_conv": pooled}))
        channels = widths[-1]
        for index, skip in enumerate(upper[::-1], start=1):
            width = skip // 2 if bilinear and index < len(upper) else skip
            parts = {}
            if not bilinear:
                parts["up"] = nn.ConvTranspose2d(channels, skip, 2, 2)
                channels = skip
            joined = channels + skip
            parts["conv"] = _double(joined, width, joined // 2 if bilinear else None)
            self.add_module(f"up{index}", nn.ModuleDict(parts))
            channels = width
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(channels, classes, 1)})

    def forward(self, x):
        features = [self.inc["double_conv"](x)]
        for index in range(1, self.levels):
            pool, double = getattr(self, f"down{index}")["maxpool_conv"]
            features.append(double["double_conv"](pool(features[-1])))
        x = features.pop()
        for index in range(1, self.levels):
            parts, skip = getattr(self, f"up{index}"), features.pop()
            if self.bilinear:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            else:
                x = parts["up"](x)
            rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (2, 3))
            x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            x = parts["conv"]["double_conv"](torch.cat([skip, x], 1))
        return self.outc["conv"](x)


@pytest.mark.parametrize("bilinear", [False, True])
def test_batch_norm_unet_loads_milesials_layout_and_equals_it(tmp_path, bilinear):
    theirs = randomise(BatchNormUNet((8, 12, 16, 24, 32), 3, bilinear))
    state = theirs.state_dict()
    assert {"inc.double_conv.0.weight", "down1.maxpool_conv.1.double_conv.3.weight", "outc.conv.bias"} <= set(state)
    assert ("up1.up.weight" in state) is not bilinear
    torch.save({**state, "mask_values": [0, 1, 2]}, tmp_path / "milesial.pth")
    options = {"widths": (8, 12, 16, 24, 32), "bilinear": bilinear, "pad_to_multiple": False}
    ours = zoo.get("unet_batch_norm", weights=tmp_path / "milesial.pth", **options)
    assert ours.num_classes == 3
    # 16 x 16 is the smallest that can be pooled four times; odd sizes are rounded down, and filled up with zeros.
    for size in ((16, 16), (64, 96), (75, 61)):
        assert_equal_logits(ours, theirs, image_batch(*size))
    images = image_batch(71, 80)
    ours = zoo.get("unet_batch_norm", weights=tmp_path / "milesial.pth", dtype="float64", **options)
    assert_equal_training(ours, theirs, images, masks_of(images, 3), MILESIAL_UNET.assignments(ours))


@pytest.mark.parametrize(("bilinear", "parameters"), [(False, 31_037_698), (True, 17_263_042)])
def test_batch_norm_unet_has_the_parameters_of_the_reading(bilinear, parameters):
    with torch.device("meta"):
        theirs = BatchNormUNet((64, 128, 256, 512, 1024), 2, bilinear)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == parameters
    ours = unet_batch_norm(2, bilinear=bilinear)
    assert sum(int(np.prod(variable.shape)) for variable in ours.trainable_variables) == parameters


# --- segmentation_models.pytorch


@pytest.fixture(scope="module", params=["resnet34", "mobilenet_v2"])
def from_smp(request, tmp_path_factory):
    encoder = request.param
    theirs = randomise(smp.Unet(encoder, encoder_weights=None, classes=5))
    path = tmp_path_factory.mktemp("weights") / "smp.pth"
    torch.save(theirs.state_dict(), path)
    return theirs, zoo.get(f"unet_{encoder}", weights=path), path


def test_unet_on_a_classifier_equals_smp(from_smp):
    theirs, ours, _ = from_smp
    assert ours.num_classes == 5
    images = image_batch(64, 96)
    assert_equal_logits(ours, theirs, images)
    pairs = SMP_UNET.assignments(ours)
    assert_equal_training(ours, theirs, images, masks_of(images, 5), pairs, training=False)


def test_unet_on_a_classifier_without_padding_equals_smp_at_odd_sizes(from_smp):
    theirs, ours, path = from_smp
    ours = zoo.get(ours.name, weights=path, pad_to_multiple=False)
    for size in ((75, 61), (100, 33)):
        assert_equal_logits(ours, theirs, image_batch(*size, count=1))
