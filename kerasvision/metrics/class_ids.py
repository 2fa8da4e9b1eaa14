"""Class ids that are none: errors where values are known, counted for later where they are not."""

import contextlib
import contextvars

import numpy as np
from keras import ops

from kerasvision.ops.compilers import known_value

_REMEDY = "map the data set's ids to 0 to {top}, or to the ignored one"
_deferred = contextvars.ContextVar("deferred", default=False)


@contextlib.contextmanager
def errors_deferred():
    """Let metrics give NaN for class ids out of range, as in a graph, instead of raising.

    For a training loop that says by itself what is wrong, with more than a metric knows.
    """
    token = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(token)


def check_ids(truth, counted, num_classes, ignore_class, *, given=None):
    """Check class ids, if their values are known and errors are not deferred.

    Args:
        truth: (N,) int32 class ids.
        counted: (N,) bool, False for pixels whose ids may be anything.
        num_classes: C.
        ignore_class: Named in the message.
        given: (N,) the ids as the user has them, for the message; default: `truth`.

    Raises:
        ValueError: An id that counts is not in [0, C).
    """
    if _deferred.get():
        return
    wrong = ops.logical_and(counted, ops.logical_or(truth < 0, truth >= num_classes))
    if not known_value(ops.any(wrong)):  # one number leaves the device, unless there is something to tell
        return
    ids = ops.convert_to_numpy(truth if given is None else given)[ops.convert_to_numpy(wrong)]
    found, counts = np.unique(ids, return_counts=True)
    listed = ", ".join(f"{_shown(value)} ({count} pixels)" for value, count in zip(found[:5], counts[:5], strict=True))
    ignored = "no id is ignored" if ignore_class is None else f"{ignore_class} for ignored pixels"
    raise ValueError(
        f"`y_true` holds the class ids {listed}{' ...' if len(found) > 5 else ''}, {len(ids)} pixels in all, expected "
        f"0 to {num_classes - 1} ({ignored}); {_REMEDY.format(top=num_classes - 1)}"
    )


def check_arrays(truth, predictions, num_classes, ignore_class):
    """Check the class ids of numpy arrays of pixels that count.

    Raises:
        ValueError: An id is not in [0, C), or no whole number.
    """
    for name, values in (("truth", truth), ("predictions", predictions)):
        broken = values[values != np.floor(values)] if values.dtype.kind == "f" else values[:0]  # NaN is one
        if broken.size:
            raise ValueError(
                f"`{name}` holds class ids that are no whole numbers, such as {_shown(broken[0])}; "
                f"{_REMEDY.format(top=num_classes - 1)}"
            )
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"`{name}` holds class ids from {values.min()} to {values.max()}, expected 0 to {num_classes - 1}"
                f" or {ignore_class} for ignored pixels; {_REMEDY.format(top=num_classes - 1)}"
            )


def _shown(value):
    """Return a class id, whole or not, as a message has it."""
    return f"{value:g}" if value.dtype.kind == "f" else str(value)


def check_none_counted(metric):
    """Check that a metric counted no class ids out of range, if that is known and errors are not deferred.

    Raises:
        ValueError: It did.
    """
    count = 0 if _deferred.get() else known_value(metric.out_of_range)
    if count:
        raise ValueError(count_message(metric.name, count, metric.num_classes))


def count_message(name, count, num_classes):
    """Return what to tell about a number of pixels whose class ids are none."""
    return (
        f"`{name}` counted {int(count)} pixels whose class ids are neither one of the {num_classes} classes, 0 to "
        f"{num_classes - 1}, nor ignored; {_REMEDY.format(top=num_classes - 1)}"
    )
