"""Average precision: cases by hand, and pycocotools on random data."""

import contextlib
import io

import numpy as np
import pytest

from kerasvision.metrics import CocoAP, VocAP

pytest.importorskip("faster_coco_eval")

BOX = [10.0, 10.0, 50.0, 60.0]
FAR = [100.0, 100.0, 150.0, 150.0]


def _batch(boxes, labels, **more):
    return {
        "boxes": np.array(boxes, np.float32).reshape(1, -1, 4),
        "labels": np.array([labels], np.int32),
        **{name: np.array([values]) for name, values in more.items()},
    }


def _result(detections, targets, **options):
    metric = CocoAP(**options)
    metric.add(detections, targets)
    return metric.result()


def test_perfect_detections_have_ap_one():
    found = _result(_batch([BOX, FAR], [0, 1], scores=[0.9, 0.8]), _batch([BOX, FAR], [0, 1]))
    assert found == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


def test_a_box_of_iou_06_counts_at_three_of_ten_thresholds():
    # 40 x 30 of 40 x 50: IoU 0.6 reaches 0.5, 0.55 and (just) 0.6.
    found = _result(_batch([[10, 10, 50, 40.01]], [0], scores=[0.9]), _batch([BOX], [0]))
    assert found == pytest.approx({"AP": 0.3, "AP50": 1, "AP75": 0})


def test_a_better_scored_false_detection_halves_the_precision():
    found = _result(_batch([FAR, BOX], [0, 0], scores=[0.9, 0.8]), _batch([BOX], [0]))
    assert found["AP50"] == pytest.approx(0.5)
    found = _result(_batch([FAR, BOX], [0, 0], scores=[0.7, 0.8]), _batch([BOX], [0]))
    assert found["AP50"] == pytest.approx(1)


def test_a_missed_box_costs_its_recall():
    # Precision 1 up to recall 0.5: 51 of the 101 recall points.
    found = _result(_batch([BOX], [0], scores=[0.9]), _batch([BOX, FAR], [0, 0]))
    assert found["AP50"] == pytest.approx(51 / 101)


def test_a_wrong_label_is_a_miss():
    assert _result(_batch([BOX], [1], scores=[0.9]), _batch([BOX], [0]))["AP50"] == 0
    # Class 0 missed, class 1 found.
    found = _result(_batch([BOX, FAR], [1, 1], scores=[0.1, 0.9]), _batch([BOX, FAR], [0, 1]))
    assert found["AP50"] == pytest.approx(0.5)


def test_detections_of_classes_without_ground_truth_do_not_count():
    found = _result(_batch([BOX, FAR], [0, 7], scores=[0.5, 0.9]), _batch([BOX], [0]))
    assert found["AP"] == pytest.approx(1)


def test_padding_counts_on_neither_side():
    detections = _batch([BOX, [-1] * 4, FAR], [0, -1, -1], scores=[0.9, -1, 0.99])
    found = _result(detections, _batch([BOX, [0] * 4, FAR], [0, -1, -1]))
    assert found["AP"] == pytest.approx(1)


def test_an_ignored_region_swallows_its_detections():
    inside = [[100 + 5 * i, 100, 110 + 5 * i, 110] for i in range(4)]
    detections = _batch([*inside, BOX], [0] * 5, scores=[0.9, 0.9, 0.9, 0.9, 0.5])
    targets = _batch([BOX, FAR], [0, 0], ignored=[False, True])
    assert _result(detections, targets)["AP"] == pytest.approx(1)
    targets = _batch([BOX, FAR], [0, 0])
    assert _result(detections, targets)["AP50"] < 0.2


def test_no_detections_have_ap_zero():
    found = _result(_batch([], [], scores=[]), _batch([BOX], [0]))
    assert found == {"AP": 0, "AP50": 0, "AP75": 0}


def test_only_detections_of_unknown_classes_have_ap_zero():
    metric = CocoAP()
    metric.add(_batch([BOX], [5], scores=[0.9]), _batch([BOX], [0]))
    assert metric.result() == {"AP": 0, "AP50": 0, "AP75": 0}
    assert metric.per_class() == {0: {"AP": 0, "AP50": 0}}


@pytest.mark.parametrize("detections", [_batch([BOX], [0], scores=[0.9]), _batch([], [], scores=[])])
def test_no_ground_truth_is_nan(detections):
    assert all(np.isnan(value) for value in _result(detections, _batch([], [])).values())
    ignored = _batch([BOX], [0], ignored=[True])
    assert all(np.isnan(value) for value in _result(detections, ignored).values())


def test_nothing_added_is_nan_and_has_no_classes():
    assert all(np.isnan(value) for value in CocoAP().result().values())
    assert CocoAP().per_class() == {}


