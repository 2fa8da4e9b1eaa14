"""Faster R-CNN: proposals, sampling, losses and decoding, by hand; equality with torchvision is in tests/parity."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from kerasvision.backbones.resnet import resnet10
from kerasvision.models import FasterRCNN


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _model(**options):
    keras.utils.set_random_seed(0)
    backbone = resnet10(widths=(8, 8, 8, 8), stem_filters=8)
    options = {
        "pyramid_filters": 8,
        "head_units": (8,),
        "max_proposals": 6,
        "training_proposals": 8,
        "regions_per_image": 4,
        "max_detections": 5,
        **options,
    }
    return FasterRCNN(backbone, 2, **options)


@pytest.fixture(scope="module")
def model():
    return _model()


def _images(count=1, size_hw=(64, 96)):
    return np.random.default_rng(0).uniform(0, 255, (count, *size_hw, 3)).astype(np.float32)


def _raw(model, images, scores):
    """Return raw outputs of the first stage in which the anchors of P4 score as given and all others not at all."""
    raw = model(images)
    raw["objectness"] = [ops.full_like(level, -20.0) for level in raw["objectness"]]
    raw["anchor_deltas"] = [ops.zeros_like(level) for level in raw["anchor_deltas"]]
    level = np.full(raw["objectness"][2].shape, -20.0, np.float32)
    for place, score in scores.items():
        level[:, place] = score
    raw["objectness"][2] = ops.convert_to_tensor(level)
    return raw


def test_propose_best_anchors_first_clipped_and_without_overlaps(model):
    images = _images()
    # P4 has 4 x 6 cells of three anchors of 128 pixels: 181 x 91, 128 x 128, 91 x 181. The second and the fifth are
    # squares around (0, 0) and (16, 0), clipped to 64 x 64 and 80 x 64: IoU 0.8, above 0.7.
    raw = _raw(model, images, {1: 5.0, 4: 6.0})
    proposals = _numpy(model.propose(raw, images))
    assert proposals.shape == (1, 6, 4)
    np.testing.assert_array_equal(proposals[0, 0], [0, 0, 80, 64])
    assert not (proposals[0, 1:] == [0, 0, 64, 64]).all(axis=1).any()


def test_propose_keeps_boxes_inside_each_image_and_drops_those_without_area(model):
    images = _images(2)
    inputs = {"images": images, "sizes_hw": np.array([[64, 96], [32, 16]], np.int32)}
    proposals = _numpy(model.propose(model(inputs), inputs))
    kept = proposals[1][proposals[1, :, 0] >= 0]
    assert len(kept) and (kept[:, 2] <= 16).all() and (kept[:, 3] <= 32).all()
    assert (kept[:, 2:] > kept[:, :2]).all()
    # Centred beyond the image and too small to reach it: an anchor of 32 pixels in the last cell is clipped to nothing.
    assert not (kept == [16, 32, 16, 32]).all(axis=1).any()


def test_propose_scores_below_the_threshold_give_padding():
    model = _model(proposal_score_threshold=0.5)
    images = _images()
    proposals = _numpy(model.propose(_raw(model, images, {1: 0.1}), images))
    np.testing.assert_array_equal(proposals[0], [[0, 0, 64, 64], *[[-1, -1, -1, -1]] * 5])


def test_training_stops_after_the_first_stage_with_more_proposals(model):
    raw = model(_images(), training=True)
    assert "class_logits" not in raw and raw["proposals"].shape == (1, 8, 4)
    assert model(_images())["class_logits"].shape == (1, 6, 3)


def _sample(model, proposals, boxes, labels, **options):
    boxes, labels = np.array([boxes], np.float32), np.array([labels], np.int32)
    arguments = [ops.convert_to_tensor(part) for part in (np.array([proposals], np.float32), boxes, labels)]
    parts = model.sample_regions(*arguments, ops.convert_to_tensor(labels >= 0), False)
    return [_numpy(part)[0] for part in parts]


def test_sample_regions_by_hand():
    model = _model(regions_per_image=8, foreground_share=0.5)
    proposals = [
        [0, 0, 10, 10],  # the first box itself
        [0, 0, 10, 6],  # IoU 0.6: foreground
        [0, 0, 10, 4],  # IoU 0.4: background
        [50, 50, 60, 60],  # background
        [-1, -1, -1, -1],
    ]
    boxes, labels = [[0, 0, 10, 10], [100, 100, 120, 120], [7, 7, 7, 7]], [1, 0, -1]
    regions, found, matched = _sample(model, proposals, boxes, labels)
    seen = {tuple(region): (label, tuple(box)) for region, label, box in zip(regions, found, matched, strict=True)}
    # The true boxes are regions too; those of label 1 train class 1, whose logit is the third.
    assert seen == {
        (0, 0, 10, 10): (2, (0, 0, 10, 10)),
        (0, 0, 10, 6): (2, (0, 0, 10, 10)),
        (100, 100, 120, 120): (1, (100, 100, 120, 120)),
        (0, 0, 10, 4): (0, (0, 0, 10, 4)),
        (50, 50, 60, 60): (0, (50, 50, 60, 60)),
        (-1, -1, -1, -1): (-1, (-1, -1, -1, -1)),
    }


def test_sample_regions_background_has_a_lower_bound():
    model = _model(regions_per_image=4, background_iou=(0.1, 0.5))
    proposals = [[0, 0, 10, 4], [50, 50, 60, 60]]  # IoU 0.4 and 0
    regions, found, _ = _sample(model, proposals, [[0, 0, 10, 10]], [0])
    assert {tuple(region): label for region, label in zip(regions, found, strict=True)} == {
        (0, 0, 10, 10): 1,
        (0, 0, 10, 4): 0,
        (-1, -1, -1, -1): -1,
    }


def test_region_losses_by_hand(monkeypatch):
    model = _model(regions_per_image=4, foreground_share=0.5, box_beta=0.0)
    # Logits 0 everywhere: a cross-entropy of log 3 for each region. Deltas of class 0 are 0, of class 1 are 7.
    deltas = np.zeros((1, 4, 2, 4), np.float32)
    deltas[:, :, 1] = 7
    monkeypatch.setattr(
        model, "classify", lambda features, regions, training: (ops.zeros((1, 4, 3)), ops.convert_to_tensor(deltas))
    )
    targets = {"boxes": np.array([[[0, 0, 10, 10]]], np.float32), "labels": np.array([[0]])}
    # The second region is 10 x 8, its centre 1 above the box's: dy = 10 * 1 / 8, dh = 5 log(10 / 8).
    proposals = ops.convert_to_tensor(np.array([[[0, 0, 10, 8], [50, 50, 60, 60], [-1, -1, -1, -1]]], np.float32))
    losses = model.region_losses(None, proposals, keras.tree.map_structure(ops.convert_to_tensor, targets), False)
    np.testing.assert_allclose(_numpy(losses["classification"]), np.log(3), rtol=1e-6)
    np.testing.assert_allclose(_numpy(losses["box_regression"]), (10 / 8 + 5 * np.log(10 / 8)) / 3, rtol=1e-5)


def test_decode_by_hand():
    model = _model(score_threshold=0.2)
    regions = np.array([[[10, 10, 30, 30], [11, 10, 31, 30], [-1, -1, -1, -1], [40, 0, 140, 20]]], np.float32)
    probabilities = np.array([[[0.1, 0.6, 0.3], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8], [0.75, 0.15, 0.1]]], np.float32)
    deltas = np.zeros((1, 4, 2, 4), np.float32)
    deltas[0, 0, 1, 0] = 10  # dx of class 1: once the width of 20 to the right
    raw = {
        "proposals": ops.convert_to_tensor(regions),
        "class_logits": ops.log(ops.convert_to_tensor(probabilities)),
        "class_deltas": ops.convert_to_tensor(deltas),
    }
    found = {name: _numpy(value)[0] for name, value in model.decode(raw, _images(1, (64, 96))).items()}
    # The second region's class 0 overlaps the first's by 19 / 21; padding and scores under 0.2 are nothing.
    assert found["num_detections"] == 3
    np.testing.assert_allclose(found["scores"][:3], [0.6, 0.3, 0.25], rtol=1e-5)
    assert found["labels"].tolist() == [0, 1, 1, -1, -1]
    np.testing.assert_allclose(found["boxes"][:3], [[10, 10, 30, 30], [30, 10, 50, 30], [11, 10, 31, 30]], atol=1e-4)


def test_ignored_boxes_are_not_trained_on(model):
    images = _images()
    targets = {"boxes": np.array([[[8, 8, 40, 40]]], np.float32), "labels": np.array([[1]]), "ignored": [[True]]}
    losses = model.compute_losses(images, {**targets, "ignored": np.array([[True]])})
    assert float(losses["proposal_regression"]) == float(losses["box_regression"]) == 0
    assert float(losses["objectness"]) > 0 and float(losses["classification"]) > 0


def test_evaluation_losses_repeat_and_training_ones_vary(model):
    images = _images()
    targets = {"boxes": np.array([[[8, 8, 40, 40]]], np.float32), "labels": np.array([[1]])}
    first, second = (float(sum(model.compute_losses(images, targets).values())) for _ in range(2))
    assert first == second
    training = {float(model.compute_losses(images, targets, training=True)["classification"]) for _ in range(4)}
    assert len(training) > 1


def test_wrong_arguments_are_named():
    backbone = resnet10(widths=(8, 8, 8, 8), stem_filters=8)
    with pytest.raises(ValueError, match=r"`pooling` 'pool' with `pyramid_filters` 8 is not possible"):
        FasterRCNN(backbone, 2, pooling="pool", pyramid_filters=8)
    with pytest.raises(ValueError, match=r"`anchor_sizes` .* must list the sizes of 5 levels"):
        FasterRCNN(backbone, 2, anchor_sizes=((32,),))


def test_vgg16_of_the_paper_pools_conv5_and_comes_back(tmp_path):
    model = zoo.get(
        "fasterrcnn_vgg16", weights=None, num_classes=2, widths=(4, 4, 4, 4, 4), head_units=(8, 8), max_proposals=5
    )
    images = _images(1, (64, 96))
    raw = model(images)
    assert [tuple(level.shape) for level in raw["features"]] == [(1, 4, 6, 4)]  # stride 16
    # 3 sizes x 3 ratios of each of 24 cells.
    assert raw["objectness"][0].shape == (1, 24 * 9)
    model.save(tmp_path / "vgg.keras")
    copy = keras.saving.load_model(tmp_path / "vgg.keras")
    assert copy.get_config() == model.get_config() and copy.get_config()["pooling"] == "pool"
    np.testing.assert_array_equal(_numpy(copy(images)["class_logits"]), _numpy(raw["class_logits"]))
