"""Keras callbacks of a training run."""

import math
from pathlib import Path

import keras

from kerasvision.files import replacing, write_json
from kerasvision.training.checkpoint import save_checkpoint


class EpochCounter(keras.callbacks.Callback):
    """Tell the pipeline which epoch begins, so that a resumed run sees the samples it would have seen."""

    def __init__(self, pipeline):
        super().__init__()
        self.pipeline = pipeline

    def on_epoch_begin(self, epoch, logs=None):
        """Set the pipeline's epoch."""
        self.pipeline.set_epoch(epoch)


class RunRecorder(keras.callbacks.Callback):
    """Write checkpoint, best model and metric history of a run into its directory after every epoch.

    Files: `last.safetensors` (weights, optimizer state and history: what resuming needs), `best.keras` (the
    model with the best value so far) and `history.json`.

    An epoch's value is that of the first of `monitor` that is in its logs. `best.keras` is written if the value is
    better than those of all epochs before; an epoch without one, as when only some are validated, never touches it.

    Args:
        run_dir: The directory; it must exist.
        history: Metrics of earlier epochs, which this run goes on from.
        monitor: Names of metrics, in order of preference; to be maximised, but minimised if they end in "loss".
        extra: Goes into the checkpoint.
    """

    def __init__(self, run_dir, *, history=None, monitor=("val_loss",), extra=None):
        super().__init__()
        self.run_dir = Path(run_dir)
        self.history = {name: list(values) for name, values in (history or {}).items()}
        self.monitor = tuple(monitor)
        self.extra = extra or {}

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        for name in dict.fromkeys([*self.history, *logs]):
            values = self.history.setdefault(name, [])
            values.extend([None] * (epoch - len(values)))  # epochs that did not log it
            values.append(logs.get(name))
        if self._is_best(logs):
            with replacing(self.run_dir / "best.keras") as partial:
                self.model.save(partial)
        save_checkpoint(
            self.run_dir / "last.safetensors",
            self.model,
            epoch=epoch + 1,
            history=self.history,
            extra=self.extra,
        )
        write_json(self.run_dir / "history.json", self.history)

    def _is_best(self, logs):
        """Return whether this epoch's value is better than all before, which the history already holds."""
        name = next((name for name in self.monitor if name in logs), None)
        if name is None or math.isnan(logs[name]):
            return False
        sign = -1 if name.endswith("loss") else 1
        earlier = [value for value in self.history[name][:-1] if value is not None and not math.isnan(value)]
        return all(sign * logs[name] > sign * value for value in earlier)
