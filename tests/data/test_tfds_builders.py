"""tfds reader, on tiny builders made here: nothing is downloaded."""

import io

import numpy as np
import pytest
from PIL import Image

from kerasvision import data
from kerasvision.data import tfds_builders
from kerasvision.data.tfds_builders import COCO_CATEGORY_IDS, MASK_CODINGS, boxes_to_pixels

tfds = pytest.importorskip("tensorflow_datasets")


class KvTinyBoxes(tfds.core.GeneratorBasedBuilder):
    """Two images of 10×20, the second without boxes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "is_crowd": np.bool_,
        }
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        def box(*values):
            return tfds.features.BBox(*values)

        objects = [
            {"bbox": box(0.1, 0.2, 0.5, 0.6), "label": "dog", "is_crowd": False},
            {"bbox": box(0.0, 0.0, 1.0, 1.0), "label": "cat", "is_crowd": True},
        ]
        image = np.full((10, 20, 3), 5, np.uint8)
        yield 0, {"image": image, "image/filename": "first.png", "objects": objects}
        yield 1, {"image": image, "image/filename": "second.png", "objects": []}


class KvTinyMasks(tfds.core.GeneratorBasedBuilder):
    """One image of 4×6 with a trimap."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        mask = np.full((4, 6, 1), 2, np.uint8)
        mask[1:3, 1:3] = 1
        mask[0] = 3
        yield 0, {"image": np.zeros((4, 6, 3), np.uint8), "segmentation_mask": mask}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def by_name(dataset):
    return {dataset.sample_name(i).split("(")[-1].rstrip(")"): dataset[i] for i in range(len(dataset))}


def test_tfds_boxes_normalised_yxyx_become_pixel_xyxy(data_dir):
    dataset = data.load("tfds:kv_tiny_boxes", data_dir=data_dir)
    assert dataset.tasks == {"detection"}
    assert dataset.classes == ("cat", "dog")
    samples = by_name(dataset)
    first = samples["first.png"]
    # y .1–.5 of 10 and x .2–.6 of 20.
    np.testing.assert_allclose(first.boxes, [[4, 1, 12, 5], [0, 0, 20, 10]], rtol=1e-6)
    assert first.labels.tolist() == [1, 0]
    assert first.ignored.tolist() == [False, True]
    assert first.image.shape == (10, 20, 3)
    assert (first.image == 5).all()
    assert samples["second.png"].boxes.shape == (0, 4)
    assert dataset.max_boxes == 2


def test_tfds_for_a_task_needs_its_annotations(data_dir):
    dataset = data.load("tfds:kv_tiny_boxes", task="detection", data_dir=data_dir)
    assert dataset.tasks == {"detection"}
    with pytest.raises(ValueError, match=r"'kv_tiny_boxes' has no masks .* which task='segmentation' needs"):
        data.load("tfds:kv_tiny_boxes", task="segmentation", data_dir=data_dir)
    with pytest.raises(ValueError, match=r"'kv_tiny_masks' has no boxes .* which task='detection' needs"):
        data.load("tfds:kv_tiny_masks", task="detection", data_dir=data_dir)


def test_tfds_flipped_builder_counts_y_from_the_bottom(data_dir, monkeypatch):
    monkeypatch.setattr(tfds_builders, "FLIPPED_IN_Y", {"kv_tiny_boxes"})
    first = by_name(data.load("tfds:kv_tiny_boxes", data_dir=data_dir))["first.png"]
    np.testing.assert_allclose(first.boxes[0], [4, 5, 12, 9], rtol=1e-6)  # y: 1 - .5, 1 - .1


def test_boxes_to_pixels_kitti_box_returns_to_where_kitti_had_it():
    # kitti_dataset_builder: ymin = (height - bottom) / height. A box of top 150, bottom 200 in 375×1242:
    stored = [[(375 - 200) / 375, 10 / 1242, (375 - 150) / 375, 30 / 1242]]
    np.testing.assert_allclose(boxes_to_pixels(stored, (375, 1242), flipped=True), [[10, 150, 30, 200]], rtol=1e-5)


def test_tfds_part_of_a_split_is_read(data_dir):
    assert len(data.load("tfds:kv_tiny_boxes", split="train[:1]", data_dir=data_dir)) == 1


def test_tfds_bad_boxes_strict_raises_and_lenient_skips_only_them(data_dir, monkeypatch):
    monkeypatch.setattr(
        tfds_builders,
        "boxes_to_pixels",
        lambda boxes, size_hw, flipped: np.float32([[4, 5, 4, 9], [1, 1, 2, 2]])[: len(boxes)],
    )
    with pytest.raises(data.DataError, match=r"first\.png\): box 0: box \[4, 5, 4, 9\] has no area"):
        data.load("tfds:kv_tiny_boxes", data_dir=data_dir)
    dataset = data.load("tfds:kv_tiny_boxes", data_dir=data_dir, strict=False)
    assert len(dataset) == 2
    assert by_name(dataset)["first.png"].boxes.tolist() == [[1, 1, 2, 2]]
    assert len(dataset.problems) == 1


