"""VOC average precision: cases by hand, and a plain transcription of the development kit's rule."""

import numpy as np
import pytest

from kerasvision.metrics import VocAP

BOX = [10.0, 10.0, 50.0, 60.0]
FAR = [100.0, 100.0, 150.0, 150.0]
NOWHERE = [300.0, 300.0, 310.0, 310.0]


def _batch(boxes, labels, **more):
    return {
        "boxes": np.array(boxes, np.float32).reshape(1, -1, 4),
        "labels": np.array([labels], np.int32),
        **{name: np.array([values]) for name, values in more.items()},
    }


def _result(detections, targets, **options):
    metric = VocAP(**options)
    metric.add(detections, targets)
    return metric.result()


def test_perfect_detections_have_ap_one():
    found = _result(_batch([BOX, FAR], [0, 1], scores=[0.9, 0.8]), _batch([BOX, FAR], [0, 1]))
    assert found == {"AP_voc07": 1, "AP_voc10": 1}


def test_a_missed_box_costs_its_recall():
    # Precision 1 up to recall 0.5: the points 0, 0.1 ... 0.5 of 11, and half of the area.
    found = _result(_batch([BOX], [0], scores=[0.9]), _batch([BOX, FAR], [0, 0]))
    assert found == pytest.approx({"AP_voc07": 6 / 11, "AP_voc10": 1 / 2})


