"""Boundary F1 by hand, and against distances between all pairs of boundary pixels."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.metrics import BoundaryF1, boundary_f1
from kerasvision.metrics.class_ids import errors_deferred


def _logits(classes, num_classes):
    return np.eye(num_classes, dtype=np.float32)[classes]


def _update(metric, truth, predicted, **options):
    metric.update_state(truth, _logits(predicted, metric.num_classes), **options)
    return float(ops.convert_to_numpy(metric.result()))


def _halves(column, size=(30, 40)):
    """Class 1 from a column on, class 0 before it; boundary of 0 at `column` - 1, of 1 at `column`."""
    mask = np.zeros(size, int)
    mask[:, column:] = 1
    return mask


def plain_boundary_f1(truth, predictions, num_classes, tolerance, ignored):
    """The definition, pixel by pixel: distances between all pairs."""
    height, width = truth.shape

    def boundary(mask, label):
        pixels = []
        for y in range(height):
            for x in range(width):
                if mask[y, x] != label or truth[y, x] == ignored:
                    continue
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                around = [(j, i) for j, i in around if 0 <= j < height and 0 <= i < width and truth[j, i] != ignored]
                if any(mask[j, i] != label for j, i in around):
                    pixels.append((y, x))
        return np.array(pixels, float).reshape(-1, 2)

    figures, limit = [], tolerance * np.hypot(height, width)
    for label in range(num_classes):
        true, found = boundary(truth, label), boundary(predictions, label)
        if not len(true) and not len(found):
            figures.append(np.nan)
        elif not len(true) or not len(found):
            figures.append(0.0)
        else:
            near = np.linalg.norm(true[:, None] - found[None], axis=-1) < limit - 1e-4
            recall, precision = near.any(axis=1).mean(), near.any(axis=0).mean()
            figures.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return np.array(figures)


def random_masks(seed, size=(24, 31), classes=4):
    """Blocks of classes, and the same moved, with noise and ignored pixels."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes - 1, (6, 8))
    truth = np.kron(blocks, np.ones((4, 4), int))[: size[0], : size[1]]
    predicted = np.roll(truth, rng.integers(-2, 3, 2), axis=(0, 1))
    predicted = np.where(rng.random(size) < 0.02, rng.integers(0, classes, size), predicted)
    return np.where(rng.random(size) < 0.05, 255, truth), predicted


def test_equal_masks_have_one():
    np.testing.assert_array_equal(boundary_f1(_halves(20), _halves(20), 3), [1, 1, np.nan])
    metric = BoundaryF1(3)
    assert _update(metric, _halves(20)[None], _halves(20)[None]) == 1
    np.testing.assert_array_equal(metric.per_class(), [1, 1, np.nan])


@pytest.mark.parametrize(("moved", "expected"), [(2, 1), (3, 0), (4, 0), (-2, 1), (-3, 0)])
def test_distance_must_be_below_the_tolerance(moved, expected):
    # Diagonal 50: 0.06 of it are 3 pixels, and 3 is not below 3.
    truth, predicted = _halves(20), _halves(20 + moved)
    np.testing.assert_array_equal(boundary_f1(truth, predicted, 2, tolerance=0.06), [expected, expected])
    assert _update(BoundaryF1(2, tolerance=0.06), truth[None], predicted[None]) == expected


def test_six_pixels_in_640_by_480_are_a_tie_on_host_and_graph():
    # 0.0075 * 800 = 6 exactly; here the same of a smaller diagonal: 0.06 * 100 in 60 x 80.
    truth, predicted = _halves(20, (60, 80)), _halves(26, (60, 80))
    assert boundary_f1(truth, predicted, 2, tolerance=0.06)[1] == 0
    assert _update(BoundaryF1(2, tolerance=0.06), truth[None], predicted[None]) == 0
    assert boundary_f1(truth, predicted, 2, tolerance=0.0601)[1] == 1
    assert _update(BoundaryF1(2, tolerance=0.0601), truth[None], predicted[None]) == 1


