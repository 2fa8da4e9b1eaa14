"""What all models share: arguments they refuse, compiling, and evaluation."""

import keras
import numpy as np
import pytest

from kerasvision.metrics import CocoAP, VocAP
from kerasvision.models.unet import unet_resnet10

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 64, 96, 3)).astype(np.float32)


def _targets(labels=(0, 1, 2)):
    boxes = np.array([[[0, 0, 40, 40]], [[10, 10, 90, 60]], [[30, 5, 60, 50]]], np.float32)
    return {"boxes": boxes, "labels": np.array(labels, np.int32)[:, None]}


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "3", None])
def test_num_classes_that_is_none_is_refused(num_classes):
    with pytest.raises(ValueError, match=r"`num_classes` .* must be a positive integer"):
        unet_resnet10(num_classes)


def test_class_names_of_another_number_are_refused():
    with pytest.raises(ValueError, match="`class_names` has 2 names, but `num_classes` is 3"):
        unet_resnet10(3, class_names=("a", "b"))


def test_decoder_filters_that_do_not_fit_the_backbone_are_refused():
    with pytest.raises(ValueError, match=r"`decoder_filters` \(8, 8\) has 2 steps, but the backbone gives 5"):
        unet_resnet10(3, decoder_filters=(8, 8))


def test_detector_compile_with_a_loss_is_refused(detector):
    with pytest.raises(ValueError, match="`loss` 'mse' cannot replace the losses of RetinaNet; leave it out"):
        detector.compile(loss="mse")


def test_detector_compile_with_a_keras_metric_says_what_it_needs(detector):
    with pytest.raises(ValueError, match=r"needs? add\(detections, targets\), result\(\) and reset\(\)"):
        detector.compile(metrics=["accuracy"])


def test_detector_compile_with_metrics_reports_them(detector):
    detector.compile(metrics=[CocoAP(all_statistics=True)])
    result = detector.evaluate(IMAGES, _targets(), verbose=0, return_dict=True)
    assert {"AP", "AP_small", "AR_100"} <= set(result)


def test_detector_refuses_sample_weight(detector):
    weights = np.ones(3, np.float32)
    detector.compile()
    with pytest.raises(ValueError, match="`sample_weight` is not used by the losses of RetinaNet; leave it out"):
        detector.train_on_batch(IMAGES, _targets(), sample_weight=weights)
    with pytest.raises(ValueError, match="`sample_weight` is not used by detectors"):
        detector.evaluate(IMAGES, _targets(), sample_weight=weights)


def test_detector_saved_with_metrics_evaluates_with_them(detector, tmp_path):
    detector.compile(metrics=[CocoAP(all_statistics=True, num_classes=3), VocAP(iou_threshold=0.7)])
    detector.save(tmp_path / "model.keras")
    coco, voc = keras.saving.load_model(tmp_path / "model.keras").evaluation_metrics
    assert isinstance(coco, CocoAP) and (coco.all_statistics, coco.num_classes) == (True, 3)
    assert isinstance(voc, VocAP) and (voc.iou_threshold, voc.num_classes) == (0.7, None)


def test_detector_saved_with_a_metric_without_a_config_says_that_it_is_left_out(detector):
    class Counter:
        def add(self, detections, targets):
            """Nothing."""

        def result(self):
            return {}

        def reset(self):
            """Nothing."""

    detector.compile(metrics=[Counter(), VocAP()])
    with pytest.warns(UserWarning, match=r"Counter object .* has no get_config\(\) and is not saved"):
        config = detector.get_compile_config()
    detector.compile_from_config(config)
    (voc,) = detector.evaluation_metrics
    assert isinstance(voc, VocAP)


