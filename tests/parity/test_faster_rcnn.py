"""Faster R-CNN against torchvision's four variants, with the same random weights handed over in a `.pth` file.

Sampling is made deterministic on both sides: of the anchors or regions that may be chosen, the first are.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import zoo
from kerasvision.data.streets import Streets
from kerasvision.inference import Predictor
from kerasvision.models.region_detector import RegionDetector
from kerasvision.ops.resizing import ResizeRule
from tests.parity.torch_models import as_unit_tensor, assert_gradients_equal, padded_batch, randomize
from zoo.converters.torchvision_rcnn import FASTER_RCNN, FASTER_RCNN_MOBILENET_V3

CLASSES = 9  # the background included, as torchvision counts
VARIANTS = {
    "fasterrcnn_resnet50_fpn": FASTER_RCNN,
    "fasterrcnn_resnet50_fpn_v2": FASTER_RCNN,
    "fasterrcnn_mobilenet_v3_large_fpn": FASTER_RCNN_MOBILENET_V3,
    "fasterrcnn_mobilenet_v3_large_320_fpn": FASTER_RCNN_MOBILENET_V3,
}
SIZES = {"square": (256, 256), "portrait": (330, 220), "landscape": (200, 420)}
SHORTEST, LONGEST = 224, 400
NORMALIZATION = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
RULE = ResizeRule("shortest_side", shortest=SHORTEST, longest=LONGEST)


def _their_model(name):
    """Return torchvision's model, whose random weights spread scores and deltas as trained ones do."""
    theirs = randomize(getattr(detection, name)(weights=None, weights_backbone=None, num_classes=CLASSES))
    theirs.transform = GeneralizedRCNNTransform(SHORTEST, LONGEST, **NORMALIZATION).eval()
    with torch.no_grad():
        theirs.rpn.head.cls_logits.weight.mul_(0.3)
        theirs.rpn.head.bbox_pred.weight.mul_(0.1)
        theirs.rpn.head.bbox_pred.bias.mul_(0.1)
        theirs.roi_heads.box_predictor.bbox_pred.weight.mul_(0.3)
    return theirs


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """torchvision's model, ours and the converter: all is trained, but normalisation keeps its random statistics."""
    theirs = _their_model(request.param)
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(theirs.state_dict(), path)
    options = {"epsilon": 1e-5} if request.param == "fasterrcnn_resnet50_fpn" else {}  # that of COCO's weights is 0
    ours = zoo.get(request.param, weights=path, normalization="batch", frozen_stages=0, **options)
    return theirs, ours, VARIANTS[request.param]


@pytest.fixture
def first_are_chosen(monkeypatch):
    """Let both sides choose the first of all candidates."""
    monkeypatch.setattr(torch, "randperm", lambda count, device=None: torch.arange(count, device=device))
    monkeypatch.setattr(
        RegionDetector,
        "draw_priorities",
        lambda self, shape, training: tf.broadcast_to(-tf.range(shape[1], dtype="float32")[None], shape),
    )


def _image(size_hw, index=0):
    return Streets("test", count=index + 1, size_hw=size_hw)[index].image