def test_tfds_mask_trimap_and_given_classes(data_dir, monkeypatch):
    with pytest.raises(ValueError, match="`mask_classes`: what the mask values of 'kv_tiny_masks' mean"):
        data.load("tfds:kv_tiny_masks", data_dir=data_dir)
    raw = np.full((4, 6), 2)
    raw[1:3, 1:3], raw[0] = 1, 3
    given = data.load("tfds:kv_tiny_masks", data_dir=data_dir, mask_classes=list("abc"), mask_offset=-1)
    assert given.tasks == {"segmentation"}
    np.testing.assert_array_equal(given[0].mask, raw - 1)
    few = data.load("tfds:kv_tiny_masks", data_dir=data_dir, mask_classes=["a"])
    with pytest.raises(data.DataError, match="mask value 1 is out of range; expected 0 to 0"):
        few[0]
    monkeypatch.setitem(MASK_CODINGS, "kv_tiny_masks", MASK_CODINGS["oxford_iiit_pet"])
    pets = data.load("tfds:kv_tiny_masks", data_dir=data_dir)
    assert pets.mask_classes == ("background", "pet")
    np.testing.assert_array_equal(pets[0].mask, np.select([raw == 1, raw == 2], [1, 0], 255))


def test_mask_codings_cityscapes_raw_ids_become_train_ids():
    raw = np.array([[7, 8, 33, 0], [26, 24, 4, 255]], np.uint8)
    coding = MASK_CODINGS["cityscapes"]
    assert coding.apply(raw).tolist() == [[0, 1, 18, 255], [13, 11, 255, 255]]
    assert len(coding.classes) == len(coding.palette) == 19


def test_coco_category_ids_are_eighty_ending_at_ninety():
    assert len(COCO_CATEGORY_IDS) == 80
    # person, fire hydrant (after the gap at 12), toothbrush
    assert (COCO_CATEGORY_IDS[0], COCO_CATEGORY_IDS[10], COCO_CATEGORY_IDS[11]) == (1, 11, 13)
    assert COCO_CATEGORY_IDS[79] == 90


@pytest.mark.parametrize("name", ["voc", "coco", "kitti", "wider_face", "open_images_v4", "lvis"])
def test_tfds_detection_builders_are_recognised_by_their_features(name, tmp_path):
    builder = tfds_builders._open_builder(name, tmp_path)
    boxes, _ = tfds_builders._find_features(builder.info.features)
    assert boxes in ("objects", "bobjects", "faces")
    assert len(tfds_builders._class_names(builder, boxes)) >= 1


@pytest.mark.parametrize("name", ["cityscapes", "oxford_iiit_pet"])
def test_tfds_segmentation_builders_are_recognised_by_their_features(name, tmp_path):
    builder = tfds_builders._open_builder(name, tmp_path)
    assert tfds_builders._find_features(builder.info.features)[1] in tfds_builders.MASK_KEYS


def test_tfds_unknown_builder_split_and_kind_are_named(data_dir):
    with pytest.raises(ValueError, match=r"`name` 'oxford_iiit_pets' is not a builder.*'oxford_iiit_pet'"):
        data.load("tfds:oxford_iiit_pets")
    with pytest.raises(ValueError, match=r"`name` 'mnist' has neither boxes nor masks"):
        data.load("tfds:mnist", data_dir=data_dir)
    with pytest.raises(data.DataError, match=r"`split` 'tran' is unknown; did you mean 'train'"):
        data.load("tfds:kv_tiny_boxes", split="tran", data_dir=data_dir)
    with pytest.raises(data.DataError, match=r"is not prepared; pass download=True"):
        data.load("tfds:voc", data_dir=data_dir, download=False)


def test_tfds_split_too_large_for_memory_names_the_remedy(data_dir, monkeypatch):
    monkeypatch.setattr(tfds_builders, "MAX_BYTES", 1)
    with pytest.raises(data.DataError, match=r"pass a part of it, such as split='train\[:5000\]'"):
        data.load("tfds:kv_tiny_boxes", data_dir=data_dir)


def test_tfds_corrupt_image_is_named(data_dir):
    dataset = data.load("tfds:kv_tiny_boxes", data_dir=data_dir)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(stream, "PNG")
    object.__setattr__(dataset._records[0], "image", stream.getvalue()[:-30])
    with pytest.raises(data.DataError, match=r"tfds:kv_tiny_boxes/train/0 \(.*corrupt or truncated"):
        dataset[0]
