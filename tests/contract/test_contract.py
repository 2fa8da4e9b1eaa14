"""What every model of the zoo promises. A new entry is covered by being registered."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from kerasvision.models import RetinaNet, Segmenter, UNet  # noqa: F401 (registers the classes)
from kerasvision.models.auxiliary import attach_auxiliary, auxiliary_logits
from kerasvision.models.base import Detector
from kerasvision.models.complexity import count_macs, count_parameters


def _arrays(outputs):
    return [ops.convert_to_numpy(leaf).astype(np.float64) for leaf in keras.tree.flatten(outputs)]


def _assert_close(actual, expected, rtol=1e-5):
    """Compare tensor by tensor, relative to the largest value of each."""
    actual, expected = _arrays(actual), _arrays(expected)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * max(1.0, np.abs(theirs).max()))


def _total(losses):
    return sum(float(array) for array in _arrays(losses))


def _image(height, width, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def test_metadata_recomputed_equals_the_entry(name):
    entry = zoo.info(name)
    model = zoo.get(name, weights=None, num_classes=entry.macs_classes)
    assert count_parameters(model) == entry.parameters
    assert count_macs(model, size_hw=entry.macs_hw) == entry.macs
    assert isinstance(model, Detector if entry.task == "detection" else Segmenter)
    assert model.name == name


@pytest.mark.parametrize("size_hw", [(1, 1), (31, 57), (97, 131)])
def test_call_any_size_gives_finite_outputs_of_that_size(built, size_hw):
    image = _image(*size_hw)
    outputs = built(image)
    for array in _arrays(outputs):
        assert np.isfinite(array).all()
    if isinstance(built, Segmenter):
        assert outputs.shape == (1, *size_hw, 3)
    else:
        found = built.decode(outputs, image)
        boxes = ops.convert_to_numpy(found["boxes"])[ops.convert_to_numpy(found["labels"]) >= 0]
        assert (boxes >= 0).all()
        assert (boxes <= np.array([size_hw[1], size_hw[0]] * 2)).all()


# Of a size that takes seconds, one backend must be enough.
LARGE = [(500, 333), (2048, 1024)] if keras.backend.backend() == "tensorflow" else [(500, 333)]


@pytest.mark.costly
@pytest.mark.parametrize("size_hw", LARGE)
def test_segmenter_of_a_large_image_gives_finite_logits_at_its_own_size(built, size_hw):
    if not isinstance(built, Segmenter):
        return  # how large a detector's input is, its resize rule says
    logits = built(_image(*size_hw))
    assert logits.shape == (1, *size_hw, 3)
    assert np.isfinite(ops.convert_to_numpy(logits)).all()


def test_call_uint8_equals_float(built):
    image = np.round(_image(64, 96))
    _assert_close(built(image.astype(np.uint8)), built(image))


def test_call_wrong_channels_says_what_is_expected(built):
    with pytest.raises(ValueError, match=r"\(1, 64, 96, 1\).*\(batch, height, width, 3\)"):
        built(np.zeros((1, 64, 96, 1), np.float32))


@pytest.mark.costly
def test_training_on_one_batch_makes_the_loss_fall(model, batch):
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    logs = [model.train_on_batch(*batch, return_dict=True) for _ in range(5)]
    for step in logs:
        assert {"loss", *model.loss_names} <= set(step)
        assert all(np.isfinite(float(value)) for value in step.values())
    # What is logged is the mean over all steps so far: it falls only if the steps' own losses do.
    assert float(logs[-1]["loss"]) < float(logs[0]["loss"])


@pytest.mark.costly
def test_empty_targets_teach_background(model, batch):
    images, targets = batch
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    if isinstance(model, Segmenter):
        # All pixels ignored: nothing to learn, and nothing to divide by.
        logs = model.train_on_batch(images, np.full_like(targets, 255), return_dict=True)
        assert float(logs["loss"]) == 0
        assert all(np.isfinite(array).all() for array in model.get_weights())
        return
    targets = {"boxes": targets["boxes"], "labels": np.full_like(targets["labels"], -1)}
    before = model.compute_losses(images, targets, training=True)
    assert np.isfinite(_total(before)) and _total(before) > 0
    for _ in range(3):
        model.train_on_batch(images, targets)
    assert _total(model.compute_losses(images, targets, training=True)) < _total(before)


def test_compute_losses_padding_rows_change_nothing(built, batch):
    images, targets = batch
    outputs = built(images)
    if isinstance(built, Segmenter):
        ignored = (targets == 255)[..., None]
        changed, *auxiliary = (ops.where(ignored, 50.0, part) for part in (outputs, *auxiliary_logits(outputs)))
        attach_auxiliary(changed, lambda: auxiliary)
        images, more = images, targets
    else:
        changed = outputs
        boxes = np.full((2, 5, 4), 30.0, np.float32)
        boxes[:, 1] = (0, 0, 64, 64)  # a box that would match anchors
        boxes[:, 2] = (50, 50, 10, 10)
        more = {
            "boxes": np.concatenate([targets["boxes"][:, :1], boxes], axis=1),
            "labels": np.concatenate([targets["labels"][:, :1], np.full((2, 5), -1, np.int32)], axis=1),
        }

    def losses(raw, wanted):
        return built.losses_from_outputs(raw, *keras.tree.map_structure(ops.convert_to_tensor, (images, wanted)))

    expected = losses(outputs, targets)
    assert set(expected) == set(built.loss_names)
    assert _total(expected) > 0
    _assert_close(losses(changed, more), expected, rtol=1e-6)


def test_compute_losses_ignored_boxes_are_not_trained_on(built, batch):
    if isinstance(built, Segmenter):
        return  # 255 is their ignored; see the test above
    images, targets = batch
    everything = np.ones_like(targets["labels"], bool)
    without = {"boxes": targets["boxes"], "labels": np.full_like(targets["labels"], -1)}
    _assert_close(
        built.compute_losses(images, {**targets, "ignored": everything}), built.compute_losses(images, without)
    )


def test_padded_batch_equals_each_image_alone(built):
    # Both need the same canvas. On a larger one, convolutions see a bias or a shift in the padding where alone they
    # see zeros, as in the reference implementations: results then differ near the border.
    sizes = [(64, 96), (61, 91)]
    alone = [_image(*size, seed=index) for index, size in enumerate(sizes)]
    canvas = np.full((2, 64, 96, 3), 99, np.float32)  # what lies in the padding must not matter
    for index, (height, width) in enumerate(sizes):
        canvas[index, :height, :width] = alone[index][0]
    inputs = {"images": canvas, "sizes_hw": np.array(sizes, np.int32)}
    raw = built(inputs)
    for index, (height, width) in enumerate(sizes):
        part = keras.tree.map_structure(lambda tensor, index=index: tensor[index : index + 1], raw)
        if isinstance(built, Segmenter) and built.canvas_hw(alone[index]) != (64, 96):
            # One that pads no image to a multiple: the same canvas, with something else beside the image.
            single_canvas = np.zeros((1, 64, 96, 3), np.float32)
            single_canvas[:, :height, :width] = alone[index]
            single = built({"images": single_canvas, "sizes_hw": inputs["sizes_hw"][index : index + 1]})
            _assert_close(part, single, rtol=1e-4)
            continue
        single = built(alone[index])
        if isinstance(built, Segmenter):
            _assert_close(part[:, :height, :width], single, rtol=1e-4)
            continue
        _assert_close(part, single, rtol=1e-4)
        both = {"images": canvas[index : index + 1], "sizes_hw": inputs["sizes_hw"][index : index + 1]}
        _assert_close(built.decode(part, both), built.decode(single, alone[index]), rtol=1e-4)


@pytest.mark.costly
def test_save_then_load_model_gives_equal_outputs(built, batch, tmp_path):
    expected = built(batch[0])
    built.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(built)
    _assert_close(loaded(batch[0]), expected)
    assert loaded.get_config() == built.get_config()
    assert loaded.recipe == built.recipe
    assert loaded.resize_rule == built.resize_rule
    trained = [[variable.shape for variable in m.trainable_variables] for m in (built, loaded)]
    assert trained[0] == trained[1]


@pytest.mark.costly
def test_save_never_compiled_loads_never_compiled(get, name, is_compiled, tmp_path):
    if not is_compiled:
        return  # the same code for all
    get(3).save(tmp_path / "model.keras")
    assert not keras.saving.load_model(tmp_path / "model.keras").compiled


@pytest.mark.costly
def test_save_weights_then_load_weights_gives_equal_outputs(model, batch, tmp_path):
    expected = model(batch[0])
    model.save_weights(tmp_path / "model.weights.h5")
    zoo.save_weights(model, tmp_path / "model.safetensors", float16=False)
    for path, load in [
        ("model.weights.h5", model.load_weights),
        ("model.safetensors", lambda path: zoo.load_weights(model, path)),
    ]:
        model.set_weights([np.zeros_like(array) for array in model.get_weights()])
        load(tmp_path / path)
        _assert_close(model(batch[0]), expected)


# Keras's words about a softmax over one class: a segmenter of one class has nothing to tell apart, but must not break.
@pytest.mark.costly
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
def test_one_class_gives_finite_losses_and_results(get, batch):
    model = get(1)
    images, targets = batch
    if isinstance(model, Segmenter):
        targets = np.where(targets == 255, 255, 0).astype(np.int32)
    else:
        targets = {"boxes": targets["boxes"], "labels": np.minimum(targets["labels"], 0)}
    losses = model.compute_losses(images, targets)
    assert np.isfinite(_arrays(losses)).all()
    outputs = model(images)
    if isinstance(model, Segmenter):
        assert outputs.shape == (*images.shape[:3], 1)
    else:
        assert set(np.unique(ops.convert_to_numpy(model.decode(outputs, images)["labels"]))) <= {-1, 0}


@pytest.mark.costly
def test_fit_with_the_recipe_logs_losses_and_validation_metrics(compiled, model, batch, is_compiled):
    images, targets = batch
    jit = is_compiled and keras.backend.backend() in ("tensorflow", "jax")
    if jit:
        model.compile(jit_compile=True)
    else:
        model.compile()
    history = model.fit(images, targets, batch_size=2, epochs=2, validation_data=(images, targets), verbose=0).history
    figures = ("AP", "AP50", "AP75") if isinstance(model, Detector) else ("mIoU", "pixel_accuracy", "dice")
    names = {"loss", *model.loss_names}
    expected = names | {f"val_{key}" for key in names | set(figures)}
    assert expected <= set(history)
    assert all(len(history[key]) == 2 and np.isfinite(history[key]).all() for key in expected)

    result = model.evaluate(images, targets, batch_size=1, verbose=0, return_dict=True)
    assert {*names, *figures} <= set(result)
    assert all(0 <= float(result[key]) <= 1 for key in figures)
    # Measured over batches of one image, the mean of the losses stays the mean over images.
    np.testing.assert_allclose(float(result["loss"]), sum(float(result[key]) for key in model.loss_names), rtol=1e-4)


def test_predict_gives_results_in_the_documented_layout(built, batch):
    images = batch[0]
    result = built.predict(images, batch_size=2, verbose=0)
    if isinstance(built, Segmenter):
        assert result.shape == (*images.shape[:3], 3)
        return
    count = built.get_config()["max_detections"]
    shapes = {key: value.shape for key, value in result.items()}
    assert shapes == {
        "boxes": (2, count, 4),
        "scores": (2, count),
        "labels": (2, count),
        "num_detections": (2,),
    }
    for scores, labels, number in zip(result["scores"], result["labels"], result["num_detections"], strict=True):
        assert (labels[:number] >= 0).all() and (labels[number:] == -1).all()
        assert (np.diff(scores[:number]) <= 0).all()


@pytest.mark.costly
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gives_finite_results(get, batch, precision, policy):
    with precision(policy):
        model = get(3)
        outputs = model(batch[0])
        if isinstance(model, Detector):
            outputs = [outputs, model.decode(outputs, batch[0])]
        losses = model.compute_losses(*batch)
    assert all(np.isfinite(array).all() for array in _arrays(outputs))
    assert np.isfinite(_arrays(losses)).all()
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)
