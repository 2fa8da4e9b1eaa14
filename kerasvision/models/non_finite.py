"""Stopping a training as soon as a loss is not finite."""

import math

import keras


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite."""


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stop training with an error as soon as a loss is not finite.

    Keras logs running means, in which a NaN stays: the first batch that shows one is the batch that made it.

    Args:
        batch_names: Function of (epoch, step) that returns the names of the batch's samples, if known.
        note: Ends the message, such as what is left of the run.
    """

    def __init__(self, batch_names=None, *, note=""):
        super().__init__()
        self.batch_names = batch_names
        self.note = note
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remember the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Check this batch's losses.

        Raises:
            NonFiniteLossError: Naming losses, epoch, step and samples, and class ids out of range if there were any.
        """
        names = {"loss", *getattr(self.model, "loss_names", ())}
        values = {name: float(value) for name, value in (logs or {}).items() if name in names}
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not wrong:
            return
        losses = ", ".join(f"{name} = {value}" for name, value in sorted(wrong.items()))
        samples = "the samples"
        where = f"epoch {self.epoch + 1}, step {batch + 1}"
        if self.batch_names is not None:
            where += "; the batch holds " + ", ".join(map(str, self.batch_names(self.epoch, batch)))
            samples = "these samples"
        cause = self._cause() or f"look at {samples}, lower the learning rate, or bound gradients with clip_norm"
        raise NonFiniteLossError("; ".join(filter(None, [f"{losses} at {where}", cause, self.note])))

    def _cause(self):
        """Return what the model knows of the cause, if it is one of this package."""
        count = getattr(self.model, "count_invalid_targets", int)()
        if not count:
            return None
        classes = self.model.num_classes
        return (
            f"{count} class ids of the targets are none of the model's {classes} classes (0 to {classes - 1}), which "
            "makes the loss NaN: map the data set's class ids, or build the model with more classes"
        )