def test_precision_and_recall_by_hand():
    # Boundary of class 1: 30 true pixels in one column; predicted: those and 30 more in a column far away.
    truth, predicted = _halves(20), _halves(20)
    predicted[:, 35:] = 0
    # Class 1: precision 1 / 2, recall 1, F1 2 / 3; class 0 the same: columns 19 and 35 of which 19 is true.
    expected = 2 * (1 / 2) * 1 / (1 / 2 + 1)
    np.testing.assert_allclose(boundary_f1(truth, predicted, 2), [expected, expected])
    assert _update(BoundaryF1(2), truth[None], predicted[None]) == pytest.approx(expected)


def test_a_class_only_predicted_or_missed_is_zero():
    truth, predicted = _halves(20), _halves(20) * 2
    np.testing.assert_array_equal(boundary_f1(truth, predicted, 3), [1, 0, 0])
    metric = BoundaryF1(3)
    assert _update(metric, truth[None], predicted[None]) == pytest.approx(1 / 3)
    np.testing.assert_array_equal(metric.per_class(), [1, 0, 0])


def test_images_weigh_the_same_and_those_without_boundary_do_not_count():
    plain = np.zeros((30, 40), int)
    truth = np.stack([_halves(20), _halves(20), plain])
    predicted = np.stack([_halves(20), _halves(20) * 2, plain])
    metric = BoundaryF1(3)
    assert _update(metric, truth, predicted) == pytest.approx((1 + 1 / 3) / 2)
    np.testing.assert_array_equal(metric.per_class(), [1, 1 / 2, 0])
    # Class 0 twice 1; class 1 found once of two; class 2 only ever wrong.
    metric.reset_state()
    assert np.isnan(_update(metric, plain[None], plain[None])) and np.isnan(metric.per_class()).all()


def test_ignored_pixels_make_no_boundary_and_hide_those_of_the_prediction():
    truth, predicted = _halves(20), _halves(20)
    truth[:, 25:] = 255  # to the right of which the prediction draws another contour
    predicted[:, 30:] = 0
    np.testing.assert_array_equal(boundary_f1(truth, predicted, 2), [1, 1])
    assert _update(BoundaryF1(2), truth[None], predicted[None]) == 1
    band = _halves(20)
    band[:, 18:22] = 255  # no two classes touch
    assert np.isnan(boundary_f1(band, band * 0, 2)).all()
    assert np.isnan(_update(BoundaryF1(2), band[None], band[None] * 0))
    assert boundary_f1(_halves(20), _halves(20), 2, ignore_class=0).tolist() != [1, 1]


