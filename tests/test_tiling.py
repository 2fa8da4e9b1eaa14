"""Tiled inference: equal to the whole image's, in memory that does not grow, from sources read piece by piece."""

import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet10
from kerasvision.data.checks import DataError
from kerasvision.inference import Predictor, Tiles
from kerasvision.models import DilatedFCN, Segmenter
from kerasvision.models.unet import unet
from kerasvision.ops.resizing import ResizeRule
from kerasvision.ops.tiles import count_windows

CLASSES = 3


class ConvolutionSegmenter(Segmenter):
    """Two 3x3 convolutions, the second with dilation 2: it looks 3 pixels far. Logits of a few units, of both signs.

    Args:
        padding: ``"valid"`` gives logits without a border of 3 pixels.
    """

    radius = 3

    def __init__(self, padding="same", **options):
        super().__init__(CLASSES, **options)
        start = keras.initializers.VarianceScaling(4, seed=0)
        shared = {"padding": padding, "kernel_initializer": start}
        self.first = keras.layers.Conv2D(8, 3, activation="relu", **shared)
        self.second = keras.layers.Conv2D(CLASSES, 3, dilation_rate=2, **shared)
        self.first.build((None, None, None, 3))
        self.second.build((None, None, None, 8))
        self.built = True

    def call(self, inputs, training=None):
        return self.second(self.first(self.prepare(inputs)))


class RedSegmenter(Segmenter):
    """Calls each pixel by itself: the more red, the surer of class 1 of 2. No weights, so that much can be computed."""

    def __init__(self, **options):
        super().__init__(2, **options)
        self.built = True

    def call(self, inputs, training=None):
        red = ops.cast(inputs, "float32")[..., 0] / 64 - 2
        return ops.stack([-red, red], axis=-1)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def logits_of(model, image):
    return ops.convert_to_numpy(model(image[None].astype(np.float32)))[0]


def joined_logits(predictor, image):
    """Return what the predictor takes the largest of, before it does."""
    taken = []
    predictor._as_probabilities = lambda values: taken.append(values.copy()) or values
    predictor.probabilities = True
    return predictor.segment(image).probabilities, taken


@pytest.fixture(scope="module")
def model():
    return ConvolutionSegmenter()


@pytest.mark.parametrize("size_hw", [(100, 131), (40, 17), (1, 1), (7, 300)])
@pytest.mark.parametrize("overlap", [6, 9])
def test_centres_equal_the_whole_image_at_every_pixel(model, size_hw, overlap):
    image = picture(*size_hw)
    predictor = Predictor(model, tiles=Tiles(32, overlap=overlap, mode="centre"), batch_size=3)
    logits, parts = joined_logits(predictor, image)
    assert len(parts) >= size_hw[0] // 32
    np.testing.assert_allclose(logits, logits_of(model, image), atol=1e-4)


def test_centres_with_less_overlap_than_the_network_looks_far_are_not_equal(model):
    """So that the equality above says something."""
    image = picture(100, 131)
    logits, _ = joined_logits(Predictor(model, tiles=Tiles(32, overlap=4, mode="centre")), image)
    assert np.abs(logits - logits_of(model, image)).max() > 0.1


@pytest.mark.parametrize("mode", ["linear", "average"])
def test_means_equal_the_whole_image_away_from_borders_of_windows(model, mode):
    image, tiles = picture(100, 131), Tiles(48, overlap=16, mode=mode)
    far = []
    for axis, length in enumerate(image.shape[:2]):
        near = np.zeros(length, bool)
        for span in tiles.spans(length, axis):
            for border in (span.start, span.stop):
                if 0 < border < length:
                    near[max(0, border - model.radius) : border + model.radius] = True
        far.append(~near)
    away = far[0][:, None] & far[1]
    logits, _ = joined_logits(Predictor(model, tiles=tiles), image)
    difference = np.abs(logits - logits_of(model, image)).max(axis=-1)
    assert 0.4 < away.mean() < 0.9
    assert difference[away].max() < 1e-4
    assert difference[~away].max() > 1e-2


def test_unet_in_centres_equals_unet_on_the_whole_image():
    """Two levels of pooling: windows start at multiples of 4, and 32 pixels are more than the network looks far."""
    keras.utils.set_random_seed(0)
    model = unet(CLASSES, widths=(4, 6, 8))
    image = picture(150, 203)
    whole = logits_of(model, image)
    logits, _ = joined_logits(Predictor(model, tiles=Tiles(96, overlap=64, mode="centre")), image)
    assert whole.std() > 1e-3
    np.testing.assert_allclose(logits, whole, atol=1e-3 * np.abs(whole).max())


