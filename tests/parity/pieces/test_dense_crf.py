"""Dense CRF against pydensecrf2 on photos, and the lattice's geometry where rounding decides."""

import cv2
import numpy as np
import pytest

from kerasvision.ops.dense_crf import dense_crf
from tests.parity.pieces.compare import check

densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 needs a compiler, and Python below 3.13")
photos = pytest.importorskip("skimage.data")

DEEPLAB = {
    "position_weight": 3,
    "position_sigma": 1,
    "bilateral_weight": 4,
    "bilateral_position_sigma": 67,
    "bilateral_color_sigma": 3,
}
OTHERS = {
    "position_weight": 2.5,
    "position_sigma": 3.0,
    "bilateral_weight": 7.0,
    "bilateral_position_sigma": 40.0,
    "bilateral_color_sigma": 13.0,
}


def _photo(name, height, width):
    """Return a photo, uint8 (height, width, 3)."""
    return cv2.resize(getattr(photos, name)(), (width, height), interpolation=cv2.INTER_AREA)


def _soft_labels(image, classes=21, spread=2.0):
    """Return probabilities as a coarse network gives them: smooth over some 30 pixels, noise added."""
    rng = np.random.default_rng(0)
    height, width = image.shape[:2]
    coarse = rng.normal(0, spread, (height // 30 + 2, width // 30 + 2, classes))
    logits = np.stack([cv2.resize(coarse[..., index], (width, height)) for index in range(classes)], axis=-1)
    exponents = np.exp(logits + rng.normal(0, 0.7, logits.shape))
    return (exponents / exponents.sum(-1, keepdims=True)).astype(np.float32)


def _reference(image, probabilities, iterations, options):
    height, width, classes = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0)).reshape(-1, classes).T
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=options["position_sigma"], compat=options["position_weight"])
    crf.addPairwiseBilateral(
        sxy=options["bilateral_position_sigma"],
        srgb=options["bilateral_color_sigma"],
        rgbim=np.ascontiguousarray(image),
        compat=options["bilateral_weight"],
    )
    return np.array(crf.inference(iterations)).reshape(classes, height, width).transpose(1, 2, 0)


@pytest.mark.parametrize("options", [DEEPLAB, OTHERS])
@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
def test_labels_and_marginals_equal_pydensecrf2(name, options):
    image = _photo(name, 180, 240)
    probabilities = _soft_labels(image)

    ours = dense_crf(image, probabilities, **options)
    theirs = _reference(image, probabilities, 10, options)
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() >= 0.999
    assert (ours.argmax(-1) != probabilities.argmax(-1)).mean() > 0.1  # there was something to refine
    # Pixels torn between two labels multiply float32 rounding in each step: 1e-5 is for half as many.
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    check(
        "ops.dense_crf",
        "pydensecrf2",
        lambda image, probabilities: dense_crf(image, probabilities, iterations=5, **options),
        lambda image, probabilities: _reference(image, probabilities, 5, options),
        [image, probabilities],
        numpy_reference=True,
    )


def test_labels_equal_pydensecrf2_at_full_size():
    image = _photo("chelsea", 375, 500)
    probabilities = _soft_labels(image)
    ours = dense_crf(image, probabilities)
    theirs = _reference(image, probabilities, 10, DEEPLAB)
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() >= 0.999
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_sizes_that_four_does_not_divide():
    # pydensecrf2 fills up blocks of 4 with black pixels; a dark picture shows that most.
    image = _photo("astronaut", 121, 101) // 4
    probabilities = _soft_labels(image, 5)
    ours = dense_crf(image, probabilities)
    theirs = _reference(image, probabilities, 10, DEEPLAB)
    assert (ours.argmax(-1) == theirs.argmax(-1)).mean() >= 0.999
    np.testing.assert_allclose(ours, theirs, atol=1e-2)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_a_flat_picture_and_few_iterations(iterations):
    # Colours on the borders of simplices: rounding and ties decide, the sums do not change.
    image = np.zeros((16, 20, 3), np.uint8)
    image[:, 10:] = 120
    probabilities = _soft_labels(image, 4)
    check(
        "ops.dense_crf",
        "pydensecrf2",
        lambda image, probabilities: dense_crf(image, probabilities, iterations=iterations),
        lambda image, probabilities: _reference(image, probabilities, iterations, DEEPLAB),
        [image, probabilities],
        numpy_reference=True,
    )
