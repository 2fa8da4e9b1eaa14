"""Keras callbacks of a training run."""

import math
from pathlib import Path

import keras

from kerasvision.files import replacing, write_json
from kerasvision.training.checkpoint import save_checkpoint


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite."""


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stop training with an error as soon as a loss is not finite.

    Keras logs running means, in which a NaN stays: the first batch that shows one is the batch that made it.

    Args:
        batch_names: Function of (epoch, step) that returns the names of the batch's samples, if known.
    """

    def __init__(self, batch_names=None):
        super().__init__()
        self.batch_names = batch_names
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Check this batch's losses.

        Raises:
            NonFiniteLossError: Naming losses, epoch, step and samples.
        """
        names = {"loss", *getattr(self.model, "loss_names", ())}
        wrong = {
            name: float(value)
            for name, value in (logs or {}).items()
            if name in names and not math.isfinite(float(value))
        }
        if wrong:
            losses = ", ".join(f"{name} = {value}" for name, value in sorted(wrong.items()))
            samples = ""
            if self.batch_names is not None:
                samples = "; the batch holds " + ", ".join(map(str, self.batch_names(self.epoch, batch)))
            raise NonFiniteLossError(
                f"{losses} at epoch {self.epoch + 1}, step {batch + 1}{samples}. Look at these samples, lower "
                "the learning rate, or bound gradients with clip_norm; the last checkpoint is untouched"
            )


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
    model with the best value of `monitor`) and `history.json`.

    Args:
        run_dir: The directory; it must exist.
        history: Metrics of earlier epochs, which this run goes on from.
        monitor: Name of the metric to be maximised; without it in the logs, the lowest loss is best.
        extra: Goes into the checkpoint.
    """

    def __init__(self, run_dir, *, history=None, monitor=None, extra=None):
        super().__init__()
        self.run_dir = Path(run_dir)
        self.history = {name: list(values) for name, values in (history or {}).items()}
        self.monitor = monitor
        self.extra = extra or {}

    def on_epoch_end(self, epoch, logs=None):
        """Record the epoch."""
        for name, value in (logs or {}).items():
            values = self.history.setdefault(name, [])
            values.extend([None] * (epoch - len(values)))  # validated in some epochs only
            values.append(float(value))
        scores = self._scores()
        known = [score for score in scores if score is not None]
        if known and scores[-1] == max(known):
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

    def _scores(self):
        if self.monitor in self.history:
            values, sign = self.history[self.monitor], 1
        else:
            values, sign = self.history.get("val_loss") or self.history.get("loss") or [], -1
        return [None if value is None or math.isnan(value) else sign * value for value in values]
