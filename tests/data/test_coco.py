"""COCO reader: boxes and masks by hand, and every wrong input by its message."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasvision import data
from kerasvision.data import coco
from kerasvision.data.coco_masks import decode_segmentation, uncompress_counts
from kerasvision.ops.resizing import ResizeRule


def content():
    """One image of 5×6 with a crowd and two objects, one background image."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 5, "width": 6},
            {"id": 3, "file_name": "b.png", "height": 5, "width": 6},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "iscrowd": 0,
                "area": 6,
                "bbox": [1, 1, 3, 2],
                "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "iscrowd": 1,
                "area": 10,
                # Columns 0 and 1 of 5 rows: ten pixels, then the other twenty.
                "bbox": [0, 0, 2, 5],
                "segmentation": {"size": [5, 6], "counts": [0, 10, 20]},
            },
            {
                "id": 3,
                "image_id": 7,
                "category_id": 2,
                "iscrowd": 0,
                "area": 1,
                # Pixel (row 2, column 3) is number 3·5 + 2 = 17 down the columns.
                "bbox": [3, 2, 1, 1],
                "segmentation": {"size": [5, 6], "counts": [17, 1, 12]},
            },
        ],
    }


def write(folder, value, name="annotations/instances_train.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((5, 6, 3), 9, np.uint8)).save(tmp_path / "train" / f"{name}.png")
    write(tmp_path, content())
    return tmp_path


def test_coco_boxes_and_category_ids_convert_by_hand(folder):
    dataset = data.load(f"coco:{folder}")
    assert dataset.classes == ("bicycle", "toothbrush")
    assert dataset.category_ids == (2, 90)
    assert dataset.tasks == {"detection", "segmentation"}
    sample = dataset[0]
    assert sample.name == dataset.sample_name(0) == str(folder / "train" / "a.png")
    np.testing.assert_array_equal(sample.boxes, np.float32([[1, 1, 4, 3], [0, 0, 2, 5], [3, 2, 4, 3]]))
    assert sample.labels.tolist() == [1, 0, 0]
    assert sample.ignored.tolist() == [False, True, False]
    assert dataset[1].boxes.shape == (0, 4)
    assert not dataset[1].mask.any()
    assert dataset.max_boxes == 3


def test_coco_masks_small_over_large_and_crowd_ignored(folder):
    dataset = data.load(f"coco:{folder}")
    assert dataset.mask_classes == ("background", "bicycle", "toothbrush")
    # Crowd in columns 0-1 (255); polygon over rows 1-2, columns 1-3 (2); one pixel in front (1).
    expected = np.zeros((5, 6), int)
    expected[:, :2] = 255
    expected[1:3, 1:4] = 2
    expected[2, 3] = 1
    np.testing.assert_array_equal(dataset[0].mask, expected)
    instances = np.select([expected == 255, expected == 2, expected == 1], [2, 1, 3])
    np.testing.assert_array_equal(dataset[0].instances, instances)


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("a mask is decoded")

    monkeypatch.setattr(coco, "decode_segmentation", refuse)


def test_coco_for_detection_decodes_no_mask(folder, no_decoding):
    dataset = data.load(f"coco:{folder}", task="detection")
    assert dataset.tasks == {"detection"} and dataset.mask_classes == ()
    assert dataset[0].mask is None and dataset[0].instances is None
    assert len(dataset[0].boxes) == 3


def test_coco_in_a_detection_pipeline_decodes_no_mask_even_if_it_could(folder, no_decoding):
    dataset = data.load(f"coco:{folder}")
    rule = ResizeRule("stretch", size_hw=(10, 12))
    _, targets = next(iter(data.pipeline(dataset, task="detection", resize=rule, batch_size=2, workers=1)))
    # 5×6 to 10×12 doubles [1, 1, 4, 3].
    assert np.asarray(targets["boxes"])[0, 0].tolist() == [2, 2, 8, 6]
    assert dataset.tasks == {"detection", "segmentation"}  # the caller's data set is as it was


def test_coco_for_segmentation_reads_masks_alone(folder):
    whole = data.load(f"coco:{folder}")[0].mask
    value = content()
    value["annotations"][0]["bbox"] = [1, 1, 0, 2]  # of no area, which matters to detection only
    write(folder, value)
    dataset = data.load(f"coco:{folder}", task="segmentation")
    assert dataset.tasks == {"segmentation"} and dataset.classes == ()
    sample = dataset[0]
    np.testing.assert_array_equal(sample.mask, whole)
    assert sample.boxes.shape == (0, 4) and sample.instances is None
    assert [problem.severity for problem in data.check(dataset)] == []


@pytest.mark.parametrize("nothing", [None, []])
def test_coco_annotation_without_mask_is_named(folder, nothing):
    value = content()
    value["annotations"][2]["segmentation"] = nothing
    del value["annotations"][1]["segmentation"]
    write(folder, value)
    which = r"instances_train\.json: 2 of 3 annotations have no `segmentation` \(2, 3\)"
    with pytest.raises(data.DataError, match=which + ", which task='segmentation' needs; give them one"):
        data.load(f"coco:{folder}", task="segmentation")
    for strict in (True, False):
        dataset = data.load(f"coco:{folder}", strict=strict)
        assert dataset.tasks == {"detection"}
        (note,) = dataset.problems
        assert note.severity == "note" and "(2, 3), so no masks are read" in note.message
    assert data.load(f"coco:{folder}", task="detection").problems == []


def test_coco_annotation_without_mask_is_left_out_of_a_lenient_mask(folder):
    value = content()
    del value["annotations"][1]["segmentation"], value["annotations"][1]["iscrowd"]
    write(folder, value)
    dataset = data.load(f"coco:{folder}", task="segmentation", strict=False)
    assert [(problem.where, problem.severity) for problem in dataset.problems] == [("annotation 2", "error")]
    # The box of annotation 2 is columns 0-1; where the polygon lies over it, the polygon counts.
    expected = np.zeros((5, 6), int)
    expected[:, :2] = 255
    expected[1:3, 1:4] = 2
    expected[2, 3] = 1
    np.testing.assert_array_equal(dataset[0].mask, expected)


def test_coco_without_any_mask_is_for_detection_only(folder):
    value = content()
    for annotation in value["annotations"]:
        annotation["segmentation"] = []
    write(folder, value)
    dataset = data.load(f"coco:{folder}")
    assert dataset.tasks == {"detection"} and dataset.problems == []
    with pytest.raises(data.DataError, match="has no masks: none of its 3 annotations has a `segmentation`"):
        data.load(f"coco:{folder}", task="segmentation")


def test_decode_segmentation_compressed_equals_uncompressed_and_pycocotools():
    from faster_coco_eval.core import mask as coco_mask

    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((13, 37)) < rng.random()
        code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        text = {"size": [13, 37], "counts": code["counts"].decode()}
        np.testing.assert_array_equal(decode_segmentation(text, (13, 37)), mask)
        runs = uncompress_counts(text["counts"])
        np.testing.assert_array_equal(decode_segmentation({"size": [13, 37], "counts": runs}, (13, 37)), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 5], "counts": [25]}, r"mask size \[5, 5\] differs"),
        ({"size": [5, 6], "counts": [10, 10]}, "add up to 20; expected 5·6 = 30"),
        ({"size": [5, 6], "counts": [-1, 31]}, "must be integers of at least 0"),
        ({"size": [5, 6], "counts": [2**70]}, "must be integers of at least 0"),
        ({"size": [5, 6], "counts": "\x7f"}, "which is no code"),
        ({"size": [5, 6], "counts": "o"}, "end within a number"),
        ({"size": [5, 6], "counts": None}, "must be integers"),
        ([[1, 1, 2, 2]], "at least 3 points"),
        ([[1, 1, 2, 2, 3, float("nan")]], "not a number"),
        ([[1, 1, 2, 2, 1e12, 3]], "far outside"),
        ("text", "segmentation is str"),
    ],
)
def test_decode_segmentation_bad_code_names_reason(segmentation, message):
    with pytest.raises(ValueError, match=message):
        decode_segmentation(segmentation, (5, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 1, 0, 2]}, r"instances_train\.json: annotation 1: box \[1, 1, 1, 3\] has no area"),
        ({"bbox": [6, 1, 2, 2]}, r"annotation 1: box \[6, 1, 8, 3\] lies outside the image of width 6"),
        ({"bbox": [1, 1, 2]}, r"annotation 1: bbox \[1, 1, 2\] is not four numbers"),
        ({"category_id": 91}, r"annotation 1: category_id 91 is unknown; did you mean '90'"),
        ({"image_id": 8}, r"annotation 1: image_id 8 is not a usable image"),
        ({"segmentation": {"size": [4, 6], "counts": [24]}}, r"annotation 1: mask size \[4, 6\] differs"),
        ({"id": 2}, r"annotation 2: annotation id occurs twice"),
    ],
)
def test_coco_bad_annotation_strict_raises_and_lenient_skips_only_it(folder, change, message):
    value = content()
    value["annotations"][0].update(change)
    write(folder, value)
    with pytest.raises(data.DataError, match=message):
        data.load(f"coco:{folder}")
    dataset = data.load(f"coco:{folder}", strict=False)
    assert len(dataset) == 2
    assert len(dataset[0].boxes) == 2
    assert [problem.severity for problem in dataset.problems] == ["error"]
    assert dataset[0].instances.max() == 2