def _relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("shape", SIZES)
def test_raw_outputs_and_proposals_equal_torchvision(pair, shape):
    theirs, ours, _ = pair
    image = _image(SIZES[shape])
    inputs, _ = Predictor(ours, resize=RULE).preprocess([image])
    raw = ours(inputs, training=False)
    with torch.no_grad():
        batch, _ = theirs.transform([as_unit_tensor(image)])
        features = theirs.backbone(batch.tensors)
        objectness, deltas = theirs.rpn.head(list(features.values()))
        anchors = theirs.rpn.anchor_generator(batch, list(features.values()))
        proposals, _ = theirs.rpn(batch, features)
        pooled = theirs.roi_heads.box_roi_pool(features, proposals, batch.image_sizes)
        logits, class_deltas = theirs.roi_heads.box_predictor(theirs.roi_heads.box_head(pooled))
    np.testing.assert_array_equal(np.concatenate(ours.anchors(raw["features"], inputs)), torch.cat(anchors).numpy())
    for level, (found, wanted) in enumerate(zip(raw["objectness"], objectness, strict=True)):
        assert _relative(found[0], wanted[0].permute(1, 2, 0).flatten().numpy()) < 1e-4, level
        count = wanted.shape[1]
        wanted = deltas[level][0].unflatten(0, (count, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        assert _relative(raw["anchor_deltas"][level][0], wanted.numpy()) < 1e-4, level
    wanted = proposals[0].numpy()
    assert len(wanted) > 100
    found = raw["proposals"][0].numpy()
    np.testing.assert_array_equal(found[len(wanted) :], -1)
    found = found[: len(wanted)]
    # Equal scores have no order: a few neighbours may have changed places. Levels of one stride may share a box.
    places = np.arange(len(wanted))
    distance = np.abs(found[None] - wanted[:, None]).max(-1) + 1e-5 * np.abs(places[None] - places[:, None])
    _, order = linear_sum_assignment(distance)
    assert np.mean(order == places) > 0.98
    np.testing.assert_allclose(found[order], wanted, atol=0.01)
    assert _relative(raw["class_logits"][0].numpy()[order], logits.numpy()) < 1e-4
    wanted = class_deltas.unflatten(1, (CLASSES, 4))[:, 1:].numpy()
    assert _relative(raw["class_deltas"][0].numpy()[order], wanted) < 1e-4


@pytest.mark.parametrize("shape", SIZES)
def test_detections_equal_torchvision_one_to_one(pair, shape):
    theirs, ours, _ = pair
    image = _image(SIZES[shape], index=1)
    with torch.no_grad():
        (expected,) = theirs([as_unit_tensor(image)])
    (found,) = Predictor(ours, resize=RULE)(image)
    assert len(found) == len(expected["boxes"]) > 20
    boxes, scores, labels = (expected[name].numpy() for name in ("boxes", "scores", "labels"))
    np.testing.assert_allclose(found.scores, scores, rtol=2e-4)
    # Each has a twin of its class; scores that differ in the last digits only may have changed places.
    distance = np.abs(found.boxes[None] - boxes[:, None]).max(-1) + 1e3 * (found.labels[None] != labels[:, None] - 1)
    _, twin = linear_sum_assignment(distance)
    np.testing.assert_array_equal(found.labels[twin], labels - 1)
    np.testing.assert_allclose(found.boxes[twin], boxes, atol=0.02)
    np.testing.assert_allclose(found.scores[twin], scores, rtol=2e-4)


LOSSES = {
    "objectness": "loss_objectness",
    "proposal_regression": "loss_rpn_box_reg",
    "classification": "loss_classifier",
    "box_regression": "loss_box_reg",
}


def _freeze_normalization(theirs, ours):
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    for layer in ours._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def test_losses_and_gradients_equal_torchvision(pair, first_are_chosen):
    theirs, ours, converter = pair
    inputs, targets, torch_images, torch_targets = padded_batch(SHORTEST, 288)
    torch_targets = [{**target, "labels": target["labels"] + 1} for target in torch_targets]
    ours.regions_per_image = theirs.roi_heads.fg_bg_sampler.batch_size_per_image = 64  # fewer, to save time
    theirs.train()
    _freeze_normalization(theirs, ours)
    try:
        expected = theirs(torch_images, torch_targets)
        theirs.zero_grad()
        sum(expected.values()).backward()
    finally:
        theirs.eval()
    found = {}

    def total():
        found.update(ours.compute_losses(inputs, targets, training=True))
        return sum(found.values())

    assert_gradients_equal(ours, total, theirs, converter)
    assert set(found) == set(LOSSES) == set(ours.loss_names)
    for name, their_name in LOSSES.items():
        assert expected[their_name].item() > 0.01, name
        np.testing.assert_allclose(found[name], expected[their_name].item(), rtol=1e-4, err_msg=name)
