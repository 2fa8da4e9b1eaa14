"""Targets of any form: ragged ones train as padded ones do, and class ids that no model has do not train silently."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.models import NonFiniteLossError, StopOnNonFiniteLoss, pad_targets
from kerasvision.models.targets import screen_masks

BACKEND = keras.backend.backend()
BOXES = [
    np.array([[0, 0, 40, 40], [50, 10, 90, 60]], np.float32),
    np.zeros((0, 4), np.float32),
    np.array([[30, 5, 60, 50]], np.float32),
    np.array([[1, 2, 30, 40], [5, 5, 20, 60], [60, 1, 90, 30]], np.float32),
]
LABELS = [np.array(labels, np.int32) for labels in ([0, 2], [], [1], [2, 1, 0])]


def _padded(boxes, labels, rows=3):
    targets = {
        "boxes": np.zeros((len(boxes), rows, 4), np.float32),
        "labels": np.full((len(boxes), rows), -1, np.int32),
    }
    for index, (some, ids) in enumerate(zip(boxes, labels, strict=True)):
        targets["boxes"][index, : len(some)] = some
        targets["labels"][index, : len(ids)] = ids
    return targets


PADDED = _padded(BOXES, LABELS)
LISTS = {"boxes": BOXES, "labels": LABELS}


def _ragged(ragged_rank=1):
    import tensorflow as tf

    counts = [len(labels) for labels in LABELS]
    boxes = tf.RaggedTensor.from_row_lengths(np.concatenate(BOXES), counts)
    if ragged_rank == 2:  # what tf.ragged.constant makes of nested lists
        boxes = tf.ragged.constant([[box.tolist() for box in some] for some in BOXES], ragged_rank=2, dtype="float32")
    return {"boxes": boxes, "labels": tf.RaggedTensor.from_row_lengths(np.concatenate(LABELS), counts)}


def _forms():
    return {"lists": LISTS, "plain lists": {key: [row.tolist() for row in rows] for key, rows in LISTS.items()}}


def _losses(model, images, targets):
    losses = model.compute_losses(images, targets)
    return {name: float(ops.convert_to_numpy(value)) for name, value in losses.items()}


def test_pad_targets_by_hand():
    padded = pad_targets({**LISTS, "ignored": [[False, True], [], [True], [False] * 3]})
    assert {name: (array.shape, array.dtype.name) for name, array in padded.items()} == {
        "boxes": ((4, 16, 4), "float32"),
        "labels": ((4, 16), "int32"),
        "ignored": ((4, 16), "bool"),
    }
    for name, rows in PADDED.items():
        np.testing.assert_array_equal(padded[name][:, :3], rows)
    assert (padded["labels"][:, 3:] == -1).all()
    assert not padded["boxes"][:, 3:].any()
    assert np.argwhere(padded["ignored"]).tolist() == [[0, 1], [2, 0]]
    assert pad_targets(PADDED)["labels"] is PADDED["labels"]
    assert pad_targets({"boxes": [np.zeros((17, 4))], "labels": [np.zeros(17)]})["labels"].shape == (1, 32)


@pytest.mark.parametrize("form", _forms())
def test_lists_train_and_score_as_padded_arrays_do(detector, images, form):
    targets = _forms()[form]
    assert _losses(detector, images, targets) == pytest.approx(_losses(detector, images, PADDED), rel=1e-6)
    detector.compile(optimizer=keras.optimizers.SGD(0.0))
    results, before = [], detector.get_weights()
    for given in (targets, PADDED):
        detector.set_weights(before)
        history = detector.fit(images, given, batch_size=2, shuffle=False, validation_data=(images, given), verbose=0)
        results.append({name: values[0] for name, values in history.history.items()})
        results[-1]["evaluated"] = detector.evaluate(images, given, batch_size=3, verbose=0)[0]
        results[-1]["on batch"] = float(detector.train_on_batch(images, given, return_dict=True)["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("ragged_rank", [1, 2])
def test_ragged_tensors_train_and_score_as_padded_arrays_do(detector, images, ragged_rank):
    pytest.importorskip("tensorflow")
    targets = _ragged(ragged_rank)
    assert _losses(detector, images, targets) == pytest.approx(_losses(detector, images, PADDED), rel=1e-6)
    expected = detector.evaluate(images, PADDED, verbose=0)
    assert detector.evaluate(images, targets, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_fit_on_a_dataset_of_ragged_batches_learns_what_padded_ones_teach(compiled, detector, images):
    tf = pytest.importorskip("tensorflow")
    detector.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=BACKEND == "jax")
    before, learnt = detector.get_weights(), []
    for targets in (_ragged(), PADDED):
        detector.set_weights(before)
        batches = tf.data.Dataset.from_tensor_slices((images, targets)).batch(2)
        history = detector.fit(batches, epochs=2, validation_data=batches, shuffle=False, verbose=0).history
        learnt.append((history, detector.get_weights()))
    assert learnt[0][0].keys() == learnt[1][0].keys()
    for name, values in learnt[0][0].items():
        np.testing.assert_allclose(values, learnt[1][0][name], rtol=1e-4, err_msg=name)
    for mine, theirs in zip(learnt[0][1], learnt[1][1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_fit_on_batches_of_lists_works_uncompiled_and_is_refused_else(detector, images, listed):
    halves = [(images[part], {key: rows[part] for key, rows in LISTS.items()}) for part in (slice(0, 2), slice(2, 4))]
    detector.compile(optimizer=keras.optimizers.SGD(0.0))
    assert np.isfinite(detector.evaluate(listed(*halves), verbose=0)[0])
    if BACKEND == "torch":
        history = detector.fit(listed(*halves), shuffle=False, verbose=0).history
        expected = detector.fit(images, PADDED, batch_size=2, shuffle=False, verbose=0).history
        assert history["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        return
    with pytest.raises(ValueError, match=r"`x` yields a list .*yield kerasvision\.models\.pad_targets\(targets\)"):
        detector.fit(listed(*halves), verbose=0)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (BOXES, r"`targets` is a list; a detector takes a dict of 'boxes' \(B, M, 4\) and 'labels' \(B, M\)"),
        ({"boxes": BOXES}, r"`targets` is a dict of \['boxes'\]; a detector takes"),
        ({**LISTS, "labels": [*LABELS[:3], [1]]}, r"`labels` has \[2, 0, 1, 1\] rows .* `boxes` has \[2, 0, 1, 3\]"),
        ({**LISTS, "boxes": [np.zeros(4)] * 4}, r"`boxes` of image 0 has shape \(4,\), expected \(boxes, 4\)"),
        ({**PADDED, "labels": PADDED["labels"][0]}, r"`boxes` of shape \(4, 3, 4\) and `labels` of shape \(3,\) must"),
        ({**PADDED, "boxes": PADDED["boxes"][:, :2]}, r"`boxes` of shape \(4, 2, 4\) and `labels` of shape \(4, 3\)"),
    ],
)
def test_targets_that_do_not_belong_together_are_named(detector, images, targets, said):
    for method in (detector.compute_losses, detector.fit, detector.evaluate, detector.train_on_batch):
        with pytest.raises(ValueError, match=said):
            method(images, targets)


# --- class ids out of range


def _with_label(label):
    return {**PADDED, "labels": np.where(PADDED["labels"] == 1, label, PADDED["labels"])}


def test_label_out_of_range_is_refused_where_it_can_be_seen(detector, images):
    said = r"`labels` holds 7 \(image 2, box 0; 2 such in all\), but the model has 3 classes, 0 to 2.*num_classes=8"
    detector.compile()
    for method in (detector.compute_losses, detector.fit, detector.evaluate, detector.train_on_batch):
        with pytest.raises(ValueError, match=said):
            method(images, _with_label(7))
    with pytest.raises(ValueError, match=said):
        detector.fit(images, PADDED, validation_data=(images, _with_label(7)), verbose=0)
    with pytest.raises(ValueError, match="`labels` holds 3 "):
        detector.compute_losses(images, pad_targets({"boxes": BOXES, "labels": [label + 1 for label in LABELS]}))


def test_label_out_of_range_of_an_ignored_box_does_not_matter(detector, images):
    ignored = PADDED["labels"] == 1
    expected = _losses(detector, images, {**PADDED, "ignored": ignored})
    assert _losses(detector, images, {**_with_label(7), "ignored": ignored}) == pytest.approx(expected)


def test_label_out_of_range_in_a_step_stops_training_and_says_so(compiled, detector, images, listed):
    detector.compile(optimizer=keras.optimizers.SGD(0.01))
    good = images[:2], {key: rows[:2] for key, rows in PADDED.items()}
    bad = images[2:], {key: rows[2:] for key, rows in _with_label(7).items()}
    with pytest.raises(
        NonFiniteLossError,
        match=r"classification = nan.*at epoch 1, step 2; 2 class ids of the targets are none of the model's 3 classes",
    ):
        detector.fit(listed(good, bad), shuffle=False, verbose=0)
    assert all(np.isfinite(array).all() for array in detector.get_weights())
    history = detector.fit(listed(good), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert "invalid_targets" not in history


def test_mask_id_out_of_range_is_refused_where_it_can_be_seen(segmenter, images):
    masks = np.zeros((4, 64, 96), np.int32)
    masks[:, :2], masks[0, 5, :7], masks[1, 6, :3] = 255, 9, -1
    said = r"`masks` holds the class ids -1, 9 in 10 pixels, but the model has 3 classes, 0 to 2, and 255 is ignored"
    segmenter.compile()
    for method in (
        *(segmenter.compute_losses, segmenter.fit, segmenter.evaluate, segmenter.train_on_batch),
        segmenter.test_on_batch,
    ):
        with pytest.raises(ValueError, match=said):
            method(images, masks)


def test_mask_that_is_no_whole_number_is_refused_where_it_can_be_seen(segmenter, images):
    masks = np.ones((4, 64, 96), np.float32)
    masks[0, :2], masks[1, 0, 0], masks[2, 0, :2] = 0.9, np.nan, -0.5
    segmenter.compile()
    for method in (segmenter.compute_losses, segmenter.fit):
        with pytest.raises(ValueError, match=r"`masks` holds the class ids -0\.5, 0\.9, nan in 195 pixels, but"):
            method(images, masks)


def test_mask_that_is_no_whole_number_in_a_step_is_an_error(segmenter, images, listed):
    masks = np.ones((4, 64, 96), np.float32)
    masks[0, 0, :7], masks[1, 0, 0] = 0.9, np.nan
    segmenter.compile(optimizer=keras.optimizers.SGD(0.01))
    with pytest.raises(NonFiniteLossError, match="step 1; 8 class ids of the targets are none of the model's 3 class"):
        segmenter.fit(listed((images, masks)), verbose=0)


@pytest.mark.parametrize("ignored", [255, -1, None])
def test_screened_masks_by_hand(ignored):
    masks = np.array([0.0, 1.5, np.nan, -0.5, 2.0, 7.0, 1.0, 255.0 if ignored is None else ignored], np.float32)
    screened, count = screen_masks(masks, 3, ignored, stand_in=2)
    last = 2 if ignored is None else ignored
    assert ops.convert_to_numpy(screened).tolist() == [0, 2, 2, 2, 2, 2, 1, last]
    assert int(count) == (5 if ignored is None else 4)


def test_mask_id_out_of_range_in_a_step_of_evaluate_is_an_error_at_its_end(segmenter, images, listed):
    masks = np.zeros((4, 64, 96), np.int32)
    masks[0, 5, :7] = 9
    segmenter.compile()
    said = r"`segmentation` counted 7 pixels whose class ids are neither one of the 3 classes, 0 to 2, nor ignored; map"
    with pytest.raises(ValueError, match=said):
        segmenter.evaluate(listed((images, masks)), verbose=0)
    masks[0, 5, :7] = 2
    assert np.isfinite(segmenter.evaluate(listed((images, masks)), verbose=0)).all()


@pytest.mark.parametrize("own_loss", [False, True])
def test_mask_id_out_of_range_in_a_step_is_a_short_error(segmenter, images, listed, own_loss):
    """TensorFlow's own would list every pixel of the batch."""
    masks = np.zeros((4, 64, 96), np.int32)
    masks[0, 5, :7] = 9
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255) if own_loss else None
    segmenter.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss)
    with pytest.raises(
        NonFiniteLossError, match=r"step 1; 7 class ids of the targets are none of .* 3 classes"
    ) as error:
        segmenter.fit(listed((images, masks)), verbose=0)
    assert len(str(error.value)) < 400
    assert all(np.isfinite(array).all() for array in segmenter.get_weights())


