"""`Predictor`: what it takes, what it refuses, and that results are in each image's own pixels."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet10
from kerasvision.data.checks import DataError
from kerasvision.inference import Detections, Predictor, Segmentation
from kerasvision.models import Detector, RetinaNet, Segmenter, UNet
from kerasvision.ops.resizing import ResizeRule

NETWORK_HW = (64, 96)


@keras.saving.register_keras_serializable("tests.inference")
class BrightBoxDetector(Detector):
    """A detector that sees one thing: the bounding box of red pixels brighter than half, labelled 1 of 2.

    Its second detection scores 0.25 and covers the first's upper left pixel's neighbourhood.
    """

    def __init__(self, **options):
        super().__init__(2, **options)
        self.built = True

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return {"red": ops.cast(images, "float32")[..., 0]}

    def decode(self, raw, inputs):
        bright = raw["red"] > 127  # (B, H, W)
        limits = []
        for axis in (2, 1):  # x from columns, y from rows
            hit = ops.cast(ops.any(bright, axis=3 - axis), "float32")  # (B, W) or (B, H)
            count = ops.shape(hit)[1]
            positions = ops.cast(ops.arange(count), "float32")[None]
            first = ops.min(ops.where(hit > 0, positions, 1e6), axis=1)
            last = ops.max(ops.where(hit > 0, positions + 1, -1.0), axis=1)
            limits.append((first, last))
        (x1, x2), (y1, y2) = limits
        box = ops.stack([x1, y1, x2, y2], axis=-1)  # (B, 4)
        other = ops.stack([x1, y1, x1 + 8, y1 + 8], axis=-1)
        none = -ops.ones_like(box)
        ones = ops.ones_like(x1)
        return {
            "boxes": ops.stack([box, other, none], axis=1),
            "scores": ops.stack([0.75 * ones, 0.25 * ones, -ones], axis=1),
            "labels": ops.cast(ops.stack([ones, 0 * ones, -ones], axis=1), "int32"),
            "num_detections": ops.cast(2 * ones, "int32"),
        }


@keras.saving.register_keras_serializable("tests.inference")
class BrightSegmenter(Segmenter):
    """A segmenter that calls red pixels brighter than half class 1 of 2."""

    def __init__(self, **options):
        super().__init__(2, **options)
        self.built = True

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        red = ops.cast(images, "float32")[..., 0]
        return ops.stack([127 - red, red - 127], axis=-1)


def _picture(height=128, width=192, box=(48, 32, 144, 96)):
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2, 0] = 255
    return image


@pytest.fixture
def detector():
    return Predictor(BrightBoxDetector(resize_rule=ResizeRule("letterbox", size_hw=NETWORK_HW)))


@pytest.fixture
def segmenter():
    return Predictor(BrightSegmenter(resize_rule=ResizeRule("letterbox", size_hw=NETWORK_HW)))


@pytest.mark.parametrize(
    ("rule", "size_hw"),
    [
        (ResizeRule("none"), (128, 192)),
        (ResizeRule("stretch", size_hw=(64, 64)), (128, 192)),
        (ResizeRule("letterbox", size_hw=(64, 96)), (128, 192)),
        (ResizeRule("letterbox", size_hw=(96, 96)), (128, 192)),  # a third of the canvas is padding
        (ResizeRule("shortest_side", shortest=64, longest=200), (128, 192)),
        (ResizeRule("letterbox", size_hw=(256, 384)), (128, 192)),  # twice as large
        (ResizeRule("letterbox", size_hw=(64, 96)), (192, 128)),  # portrait: 64 x 43
    ],
)
def test_boxes_come_back_in_the_images_own_pixels(rule, size_hw):
    box = (48, 32, 96, 96)
    (found,) = Predictor(BrightBoxDetector(resize_rule=rule))(_picture(*size_hw, box))
    assert found.size_hw == size_hw
    np.testing.assert_array_equal(found.labels, [1, 0])
    np.testing.assert_array_equal(found.scores, [0.75, 0.25])
    # A pixel of the network's input is at most 3 of the image's, and the box's edge is somewhere in one.
    np.testing.assert_allclose(found.boxes[0], box, atol=3.1)


def test_boxes_exact_where_scale_is_a_whole_number(detector):
    (found,) = detector(_picture(box=(48, 32, 144, 96)))  # halved: 24, 16, 72, 48
    np.testing.assert_array_equal(found.boxes[0], [48, 32, 144, 96])
    np.testing.assert_array_equal(found.boxes[1], [48, 32, 64, 48])  # 8 network pixels are 16


def test_boxes_beyond_the_image_are_clipped(detector):
    (found,) = detector(_picture(box=(188, 124, 192, 128)))
    np.testing.assert_array_equal(found.boxes[1], [188, 124, 192, 128])


def test_sources_of_all_kinds_give_the_same(detector, tmp_path):
    from PIL import Image

    picture = _picture()
    Image.fromarray(picture).save(tmp_path / "street.png")
    sources = {
        "array": picture,
        "float": picture.astype(np.float64),
        "PIL": Image.fromarray(picture),
        "path": tmp_path / "street.png",
        "text": str(tmp_path / "street.png"),
        "list": [picture],
        "tuple": (Image.fromarray(picture),),
        "batch": picture[None],
        "generator": (image for image in [picture]),
    }
    for kind, source in sources.items():
        (found,) = detector(source)
        assert isinstance(found, Detections)
        np.testing.assert_array_equal(found.boxes[0], [48, 32, 144, 96], err_msg=kind)
        assert found.name == (str(tmp_path / "street.png") if kind in ("path", "text") else "0")


def test_source_grey_or_with_alpha_becomes_rgb(detector):
    from PIL import Image

    grey = _picture()[..., 0]
    rgba = np.dstack([_picture(), np.full((128, 192), 255, np.uint8)])
    for source in (grey, Image.fromarray(grey), Image.fromarray(rgba), Image.fromarray(grey).convert("P")):
        (found,) = detector(source)
        np.testing.assert_array_equal(found.boxes[0], [48, 32, 144, 96])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_several_images_of_several_sizes_come_back_in_order(batch_size):
    boxes = [(48, 32, 144, 96), (16, 64, 48, 128), (0, 0, 96, 64), (160, 32, 192, 64)]
    sizes = [(128, 192), (192, 128), (64, 96), (128, 192)]
    pictures = [_picture(*size, box) for size, box in zip(sizes, boxes, strict=True)]
    model = BrightBoxDetector(resize_rule=ResizeRule("none"))
    results = Predictor(model, batch_size=batch_size)(pictures)
    assert [result.name for result in results] == ["0", "1", "2", "3"]
    assert [result.size_hw for result in results] == sizes
    for result, box in zip(results, boxes, strict=True):
        np.testing.assert_array_equal(result.boxes[0], box)


def test_source_empty_gives_nothing(detector):
    assert detector([]) == []


def test_stream_yields_before_all_is_read(detector):
    def pictures():
        yield _picture()
        raise RuntimeError("read too far")

    assert len(next(detector.stream(pictures()))) == 2


def test_score_threshold_drops_what_scores_less():
    model = BrightBoxDetector(resize_rule=ResizeRule("letterbox", size_hw=NETWORK_HW))
    counts = [len(Predictor(model, score_threshold=t)(_picture())[0]) for t in (None, 0, 0.25, 0.3, 0.75, 1)]
    assert counts == [2, 2, 2, 1, 1, 0]


def test_results_become_json(detector, segmenter):
    (found,) = detector(_picture())
    content = json.loads(json.dumps(found.to_dict()))
    assert content["detections"][0] == {
        "label": 1, "class": "class 1", "score": 0.75, "box_xyxy": [48.0, 32.0, 144.0, 96.0],
    }  # fmt: skip
    (seen,) = segmenter(_picture())
    content = json.loads(json.dumps(seen.to_dict()))
    assert (content["height"], content["width"]) == (128, 192)
    assert [part["class"] for part in content["classes"]] == ["class 0", "class 1"]
    # 96 x 64 of 192 x 128 pixels
    assert content["classes"][1]["share"] == pytest.approx(0.25, abs=0.01)


def test_class_names_of_the_model_are_used_unless_given():
    model = BrightBoxDetector(class_names=("tree", "car"))
    assert Predictor(model).class_names == ("tree", "car")
    assert Predictor(model, class_names=["baum", "auto"]).class_names == ("baum", "auto")
    with pytest.raises(ValueError, match="`class_names` has 1 names, but the model has 2 classes"):
        Predictor(model, class_names=["car"])


@pytest.mark.parametrize(
    "rule",
    [
        ResizeRule("none"),
        ResizeRule("stretch", size_hw=(64, 64)),
        ResizeRule("letterbox", size_hw=(64, 96)),
        ResizeRule("letterbox", size_hw=(96, 64)),
    ],
)
@pytest.mark.parametrize("size_hw", [(128, 192), (192, 128), (97, 131), (1, 1), (2, 200)])
def test_masks_come_back_at_the_images_own_size(rule, size_hw):
    height, width = size_hw
    picture = _picture(height, width, (width // 2, 0, width, height))
    palette = np.zeros((2, 3), np.uint8)
    (seen,) = Predictor(BrightSegmenter(resize_rule=rule), palette=palette)(picture)
    assert isinstance(seen, Segmentation)
    assert seen.mask.shape == seen.size_hw == size_hw
    assert seen.mask.dtype == np.int32
    assert seen.palette is palette
    expected = np.zeros(size_hw, np.int32)
    expected[:, width // 2 :] = 1
    assert (seen.mask != expected).mean() < 0.05


def test_missing_file_is_named(detector, tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg"):
        detector(tmp_path / "none.jpg")


def test_corrupt_jpeg_is_named(detector, tmp_path):
    from PIL import Image

    path = tmp_path / "torn.jpg"
    Image.fromarray(_picture()).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"torn\.jpg"):
        detector(path)
    path.write_text("no image at all")
    with pytest.raises(DataError, match=r"torn\.jpg"):
        detector([_picture(), path])


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 4), (8,), (0, 8, 3), (8, 0, 3)])
def test_array_of_another_shape_is_refused(detector, shape):
    with pytest.raises(ValueError, match=r"array of shape .* expected \(height, width, 3\) RGB"):
        detector([np.zeros(shape, np.uint8)])


def test_pixels_that_are_not_finite_are_refused(detector):
    picture = _picture().astype(np.float32)
    for value in (np.nan, np.inf):
        picture[0, 0, 0] = value
        with pytest.raises(ValueError, match="NaN or infinite pixels"):
            detector(picture)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, complex])
def test_pixels_of_another_type_are_refused(detector, dtype):
    with pytest.raises(ValueError, match="convert it to uint8 or float in 0-255"):
        detector(_picture().astype(dtype))


def test_arguments_out_of_range_are_refused():
    model = BrightBoxDetector()
    with pytest.raises(ValueError, match="`batch_size` 0 must be at least 1"):
        Predictor(model, batch_size=0)
    with pytest.raises(ValueError, match=r"`score_threshold` 1\.5 must be between 0 and 1"):
        Predictor(model, score_threshold=1.5)
    with pytest.raises(ValueError, match="`model` Sequential must be a kerasvision Detector or Segmenter"):
        Predictor(keras.Sequential())


@pytest.fixture(scope="module")
def networks():
    """A real detector and a real segmenter, tiny, with random weights."""
    keras.utils.set_random_seed(0)

    def backbone():
        return resnet10(widths=(8, 8, 8, 8), stem_filters=8)

    detector = RetinaNet(backbone(), 3, pyramid_filters=8, head_convolutions=1, score_threshold=0.0, max_detections=5)
    return [detector, UNet(backbone(), 3, decoder_filters=(8, 8, 8, 8, 8), upsampling="nearest")]


def test_real_networks_take_images_down_to_one_pixel(networks):
    for model in networks:
        predictor = Predictor(model)
        for height, width in [(1, 1), (1, 40), (33, 1), (31, 57)]:
            (result,) = predictor(np.full((height, width, 3), 128, np.uint8))
            assert result.size_hw == (height, width)
            if isinstance(result, Detections):
                assert (result.boxes >= 0).all() and (result.boxes <= [width, height, width, height]).all()
            else:
                assert result.mask.shape == (height, width)


def test_predictor_equals_predict(networks):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    detector, segmenter = networks
    (found,) = Predictor(detector)(image)
    expected = detector.predict(image[None].astype(np.float32), verbose=0)
    np.testing.assert_allclose(found.boxes, expected["boxes"][0], atol=1e-3)
    np.testing.assert_allclose(found.scores, expected["scores"][0], rtol=1e-5)
    (seen,) = Predictor(segmenter)(image)
    logits = segmenter.predict(image[None].astype(np.float32), verbose=0)
    np.testing.assert_array_equal(seen.mask, logits[0].argmax(axis=-1))


def test_batches_of_mixed_sizes_give_what_each_image_gives_alone(networks):
    sizes = [(64, 96, 3), (64, 96, 3), (96, 64, 3), (50, 90, 3), (96, 96, 3)]
    images = [np.random.default_rng(i).integers(0, 256, size, np.uint8) for i, size in enumerate(sizes)]
    detector, segmenter = networks
    rule = ResizeRule("shortest_side", shortest=64, longest=128)
    for alone, together in zip(
        Predictor(detector, resize=rule)(images), Predictor(detector, resize=rule, batch_size=4)(images), strict=True
    ):
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-2)
        np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-4)
    for alone, together in zip(
        Predictor(segmenter, resize=rule)(images), Predictor(segmenter, resize=rule, batch_size=4)(images), strict=True
    ):
        assert (alone.mask == together.mask).mean() > 0.999


def test_a_photo_that_was_taken_on_its_side_is_turned(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3))
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees, clockwise
    picture.save(tmp_path / "side.png", exif=exif)
    predictor = Predictor(BrightSegmenter(resize_rule=ResizeRule("none")))
    np.testing.assert_array_equal(predictor.read(tmp_path / "side.png"), np.rot90(np.asarray(picture), -1))
    np.testing.assert_array_equal(predictor.read(picture), np.asarray(picture))


def test_weights_changed_after_compilation_are_used(networks):
    segmenter = networks[1]
    predictor = Predictor(segmenter)
    image = np.full((64, 96, 3), 128, np.uint8)
    predictor(image)
    before = segmenter.get_weights()
    try:
        segmenter.head.kernel.assign(ops.zeros(segmenter.head.kernel.shape))
        segmenter.head.bias.assign(ops.convert_to_tensor([0.0, 0.0, 1.0]))
        assert (predictor(image)[0].mask == 2).all()
    finally:
        segmenter.set_weights(before)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_frozen_predictor_gives_the_same_results(networks, batch_size):
    # More sizes than get a graph of their own.
    sizes = [(64, 96, 3), (50, 96, 3), (40, 33, 3), (70, 64, 3)]
    images = [np.random.default_rng(i).integers(0, 256, size, np.uint8) for i, size in enumerate(sizes)]
    detector, segmenter = networks
    for plain, frozen in zip(
        Predictor(detector, batch_size=batch_size)(images),
        Predictor(detector, batch_size=batch_size, freeze=True)(images),
        strict=True,
    ):
        np.testing.assert_allclose(frozen.boxes, plain.boxes, atol=1e-2)
        np.testing.assert_allclose(frozen.scores, plain.scores, rtol=1e-4)
    (plain,), (frozen,) = Predictor(segmenter)(images[0]), Predictor(segmenter, freeze=True)(images[0])
    assert (plain.mask == frozen.mask).mean() > 0.999


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="retracing is TensorFlow's")
def test_many_sizes_do_not_mean_many_traces(networks):
    for model in networks:
        predictor = Predictor(model)
        for height in range(33, 45):
            predictor(np.zeros((height, 80 - height, 3), np.uint8))
        assert predictor._network.experimental_get_tracing_count() <= 3
