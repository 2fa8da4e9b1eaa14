"""Segmentation metrics by hand, and against a confusion matrix counted pixel by pixel."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.metrics import (
    BoundaryF1,
    SegmentationMetrics,
    boundary_f1,
    confusion_matrix,
    figures_of,
    per_class_accuracy,
    per_class_dice,
    per_class_iou,
)
from kerasvision.metrics import segmentation as segmentation_module
from kerasvision.metrics.class_ids import errors_deferred

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 2, 255]])
PREDICTED = np.array([[0, 0, 1, 1], [1, 2, 2, 0]])
# Rows true, columns predicted; the 255 does not count.
CONFUSION = np.array([[2, 1, 0], [0, 2, 1], [0, 0, 1]])


def _logits(classes, num_classes):
    return np.eye(num_classes, dtype=np.float32)[classes]


def _update(metric, truth, predicted, **options):
    metric.update_state(truth, _logits(predicted, metric.num_classes), **options)
    return {name: float(ops.convert_to_numpy(value)) for name, value in metric.result().items()}


def test_confusion_matrix_by_hand():
    found = confusion_matrix(TRUTH, PREDICTED, 3)
    np.testing.assert_array_equal(found, CONFUSION)
    assert found.dtype == np.int64


def test_confusion_matrix_equals_counting_one_by_one():
    rng = np.random.default_rng(0)
    truth, predicted = rng.choice([0, 1, 2, 3, 255], (20, 30)), rng.integers(0, 4, (20, 30))
    expected = np.zeros((4, 4), int)
    for row, column in zip(truth.ravel(), predicted.ravel(), strict=True):
        if row != 255:
            expected[row, column] += 1
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 4), expected)


def test_confusion_matrix_of_uint8_does_not_overflow():
    # 20 * 21 + 20 = 440 is more than a byte.
    found = confusion_matrix(np.full(3, 20, np.uint8), np.full(3, 20, np.uint8), 21)
    assert found[20, 20] == 3 and found.sum() == 3


def test_confusion_matrix_of_nothing_is_zero():
    np.testing.assert_array_equal(confusion_matrix(np.zeros((0, 4), int), np.zeros((0, 4), int), 2), np.zeros((2, 2)))


def test_confusion_matrix_without_an_ignored_class_counts_all():
    found = confusion_matrix(np.array([0, 1]), np.array([1, 1]), 2, ignore_class=None)
    np.testing.assert_array_equal(found, [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 3], [0, 0], "`truth` holds class ids from 0 to 3, expected 0 to 2 or 255"),
        ([0, -1], [0, 0], "`truth` holds class ids from -1 to 0"),
        ([0, 1], [0, 5], "`predictions` holds class ids from 0 to 5"),
        ([0, 1], [0], r"`predictions` of shape \(1,\) must have the shape of `truth`, \(2,\)"),
    ],
)
def test_confusion_matrix_wrong_values_are_named(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(truth), np.array(predicted), 3)


def test_figures_by_hand():
    figures = figures_of(CONFUSION)
    # IoU: 2 / 3, 2 / 4, 1 / 2. Accuracy: 5 of 7. Dice: 4 / 5, 4 / 6, 2 / 3.
    assert figures["mIoU"] == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 7)
    assert figures["dice"] == pytest.approx((4 / 5 + 2 / 3 + 2 / 3) / 3)
    np.testing.assert_allclose(per_class_iou(CONFUSION), [2 / 3, 1 / 2, 1 / 2])


def test_all_figures_by_hand():
    figures = figures_of(CONFUSION, all_statistics=True)
    assert list(figures) == ["mIoU", "pixel_accuracy", "dice", "mean_accuracy", "frequency_weighted_IoU"]
    # Found of the true pixels: 2 of 3, 2 of 3, 1 of 1. IoU 2 / 3, 1 / 2, 1 / 2 of 3, 3 and 1 of 7 pixels.
    assert figures["mean_accuracy"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert figures["frequency_weighted_IoU"] == pytest.approx((3 * 2 / 3 + 3 / 2 + 1 / 2) / 7)
    np.testing.assert_allclose(per_class_dice(CONFUSION), [4 / 5, 2 / 3, 2 / 3])
    np.testing.assert_allclose(per_class_accuracy(CONFUSION), [2 / 3, 2 / 3, 1])


def test_mean_accuracy_leaves_out_classes_that_are_never_true():
    confusion = [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    figures = figures_of(confusion, all_statistics=True)
    assert figures["mean_accuracy"] == figures["frequency_weighted_IoU"] == pytest.approx(3 / 4)
    np.testing.assert_allclose(per_class_accuracy(confusion), [3 / 4, np.nan, np.nan])
    np.testing.assert_allclose(per_class_dice(confusion), [6 / 7, 0, np.nan])
    assert all(np.isnan(value) for value in figures_of(np.zeros((3, 3)), all_statistics=True).values())


@pytest.mark.parametrize("confusion", [CONFUSION, [[3, 1, 0], [0, 0, 0], [0, 0, 0]], np.zeros((3, 3), int)])
def test_metric_equals_all_figures(confusion):
    truth, predicted = (np.repeat(index, np.ravel(confusion)) for index in np.indices((3, 3)).reshape(2, -1))
    found = _update(SegmentationMetrics(3, all_statistics=True), truth[None], predicted[None])
    assert found == pytest.approx(figures_of(confusion, all_statistics=True), rel=1e-6, nan_ok=True)


def test_figures_leave_out_classes_that_do_not_occur():
    wider = np.zeros((5, 5), int)
    wider[np.ix_([0, 2, 4], [0, 2, 4])] = CONFUSION
    assert figures_of(wider) == pytest.approx(figures_of(CONFUSION))
    np.testing.assert_allclose(per_class_iou(wider), [2 / 3, np.nan, 1 / 2, np.nan, 1 / 2])


def test_figures_count_a_class_that_is_only_predicted_as_zero():
    # Class 1 is never true: its IoU is 0 / 1; class 0: 3 / 4.
    assert figures_of([[3, 1], [0, 0]])["mIoU"] == pytest.approx((3 / 4 + 0) / 2)


def test_figures_of_predictions_that_are_no_class_of_the_data_are_misses():
    with_unknown = np.zeros((4, 4), int)
    with_unknown[:3, :3] = CONFUSION
    assert figures_of(with_unknown, num_classes=3) == pytest.approx(figures_of(CONFUSION))
    # One more pixel of class 0 went to the unknown class. IoU: 2 / 4, 2 / 4, 1 / 2; accuracy: 5 of 8.
    with_unknown[0, 3] = 1
    figures = figures_of(with_unknown, num_classes=3)
    assert figures["mIoU"] == pytest.approx(1 / 2)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 8)


def test_figures_of_nothing_are_nan():
    assert all(np.isnan(value) for value in figures_of(np.zeros((3, 3))).values())


def test_metric_equals_the_figures_by_hand():
    metric = SegmentationMetrics(3)
    found = _update(metric, TRUTH[None], PREDICTED[None])
    assert found == pytest.approx(figures_of(CONFUSION), rel=1e-6)
    np.testing.assert_array_equal(metric.confusion(), CONFUSION)


def test_metric_accumulates_and_resets():
    metric = SegmentationMetrics(3)
    rng = np.random.default_rng(0)
    total = np.zeros((3, 3), int)
    for _ in range(3):
        truth, predicted = rng.choice([0, 1, 2, 255], (2, 5, 7)), rng.integers(0, 3, (2, 5, 7))
        found = _update(metric, truth, predicted)
        total += confusion_matrix(truth, predicted, 3)
    np.testing.assert_array_equal(metric.confusion(), total)
    assert found == pytest.approx(figures_of(total), rel=1e-6)
    metric.reset_state()
    assert metric.confusion().sum() == 0 and int(metric.out_of_range) == 0


def test_metric_takes_masks_with_a_channel_and_as_floats():
    metric = SegmentationMetrics(3)
    metric.update_state(TRUTH[None, ..., None].astype(np.float32), _logits(PREDICTED[None], 3))
    np.testing.assert_array_equal(metric.confusion(), CONFUSION)


@pytest.mark.parametrize("wrong", [3, -1, 254])
def test_metric_refuses_a_class_out_of_range_and_counts_nothing_of_the_batch(wrong):
    truth = TRUTH.copy()
    truth[0, :2] = wrong
    metric = SegmentationMetrics(3)
    said = rf"`y_true` holds the class ids {wrong} \(2 pixels\), 2 pixels in all, expected 0 to 2 \(255 for .*map the"
    with pytest.raises(ValueError, match=said):
        metric.update_state(truth, _logits(PREDICTED, 3))
    assert int(metric.out_of_range) == 0 and metric.confusion().sum() == 0


def test_metric_names_some_of_many_ids_out_of_range():
    with pytest.raises(ValueError, match=r"ids 3 \(1 pixels\), .*, 7 \(1 pixels\) \.\.\., 6 pixels in all"):
        SegmentationMetrics(3).update_state(np.arange(2, 9)[None], np.zeros((1, 7, 3), np.float32))


@pytest.mark.parametrize("wrong", [3, -1, 254])
def test_metric_whose_errors_are_deferred_is_nan_and_raises_later(wrong):
    truth = TRUTH.copy()
    truth[0, :2] = wrong
    metric = SegmentationMetrics(3)
    with errors_deferred():
        assert all(np.isnan(value) for value in _update(metric, truth, PREDICTED).values())
        assert int(metric.out_of_range) == 2
        assert metric.confusion().sum() == 5  # the others, none of them in a wrong cell
        # It stays so: later good batches must not hide it.
        assert np.isnan(_update(metric, TRUTH, PREDICTED)["mIoU"])
    for method in (metric.result, metric.confusion):
        with pytest.raises(ValueError, match="`segmentation` counted 2 pixels whose class ids are neither one"):
            method()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_metric_in_a_graph_is_nan_for_a_class_out_of_range_and_raises_outside_of_it():
    truth, metric = np.where(TRUTH == 0, 7, TRUTH), SegmentationMetrics(3)
    if keras.backend.backend() == "jax":
        import jax

        def step(variables, truth, logits):
            variables = metric.stateless_update_state(variables, truth, logits)
            return variables, metric.stateless_result(variables)

        variables, found = jax.jit(step)([v.value for v in metric.variables], truth, _logits(PREDICTED, 3))
        for variable, value in zip(metric.variables, variables, strict=True):
            variable.assign(value)
    else:
        import tensorflow as tf

        @tf.function
        def step(truth, logits):
            metric.update_state(truth, logits)
            return metric.result()

        found = step(tf.constant(truth), tf.constant(_logits(PREDICTED, 3)))
    assert all(np.isnan(float(value)) for value in found.values())
    with pytest.raises(ValueError, match="counted 3 pixels whose class ids"):
        metric.result()


def test_metric_takes_nan_in_a_mask_for_no_class():
    with pytest.raises(ValueError, match=r"`y_true` holds the class ids nan \(1 pixels\)"):
        SegmentationMetrics(3).update_state(np.array([[0, np.nan]], np.float32), np.zeros((1, 2, 3), np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_metric_of_nan_logits_is_nan_and_counts_them_as_nothing(dtype):
    # The greatest of NaNs has index 0 or whatever: class 0 must not be right by that.
    logits = np.where(np.arange(8).reshape(2, 4)[..., None] == 0, np.nan, _logits(PREDICTED, 3)).astype(np.float32)
    logits[1, 3] = np.nan  # of an ignored pixel
    metric = SegmentationMetrics(3)
    metric.update_state(TRUTH, ops.cast(logits, dtype))
    assert all(np.isnan(float(value)) for value in metric.result().values())
    assert int(metric.undefined) == 1
    np.testing.assert_array_equal(metric.confusion(), CONFUSION - [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    metric.reset_state()
    assert _update(metric, TRUTH, PREDICTED) == pytest.approx(figures_of(CONFUSION), rel=1e-6)


def test_metric_with_another_ignored_class():
    metric = SegmentationMetrics(3, ignore_class=0)
    _update(metric, np.array([0, 1, 2]), np.array([1, 1, 1]))
    np.testing.assert_array_equal(metric.confusion(), [[0, 0, 0], [0, 1, 0], [0, 1, 0]])
    metric = SegmentationMetrics(3, ignore_class=None)
    with pytest.raises(ValueError, match=r"ids 255 \(1 pixels\).*no id is ignored"):
        _update(metric, np.array([0, 255]), np.array([1, 1]))


def test_metric_of_only_ignored_pixels_is_nan_as_figures_of_has_it():
    found = _update(SegmentationMetrics(3), np.full((1, 2, 2), 255), np.zeros((1, 2, 2), int))
    assert all(np.isnan(value) for value in found.values())


def test_metric_of_an_empty_batch_changes_nothing():
    metric = SegmentationMetrics(3)
    metric.update_state(np.zeros((0, 2, 2), np.int32), np.zeros((0, 2, 2, 3), np.float32))
    assert metric.confusion().sum() == 0


def test_metric_does_not_count_pixels_of_weight_zero():
    metric = SegmentationMetrics(3)
    weights = np.ones_like(TRUTH, np.float32)
    weights[0] = 0
    _update(metric, TRUTH, PREDICTED, sample_weight=weights)
    np.testing.assert_array_equal(metric.confusion(), [[0, 0, 0], [0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("weights", [[1, 0], [[1], [0]], [[[1]], [[0]]]])
def test_metric_takes_one_weight_an_image(weights):
    # As wide as it is tall and as many images: a weight an image must not be read as a weight a column.
    truth = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 1]]])
    metric = SegmentationMetrics(2)
    _update(metric, truth, truth, sample_weight=np.array(weights, np.float32))
    np.testing.assert_array_equal(metric.confusion(), [[3, 0], [0, 1]])


def test_metric_with_another_number_of_channels_names_both():
    with pytest.raises(ValueError, match=r"`y_pred` has 5 channels, but `num_classes` is 3"):
        SegmentationMetrics(3).update_state(TRUTH, _logits(PREDICTED, 5))


def test_metric_carries_exactly(monkeypatch):
    # A small carry instead of 2^24, so that it happens often.
    monkeypatch.setattr(segmentation_module, "_CARRY", 7)
    metric = SegmentationMetrics(2)
    for _ in range(10):
        _update(metric, np.zeros((1, 5, 5), int), np.ones((1, 5, 5), int))
    np.testing.assert_array_equal(metric.confusion(), [[0, 250], [0, 0]])
    np.testing.assert_array_equal(ops.convert_to_numpy(metric.low), [0, 250 % 7, 0, 0])


def test_metric_counts_exactly_beyond_float32_and_int32():
    metric = SegmentationMetrics(2)
    low, high = (1 << 24) - 1, 1000  # 1000 * 2^24 + 2^24 - 1 = 16 793 993 215
    metric.low.assign([low, 0, 0, 0])
    metric.high.assign([high, 0, 0, 0])
    found = _update(metric, np.zeros((1, 1, 3), int), np.array([[[0, 0, 1]]]))
    assert metric.confusion()[0, 0] == high * (1 << 24) + low + 2
    assert metric.confusion()[0, 1] == 1
    assert found["pixel_accuracy"] == pytest.approx(1)


def test_metric_counts_more_pixels_of_a_batch_than_float32_can():
    # 2^24 + 3 pixels of one class in one update: a sum of float32 ones stays at 2^24 = 16 777 216.
    count = (1 << 24) + 3
    metric = SegmentationMetrics(2)
    metric.update_state(np.ones((1, 1, count), np.uint8), np.broadcast_to(np.float32([0, 1]), (1, 1, count, 2)))
    np.testing.assert_array_equal(metric.confusion(), [[0, 0], [0, count]])


def test_metric_comes_back_from_its_configuration():
    metric = SegmentationMetrics(7, ignore_class=3, all_statistics=True, name="seg")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert restored.get_config() == metric.get_config()
    assert (restored.num_classes, restored.ignore_class, restored.name) == (7, 3, "seg")
    assert restored.all_statistics is True
    assert {"num_classes", "ignore_class", "all_statistics", "name", "dtype"} <= set(metric.get_config())


def test_metric_in_fit_and_evaluate_logs_each_figure():
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Identity()])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(True), metrics=[SegmentationMetrics(3)])
    truth = np.where(TRUTH == 255, 0, TRUTH)[None]
    logs = model.evaluate(_logits(PREDICTED[None], 3), truth, return_dict=True, verbose=0)
    expected = figures_of(confusion_matrix(truth, PREDICTED[None], 3))
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [SegmentationMetrics, BoundaryF1])
@pytest.mark.parametrize("ignored", [255, -1])
def test_metrics_take_masks_that_are_no_whole_numbers_for_no_class(kind, ignored):
    logits = np.zeros((1, 2, 3, 3), np.float32)
    masks = np.array([[[0, 1, 2], [ignored, 0, 0]]], np.float32)
    for factor, offset, said in (
        (0.9, 0, r"0\.9 \(1 pixels\), 1\.8 \(1 pixels\), 2 pixels in all"),
        (1, -0.5, r"-0\.5 \(3 pixels\), 0\.5 \(1 pixels\), 1\.5 \(1 pixels\), 5 pixels in all"),
    ):
        given = np.where(masks == ignored, ignored, factor * masks + offset).astype(np.float32)
        metric = kind(3, ignore_class=ignored)
        with pytest.raises(ValueError, match=f"`y_true` holds the class ids {said}, expected 0 to 2"):
            metric.update_state(given, logits)
        with errors_deferred():
            metric.update_state(given, logits)
            assert int(metric.out_of_range) == (2 if offset == 0 else 5)
    whole = kind(3, ignore_class=ignored)
    whole.update_state(masks, logits)
    assert int(whole.out_of_range) == 0


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no int64")
@pytest.mark.parametrize("offset", [2**32, -(2**32), 2**31])
def test_metric_does_not_wrap_ids_beyond_int32(offset):
    given = np.array([[0, 1 + offset]])
    with pytest.raises(ValueError, match=rf"`y_true` holds the class ids {1 + offset} \(1 pixels\)"):
        SegmentationMetrics(3).update_state(given, np.zeros((1, 2, 3), np.float32))


def test_confusion_matrix_refuses_ids_that_are_no_whole_numbers():
    with pytest.raises(ValueError, match=r"`truth` holds class ids that are no whole numbers, such as 0\.9; map"):
        confusion_matrix(np.array([0, 0.9]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="`predictions` holds class ids that are no whole numbers, such as nan"):
        confusion_matrix(np.array([0, 1]), np.array([0, np.nan]), 3)
    with pytest.raises(ValueError, match=r"`truth` holds class ids that are no whole numbers, such as -0\.5"):
        boundary_f1(np.array([[0, -0.5]]), np.array([[0, 1]]), 3)
    found = confusion_matrix(np.array([0, 1.0, 255]), np.array([0, 1.0, np.nan]), 2)
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])


@pytest.mark.parametrize("kind", [SegmentationMetrics, BoundaryF1])
def test_metrics_take_sample_weights_with_an_axis_of_one(kind):
    masks, logits = TRUTH[None], _logits(PREDICTED, 3)[None]
    weights = (np.arange(8).reshape(1, 2, 4) % 3 > 0).astype(np.float32)
    found = []
    for truth in (masks, masks[..., None]):
        for given in (weights, weights[..., None]):
            metric = kind(3)
            metric.update_state(truth, logits, sample_weight=given)
            found.append([ops.convert_to_numpy(variable) for variable in metric.variables])
    for other in found[1:]:
        for one, first in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(one, first)


@pytest.mark.parametrize("shape", [(1, 2, 4, 3), (2, 4), (3,), (1, 2, 4, 1, 1)])
def test_metric_names_sample_weights_that_do_not_fit(shape):
    with pytest.raises(
        ValueError, match=r"`sample_weight` has shape .*, but masks of shape \(1, 2, 4\) need one weight"
    ):
        SegmentationMetrics(3).update_state(TRUTH[None], _logits(PREDICTED, 3)[None], sample_weight=np.ones(shape))
