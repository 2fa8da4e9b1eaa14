"""Dense CRF by mean field: values by hand, both methods, edges of the input."""

import numpy as np
import pytest

from kerasvision.ops import dense_crf as module
from kerasvision.ops.dense_crf import dense_crf

HALF = np.sqrt(0.5 / np.log(2))  # the standard deviation at which exp(-1 / (2 sigma^2)) is 1/2


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _picture(height=9, width=12, classes=3, seed=0):
    """Return an image of two colours and noise, and probabilities that know the halves but for noise."""
    rng = np.random.default_rng(seed)
    image = np.where(np.arange(width)[None, :, None] < width // 2, [200, 40, 40], [30, 60, 220]) + np.zeros(
        (height, 1, 1)
    )
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    logits = rng.normal(0, 1.2, (height, width, classes))
    logits[:, : width // 2, 0] += 1
    logits[:, width // 2 :, 1] += 1
    exponents = np.exp(logits)
    return image, (exponents / exponents.sum(-1, keepdims=True)).astype(np.float32)


def test_two_pixels_by_hand():
    # Both sums of the kernel are 1 + 1/2. Messages to the first pixel: (.8 + .4 / 2) / 1.5 = 2/3 and 1/3; to the
    # second (.4 + .8 / 2) / 1.5 = 8/15 and 7/15. Weight 3: log odds log 4 + 1 and log 2/3 + .2.
    found = dense_crf(
        np.zeros((1, 2, 3)),
        [[[0.8, 0.2], [0.4, 0.6]]],
        iterations=1,
        position_weight=3,
        position_sigma=HALF,
        bilateral_weight=0,
        method="exact",
    )
    np.testing.assert_allclose(found[0, :, 0], [_sigmoid(np.log(4) + 1), _sigmoid(np.log(2 / 3) + 0.2)], rtol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)


def test_colours_that_differ_send_nothing_by_hand():
    # Red 60 apart at a sigma of 3: exp(-200) is nothing, every pixel hears itself: log odds log 4 + 4 (.8 - .2).
    images = np.array([[[0, 9, 9], [60, 9, 9]]], np.uint8)
    for method in ("exact", "lattice"):
        found = dense_crf(images, [[[0.8, 0.2], [0.4, 0.6]]], iterations=1, position_weight=0, method=method)
        expected = [_sigmoid(np.log(4) + 2.4), _sigmoid(np.log(2 / 3) - 0.8)]
        np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def test_no_iterations_give_clipped_probabilities():
    probabilities = np.array([[[1.0, 0.0], [0.25, 0.75]]])
    found = dense_crf(np.zeros((1, 2, 3)), probabilities, iterations=0)
    np.testing.assert_allclose(found, [[[1 / 1.00001, 1e-5 / 1.00001], [0.25, 0.75]]], rtol=1e-6)


def test_logits_and_their_probabilities_agree():
    image, probabilities = _picture()
    logits = np.log(probabilities) + 7.0
    found = dense_crf(image, logits, from_logits=True)
    np.testing.assert_allclose(found, dense_crf(image, probabilities), atol=1e-5)
    assert np.isfinite(dense_crf(image, logits * 1e30, from_logits=True)).all()


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_noise_goes_and_the_edge_stays(method):
    image, probabilities = _picture(20, 24)
    truth = np.broadcast_to(np.arange(24) >= 12, (20, 24))
    assert (probabilities.argmax(-1) != truth).mean() > 0.2
    refined = dense_crf(image, probabilities, bilateral_color_sigma=15, method=method)
    np.testing.assert_array_equal(refined.argmax(-1), truth)


def test_the_lattice_is_near_the_exact_sum():
    image, probabilities = _picture(24, 30)
    exact, lattice = (
        dense_crf(
            image,
            probabilities,
            iterations=3,
            position_weight=1,
            bilateral_weight=1,
            bilateral_color_sigma=20,
            method=method,
        )
        for method in ("exact", "lattice")
    )
    assert np.abs(exact - lattice).mean() < 0.01
    assert (exact.argmax(-1) == lattice.argmax(-1)).mean() > 0.99


def test_exact_in_blocks_equals_exact_at_once(monkeypatch):
    image, probabilities = _picture()
    whole = dense_crf(image, probabilities, method="exact")
    monkeypatch.setattr(module, "_KERNEL_VALUES", 1000)  # 9 of 108 rows
    np.testing.assert_allclose(dense_crf(image, probabilities, method="exact"), whole, rtol=1e-6)


def test_images_of_a_batch_are_apart():
    pictures = [_picture(seed=seed) for seed in range(3)]
    images, probabilities = (np.stack(arrays) for arrays in zip(*pictures, strict=True))
    found = dense_crf(images, probabilities)
    for refined, picture in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(refined, dense_crf(*picture))


def test_arguments_are_left_as_they_were():
    image, probabilities = _picture()
    image, logits = image.astype(np.float32), np.log(probabilities)
    copies = image.copy(), logits.copy()
    dense_crf(image, logits, from_logits=True)
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(logits, copies[1])


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 4, 5), (2, 0, 3)])
def test_empty_images_give_empty_results(shape):
    assert dense_crf(np.zeros((*shape, 3)), np.zeros((*shape, 2))).shape == (*shape, 2)


def test_one_pixel_and_one_class():
    np.testing.assert_array_equal(dense_crf(np.zeros((1, 1, 3)), [[[0.3]]]), [[[1]]])
    # Alone, a pixel hears itself with weight 3 + 4, at last: q = sigmoid(log odds + 7 (2 q - 1)).
    found = dense_crf(np.zeros((1, 1, 3)), [[[0.6, 0.4]]], iterations=60)[0, 0, 0]
    np.testing.assert_allclose(found, _sigmoid(np.log(1.5) + 7 * (2 * found - 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((4, 5))}, r"`images` of shape \(4, 5\) must be \(H, W, 3\) or \(B, H, W, 3\)"),
        ({"images": np.zeros((4, 6, 3))}, r"`probabilities` of shape \(4, 5, 2\) must be \(4, 6, 'C'\)"),
        ({"probabilities": np.zeros((4, 5, 0))}, r"`probabilities` of shape \(4, 5, 0\) must have 1 class or more"),
        ({"probabilities": np.full((4, 5, 2), np.nan)}, "`probabilities` has 40 values that are NaN or infinite"),
        ({"images": np.full((4, 5, 3), np.inf)}, "`images` has 60 values that are NaN or infinite"),
        ({"iterations": -1}, "`iterations` -1 must be a whole number, 0 or more"),
        ({"iterations": 2.5}, "`iterations` 2.5 must be a whole number"),
        ({"position_weight": -1}, "`position_weight` -1 must be 0 or more"),
        ({"bilateral_weight": np.nan}, "`bilateral_weight` nan must be 0 or more"),
        ({"position_sigma": 0}, "`position_sigma` 0 must be above 0"),
        ({"bilateral_position_sigma": -2}, "`bilateral_position_sigma` -2 must be above 0"),
        ({"bilateral_color_sigma": 0}, "`bilateral_color_sigma` 0 must be above 0"),
        ({"method": "fast"}, "`method` 'fast' is unknown; use 'lattice' or 'exact'"),
        ({"images": np.full((4, 5, 3), 9e9)}, "use larger sigmas"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    arguments = {"images": np.zeros((4, 5, 3)), "probabilities": np.full((4, 5, 2), 0.5), **arguments}
    with pytest.raises(ValueError, match=message):
        dense_crf(arguments.pop("images"), arguments.pop("probabilities"), **arguments)