def test_dilated_fcn_in_centres_equals_the_whole_image_whose_size_its_stride_divides():
    """It looks 138 pixels far: 3 + 2 + 8 + 4 + 8 + 32 + 64 in the backbone, 8 in the head, 8 in the enlarging."""
    keras.utils.set_random_seed(0)
    backbone = resnet10(widths=(8, 8, 16, 32), stem_filters=8, output_stride=8)
    model, image = DilatedFCN(backbone, CLASSES), picture(400, 424)
    whole = logits_of(model, image)
    spread = whole[100:300, 100:300].std()  # away from the border, where most of the variation is
    for size, overlap, equal in ((352, 288, True), (160, 32, False)):
        tiles = Tiles(size, overlap=overlap, mode="centre")
        assert count_windows(image.shape[:2], tiles, CLASSES) >= 4
        logits, _ = joined_logits(Predictor(model, tiles=tiles), image)
        assert (np.abs(logits - whole).max() < 1e-3 * spread) == equal


def test_overlap_tiles_of_a_network_without_padding_see_the_mirrored_image():
    """As U-Net's: 26x26 logits of 32x32 pixels; the border's context is its mirror image."""
    model = ConvolutionSegmenter(padding="valid")
    image = picture(60, 71)
    mirrored = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = logits_of(model, mirrored)
    assert expected.shape == (60, 71, CLASSES)
    for overlap in (6, 7, 12):
        tiles = Tiles(32, overlap=overlap, mode="centre", mirror=True)
        logits, _ = joined_logits(Predictor(model, tiles=tiles), image)
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_network_without_padding_and_too_little_overlap_is_told_what_to_pass():
    model = ConvolutionSegmenter(padding="valid")
    message = (
        r"logits of \(26, 26\) for an input of \(32, 32\).*Tiles\(\(32, 32\), overlap=\(6, 6\), mode='centre', mirr"
    )
    for tiles in (None, Tiles(32, overlap=6), Tiles(32, overlap=4, mode="centre", mirror=True)):
        with pytest.raises(ValueError, match=message):
            Predictor(model, tiles=tiles)(picture(32, 32))


def test_result_is_a_segmentation_in_the_images_own_pixels():
    image = np.zeros((50, 70, 3), np.uint8)
    image[10:30, 20:60, 0] = 255
    model = RedSegmenter(class_names=("dark", "red"), resize_rule=ResizeRule("stretch", size_hw=(8, 8)))
    (seen,) = Predictor(model, tiles=Tiles(16, overlap=4), probabilities=True)(image)
    np.testing.assert_array_equal(seen.mask, image[..., 0] // 255)
    assert seen.mask.dtype == np.uint8 and seen.size_hw == (50, 70)
    # logits ±(255 / 64 - 2) = ±1.984: 1 / (1 + exp(-3.969)) = 0.9815
    assert seen.probabilities[15, 30, 1] == pytest.approx(0.9815, abs=1e-4)
    np.testing.assert_allclose(seen.probabilities.sum(axis=-1), 1, atol=1e-5)
    assert seen.class_counts().tolist() == [50 * 70 - 800, 800]
    assert [part["share"] for part in seen.to_dict()["classes"]] == [1 - 800 / 3500, 800 / 3500]


def test_sources_of_all_kinds_give_the_same(tmp_path, model):
    image = picture(40, 50)
    np.save(tmp_path / "image.npy", image)
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "image.png")
    predictor = Predictor(model, tiles=Tiles(32, overlap=8))
    (expected,) = predictor(image)
    for source in (
        image.astype(np.float64),
        tmp_path / "image.npy",
        str(tmp_path / "image.png"),
        Image.fromarray(image),
    ):
        (seen,) = predictor(source)
        np.testing.assert_array_equal(seen.mask, expected.mask)
    several = predictor([image, tmp_path / "image.npy"])
    assert [part.name for part in several] == ["0", str(tmp_path / "image.npy")]
    grey, coloured = predictor([image[..., 0], np.repeat(image[..., :1], 3, axis=2)])
    np.testing.assert_array_equal(grey.mask, coloured.mask)


