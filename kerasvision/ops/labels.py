"""Class ids as users have them, in any type, as whole numbers."""

import keras
from keras import ops

_LARGEST = 2**31 - 1


def whole_labels(labels, *, otherwise):
    """Return class ids as int32, without rounding them or wrapping them around.

    Args:
        labels: (...) numbers of any type.
        otherwise: What those become that are no whole numbers, NaN, or beyond int32: an id that means no class.

    Returns:
        (...) int32. Ids of types that int32 holds are only cast. Under JAX, which has no int64 unless told to, larger
        ids are wrapped before this can see them.
    """
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if "float" in dtype:
        # False for NaN. The limit itself is infinite in float16, where nothing but infinity is beyond it.
        fits = ops.logical_and(labels == ops.floor(labels), ops.abs(labels) < float(_LARGEST + 1))
    elif dtype in ("int64", "uint32", "uint64"):
        fits = labels <= _LARGEST
        if dtype == "int64":
            fits = ops.logical_and(fits, labels >= -_LARGEST - 1)
    else:
        return ops.cast(labels, "int32")
    return ops.where(fits, ops.cast(labels, "int32"), otherwise)


def no_class(ignore_class):
    """Return an id that is neither a class nor the ignored one."""
    return -2 if ignore_class == -1 else -1
