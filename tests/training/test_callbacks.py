"""`RunRecorder`: which epochs are kept as the best, and the history of epochs that are validated now and then."""

import json
import math

import keras
import pytest

from kerasvision.training.callbacks import RunRecorder


class _Model:
    """Stands for a model: saving it writes down how many epochs it has trained."""

    epoch = 0

    def save(self, path):
        path.write_text(str(self.epoch))


@pytest.fixture
def record(tmp_path, monkeypatch):
    """`record([logs of each epoch])` gives the best epoch after each one, counted from 1, and the history."""
    monkeypatch.setattr("kerasvision.training.callbacks.save_checkpoint", lambda *args, **options: None)

    def run(epochs, **options):
        recorder = RunRecorder(tmp_path, **{"monitor": ("val_AP", "val_loss"), **options})
        model = _Model()
        recorder.set_model(model)
        kept = []
        for epoch, logs in enumerate(epochs, start=len(next(iter(recorder.history.values()), []))):
            model.epoch = epoch + 1
            recorder.on_epoch_end(epoch, logs)
            best = tmp_path / "best.keras"
            kept.append(int(best.read_text()) if best.exists() else None)
        return kept, recorder.history

    return run


def test_best_is_left_alone_by_epochs_without_validation(record, tmp_path):
    epochs = [{"loss": 4.0}, {"loss": 3.0, "val_AP": 0.5}, {"loss": 2.0}, {"loss": 1.0, "val_AP": 0.4}, {"loss": 0.5}]
    kept, history = record(epochs)
    assert kept == [None, 2, 2, 2, 2]
    assert history == {"loss": [4.0, 3.0, 2.0, 1.0, 0.5], "val_AP": [None, 0.5, None, 0.4, None]}
    assert json.loads((tmp_path / "history.json").read_text()) == history


def test_best_needs_to_be_strictly_better(record):
    assert record([{"val_AP": 0.0}, {"val_AP": 0.0}, {"val_AP": 0.2}, {"val_AP": 0.2}])[0] == [1, 1, 3, 3]


def test_best_without_the_figure_is_the_lowest_validation_loss(record):
    assert record([{"val_loss": 3.0}, {"val_loss": 2.0}, {"val_loss": 2.5}])[0] == [1, 2, 2]


def test_best_of_not_a_number_is_none(record):
    nan = math.nan
    assert record([{"val_AP": nan}, {"val_AP": 0.1}, {"val_AP": nan}, {"val_AP": 0.2}])[0] == [None, 2, 2, 4]


def test_best_counts_the_epochs_before_a_resumption(record):
    history = {"val_AP": [0.3, None, 0.6]}
    kept, after = record([{"val_AP": 0.5}, {"val_AP": 0.7}], history=history)
    assert kept == [None, 5]
    assert after == {"val_AP": [0.3, None, 0.6, 0.5, 0.7]}


class _Notes(keras.callbacks.Callback):
    """Note after each epoch when best.keras was written, None if it does not exist."""

    def __init__(self, folder):
        super().__init__()
        self.best = folder / "best.keras"
        self.written = []

    def on_epoch_end(self, epoch, logs=None):
        self.written.append(self.best.stat().st_mtime_ns if self.best.exists() else None)


def test_train_validating_every_second_epoch_keeps_the_best_of_those(make_segmenter, scenes, unseen, tmp_path):
    from kerasvision.training import train

    notes = _Notes(tmp_path)
    history = train(
        make_segmenter(), scenes, unseen, epochs=3, validation_freq=2, run_dir=tmp_path,
        batch_size=8, verbose=0, callbacks=[notes],
    )  # fmt: skip
    assert [value is None for value in history["val_mIoU"]] == [True, False, True]
    assert len(history["loss"]) == 3
    first, second, third = notes.written
    assert first is None and second is not None and third == second
