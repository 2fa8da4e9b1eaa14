"""RetinaNet against torchvision's, with the same random weights handed over in a `.pth` file.

Batch-norm statistics are random too, and large enough to matter: with fresh ones a wrong epsilon would not show.
"""

import copy

import numpy as np
import pytest
import tensorflow as tf
import torch
from torchvision.models.detection import RetinaNet as TorchRetinaNet
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import resnet50
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

import zoo
from kerasvision.data.streets import Streets
from kerasvision.inference import Predictor
from kerasvision.ops.resizing import ResizeRule
from tests.parity.torch_models import as_unit_tensor, padded_batch
from zoo.converters.torchvision import RETINANET

CLASSES = 91
SHORTEST, LONGEST = 320, 533
NORMALIZATION = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIZES = {"square": (320, 320), "portrait": (400, 300), "landscape": (240, 500)}


def _torch_retinanet():
    generator = torch.Generator().manual_seed(0)
    backbone = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(backbone, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    model = TorchRetinaNet(backbone, CLASSES, min_size=SHORTEST, max_size=LONGEST)
    overwrite_eps(model, 0.0)

    def uniform(tensor, low, high):
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, FrozenBatchNorm2d):
                # The last normalisation of a block is kept small, or 16 residual sums would blow up.
                scale = 0.3 if name.endswith("bn3") else 1.0
                uniform(module.weight, 0.5 * scale, 1.5 * scale)
                uniform(module.bias, -0.3, 0.3)
                uniform(module.running_mean, -0.3, 0.3)
                uniform(module.running_var, 0.5, 2.0)
            elif isinstance(module, torch.nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (1.6 / fan_in) ** 0.5)
                if module.bias is not None:
                    uniform(module.bias, -0.1, 0.1)
        # Scores spread around the threshold of 0.05 without many that round to 1 (equal scores have no order),
        # deltas of the size that trained ones have.
        head = model.head.classification_head.cls_logits
        head.weight.mul_(0.35)
        head.bias.sub_(5.0)
        model.head.regression_head.bbox_reg.weight.mul_(0.2)
    return model.eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    theirs = _torch_retinanet()
    path = tmp_path_factory.mktemp("weights") / "retinanet.pth"
    torch.save(theirs.state_dict(), path)
    ours = zoo.get("retinanet_resnet50_fpn", weights=path, epsilon=0.0, frozen_stages=0)
    return theirs, ours


def _image(size_hw, index=0):
    return Streets("test", count=index + 1, size_hw=size_hw)[index].image


def _relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("shape", SIZES)
def test_raw_outputs_equal_torchvision(pair, shape):
    theirs, ours = pair
    image = _image(SIZES[shape])
    with torch.no_grad():
        batch, _ = theirs.transform([as_unit_tensor(image)])
        features = list(theirs.backbone(batch.tensors).values())
        expected = theirs.head(features)
        anchors = torch.cat(theirs.anchor_generator(batch, features))
    predictor = Predictor(ours, resize=ResizeRule("shortest_side", shortest=SHORTEST, longest=LONGEST))
    inputs, _ = predictor.preprocess([image])
    raw = predictor.network(inputs)
    np.testing.assert_array_equal(np.concatenate([a.numpy() for a in ours.anchors(inputs)]), anchors.numpy())
    for name, their_name in (("logits", "cls_logits"), ("deltas", "bbox_regression")):
        found = np.concatenate([level.numpy() for level in raw[name]], axis=1)
        assert _relative(found, expected[their_name].numpy()) < 1e-4


@pytest.mark.parametrize("shape", SIZES)
def test_detections_equal_torchvision_one_to_one(pair, shape):
    theirs, ours = pair
    image = _image(SIZES[shape], index=1)
    with torch.no_grad():
        (expected,) = theirs([as_unit_tensor(image)])
    resize = ResizeRule("shortest_side", shortest=SHORTEST, longest=LONGEST)
    (found,) = Predictor(ours, resize=resize)(image)
    assert len(found) == len(expected["boxes"]) > 50
    np.testing.assert_array_equal(found.labels, expected["labels"].numpy())
    np.testing.assert_allclose(found.scores, expected["scores"].numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy(), atol=0.01)


def test_losses_and_gradients_equal_torchvision(pair):
    theirs, ours = copy.deepcopy(pair[0]), pair[1]
    inputs, targets, torch_images, torch_targets = padded_batch(256, 320)  # torchvision, told 256, resizes neither
    theirs.transform = GeneralizedRCNNTransform(256, 1000, **NORMALIZATION)
    theirs.train()
    expected = theirs(torch_images, torch_targets)
    theirs.zero_grad()
    sum(expected.values()).backward()

    with tf.GradientTape() as tape:
        losses = ours.compute_losses(inputs, targets, training=True)
        total = sum(losses.values())
    assert set(losses) == {"classification", "box_regression"}
    np.testing.assert_allclose(losses["classification"], expected["classification"].item(), rtol=1e-4)
    np.testing.assert_allclose(losses["box_regression"], expected["bbox_regression"].item(), rtol=1e-4)

    variables = ours.trainable_variables
    gradients = dict(zip((v.path for v in variables), tape.gradient(total, [v.value for v in variables]), strict=True))
    parameters = dict(theirs.named_parameters())
    compared = 0
    for assignment in RETINANET.assignments(ours):
        if assignment.source not in parameters:
            continue  # frozen batch norm: buffers there, not trained here
        gradient = parameters[assignment.source].grad.numpy()
        mine = gradients[assignment.variable.path].numpy()
        wanted = gradient.transpose(2, 3, 1, 0) if gradient.ndim == 4 else gradient
        cosine = np.vdot(mine, wanted) / (np.linalg.norm(mine) * np.linalg.norm(wanted))
        assert cosine >= 0.9999, assignment.source
        np.testing.assert_allclose(np.linalg.norm(mine), np.linalg.norm(wanted), rtol=1e-3)
        compared += 1
    assert compared == len(parameters) == len(variables)