def test_per_class_by_hand():
    metric = CocoAP()
    metric.add(_batch([BOX], [3], scores=[0.9]), _batch([BOX, FAR, FAR], [3, 8, 9], ignored=[False, False, True]))
    found = metric.per_class()
    assert found[3] == pytest.approx({"AP": 1, "AP50": 1})
    assert found[8] == {"AP": 0, "AP50": 0}
    assert all(np.isnan(value) for value in found[9].values())


def test_per_class_of_only_ignored_boxes_is_nan_without_detections_too():
    metric = CocoAP()
    metric.add(_batch([], [], scores=[]), _batch([BOX, FAR], [0, 1], ignored=[False, True]))
    found = metric.per_class()
    assert found[0] == {"AP": 0, "AP50": 0}
    assert all(np.isnan(value) for value in found[1].values())


def test_images_of_different_counts_may_be_lists():
    detections = {
        "boxes": [np.array([BOX]), np.array([BOX, FAR])],
        "scores": [np.array([0.9]), np.array([0.8, 0.7])],
        "labels": [np.array([0]), np.array([0, 1])],
    }
    targets = {name: detections[name] for name in ("boxes", "labels")}
    assert _result(detections, targets)["AP"] == pytest.approx(1)


def test_result_does_not_depend_on_the_batches():
    detections, targets = _random(3)
    together, apart = CocoAP(), CocoAP()
    together.add(detections, targets)
    for i in range(len(targets["labels"])):
        apart.add(*({name: values[i : i + 1] for name, values in part.items()} for part in (detections, targets)))
    assert together.result() == pytest.approx(apart.result())
    apart.reset()
    assert np.isnan(apart.result()["AP"])


def test_result_prints_nothing(capfd):
    _result(*_random(1))
    assert capfd.readouterr() == ("", "")