@pytest.mark.parametrize("tolerance", [0.001, 0.03, 0.06, 0.1])
def test_random_masks_equal_all_pairs(tolerance):
    masks = [random_masks(seed) for seed in range(3)]
    expected = np.array([plain_boundary_f1(*pair, 4, tolerance, 255) for pair in masks])
    found = np.array([boundary_f1(*pair, 4, tolerance=tolerance) for pair in masks])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    metric = BoundaryF1(4, tolerance=tolerance)
    truth, predicted = (np.stack(part) for part in zip(*masks, strict=True))
    assert _update(metric, truth, predicted) == pytest.approx(np.nanmean(expected, axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(metric.per_class(), np.nanmean(expected, axis=0), rtol=1e-5)
    assert 0.1 < np.nanmean(expected) < 0.999


def test_metric_adds_up_over_batches():
    masks = [random_masks(seed) for seed in range(3)]
    truth, predicted = (np.stack(part) for part in zip(*masks, strict=True))
    together, apart = BoundaryF1(4), BoundaryF1(4)
    expected = _update(together, truth, predicted)
    for pair in masks:
        found = _update(apart, *(part[None] for part in pair))
    assert found == pytest.approx(expected, rel=1e-6)


def test_metric_takes_channels_weights_and_half_precision():
    truth, predicted = (part[None] for part in random_masks(0))
    expected = boundary_f1(truth[0], predicted[0], 4)
    metric = BoundaryF1(4)
    logits = ops.cast(_logits(predicted, 4), "bfloat16")
    metric.update_state(truth[..., None].astype(np.float32), logits)
    np.testing.assert_allclose(metric.per_class(), expected, rtol=1e-5)
    metric = BoundaryF1(4)
    both = [np.concatenate([part, part]) for part in (truth, predicted)]
    _update(metric, both[0], both[1] * 0, sample_weight=np.array([0, 0], np.float32))
    assert np.isnan(float(metric.result()))
    weights = np.where(truth == 255, 0, 1).astype(np.float32)
    metric = BoundaryF1(4, ignore_class=None)
    _update(metric, truth, predicted, sample_weight=weights)
    np.testing.assert_allclose(metric.per_class(), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [2, -1, 254])
def test_class_out_of_range_is_an_error_and_nan_where_that_is_deferred(wrong):
    truth = _halves(20)
    truth[0, :2] = wrong
    metric = BoundaryF1(2)
    with pytest.raises(ValueError, match=rf"`y_true` holds the class ids {wrong} \(2 pixels\)"):
        _update(metric, truth[None], _halves(20)[None])
    with errors_deferred():
        assert np.isnan(_update(metric, truth[None], _halves(20)[None]))
        assert int(metric.out_of_range) == 2
        assert np.isnan(_update(metric, _halves(20)[None], _halves(20)[None]))  # it stays so
    for method in (metric.result, metric.per_class):
        with pytest.raises(ValueError, match="`boundary_F1` counted 2 pixels whose class ids are neither one of the 2"):
            method()
    with pytest.raises(ValueError, match=r"`truth` holds class ids from -?\d to \d+, expected 0 to 1 or 255"):
        boundary_f1(truth, _halves(20), 2)


def test_nan_logits_make_it_nan():
    logits = _logits(_halves(20)[None], 2)
    logits[0, 0, 0, 1] = np.nan
    metric = BoundaryF1(2)
    metric.update_state(_halves(20)[None], logits)
    assert np.isnan(float(metric.result())) and np.isnan(metric.per_class()).all()
    assert int(metric.undefined) == 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`predictions` holds class ids from 0 to 2, expected 0 to 1"):
        boundary_f1(_halves(20), _halves(20) * 2, 2)
    with pytest.raises(ValueError, match=r"`truth` of shape \(1, 30, 40\) and `predictions` of shape \(30, 40\)"):
        boundary_f1(_halves(20)[None], _halves(20), 2)
    with pytest.raises(ValueError, match="`tolerance` is 0, expected a part of the diagonal above 0"):
        BoundaryF1(2, tolerance=0)
    with pytest.raises(ValueError, match=r"`y_pred` has shape \(30, 40, 2\), expected \(B, H, W, 2\)"):
        BoundaryF1(2).update_state(_halves(20), _logits(_halves(20), 2))
    with pytest.raises(ValueError, match="`y_pred` has 5 channels, but `num_classes` is 2"):
        BoundaryF1(2).update_state(_halves(20)[None], _logits(_halves(20)[None], 5))


def test_empty_batch_and_smallest_images():
    metric = BoundaryF1(3)
    metric.update_state(np.zeros((0, 4, 4), np.int32), np.zeros((0, 4, 4, 3), np.float32))
    metric.update_state(np.zeros((1, 1, 1), np.int32), np.zeros((1, 1, 1, 3), np.float32))
    assert int(metric.images) == 0
    assert np.isnan(boundary_f1(np.zeros((0, 0), int), np.zeros((0, 0), int), 2)).all()
    assert _update(metric, np.array([[[0, 1]]]), np.array([[[0, 1]]])) == 1


def test_comes_back_from_its_configuration():
    metric = BoundaryF1(7, ignore_class=3, tolerance=0.02, name="contours")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert restored.get_config() == metric.get_config()
    assert (restored.num_classes, restored.ignore_class, restored.tolerance) == (7, 3, 0.02)
    assert {"num_classes", "ignore_class", "tolerance", "name", "dtype"} <= set(metric.get_config())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_evaluate_with_unknown_sizes_logs_it(jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("torch.compile is not used here")
    model = keras.Sequential([keras.Input((None, None, 4)), keras.layers.Identity()])
    loss = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=255)
    model.compile(loss=loss, metrics=[BoundaryF1(4, tolerance=0.06)], jit_compile=jit_compile)
    truth, predicted = (np.stack(part) for part in zip(*(random_masks(seed) for seed in range(3)), strict=True))
    logs = model.evaluate(_logits(predicted, 4), truth, batch_size=2, return_dict=True, verbose=0)
    metric = BoundaryF1(4, tolerance=0.06)
    assert logs["boundary_F1"] == pytest.approx(_update(metric, truth, predicted), rel=1e-5)