def test_coco_bad_run_lengths_are_named_when_drawn(folder):
    value = content()
    value["annotations"][1]["segmentation"]["counts"] = [0, 10]
    write(folder, value)
    with pytest.raises(data.DataError, match=r"annotation 2: run lengths add up to 10"):
        data.load(f"coco:{folder}")[0]


def test_coco_box_partly_outside_is_clipped_and_noted(folder):
    value = content()
    value["annotations"][0]["bbox"] = [-2, 1, 5, 2]
    write(folder, value)
    dataset = data.load(f"coco:{folder}")
    assert dataset[0].boxes[0].tolist() == [0, 1, 3, 3]
    assert [problem.severity for problem in dataset.problems] == ["note"]


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", "C:\\x.png", "a/../../b.png", ""])
def test_coco_file_name_that_leaves_the_folder_is_refused_even_when_lenient(folder, name):
    value = content()
    value["images"][1]["file_name"] = name
    write(folder, value)
    with pytest.raises(data.DataError, match=r"image 3: file name .* leads outside the data folder"):
        data.load(f"coco:{folder}", strict=False)


def test_coco_missing_or_duplicate_image_is_named_and_skipped_when_lenient(folder):
    value = content()
    value["images"][1] = {**value["images"][0], "id": 7}
    write(folder, value)
    with pytest.raises(data.DataError, match="image 7: image id occurs twice"):
        data.load(f"coco:{folder}")
    assert len(data.load(f"coco:{folder}", strict=False)) == 1
    write(folder, content())
    (folder / "train/b.png").unlink()
    with pytest.raises(data.DataError, match=r"b\.png: image 3 of instances_train\.json: image file is missing"):
        data.load(f"coco:{folder}")
    assert len(data.load(f"coco:{folder}", strict=False)) == 1