def _random(seed, *, images=6, detected=30, present=8, classes=3):
    """Return padded detections (jittered ground truth and noise) and targets with ignored regions."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 200, (images, present, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 150, corners.shape)], -1).astype(np.float32)
    labels = rng.integers(0, classes, (images, present))
    ignored = rng.random(labels.shape) < 0.2
    labels[rng.random(labels.shape) < 0.2] = -1
    labels[0] = -1  # an image without ground truth
    source = rng.integers(0, present, (images, detected))
    found = np.take_along_axis(boxes, source[..., None], 1) + rng.normal(0, 6, (images, detected, 4))
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    found_labels = np.take_along_axis(labels, source, 1)
    found_labels = np.where(rng.random(source.shape) < 0.2, rng.integers(0, classes, source.shape), found_labels)
    found_labels[1] = -1  # an image without detections
    scores = rng.permutation(images * detected).reshape(images, detected) / (images * detected)
    targets = {"boxes": boxes, "labels": labels, "ignored": ignored}
    return {"boxes": found.astype(np.float32), "scores": scores, "labels": found_labels}, targets


def _pycocotools(detections, targets):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def xywh(box):
        x1, y1, x2, y2 = (float(v) for v in box)
        return [x1, y1, x2 - x1, y2 - y1]

    annotations, rows = [], []
    for image, labels in enumerate(targets["labels"]):
        for k in np.flatnonzero(labels >= 0):
            box = xywh(targets["boxes"][image, k])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(labels[k]),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(targets["ignored"][image, k]),
                }
            )
        for k in np.flatnonzero(detections["labels"][image] >= 0):
            rows.append(
                {
                    "image_id": image,
                    "category_id": int(detections["labels"][image, k]),
                    "bbox": xywh(detections["boxes"][image, k]),
                    "score": float(detections["scores"][image, k]),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(len(targets["labels"]))],
            "annotations": annotations,
            "categories": [{"id": i} for i in sorted({a["category_id"] for a in annotations})],
        }
        truth.createIndex()
        evaluator = cocoeval.COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize(
    ("seed", "options"),
    [
        (0, {}),
        (1, {"classes": 1}),
        (2, {"images": 15, "present": 3, "classes": 6}),
        # More than COCO's 100 detections an image and class.
        (3, {"images": 3, "detected": 260, "present": 40, "classes": 2}),
    ],
)
def test_all_statistics_equal_pycocotools(seed, options):
    detections, targets = _random(seed, **options)
    expected = _pycocotools(detections, targets)
    found = _result(detections, targets, all_statistics=True)
    assert len(found) == 12
    np.testing.assert_allclose(list(found.values()), np.where(expected < 0, np.nan, expected), atol=1e-9)
    assert 0 < found["AP"] < 1
    assert _result(detections, targets) == {name: found[name] for name in ("AP", "AP50", "AP75")}
    assert list(found)[-6:] == ["AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"]


def test_per_class_has_all_statistics_by_size():
    small, medium = [0, 0, 20, 20], [100, 100, 150, 150]  # 400 and 2500 square pixels
    metric = CocoAP(all_statistics=True)
    metric.add(_batch([small], [4], scores=[0.9]), _batch([small, medium], [4, 4]))
    found = metric.per_class()[4]
    assert (found["AP_small"], found["AP_medium"], found["AR_small"], found["AR_medium"]) == (1, 0, 1, 0)
    assert np.isnan(found["AP_large"]) and np.isnan(found["AR_large"])
    assert (found["AR_1"], found["AR_10"], found["AR_100"]) == (0.5, 0.5, 0.5)
    assert found["AP"] == pytest.approx(51 / 101) == found["AP75"]


def test_per_class_without_detections_has_all_statistics_by_size():
    metric = CocoAP(all_statistics=True)
    metric.add(_batch([], [], scores=[]), _batch([[0, 0, 20, 20]], [4]))
    found = metric.per_class()[4]
    assert list(found) == list(metric.result())
    expected = dict.fromkeys(("AP_medium", "AP_large", "AR_medium", "AR_large"), float("nan"))
    assert found == pytest.approx({**dict.fromkeys(found, 0.0), **expected}, nan_ok=True)
    assert metric.result() == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize("seed", [0, 2])
def test_means_over_the_classes_are_the_figures_of_the_whole(seed):
    metric = CocoAP(all_statistics=True)
    metric.add(*_random(seed))
    figures = list(metric.per_class().values())
    for name, value in metric.result().items():
        # Every class weighs the same, as each has the same number of thresholds and recalls.
        assert value == pytest.approx(np.nanmean([figure[name] for figure in figures]), nan_ok=True)


def test_given_areas_sort_objects_by_size():
    targets = _batch([BOX], [0], areas=[100.0])  # a mask of 100 square pixels in a box of 2000
    found = _result(_batch([BOX], [0], scores=[0.9]), targets, all_statistics=True)
    assert found["AP_small"] == 1 and np.isnan(found["AP_medium"])


def test_labels_out_of_range_are_named():
    with pytest.raises(ValueError, match="`detections` holds the label 9, expected 0 to 3, or -1 for padding"):
        _result(_batch([BOX], [9], scores=[0.9]), _batch([BOX], [0]), num_classes=4)
    with pytest.raises(ValueError, match="`targets` holds the label -3, expected 0 or above"):
        _result(_batch([BOX], [0], scores=[0.9]), _batch([BOX], [-3]))


NAN = float("nan")


@pytest.mark.parametrize("metric", [CocoAP, VocAP])
@pytest.mark.parametrize("wrong", [[NAN] * 4, [NAN, 0, 10, 10], [0, 0, float("inf"), 10]])
@pytest.mark.parametrize("first", [False, True])
def test_nan_scores_come_last_and_boxes_that_are_not_finite_overlap_nothing(metric, wrong, first):
    boxes, scores = [BOX, wrong], [0.5, NAN]
    order = slice(None, None, -1 if first else 1)
    found = metric()
    found.add(_batch(boxes[order], [0, 0], scores=scores[order]), _batch([BOX], [0]))
    assert next(iter(found.result().values())) == pytest.approx(1)  # the box is found before anything wrong
    assert next(iter(found.per_class()[0].values())) == pytest.approx(1)
    wrong_first = metric()
    wrong_first.add(_batch([BOX, wrong], [0, 0], scores=[0.5, 0.9]), _batch([BOX], [0]))
    assert next(iter(wrong_first.result().values())) == pytest.approx(0.5, abs=0.01)  # precision is 1 of 2
    nothing = metric()
    nothing.add(_batch([wrong], [0], scores=[NAN]), _batch([BOX], [0]))
    assert next(iter(nothing.result().values())) == 0


@pytest.mark.parametrize("label", [2.7, NAN])
def test_labels_that_are_no_whole_numbers_are_named(label):
    with pytest.raises(ValueError, match=f"`targets` holds the label {label}, expected whole numbers"):
        _result(_batch([BOX], [0], scores=[0.9]), {**_batch([BOX], [0]), "labels": np.array([[label]])})
    with pytest.raises(ValueError, match=f"`detections` holds the label {label}, expected whole numbers"):
        _result({**_batch([BOX], [0], scores=[0.9]), "labels": np.array([[label]])}, _batch([BOX], [0]))
    whole = {"labels": np.array([[2.0]])}
    assert _result({**_batch([BOX], [0], scores=[0.9]), **whole}, {**_batch([BOX], [0]), **whole})["AP"] == 1
