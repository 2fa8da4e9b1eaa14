"""Checkpoints: a damaged or foreign one changes nothing, and writing one never destroys the last."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.training import CheckpointError, load_checkpoint, save_checkpoint


@pytest.fixture
def trained(make_segmenter, masks):
    model = make_segmenter()
    model.compile()
    model.train_on_batch(*masks)
    return model


@pytest.fixture
def checkpoint(trained, tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, trained, epoch=3, history={"loss": [3.0, 2.0, 1.0]}, extra={"seed": 5})
    return path


def _values(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]


def _assert_equal(values, others):
    for mine, theirs in zip(values, others, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _refused(path, model, match):
    before = _values(model)
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(path, model)
    _assert_equal(_values(model), before)


def test_checkpoint_brings_back_weights_optimizer_and_history(checkpoint, trained, make_segmenter):
    model = make_segmenter(seed=1)
    model.compile()
    state = load_checkpoint(checkpoint, model)
    assert (state["epoch"], state["history"], state["extra"]) == (3, {"loss": [3.0, 2.0, 1.0]}, {"seed": 5})
    _assert_equal(_values(model), _values(trained))
    assert int(model.optimizer.iterations) == 1
    for mine, theirs in zip(model.optimizer.variables, trained.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs))


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_checkpoint_truncated_is_refused_and_the_model_unchanged(checkpoint, trained, kept):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    _refused(checkpoint, trained, r"last\.safetensors is no readable checkpoint")


def test_checkpoint_of_zeros_is_refused(checkpoint, trained):
    checkpoint.write_bytes(bytes(4096))
    _refused(checkpoint, trained, "is no readable checkpoint|is no kerasvision checkpoint")


def test_checkpoint_foreign_safetensors_is_refused(trained, tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    _refused(tmp_path / "foreign.safetensors", trained, "is no kerasvision checkpoint")


def test_checkpoint_of_native_weights_is_refused(trained, tmp_path):
    import zoo

    zoo.save_weights(trained, tmp_path / "weights.safetensors")
    _refused(tmp_path / "weights.safetensors", trained, "belongs to a model of another configuration")


def test_checkpoint_of_another_task_is_refused(checkpoint, make_detector):
    model = make_detector()
    model.compile()
    _refused(checkpoint, model, "belongs to a model of another configuration")


def test_checkpoint_of_another_optimizer_is_refused(checkpoint, make_segmenter):
    model = make_segmenter()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    _refused(checkpoint, model, "belongs to a model of another configuration")


def test_checkpoint_of_another_width_is_refused(checkpoint):
    from kerasvision.models.unet import unet_resnet10

    model = unet_resnet10(14)
    model.compile()
    _refused(checkpoint, model, r"model/\d+ of shape|differs from the model in")


def test_checkpoint_missing_is_refused(trained, tmp_path):
    _refused(tmp_path / "none.safetensors", trained, "no checkpoint at")


def test_checkpoint_write_that_crashes_leaves_the_old_file(checkpoint, trained, monkeypatch):
    import safetensors.numpy

    before = checkpoint.read_bytes()

    def crash(tensors, path, metadata=None):
        path.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", crash)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(checkpoint, trained, epoch=4, history={})
    assert checkpoint.read_bytes() == before
    assert load_checkpoint(checkpoint, trained)["epoch"] == 3