def test_npy_files_are_images_without_tiles_too(tmp_path, model):
    image = picture(12, 10)
    np.save(tmp_path / "image.npy", image)
    predictor = Predictor(model)
    np.testing.assert_array_equal(predictor(tmp_path / "image.npy")[0].mask, predictor(image)[0].mask)
    with pytest.raises(DataError, match=r"none\.npy: file is missing"):
        predictor(tmp_path / "none.npy")
    (tmp_path / "torn.npy").write_bytes((tmp_path / "image.npy").read_bytes()[:200])
    with pytest.raises(DataError, match=r"torn\.npy: is no \.npy file of numbers, or is cut off"):
        predictor(tmp_path / "torn.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"objects\.npy: is no \.npy file of numbers"):
        predictor(tmp_path / "objects.npy")


def test_pixels_that_are_not_finite_are_refused_where_they_are_read(model):
    image = np.zeros((40, 40, 3), np.float32)
    image[39, 39] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        Predictor(model, tiles=Tiles(16, overlap=4))(image)


def test_mask_is_written_into_the_callers_array(tmp_path, model):
    image = picture(40, 50)
    out = np.memmap(tmp_path / "mask", np.int16, "w+", shape=(40, 50))
    for tiles in (Tiles(16, overlap=4), None):
        out[:] = -1
        seen = Predictor(model, tiles=tiles).segment(image, out=out)
        assert seen.mask is out
        np.testing.assert_array_equal(out, Predictor(model, tiles=tiles)(image)[0].mask)
    assert Predictor(model).segment(image).mask.dtype == np.int32
    for wrong in (np.zeros((50, 40), np.uint8), np.zeros((40, 50), np.float32)):
        with pytest.raises(ValueError, match=r"`out` of shape .* must be \(40, 50\)"):
            Predictor(model).segment(image, out=wrong)
    with pytest.raises(ValueError, match="`segment` takes one image and a segmenter, not a list"):
        Predictor(model).segment([image])


def test_memory_does_not_grow_with_the_image(tmp_path):
    """What NumPy holds beyond the mask is the same for 8 times as many rows, read from a file."""
    model, peaks = RedSegmenter(), []
    predictor = Predictor(model, tiles=Tiles(64, overlap=16), progress=False)
    predictor(np.zeros((65, 130, 3), np.uint8))  # whatever is made once
    for height in (512, 4096):
        image = np.lib.format.open_memmap(tmp_path / f"{height}.npy", "w+", np.uint8, (height, 300, 3))
        image[::3] = 200
        image.flush()
        del image
        mask = np.memmap(tmp_path / f"{height}.mask", np.uint8, "w+", shape=(height, 300))
        tracemalloc.start()
        predictor.segment(tmp_path / f"{height}.npy", out=mask)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (mask[::3] == 1).all() and (mask[1::3] == 0).all()
    assert peaks[0] > 64 * 300 * 2 * 4  # the sums, at least: NumPy's memory is what is measured
    # The spans of 4096 rows, their weights included, are some 100 kB; the image would be 3.7 MB.
    assert peaks[1] - peaks[0] < 400_000


def test_progress_counts_windows(model, capsys, monkeypatch):
    calls = []
    tiles = Tiles(16, overlap=4)  # step 12: 4 x 4 windows
    Predictor(model, tiles=tiles, batch_size=3, progress=lambda done, total: calls.append((done, total)))(
        picture(50, 50)
    )
    assert calls == [(done + 4 * row, 16) for row in range(4) for done in (3, 4)]
    for terminal, progress, shown in (("1", True, True), ("1", False, False), ("", True, False)):
        monkeypatch.setenv("FORCE_COLOR", terminal)  # rich then takes stderr for a terminal
        Predictor(model, tiles=tiles, progress=progress)(picture(80, 80))  # 7 x 7 windows
        captured = capsys.readouterr()
        assert captured.out == "" and ("segmenting" in captured.err) == bool(captured.err) == shown
    monkeypatch.setenv("FORCE_COLOR", "1")
    Predictor(model, tiles=tiles)(picture(20, 20))  # 4 windows
    assert capsys.readouterr().err == ""


def test_tiles_with_a_resize_rule_or_a_detector_are_refused(model):
    with pytest.raises(ValueError, match="`resize` 'stretch' does not go with `tiles`"):
        Predictor(model, tiles=Tiles(), resize=ResizeRule("stretch", size_hw=(8, 8)))
    predictor = Predictor(model, tiles=Tiles(16, overlap=4))
    inputs, metas = predictor.preprocess([picture(8, 8)])
    with pytest.raises(ValueError, match=r"`postprocess` cannot join several views of an image; call predict"):
        predictor.postprocess(predictor.network(inputs), inputs, metas)