def test_curve_by_hand():
    # Right, wrong, right of 2 boxes: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    detections = _batch([BOX, NOWHERE, FAR], [0, 0, 0], scores=[0.9, 0.8, 0.7])
    found = _result(detections, _batch([BOX, FAR], [0, 0]))
    assert found["AP_voc07"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert found["AP_voc10"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_recall_at_a_tenth_reaches_that_point():
    # 3 of 10 found: the points 0, 0.1, 0.2 and 0.3, although 3 * 0.1 > 3 / 10 in floating point.
    boxes = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(10)]
    found = _result(_batch(boxes[:3], [0] * 3, scores=[0.9, 0.8, 0.7]), _batch(boxes, [0] * 10))
    assert found == pytest.approx({"AP_voc07": 4 / 11, "AP_voc10": 0.3})


def test_the_second_detection_of_a_box_is_wrong():
    # In order of the scores right, wrong, right: as in the curve by hand.
    detections = _batch([FAR, BOX, BOX], [0, 0, 0], scores=[0.7, 0.8, 0.9])
    found = _result(detections, _batch([BOX, FAR], [0, 0]))
    assert found["AP_voc10"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_a_detection_belongs_to_its_best_box_even_if_that_is_taken():
    # Both overlap BOX most, IoU 1 and 0.9; the other box would still reach 0.5, but VOC does not look on.
    near = [10.0, 10.0, 50.0, 40.0]  # IoU of [10, 10, 50, 55]: 30 / 45 with `near`, 45 / 50 with BOX
    detections = _batch([BOX, [10, 10, 50, 55]], [0, 0], scores=[0.9, 0.8])
    assert _result(detections, _batch([BOX, near], [0, 0]))["AP_voc10"] == pytest.approx(1 / 2)


def test_threshold_is_reached_by_equality():
    # 40 x 25 of 40 x 50: IoU 0.5.
    detections, targets = _batch([[10, 10, 50, 35]], [0], scores=[0.9]), _batch([BOX], [0])
    assert _result(detections, targets)["AP_voc10"] == 1
    assert _result(detections, targets, iou_threshold=0.51)["AP_voc10"] == 0


def test_difficult_boxes_count_on_neither_side():
    # Without the difficult box: one right detection of one box. Found twice, it still does not count.
    detections = _batch([FAR, FAR, BOX], [0, 0, 0], scores=[0.9, 0.8, 0.7])
    targets = _batch([BOX, FAR], [0, 0], ignored=[False, True])
    assert _result(detections, targets) == {"AP_voc07": 1, "AP_voc10": 1}
    assert _result(detections, _batch([BOX, FAR], [0, 0]))["AP_voc10"] < 1
    missed = _batch([BOX], [0], scores=[0.9])
    assert _result(missed, targets)["AP_voc10"] == 1


def test_a_class_of_only_difficult_boxes_is_nan_and_left_out_of_the_mean():
    metric = VocAP()
    metric.add(_batch([BOX], [3], scores=[0.9]), _batch([BOX, FAR, FAR], [3, 8, 9], ignored=[False, True, False]))
    found = metric.per_class()
    assert list(found) == [3, 8, 9]
    assert found[3] == {"AP_voc07": 1, "AP_voc10": 1}
    assert all(np.isnan(value) for value in found[8].values())
    assert found[9] == {"AP_voc07": 0, "AP_voc10": 0}
    assert metric.result() == {"AP_voc07": 0.5, "AP_voc10": 0.5}


def test_padding_and_classes_without_ground_truth_do_not_count():
    detections = _batch([BOX, [-1] * 4, FAR, FAR], [0, -1, -1, 7], scores=[0.9, -1, 0.99, 0.99])
    assert _result(detections, _batch([BOX, [0] * 4], [0, -1]))["AP_voc10"] == 1


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    assert _result(_batch([], [], scores=[]), _batch([BOX], [0])) == {"AP_voc07": 0, "AP_voc10": 0}
    assert all(np.isnan(value) for value in _result(_batch([BOX], [0], scores=[1]), _batch([], [])).values())
    assert all(np.isnan(value) for value in VocAP().result().values()) and VocAP().per_class() == {}


def test_degenerate_and_nan_detections_are_wrong():
    nan = [float("nan")] * 4
    detections = _batch([nan, [10, 10, 10, 60], BOX], [0, 0, 0], scores=[0.9, 0.8, 0.7])
    assert _result(detections, _batch([BOX], [0]))["AP_voc10"] == pytest.approx(1 / 3)
    # A NaN score comes last.
    detections = _batch([NOWHERE, BOX], [0, 0], scores=[float("nan"), 0.1])
    assert _result(detections, _batch([BOX], [0]))["AP_voc10"] == 1


def test_result_does_not_depend_on_the_batches_and_resets():
    detections, targets = random_boxes(3)
    together, apart = VocAP(), VocAP()
    together.add(detections, targets)
    for i in range(len(targets["labels"])):
        apart.add(*({name: values[i : i + 1] for name, values in part.items()} for part in (detections, targets)))
    assert together.result() == pytest.approx(apart.result())
    apart.reset()
    assert np.isnan(apart.result()["AP_voc10"])


@pytest.mark.parametrize(
    ("found", "true", "options", "message"),
    [
        ([0], [20], {"num_classes": 20}, "`targets` holds the label 20, expected 0 to 19, or -1"),
        ([25], [0], {"num_classes": 20}, "`detections` holds the label 25, expected 0 to 19"),
        ([0], [-2], {}, "`targets` holds the label -2, expected 0 or above"),
    ],
)
def test_labels_out_of_range_are_named(found, true, options, message):
    with pytest.raises(ValueError, match=message):
        _result(_batch([BOX], found, scores=[0.9]), _batch([BOX], true), **options)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`iou_threshold` is 0, expected above 0"):
        VocAP(iou_threshold=0)
    two = {"boxes": np.zeros((2, 0, 4)), "labels": np.zeros((2, 0))}
    with pytest.raises(ValueError, match="`detections` holds 1 images, but `targets` 2"):
        VocAP().add(_batch([], [], scores=[]), two)


def random_boxes(seed, *, images=6, detected=30, present=8, classes=3):
    """Return padded detections (jittered ground truth and noise) and targets with difficult boxes."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (images, present, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 150, corners.shape)], -1)
    labels = rng.integers(0, classes, (images, present))
    ignored = rng.random(labels.shape) < 0.2
    labels[rng.random(labels.shape) < 0.2] = -1
    source = rng.integers(0, present, (images, detected))
    found = np.take_along_axis(boxes, source[..., None], 1) + rng.normal(0, 6, (images, detected, 4))
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    found_labels = np.take_along_axis(labels, source, 1)
    found_labels = np.where(rng.random(source.shape) < 0.2, rng.integers(0, classes, source.shape), found_labels)
    scores = rng.permutation(images * detected).reshape(images, detected) / (images * detected)
    targets = {"boxes": boxes, "labels": labels, "ignored": ignored}
    return {"boxes": found, "scores": scores, "labels": found_labels}, targets


def devkit(detections, targets, label, threshold=0.5):
    """VOCevaldet.m and VOCap.m for one class, line by line, on inclusive corners as the kit's files hold them."""
    truth, npos = [], 0
    for image, labels in enumerate(targets["labels"]):
        of_class = labels == label
        boxes = targets["boxes"][image][of_class] - [0, 0, 1, 1]
        diff = targets["ignored"][image][of_class]
        truth.append({"bb": boxes, "diff": diff, "det": np.zeros(len(boxes), bool)})
        npos += int((~diff).sum())
    rows = [
        (detections["scores"][image][k], image, detections["boxes"][image][k] - [0, 0, 1, 1])
        for image, labels in enumerate(detections["labels"])
        for k in np.flatnonzero(labels == label)
    ]
    rows.sort(key=lambda row: -row[0])
    tp, fp = np.zeros(len(rows)), np.zeros(len(rows))
    for d, (_, image, bb) in enumerate(rows):
        ovmax, jmax, gt = -np.inf, -1, truth[image]
        for j, bbgt in enumerate(gt["bb"]):
            bi = [max(bb[0], bbgt[0]), max(bb[1], bbgt[1]), min(bb[2], bbgt[2]), min(bb[3], bbgt[3])]
            iw, ih = bi[2] - bi[0] + 1, bi[3] - bi[1] + 1
            if iw > 0 and ih > 0:
                ua = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1) + (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1)
                ov = iw * ih / (ua - iw * ih)
                if ov > ovmax:
                    ovmax, jmax = ov, j
        if ovmax >= threshold:
            if not gt["diff"][jmax]:
                if not gt["det"][jmax]:
                    tp[d], gt["det"][jmax] = 1, True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    with np.errstate(invalid="ignore"):
        rec, prec = tp / npos, tp / (fp + tp)
    ap07 = 0.0
    for tenths in range(11):
        reached = prec[rec >= tenths / 10]
        ap07 += (np.nanmax(reached) if np.isfinite(reached).any() else 0) / 11
    mrec, mpre = np.concatenate([[0], rec, [1]]), np.nan_to_num(np.concatenate([[0], prec, [0]]))
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    i = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return {"AP_voc07": ap07, "AP_voc10": float(np.sum((mrec[i] - mrec[i - 1]) * mpre[i]))}


@pytest.mark.parametrize(
    ("seed", "options"),
    [(0, {}), (1, {"classes": 1}), (2, {"images": 15, "present": 3, "classes": 6}), (3, {"detected": 80})],
)
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_each_class_equals_the_development_kit(seed, options, threshold):
    detections, targets = random_boxes(seed, **options)
    metric = VocAP(iou_threshold=threshold)
    metric.add(detections, targets)
    found = metric.per_class()
    assert sorted(found) == sorted(set(targets["labels"].ravel().tolist()) - {-1})
    expected = {label: devkit(detections, targets, label, threshold) for label in found}
    for label, figures in found.items():
        assert figures == pytest.approx(expected[label], abs=1e-12)
    for rule, value in metric.result().items():
        assert value == pytest.approx(np.mean([figures[rule] for figures in expected.values()]))
        assert 0 < value < 1
