"""FCN and DeepLabV3 against torchvision's, with the same random weights handed over in a `.pth` file."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as torch_functional
from torchvision.models import segmentation
from torchvision.transforms._presets import SemanticSegmentation

import zoo
from kerasvision.data.streets import Streets
from kerasvision.inference import Predictor
from kerasvision.models.auxiliary import auxiliary_logits
from kerasvision.ops.resizing import ResizeRule
from tests.parity.torch_models import assert_gradients_equal, randomize, relative_difference, to_torch
from zoo.converters import torchvision as converters

NAMES = {"fcn_resnet50": converters.FCN, "deeplabv3_resnet50": converters.DEEPLABV3}


def _pair(name, folder):
    theirs = randomize(getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=True, num_classes=21))
    path = folder / f"{name}.pth"
    torch.save(theirs.state_dict(), path)
    return theirs, zoo.get(name, weights=path)


@pytest.fixture(scope="module", params=list(NAMES))
def pair(request, tmp_path_factory):
    theirs, ours = _pair(request.param, tmp_path_factory.mktemp("weights"))
    return theirs, ours, NAMES[request.param]


def _images(size_hw, count=1):
    return np.stack([sample.image for sample in Streets("test", count=count, size_hw=size_hw)])


def _check_logits(ours, theirs, images):
    with torch.no_grad():
        expected = theirs(to_torch(images))
    logits = ours(images.astype(np.float32))
    (auxiliary,) = auxiliary_logits(logits)
    assert relative_difference(logits, expected["out"]) < 1e-4
    assert relative_difference(auxiliary, expected["aux"]) < 1e-4


@pytest.mark.parametrize("size_hw", [(96, 128), (67, 113)])
def test_main_and_auxiliary_logits_equal_torchvision(pair, size_hw):
    theirs, ours, _ = pair
    _check_logits(ours, theirs, _images(size_hw))


@pytest.mark.parametrize("name", ["fcn_resnet101", "deeplabv3_resnet101"])
def test_logits_of_the_deeper_networks_equal_torchvision(name, tmp_path):
    theirs, ours = _pair(name, tmp_path)
    _check_logits(ours, theirs, _images((65, 97)))


def _masks(size_hw, count):
    masks = np.stack([np.asarray(sample.mask) for sample in Streets("test", count=count, size_hw=size_hw)])
    masks[:, :5] = 255
    return masks


def _torch_loss(outputs, masks):
    """Return the loss of torchvision's references/segmentation/train.py, `criterion`."""
    masks = torch.from_numpy(masks.astype(np.int64))
    main, auxiliary = (
        torch_functional.cross_entropy(outputs[name], masks, ignore_index=255) for name in ("out", "aux")
    )
    return main, 0.5 * auxiliary


def test_losses_and_gradients_equal_torchvision(pair):
    theirs, ours, converter = copy.deepcopy(pair[0]), pair[1], pair[2]
    images, masks = _images((64, 96), 2), _masks((64, 96), 2)
    expected = _torch_loss(theirs(to_torch(images)), masks)
    sum(expected).backward()
    found = {}

    def loss():
        found.update(ours.compute_losses(images, masks))
        return sum(found.values())

    assert_gradients_equal(ours, loss, theirs, converter)
    np.testing.assert_allclose(found["cross_entropy"], expected[0].item(), rtol=1e-4)
    np.testing.assert_allclose(found["auxiliary_cross_entropy"], expected[1].item(), rtol=1e-4)


def test_losses_gradients_and_statistics_equal_torchvision_in_training(pair):
    """With batch statistics, and without dropout, whose random numbers differ."""
    theirs, ours, converter = copy.deepcopy(pair[0]), pair[1], pair[2]
    # Three images, as the normalisation of the map's mean over two is all but a sign.
    images, masks = _images((64, 96), 3), _masks((64, 96), 3)
    theirs.train()
    for part in theirs.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    dropouts = [ours.auxiliary_head.drop, getattr(ours.head, "drop", None) or ours.head.pyramid.drop]
    rates = [dropout.rate for dropout in dropouts]
    moving = [(variable, variable.numpy()) for variable in ours.non_trainable_variables]
    expected = _torch_loss(theirs(to_torch(images)), masks)
    sum(expected).backward()
    found = {}

    def loss():
        found.update(ours.compute_losses(images, masks, training=True))
        return sum(found.values())

    try:
        for dropout in dropouts:
            dropout.rate = 0.0
        # From torch's gradients in float64, torch's own in float32 differ by 0.7%, ours by 1.2%, by the order
        # of summation.
        assert_gradients_equal(ours, loss, theirs, converter, tolerance=0.04)
        # Means alone: torch keeps variances of n - 1, Keras of n, which is a third less for the map's mean of 3 images.
        means = {name: buffer.numpy() for name, buffer in theirs.named_buffers() if name.endswith("running_mean")}
        compared = 0
        for assignment in converter.assignments(ours):
            if assignment.source in means:
                np.testing.assert_allclose(assignment.variable.numpy(), means[assignment.source], rtol=2e-3, atol=1e-3)
                compared += 1
        assert compared == len(means)
    finally:
        for dropout, rate in zip(dropouts, rates, strict=True):
            dropout.rate = rate
        for variable, value in moving:
            variable.assign(value)
    np.testing.assert_allclose(found["cross_entropy"], expected[0].item(), rtol=1e-4)
    np.testing.assert_allclose(found["auxiliary_cross_entropy"], expected[1].item(), rtol=1e-4)


def test_predictor_masks_equal_torchvision_with_its_preset(pair):
    """From pixels to classes: torchvision's preset shrinks with antialiasing, and so does the resize rule."""
    from PIL import Image

    theirs, ours, _ = pair
    (image,) = _images((150, 200))
    preset = SemanticSegmentation(resize_size=96)
    with torch.no_grad():
        expected = theirs(preset(Image.fromarray(image))[None])["out"][0]
    predictor = Predictor(ours, resize=ResizeRule("shortest_side", shortest=96, antialias=True))
    inputs, _ = predictor.preprocess([image])
    found = predictor.network(inputs)
    assert relative_difference(found, expected[None]) < 1e-4
