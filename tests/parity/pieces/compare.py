"""Compare one piece of ours with its reference, values and gradients, under whatever backend Keras runs.

Each call of `check` asserts, and leaves a row for the table in docs/equality.md, which table.py beside this writes.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import torch

ROWS: list[dict] = []


def check(
    piece: str,
    reference: str,
    ours: Callable,
    theirs: Callable,
    arrays: Sequence[np.ndarray],
    *,
    differentiate: Sequence[int] | None = None,
    numpy_reference: bool = False,
    tolerance: float = 1e-5,
    gradient_tolerance: float | None = None,
) -> None:
    """Assert that two functions of the same arrays give the same values and the same gradients.

    Differences of values are relative to the largest reference value, or absolute where that is below 1; those of
    gradients, which means over many elements make small, are relative to the largest of all.

    Args:
        piece: Our name, such as ``"losses.DiceLoss"``; rows of one piece are merged, the largest difference kept.
        reference: What it is compared with, such as ``"torchvision.ops.roi_align"``.
        ours: Takes backend tensors and returns one, or a tuple or list of them.
        theirs: Takes torch tensors (or arrays) and returns the same structure.
        arrays: The arguments.
        differentiate: Which arguments to differentiate by; default: all of float type, none for a NumPy reference.
        numpy_reference: `theirs` takes and returns NumPy arrays and has no gradients.
        tolerance: Largest difference of values.
        gradient_tolerance: Of gradients; default `tolerance`.
    """
    arrays = [np.asarray(array) for array in arrays]
    if differentiate is None:
        differentiate = [index for index, array in enumerate(arrays) if array.dtype.kind == "f"]
    if numpy_reference:
        differentiate = []
    values, gradients = _ours(ours, arrays, differentiate)
    expected, expected_gradients = _theirs(theirs, arrays, differentiate, numpy_reference)
    assert len(values) == len(expected), f"{len(values)} outputs, the reference gives {len(expected)}"
    value = max(_difference(a, b) for a, b in zip(values, expected, strict=True))
    largest = max((float(np.abs(b[np.isfinite(b)]).max(initial=0)) for b in expected_gradients), default=0.0)
    gradient = max(
        (_difference(a, b, largest or 1.0) for a, b in zip(gradients, expected_gradients, strict=True)), default=None
    )
    ROWS.append({"piece": piece, "reference": reference, "value": value, "gradient": gradient})
    assert value <= tolerance, f"{piece}: values differ by {value} from {reference}"
    if gradient is not None:
        limit = tolerance if gradient_tolerance is None else gradient_tolerance
        assert gradient <= limit, f"{piece}: gradients differ by {gradient} from {reference}"


def _difference(found: np.ndarray, expected: np.ndarray, scale: float | None = None) -> float:
    assert found.shape == expected.shape, f"shape {found.shape}, the reference has {expected.shape}"
    if not expected.size:
        return 0.0
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))  # infinities, NaN
    if scale is None:
        scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    return float(np.where(same, 0, np.abs(found - expected)).max()) / scale


def _flat(outputs) -> list:
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def _weighted(outputs, to_tensor, total):
    """Sum the float outputs, each element weighted differently, so that one gradient tests all of them."""
    result = 0.0
    for index, output in enumerate(outputs):
        weights = np.random.default_rng(index).uniform(0.5, 1.5, tuple(output.shape)).astype(np.float32)
        result = result + total(output * to_tensor(weights))
    return result


def _is_float(array) -> bool:
    return "float" in keras.backend.standardize_dtype(array.dtype)


def _ours(function, arrays, differentiate):
    backend = keras.backend.backend()
    to_tensor, to_numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy

    def scalar(*picked):
        tensors = [to_tensor(array) for array in arrays]
        for index, tensor in zip(differentiate, picked, strict=True):
            tensors[index] = tensor
        outputs = [output for output in _flat(function(*tensors)) if _is_float(output)]
        return _weighted(outputs, to_tensor, keras.ops.sum)

    values = [np.asarray(to_numpy(output)) for output in _flat(function(*map(to_tensor, arrays)))]
    picked = [arrays[index] for index in differentiate]
    if not picked:
        return values, []
    if backend == "tensorflow":
        import tensorflow as tf

        leaves = [tf.constant(array) for array in picked]
        with tf.GradientTape() as tape:
            for leaf in leaves:
                tape.watch(leaf)
            result = scalar(*leaves)
        gradients = tape.gradient(result, leaves, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # IndexedSlices become dense
    elif backend == "jax":
        import jax

        gradients = jax.grad(scalar, argnums=tuple(range(len(picked))))(*map(to_tensor, picked))
    else:
        leaves = [torch.from_numpy(array.copy()).requires_grad_() for array in picked]
        gradients = torch.autograd.grad(scalar(*leaves), leaves, allow_unused=True, materialize_grads=True)
    return values, [np.asarray(to_numpy(gradient)) for gradient in gradients]


def _theirs(function, arrays, differentiate, numpy_reference):
    if numpy_reference:
        return [np.asarray(output) for output in _flat(function(*arrays))], []
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    leaves = [tensors[index].requires_grad_() for index in differentiate]
    outputs = _flat(function(*tensors))
    values = [output.detach().numpy() for output in outputs]
    if not leaves:
        return values, []
    floats = [output for output in outputs if output.is_floating_point()]
    result = _weighted(floats, torch.from_numpy, torch.sum)
    gradients = torch.autograd.grad(result, leaves, allow_unused=True, materialize_grads=True)
    return values, [gradient.numpy() for gradient in gradients]