def test_segmenter_compile_with_a_keras_loss_uses_it(segmenter):
    segmenter.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    masks = np.zeros((3, 64, 96), np.int32)
    logits = keras.ops.convert_to_numpy(segmenter(IMAGES)).astype(np.float64)
    # Cross-entropy of class 0 by hand: log of the sum of exponentials, less the logit of class 0.
    expected = (np.log(np.exp(logits).sum(axis=-1)) - logits[..., 0]).mean()
    result = segmenter.evaluate(IMAGES, masks, verbose=0, return_dict=True)
    assert float(result["loss"]) == pytest.approx(expected, rel=1e-4)
    # The losses that it takes the place of were not computed, so they are not logged as zeros.
    assert set(result) == {"loss", "accuracy"}
    history = segmenter.fit(IMAGES[:2], masks[:2], verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    segmenter.compile()
    assert {"cross_entropy", "dice_loss"} <= set(segmenter.evaluate(IMAGES, masks, verbose=0, return_dict=True))


def test_segmenter_losses_of_known_logits_by_hand(segmenter):
    logits = np.log(np.array([[[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]], np.float32))  # (1, 1, 2, 3)
    tensors = [keras.ops.convert_to_tensor(part) for part in (logits, logits, np.array([[[0, 255]]], np.int32))]
    losses = segmenter.losses_from_outputs(*tensors)
    assert set(losses) == {"cross_entropy", "dice_loss"}
    # One pixel counts. Cross-entropy: -log 0.5. Dice of the one class present: 2 * 0.5 / (0.5 + 1) = 2 / 3.
    assert float(losses["cross_entropy"]) == pytest.approx(0.6931472)
    assert float(losses["dice_loss"]) == pytest.approx(1 / 3)


def test_evaluate_takes_arrays_batches_and_pydatasets_alike(detector):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            part = slice(2 * index, 2 * index + 2)
            return IMAGES[part], {key: value[part] for key, value in _targets().items()}

    detector.compile()
    expected = detector.evaluate(IMAGES, _targets(), batch_size=2, verbose=0, return_dict=True)
    batches = Batches()
    listed = detector.evaluate([batches[0], batches[1]], verbose=0, return_dict=True)
    assert detector.evaluate(batches, verbose=0, return_dict=True) == pytest.approx(expected)
    assert listed == pytest.approx(expected)
    assert detector.evaluate(batches, verbose=0) == pytest.approx(list(expected.values()))


def test_evaluate_perfect_detections_reach_an_ap_of_one(detector, monkeypatch):
    """The whole path from boxes to AP, with a decoder that knows the answers."""
    targets = _targets()
    answers = iter([slice(0, 2), slice(2, 3)])

    def decode(raw, inputs):
        part = next(answers)
        count = len(targets["labels"][part])
        found = {"boxes": targets["boxes"][part], "scores": np.full((count, 1), 0.9, np.float32)}
        found |= {"labels": targets["labels"][part], "num_detections": np.ones(count, np.int32)}
        return keras.tree.map_structure(keras.ops.convert_to_tensor, found)

    if keras.backend.backend() == "jax":
        answers = iter([slice(0, 2), slice(0, 2), slice(2, 3), slice(2, 3)])  # traced anew for each shape
    monkeypatch.setattr(detector, "decode", decode)
    detector.compile(jit_compile=False, run_eagerly=True)
    if keras.backend.backend() == "jax":
        return  # compiled: constants of the first batch would answer for the second
    result = detector.evaluate(IMAGES, targets, batch_size=2, verbose=0, return_dict=True)
    assert result["AP"] == result["AP50"] == pytest.approx(1.0)


def test_evaluate_of_nothing_says_so(detector):
    with pytest.raises(ValueError, match="`x` gave no batch to evaluate"):
        detector.evaluate([], verbose=0)


def test_saved_while_compiled_goes_on_training_alike(segmenter, tmp_path):
    # Two images: on a batch of odd size TensorFlow 2.21's gradient of 1x1 convolutions of stride 2 with 8 channels
    # writes beyond its memory (oneDNN, CPU).
    images, masks = IMAGES[:2], np.random.default_rng(0).integers(0, 3, (2, 64, 96)).astype(np.int32)
    segmenter.compile()
    segmenter.train_on_batch(images, masks)
    segmenter.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for model in (segmenter, loaded):
        model.train_on_batch(images, masks)
    assert int(loaded.optimizer.iterations) == 2
    for mine, theirs in zip(loaded.variables, segmenter.variables, strict=True):
        np.testing.assert_allclose(
            *(keras.ops.convert_to_numpy(variable) for variable in (mine, theirs)), rtol=1e-4, atol=1e-5
        )


def test_saved_after_compile_but_before_training_loads(segmenter, tmp_path):
    segmenter.compile()
    segmenter.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # Keras warns of an optimizer that does not fit
    assert loaded.compiled
    assert int(loaded.optimizer.iterations) == 0


def test_frozen_stages_are_not_trained():
    from kerasvision.models.unet import unet_resnet34

    trained = len(unet_resnet34(2, frozen_stages=5).trainable_variables)
    # Five decoder steps of two convolutions with kernel, gamma and beta, and the head's kernel and bias.
    assert trained == 5 * 2 * 3 + 2