def test_mask_of_255_is_refused_by_a_loss_that_does_not_ignore_it(segmenter, images):
    masks = np.full((4, 64, 96), 255, np.int32)
    segmenter.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"class ids 255 in 24576 pixels.*nothing is ignored by the loss"):
        segmenter.fit(images, masks, verbose=0)


# --- losses that are not finite


def _diverge(segmenter, images, **options):
    segmenter.compile(optimizer=keras.optimizers.SGD(1e30))
    masks = np.zeros((4, 64, 96), np.int32)
    masks[:, ::2] = 1
    return segmenter.fit(images, masks, batch_size=2, epochs=3, verbose=0, **options)


def test_fit_stops_at_a_loss_that_is_not_finite(segmenter, images):
    with pytest.raises(NonFiniteLossError, match=r"loss = \w+ at epoch \d, step \d; look at the samples, lower the"):
        _diverge(segmenter, images)


def test_fit_with_other_callbacks_stops_as_well(segmenter, images):
    others = keras.callbacks.CallbackList([keras.callbacks.TerminateOnNaN()], model=segmenter)
    with pytest.raises(NonFiniteLossError):
        _diverge(segmenter, images, callbacks=others)


def test_fit_goes_on_if_told_to(segmenter, images):
    history = _diverge(segmenter, images, stop_on_non_finite_loss=False).history
    assert len(history["loss"]) == 3
    assert not np.isfinite(history["loss"]).all()


def test_fit_keeps_the_users_own_stop(segmenter, images):
    stop = StopOnNonFiniteLoss(lambda epoch, step: ["a.png", "b.png"], note="nothing was saved")
    with pytest.raises(
        NonFiniteLossError, match=r"the batch holds a\.png, b\.png; look at these.*; nothing was saved$"
    ):
        _diverge(segmenter, images, callbacks=[stop])
