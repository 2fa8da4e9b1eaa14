"""Scales and flips, the dense CRF as a last step, and probabilities: by hand, and against the functions themselves."""

import numpy as np
import pytest
from keras import ops

from kerasvision import inference
from kerasvision.inference import DenseCRF, Predictor, Segmentation, Tiles
from kerasvision.models import Detector, Segmenter
from kerasvision.ops.dense_crf import dense_crf
from kerasvision.ops.resizing import ResizeRule
from kerasvision.segmentation import at_own_size, softmax


class Views(Segmenter):
    """Logits of two classes, 0 and a function of the columns, that count from the left of what the network sees.

    Args:
        of_columns: Gives the second class's logits (W,) of column numbers (W,) and the width.
    """

    def __init__(self, of_columns=lambda x, width: x * 0, **options):
        super().__init__(2, **options)
        self.of_columns = of_columns
        self.built = True

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        width = ops.shape(images)[2]
        row = self.of_columns(ops.cast(ops.arange(width), "float32"), ops.cast(width, "float32"))
        second = ops.cast(images[..., 0], "float32") * 0 + row
        return ops.stack([second * 0, second], axis=-1)


class Stained(Segmenter):
    """Class 1 of 2 where red is bright, but wrong where there is a trace of blue."""

    def __init__(self, **options):
        super().__init__(2, **options)
        self.built = True

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        pixels = ops.cast(images, "float32")
        sign = ops.where(pixels[..., 0] > 127, 1.0, -1.0) * ops.where(pixels[..., 2] > 1, -1.0, 1.0)
        return ops.stack([-sign, sign], axis=-1)


class AnyDetector(Detector):
    def __init__(self):
        super().__init__(2)
        self.built = True

    def decode(self, raw, inputs):
        return raw


