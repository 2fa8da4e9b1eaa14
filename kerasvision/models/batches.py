"""What `fit` and `evaluate` were given: its batches, their number and their size."""

import itertools

import keras


def steps_of(x, batch_size, steps):
    """Return the steps an epoch of `fit`'s arguments, ``None`` where it cannot be known."""
    arrays = _arrays(x)
    if steps is None and arrays:
        return -(-len(arrays[0]) // (batch_size or 32))  # Keras's default
    if steps is None and hasattr(x, "__len__"):
        try:
            steps = len(x)
        except TypeError:  # an infinite or unknown tf.data.Dataset
            steps = None
    return steps


def images_a_step(x, batch_size):
    """Return the images a step of `fit`'s arguments, ``None`` where it cannot be known.

    A set smaller than a batch makes steps of its own size.
    """
    arrays = _arrays(x)
    if arrays:
        return min(batch_size or 32, len(arrays[0]))
    pipeline = getattr(x, "batches", None)  # what both front ends of `kerasvision.data.pipeline` carry
    if pipeline is not None:
        return min(pipeline.batch_size, len(pipeline.dataset))
    size = getattr(x, "batch_size", None)  # PyTorch's DataLoader
    if size is None and hasattr(x, "element_spec"):
        size = keras.tree.flatten(x.element_spec)[0].shape[0]
        if size is None:  # batched without drop_remainder: only a batch itself tells
            size = next((len(keras.tree.flatten(batch)[0]) for batch in x), None)
    if size is None and isinstance(x, keras.utils.PyDataset):
        size = len(keras.tree.flatten(x[0])[0])
    return size


def _own(value):
    """Return another framework's tensor as an array: TensorFlow's, which tf.data yields under JAX and PyTorch."""
    foreign = hasattr(value, "numpy") and not keras.ops.is_tensor(value) and not hasattr(value, "row_splits")
    return value.numpy() if foreign else value


def _arrays(x):
    """Return the arrays that `x` holds; none if it yields batches."""
    if hasattr(x, "element_spec"):
        return []
    return [leaf for leaf in keras.tree.flatten(x) if hasattr(leaf, "shape")]


def batches_of(x, y, batch_size, steps):
    """Return an iterator of (inputs, targets) and their number, ``None`` if unknown."""
    if y is not None:
        total = len(keras.tree.flatten(x)[0])
        starts = range(0, total, batch_size)[:steps]

        def cut(start):
            return keras.tree.map_structure(lambda array: array[start : start + batch_size], (x, y))

        return map(cut, starts), len(starts)
    count = steps
    if count is None:
        count = len(x) if isinstance(x, list | tuple) else steps_of(x, None, None)
    batches = (x[index] for index in range(len(x))) if isinstance(x, keras.utils.PyDataset) else x
    return (keras.tree.map_structure(_own, tuple(batch[:2])) for batch in itertools.islice(batches, steps)), count