def test_coco_image_of_another_size_is_named(folder):
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(folder / "train/a.png")
    with pytest.raises(data.DataError, match=r"a\.png: height and width \(6, 6\) differ from \(5, 6\)"):
        data.load(f"coco:{folder}")[0]


def test_coco_layouts_with_year_direct_path_and_roboflow(tmp_path):
    for place in ("val2017", "valid"):
        (tmp_path / place).mkdir()
        for name in ("a", "b"):
            Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / place / f"{name}.png")
    write(tmp_path, content(), "annotations/instances_val2017.json")
    write(tmp_path, content(), "valid/_annotations.coco.json")
    direct = write(tmp_path, content(), "valid/any.json")
    assert data.load(f"coco:{tmp_path}", split="val")[0].name.endswith("val2017/a.png")
    assert data.load(f"coco:{tmp_path}", split="val2017")[0].name.endswith("val2017/a.png")
    assert data.load(f"coco:{tmp_path}", split="valid")[0].name.endswith("valid/a.png")
    assert data.load(f"coco:{direct}")[1].name.endswith("valid/b.png")
    with pytest.raises(data.SplitError, match=r"`split` 'vla2017' has no annotation file; did you mean 'val2017'"):
        data.load(f"coco:{tmp_path}", split="vla2017")


def test_coco_malformed_json_names_line_and_structure(folder):
    path = folder / "annotations/instances_train.json"
    path.write_text('{"images": [],\n oops}')
    with pytest.raises(data.DataError, match=r"instances_train\.json: line 2: JSON is malformed"):
        data.load(f"coco:{folder}")
    path.write_text('{"images": []}')
    with pytest.raises(data.DataError, match="`annotations` must be a list of objects"):
        data.load(f"coco:{folder}")


def test_coco_missing_folder_names_path_and_layout(tmp_path):
    with pytest.raises(data.DataError, match=r"nowhere: no such file or folder; expected annotations/inst"):
        data.load(f"coco:{tmp_path}/nowhere")


def test_coco_reading_writes_nothing_into_the_folder(folder):
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    data.check(data.load(f"coco:{folder}", strict=False))
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before