def stained_picture():
    """Two halves, dark and bright, with stains of two levels of blue on a tenth of the pixels; and its true mask."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32, 0], image[:, 32:, 0] = 60, 190
    image[..., 2] = 2 * (np.random.default_rng(0).random((48, 64)) < 0.1)
    return image, (image[..., 0] > 127).astype(np.int32)


def test_flip_means_probabilities_of_both_views():
    # A column says 2 at the left end and 0 elsewhere; so of two columns the views say (2, 0) and, flipped back, (0, 2).
    model = Views(lambda x, width: ops.where(x < 1, 2.0, 0.0))
    predictor = Predictor(model, augment=inference.TestTimeAugmentation(scales=(1,)), probabilities=True)
    (seen,) = predictor(np.zeros((3, 2, 3), np.uint8))
    # softmax of (0, 2) gives 1 / (1 + exp(-2)) = 0.8808; of (0, 0) 0.5
    np.testing.assert_allclose(seen.probabilities[..., 1], (0.8808 + 0.5) / 2, atol=1e-4)
    three = predictor(np.zeros((1, 3, 3), np.uint8))[0].probabilities[0, :, 1]
    np.testing.assert_allclose(three, [0.6904, 0.5, 0.6904], atol=1e-4)


def test_max_takes_the_largest_logit_of_each_class():
    model = Views(lambda x, width: ops.where(x < 1, 2.0, -1.0))
    augment = inference.TestTimeAugmentation(scales=(1,), merge="max")
    (seen,) = Predictor(model, augment=augment, probabilities=True)(np.zeros((1, 3, 3), np.uint8))
    # Second class: max(2, -1), max(-1, -1), max(-1, 2); first class 0. Softmax of (0, 2) and (0, -1).
    np.testing.assert_allclose(seen.probabilities[0, :, 1], [0.8808, 0.2689, 0.8808], atol=1e-4)
    assert seen.mask.tolist() == [[1, 0, 1]]


def test_scales_are_of_the_size_that_the_rule_gives_and_means_have_equal_weights():
    # The width that the network sees is the logit: 4 * 0.5, 4 * 1 and 4 * 1.625 = 6.5, which becomes 7.
    model = Views(lambda x, width: x * 0 + width - 4)
    rule = ResizeRule("stretch", size_hw=(2, 4))
    augment = inference.TestTimeAugmentation(scales=(0.5, 1, 1.625), flip=False)
    (seen,) = Predictor(model, resize=rule, augment=augment, probabilities=True)(np.zeros((5, 9, 3), np.uint8))
    expected = np.mean([1 / (1 + np.exp(-logit)) for logit in (-2, 0, 3)])
    assert seen.mask.shape == (5, 9)
    np.testing.assert_allclose(seen.probabilities[..., 1], expected, atol=1e-5)


def test_scales_below_a_pixel_are_one_pixel():
    augment = inference.TestTimeAugmentation(scales=(0.01, 1))
    (seen,) = Predictor(Stained(), augment=augment)(np.full((1, 3, 3), (255, 0, 0), np.uint8))
    assert seen.mask.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule("letterbox", size_hw=(40, 96))])
def test_views_of_padded_batches_equal_each_other(rule, batch_size):
    """A model that looks at each pixel alone sees the same in every view; padding lies at the right of flips too."""
    images = []
    for width in (64, 64, 40):
        image = np.zeros((40, width, 3), np.uint8)
        image[:, width // 4 : width // 2, 0] = 255
        images.append(image)
    augment = inference.TestTimeAugmentation(scales=(1, 2))
    for plain, seen in zip(
        Predictor(Stained(), resize=rule)(images),
        Predictor(Stained(), resize=rule, augment=augment, batch_size=batch_size)(images),
        strict=True,
    ):
        assert seen.mask.sum() == 40 * (seen.mask.shape[1] // 4)
        np.testing.assert_array_equal(seen.mask, plain.mask)


def test_tiles_are_seen_in_all_views():
    image, truth = stained_picture()
    image[..., 2] = 0
    augment = inference.TestTimeAugmentation(scales=(1, 2), flip=True)
    predictor = Predictor(Stained(), augment=augment, tiles=Tiles(24, overlap=8), probabilities=True)
    (seen,) = predictor(image)
    np.testing.assert_array_equal(seen.mask, truth)
    np.testing.assert_allclose(seen.probabilities.sum(axis=-1), 1, atol=1e-5)
    # Away from the edge all views say ±1: 1 / (1 + exp(-2)) = 0.8808
    np.testing.assert_allclose(seen.probabilities[:, :28, 0], 0.8808, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"scales": ()}, r"`scales` \(\) must be one factor or more"),
        ({"scales": (1, 0)}, r"`scales` \(1.0, 0.0\) must be .* above 0"),
        ({"merge": "median"}, "`merge` 'median' is unknown; use 'mean' or 'max'"),
    ],
)
def test_augmentation_out_of_range_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        inference.TestTimeAugmentation(**arguments)


def test_crf_cleans_what_the_network_got_wrong():
    image, truth = stained_picture()
    (noisy,) = Predictor(Stained())(image)
    (clean,) = Predictor(Stained(), crf=DenseCRF())(image)
    assert 0.08 < (noisy.mask != truth).mean() < 0.12
    assert (clean.mask != truth).mean() < 0.002


@pytest.mark.parametrize("merge", [None, "mean", "max"])
def test_crf_equals_dense_crf_of_the_probabilities_at_the_images_own_size(merge):
    image, _ = stained_picture()
    augment = None if merge is None else inference.TestTimeAugmentation(scales=(1,), merge=merge)
    rule = ResizeRule("stretch", size_hw=(24, 32))
    (plain,) = Predictor(Stained(), resize=rule, augment=augment, probabilities=True)(image)
    expected = dense_crf(
        image,
        plain.probabilities,
        iterations=4,
        position_weight=2,
        position_sigma=1.5,
        bilateral_weight=5,
        bilateral_position_sigma=20,
        bilateral_color_sigma=4,
    )
    crf = DenseCRF(4, 2, 1.5, 5, 20, 4)
    (seen,) = Predictor(Stained(), resize=rule, augment=augment, crf=crf, probabilities=True)(image)
    np.testing.assert_allclose(seen.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(seen.mask, expected.argmax(axis=-1))


def test_crf_of_a_tile_sees_the_tile():
    image, truth = stained_picture()
    (whole,) = Predictor(Stained(), crf=DenseCRF(), probabilities=True)(image)
    (one,) = Predictor(Stained(), crf=DenseCRF(), tiles=Tiles(64, overlap=16), probabilities=True)(image)
    np.testing.assert_allclose(one.probabilities, whole.probabilities, atol=1e-6)
    (several,) = Predictor(Stained(), crf=DenseCRF(), tiles=Tiles(32, overlap=8))(image)
    assert (several.mask != truth).mean() < 0.005


def test_crf_defaults_are_those_of_deeplab_and_numbers_out_of_range_are_named():
    crf = DenseCRF()
    assert (crf.iterations, crf.position_weight, crf.position_sigma) == (10, 3, 1)
    assert (crf.bilateral_weight, crf.bilateral_position_sigma, crf.bilateral_color_sigma) == (4, 67, 3)
    with pytest.raises(ValueError, match="`iterations` -1 must be a whole number"):
        DenseCRF(iterations=-1)
    with pytest.raises(ValueError, match="`bilateral_color_sigma` 0 must be above 0"):
        DenseCRF(bilateral_color_sigma=0)


def test_probabilities_are_held_only_if_asked_for():
    image, _ = stained_picture()
    assert Predictor(Stained())(image)[0].probabilities is None
    (seen,) = Predictor(Stained(), probabilities=True)(image)
    # softmax of ±1: 1 / (1 + exp(-2))
    np.testing.assert_allclose(seen.probabilities.max(axis=-1), 0.8808, atol=1e-4)
    np.testing.assert_array_equal(seen.probabilities.argmax(axis=-1), seen.mask)


@pytest.mark.parametrize(
    "option",
    [{"tiles": Tiles()}, {"augment": inference.TestTimeAugmentation()}, {"crf": DenseCRF()}, {"probabilities": True}],
)
def test_options_of_segmenters_are_refused_for_a_detector(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` is for segmenters, but `model` any_detector.* is a detector"):
        Predictor(AnyDetector(), **option)
    with pytest.raises(ValueError, match="`segment` takes one image and a segmenter, not a detector"):
        Predictor(AnyDetector()).segment(np.zeros((4, 4, 3), np.uint8))


def test_stages_of_several_views_are_refused():
    predictor = Predictor(Stained(), augment=inference.TestTimeAugmentation())
    inputs, metas = predictor.preprocess([np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"call predict\(images\) instead"):
        predictor.postprocess(predictor.network(inputs), inputs, metas)


def test_class_counts_of_blocks_add_up(monkeypatch):
    monkeypatch.setattr("kerasvision.segmentation._COUNTED_AT_ONCE", 10)
    mask = np.random.default_rng(0).integers(0, 3, (7, 4)).astype(np.uint8)
    counts = Segmentation("a", (7, 4), mask, ("x", "y", "z", "never")).class_counts()
    assert counts.tolist() == [*(int((mask == label).sum()) for label in range(3)), 0]


def test_softmax_of_large_logits_is_finite():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0], [-1000.0, 0.0]], np.float32)), [[0.5, 0.5], [0, 1]])


def test_logits_lose_their_padding_and_come_back_to_the_images_size():
    logits = np.arange(2 * 4, dtype=np.float32).reshape(2, 4, 1)
    np.testing.assert_array_equal(at_own_size(logits, (2, 3), (2, 3)), logits[:, :3])
    # Twice as wide, bilinear: 0, 0.25, 0.75, 1.
    np.testing.assert_allclose(at_own_size(logits[:1], (1, 2), (1, 4))[0, :, 0], [0, 0.25, 0.75, 1])
