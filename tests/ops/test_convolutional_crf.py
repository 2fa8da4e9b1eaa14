"""Mean field in windows: values by hand, sizes known and not, precision."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.convolutional_crf import convolutional_crf
from kerasvision.ops.dense_crf import dense_crf

HALF = np.sqrt(0.5 / np.log(2))  # the standard deviation at which exp(-1 / (2 sigma^2)) is 1/2
ROOT = 1 / np.sqrt(1.5 * 2)  # of a neighbour in a row of three: sums of the kernel are 1.5, 2, 1.5


def _refine(logits, images=None, **options):
    logits = np.asarray(logits, np.float32)
    images = np.zeros((*logits.shape[:3], 3), np.float32) if images is None else images
    options = {
        "iterations": 1,
        "kernel_size": 3,
        "stride": 1,
        "position_weight": 3.0,
        "position_sigma": HALF,
        "bilateral_weight": 0.0,
        "bilateral_position_sigma": 1.0,
        "bilateral_color_sigma": 1.0,
        **options,
    }
    return ops.convert_to_numpy(convolutional_crf(logits, images, **options))


def _row(*probabilities):
    """Return probabilities (1, 1, W, 2) of two classes, the first of them given."""
    first = np.array(probabilities)
    return np.stack([first, 1 - first], axis=-1)[None, None]


def _random(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1.5, shape).astype(np.float32), rng.integers(0, 80, (*shape[:3], 3)).astype(np.uint8)


def test_a_row_of_three_by_hand():
    # The window of three cuts the kernel off: the ends do not hear each other.
    q = _row(0.8, 0.4, 0.1)
    logits = np.log(q)
    messages = np.stack(
        [
            q[0, 0, 0] / 1.5 + q[0, 0, 1] * ROOT / 2,
            q[0, 0, 1] / 2 + (q[0, 0, 0] + q[0, 0, 2]) * ROOT / 2,
            q[0, 0, 2] / 1.5 + q[0, 0, 1] * ROOT / 2,
        ]
    )
    np.testing.assert_allclose(_refine(logits), logits + 3 * messages, rtol=1e-5)
    # A compatibility of Potts's sort, 1 for different classes, moves all logits of a pixel by the same.
    potts = _refine(logits, compatibility=1 - np.eye(2))
    np.testing.assert_allclose(potts, logits - 3 * messages[:, ::-1], rtol=1e-5)


def test_colours_of_a_pair_by_hand():
    # x 1 and red 2 apart: exp(-(1 / (2 4) + 4 / (2 16))) = exp(-1/4) for sigmas of 2 and 4.
    images = np.array([[[[5, 7, 9], [3, 7, 9]]]], np.uint8)
    q, k = _row(0.8, 0.4), np.exp(-0.25)
    logits = np.log(q)
    messages = np.stack([q[0, 0, 0] + k * q[0, 0, 1], q[0, 0, 1] + k * q[0, 0, 0]]) / (1 + k)
    weights = {"position_weight": 0.0, "bilateral_weight": np.array([2.0, 5.0], np.float32)}
    found = _refine(logits, images, bilateral_position_sigma=2.0, bilateral_color_sigma=4.0, **weights)
    np.testing.assert_allclose(found, logits + messages * [2, 5], rtol=1e-5)


def test_stride_averages_cells_and_interpolates_messages_by_hand():
    # Cells of pixels 0, 1 and of 2 alone; a narrow kernel, so each cell hears itself only. Centres of cells lie at 0.5
    # and 2.5: pixel 0 is outside, pixel 1 a quarter along, pixel 2 three quarters.
    q = _row(0.8, 0.4, 0.1)
    cells = np.array([[0.6, 0.4], [0.1, 0.9]])
    messages = np.stack([cells[0], 0.75 * cells[0] + 0.25 * cells[1], 0.25 * cells[0] + 0.75 * cells[1]])
    found = _refine(np.log(q), stride=2, position_sigma=0.1)
    np.testing.assert_allclose(found, np.log(q) + 3 * messages, rtol=1e-5)


def test_strided_sigmas_are_in_pixels():
    # Cells of 2 pixels are 2 apart: a sigma of 2 HALF makes a kernel of 1/2.
    q = _row(0.8, 0.8, 0.4, 0.4)
    found = _refine(np.log(q), stride=2, position_sigma=2 * HALF) - np.log(q)
    cells = [(0.8 + 0.4 / 2) / 1.5, (0.4 + 0.8 / 2) / 1.5]
    expected = [cells[0], 0.75 * cells[0] + 0.25 * cells[1], 0.25 * cells[0] + 0.75 * cells[1], cells[1]]
    np.testing.assert_allclose(found[0, 0, :, 0], 3 * np.array(expected), rtol=1e-5)


def test_a_window_over_the_whole_picture_is_the_dense_crf():
    logits, images = _random(0, 2, 3, 4, 3)
    options = {
        "position_weight": 1.5,
        "position_sigma": 1.2,
        "bilateral_weight": 2.0,
        "bilateral_position_sigma": 4.0,
        "bilateral_color_sigma": 20.0,
        "iterations": 4,
    }
    found = _refine(logits, images, kernel_size=7, **options)
    exponents = np.exp(found - found.max(-1, keepdims=True))
    expected = dense_crf(images, logits, from_logits=True, method="exact", **options)
    np.testing.assert_allclose(exponents / exponents.sum(-1, keepdims=True), expected, atol=1e-5)


def test_no_steps_and_no_pixels():
    logits, images = _random(0, 2, 3, 4, 3)
    np.testing.assert_array_equal(_refine(logits, images, iterations=0), logits)
    for shape in ((0, 3, 4, 2), (2, 0, 4, 2), (2, 3, 0, 2)):
        assert _refine(np.zeros(shape)).shape == shape
    # One pixel hears itself: log odds log 4 + 3 (.8 - .2).
    found = _refine(np.log(_row(0.8)), stride=4, kernel_size=5)
    np.testing.assert_allclose(found[0, 0, 0, 0] - found[0, 0, 0, 1], np.log(4) + 1.8, rtol=1e-5)


def test_nan_stays_in_its_window_and_image():
    logits, images = _random(1, 2, 3, 8, 2)
    logits[0, 0, 0, 0] = np.nan
    found = _refine(logits, images)
    assert np.isnan(found[0, :2, :2]).any(-1).all()
    assert np.isfinite(found[0, 2:]).all()
    assert np.isfinite(found[0, :, 2:]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounds_only_arguments_and_result(dtype):
    logits, images = _random(2, 1, 9, 7, 4)
    logits = ops.cast(logits, dtype)
    options = {"iterations": 3, "bilateral_weight": 4.0, "bilateral_color_sigma": 9.0, "stride": 2}
    found = convolutional_crf(
        logits,
        ops.cast(images, dtype),
        kernel_size=5,
        position_weight=3.0,
        position_sigma=2.0,
        bilateral_position_sigma=20.0,
        **options,
    )
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    full = _refine(
        ops.convert_to_numpy(ops.cast(logits, "float32")),
        images,
        kernel_size=5,
        position_sigma=2.0,
        bilateral_position_sigma=20.0,
        **options,
    )
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, full, rtol=2**-8 if dtype == "bfloat16" else 2**-11, atol=1e-3)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
def test_compiled_equals_eager(stride, xla):
    backend = keras.backend.backend()
    if backend == "torch" or (backend == "jax" and not xla):
        pytest.skip("nothing else is compiled")

    def refine(logits, images):
        return convolutional_crf(
            logits,
            images,
            iterations=2,
            kernel_size=3,
            stride=stride,
            position_weight=1.0,
            position_sigma=3.0,
            bilateral_weight=2.0,
            bilateral_position_sigma=9.0,
            bilateral_color_sigma=30.0,
        )

    if backend == "jax":
        import jax

        compiled = jax.jit(refine)
    else:
        import tensorflow as tf

        unknown = [tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None, None, None, 3), tf.uint8)]
        compiled = tf.function(refine, input_signature=unknown, jit_compile=xla)
    for height, width in ((6, 9), (7, 5), (1, 2)):
        logits, images = _random(3, 2, height, width, 2)
        found, expected = (ops.convert_to_numpy(function(logits, images)) for function in (compiled, refine))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"iterations": -1}, "`iterations` -1 must be a whole number, 0 or more"),
        ({"kernel_size": 4}, "`kernel_size` 4 must be an odd number of cells"),
        ({"kernel_size": -1}, "`kernel_size` -1 must be an odd number"),
        ({"stride": 0}, "`stride` 0 must be 1 or more pixels"),
    ],
)
def test_wrong_numbers_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        _refine(np.zeros((1, 2, 2, 2)), **option)
