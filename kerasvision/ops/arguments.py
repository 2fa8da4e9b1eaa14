"""Numbers that users give as arguments, of Python or of NumPy, as plain ones, which configurations can hold."""

import operator

import numpy as np


def is_count(value):
    """Return whether a value is an integer of any kind of at least 1; 2.0 and True are none."""
    if isinstance(value, bool | np.bool_):
        return False
    try:
        return operator.index(value) >= 1
    except TypeError:
        return False


def plain_number(value):
    """Return a number of NumPy as one of Python, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def all_positive(values):
    """Return whether numbers, of any nesting, are all above 0 and finite, and at least one."""
    values = np.asarray(values)
    return values.size > 0 and values.dtype.kind in "iuf" and bool(np.all((values > 0) & np.isfinite(values)))
