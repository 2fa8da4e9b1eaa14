"""VOC reader: boxes by hand, masks in both encodings, and every wrong input by its message."""

import os

import numpy as np
import pytest
from PIL import Image

from kerasvision import data
from kerasvision.data.voc import VOC_CLASSES, find_classes, parse_xml, read_class_names, voc_palette


def write_xml(path, objects, *, size=(6, 8), filename="a.jpg"):
    """`objects`: (name, xmin, ymin, xmax, ymax, difficult); `size` (height, width)."""
    lines = ["<annotation>", f"<filename>{filename}</filename>"]
    if size:
        lines.append(f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>")
    for name, *box, difficult in objects:
        values = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += [f"<object><name>{name}</name>", f"<difficult>{difficult}</difficult>"]
        lines += [f"<bndbox>{values}</bndbox></object>"]
    path.write_text("\n".join([*lines, "</annotation>"]))


def write_image(path, size_hw=(6, 8), value=100):
    Image.fromarray(np.full((*size_hw, 3), value, np.uint8)).save(path)


def write_mask(path, values):
    values = np.asarray(values, np.uint8)
    image = Image.frombytes("P", values.shape[::-1], values.tobytes())
    image.putpalette(voc_palette().ravel().tolist())
    image.save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    write_image(tmp_path / "JPEGImages/a.jpg")
    write_xml(tmp_path / "Annotations/a.xml", [("dog", 1, 1, 8, 6, 0), ("person", 3, 2, 3, 4, 1)])
    write_image(tmp_path / "JPEGImages/b.jpg")
    write_xml(tmp_path / "Annotations/b.xml", [])
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("b 1\n")
    (tmp_path / "ImageSets/Main/dog_train.txt").write_text("a 1\nb -1\n")
    return tmp_path


def snapshot(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def test_voc_boxes_one_based_inclusive_become_half_open_pixels(folder):
    dataset = data.load(f"voc:{folder}")
    assert len(dataset) == 2
    assert dataset.tasks == {"detection"}
    assert dataset.classes == VOC_CLASSES
    sample = dataset[0]
    assert sample.name == dataset.sample_name(0) == os.path.join(folder, "JPEGImages", "a.jpg")
    assert sample.image.shape == (6, 8, 3)
    assert sample.image.dtype == np.uint8
    # The whole image is 1..8, 1..6 in VOC: 0, 0, 8, 6 here. One column, x = 3: from 2 to 3.
    np.testing.assert_array_equal(sample.boxes, np.float32([[0, 0, 8, 6], [2, 1, 3, 4]]))
    assert sample.boxes.dtype == np.float32
    assert sample.labels.tolist() == [VOC_CLASSES.index("dog"), VOC_CLASSES.index("person")]
    assert sample.labels.dtype == np.int32
    assert sample.ignored.tolist() == [False, True]
    assert dataset.max_boxes == 2


def test_voc_image_without_objects_is_background_with_empty_arrays(folder):
    sample = data.load(f"voc:{folder}", split="val")[0]
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == sample.ignored.shape == (0,)
    notes = data.check(data.load(f"voc:{folder}", split="val"))
    assert [str(note.severity) for note in notes] == ["note"]
    assert "without boxes" in notes[0].message


def test_voc_zero_based_boxes_are_taken_as_they_are(folder):
    write_xml(folder / "Annotations/a.xml", [("dog", 0, 0, 8, 6, 0)])
    dataset = data.load(f"voc:{folder}", one_based=False)
    assert dataset[0].boxes.tolist() == [[0, 0, 8, 6]]


def test_voc_without_imagesets_reads_all_annotations(folder):
    for path in (folder / "ImageSets/Main").iterdir():
        path.unlink()
    (folder / "ImageSets/Main").rmdir()
    (folder / "ImageSets").rmdir()
    assert len(data.load(f"voc:{folder}", split="anything")) == 2


def test_voc_classes_given_and_discovered(folder):
    assert data.load(f"voc:{folder}", classes=["person", "dog"])[0].labels.tolist() == [1, 0]
    assert data.load(f"voc:{folder}", classes="auto").classes == ("dog", "person")
    # Image b of the other split has no object; the classes are those of the folder, so they are the same.
    assert data.load(f"voc:{folder}", split="val", classes="auto").classes == ("dog", "person")
    (folder / "class_names.txt").write_text("__ignore__\n_background_\nperson\ndog\n")
    assert data.load(f"voc:{folder}", classes="auto").classes == ("person", "dog")
    assert data.load(f"voc:{folder}").classes == ("person", "dog")


def test_voc_classes_of_your_own_need_a_word_that_the_message_names(folder):
    write_xml(folder / "Annotations/a.xml", [("scooter", 1, 1, 4, 4, 0)])
    with pytest.raises(data.DataError, match=r"class 'scooter' is unknown; .*pass classes='auto' or a list of names"):
        data.load(f"voc:{folder}")
    assert data.load(f"voc:{folder}", classes="auto").classes == ("scooter",)
    with pytest.raises(data.DataError, match="add it to the names passed as `classes`"):
        data.load(f"voc:{folder}", classes=["dog"])


def test_voc_auto_classes_of_masks_are_noted_as_a_guess(folder):
    (folder / "SegmentationClass").mkdir()
    values = np.zeros((6, 8))
    values[2, 3] = 2
    for name in "ab":
        write_mask(folder / f"SegmentationClass/{name}.png", values)
    dataset = data.load(f"voc:{folder}", task="segmentation", classes="auto")
    assert dataset.mask_classes == ("background", "dog", "person") and dataset.classes == ()
    (note,) = dataset.problems
    assert note.severity == "note" and "mask values are taken to be 1 'dog', 2 'person'" in note.message
    assert data.load(f"voc:{folder}", task="detection", classes="auto").problems == []
    (folder / "class_names.txt").write_text("person\ndog\n")
    assert data.load(f"voc:{folder}", task="segmentation", classes="auto").problems == []


def test_voc_auto_without_any_name_is_refused(folder):
    write_xml(folder / "Annotations/a.xml", [])
    with pytest.raises(data.DataError, match=r"names no class, as it has neither class_names\.txt nor objects"):
        data.load(f"voc:{folder}", classes="auto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"dog\ncat\n\ndog\n", r"names\.txt: line 4: 'dog' stands on line 1 already"),
        (b"\n_background_\n", r"names\.txt: holds no class name"),
        (b"\xff\xfe\x00", r"names\.txt: is no UTF-8 text"),
        (None, r"names\.txt: cannot be read \(No such file"),
    ],
)
def test_read_class_names_says_what_is_wrong(tmp_path, text, message):
    if text is not None:
        (tmp_path / "names.txt").write_bytes(text)
    with pytest.raises(data.DataError, match=message):
        read_class_names(tmp_path / "names.txt")


def test_find_classes_passes_over_broken_xml(folder):
    (folder / "Annotations/c.xml").write_text("<annotation>")
    assert find_classes(folder) == ("dog", "person")


def test_voc_masks_indexed_and_coloured_give_equal_values(folder):
    (folder / "SegmentationClass").mkdir()
    values = np.zeros((6, 8), np.uint8)
    values[1:3, 2:5] = 12
    values[3, :] = 255
    write_mask(folder / "SegmentationClass/a.png", values)
    Image.fromarray(voc_palette()[values]).save(folder / "SegmentationClass/b.png")
    dataset = data.load(f"voc:{folder}")
    assert dataset.tasks == {"detection", "segmentation"}
    assert dataset.mask_classes[12] == "dog"
    np.testing.assert_array_equal(dataset[0].mask, values)
    np.testing.assert_array_equal(dataset[1].mask, values)
    assert dataset[0].mask.dtype == dataset[1].mask.dtype == np.uint8
    # The development kit's first colours, and 255's.
    assert dataset.palette[[0, 1, 2, 15, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192])
    ]


def test_voc_segmentation_task_uses_its_own_list(folder):
    (folder / "SegmentationClass").mkdir()
    (folder / "ImageSets/Segmentation").mkdir()
    (folder / "ImageSets/Segmentation/train.txt").write_text("b\n")
    write_mask(folder / "SegmentationClass/b.png", np.zeros((6, 8)))
    dataset = data.load(f"voc:{folder}", task="segmentation")
    assert len(dataset) == 1
    assert dataset.tasks == {"segmentation"}
    # Main's list has an image without a mask, so it is for detection only.
    boxes = data.load(f"voc:{folder}")
    assert boxes.tasks == {"detection"}
    (note,) = boxes.problems
    assert note.severity == "note" and "masks are not read" in note.message and "task='segmentation'" in note.message
    write_mask(folder / "SegmentationClass/a.png", np.zeros((6, 8)))
    # Every image of Main's list has a mask now, but Segmentation's list is another one.
    assert data.load(f"voc:{folder}").tasks == {"detection"}
    (folder / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    assert data.load(f"voc:{folder}").tasks == {"detection", "segmentation"}


def test_voc_segmentation_task_without_its_own_list_uses_mains(folder):
    (folder / "SegmentationClass").mkdir()
    write_mask(folder / "SegmentationClass/b.png", np.zeros((6, 8)))
    assert len(data.load(f"voc:{folder}", split="val", task="segmentation")) == 1
    with pytest.raises(data.DataError, match=r"a\.png: mask file is missing"):
        data.load(f"voc:{folder}", split="train", task="segmentation")


def test_voc_segmentation_task_does_not_look_at_boxes(folder):
    (folder / "SegmentationClass").mkdir()
    write_mask(folder / "SegmentationClass/b.png", np.full((6, 8), 12))
    (folder / "Annotations/b.xml").write_text("<broken")
    sample = data.load(f"voc:{folder}", split="val", task="segmentation")[0]
    assert (sample.mask == 12).all() and sample.boxes.shape == (0, 4)


def test_voc_in_a_detection_pipeline_reads_no_mask(folder):
    (folder / "SegmentationClass").mkdir()
    for name in "ab":
        (folder / f"SegmentationClass/{name}.png").write_bytes(b"no mask that can be read")
    dataset = data.load(f"voc:{folder}")
    assert dataset.tasks == {"detection", "segmentation"}
    assert dataset.for_task("detection")[0].mask is None
    with pytest.raises(data.DataError, match=r"a\.png: not an image"):
        dataset[0]


def test_voc_without_the_annotations_of_a_task_is_refused(folder):
    with pytest.raises(data.DataError, match="has no masks, which task='segmentation' needs; expected JPEGImages/"):
        data.load(f"voc:{folder}", task="segmentation")
    for path in (folder / "Annotations").iterdir():
        path.unlink()
    with pytest.raises(data.DataError, match="has no XML files, which task='detection' needs"):
        data.load(f"voc:{folder}", task="detection")
    with pytest.raises(data.DataError, match="has neither XML files nor masks"):
        data.load(f"voc:{folder}")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("dog", 3, 2, 2, 4, 0)], r"a\.xml: line 4: object 1 \(dog\): box .* has no area \(0×3\)"),
        ([("dog", 9, 2, 12, 4, 0)], r"a\.xml: line 4: object 1 \(dog\): box .* lies outside .* width 8"),
        ([("dgo", 1, 1, 2, 2, 0)], r"class 'dgo' is unknown; did you mean 'dog'"),
        ([("dog", "x", 1, 2, 2, 0)], r"object 1 \(dog\): bndbox .* is not four numbers"),
        ([("dog", "nan", 1, 2, 2, 0)], r"not a finite number"),
    ],
)
def test_voc_bad_object_strict_raises_and_lenient_skips_only_it(folder, objects, message):
    write_xml(folder / "Annotations/a.xml", [*objects, ("dog", 1, 1, 4, 4, 0)])
    with pytest.raises(data.DataError, match=message):
        data.load(f"voc:{folder}")
    dataset = data.load(f"voc:{folder}", strict=False)
    assert len(dataset) == 2
    assert dataset[0].boxes.tolist() == [[0, 0, 4, 4]]
    assert [problem.severity for problem in dataset.problems] == ["error"]


def test_voc_box_partly_outside_is_clipped_and_noted(folder):
    write_xml(folder / "Annotations/a.xml", [("dog", 4, 3, 12, 5, 0)])
    dataset = data.load(f"voc:{folder}")
    assert dataset[0].boxes.tolist() == [[3, 2, 8, 5]]
    assert dataset.problems[0].severity == "note"
    assert "clipped" in dataset.problems[0].message


def test_voc_missing_image_strict_raises_and_lenient_skips_sample(folder):
    (folder / "JPEGImages/a.jpg").unlink()
    with pytest.raises(data.DataError, match=r"a\.jpg: image file is missing"):
        data.load(f"voc:{folder}")
    dataset = data.load(f"voc:{folder}", strict=False)
    assert len(dataset) == 1
    assert len(dataset.problems) == 1


def test_voc_truncated_jpeg_is_named_when_read_and_skipped_when_lenient(folder):
    path = folder / "JPEGImages/a.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    dataset = data.load(f"voc:{folder}")
    with pytest.raises(data.DataError, match=r"a\.jpg: image is corrupt or truncated"):
        dataset[0]
    lenient = data.load(f"voc:{folder}", strict=False)
    assert len(lenient) == 1
    assert "truncated" in lenient.problems[0].message
    assert any("corrupt" in problem.message for problem in data.check(dataset))


def test_voc_file_that_is_no_image_is_named(folder):
    (folder / "JPEGImages/a.jpg").write_bytes(b"GIF? no")
    with pytest.raises(data.DataError, match=r"a\.jpg: not an image file"):
        data.load(f"voc:{folder}")[0]


def test_voc_size_in_xml_differs_from_image_is_named(folder):
    write_image(folder / "JPEGImages/a.jpg", (10, 8))
    with pytest.raises(data.DataError, match=r"a\.jpg: height and width \(10, 8\) differ from \(6, 8\)"):
        data.load(f"voc:{folder}")[0]


def test_voc_xml_without_size_takes_the_images(folder):
    write_xml(folder / "Annotations/a.xml", [("dog", 1, 1, 20, 6, 0)], size=None)
    assert data.load(f"voc:{folder}")[0].boxes.tolist() == [[0, 0, 8, 6]]


def test_voc_mask_of_another_size_or_value_is_named(folder):
    (folder / "SegmentationClass").mkdir()
    write_mask(folder / "SegmentationClass/a.png", np.zeros((5, 8)))
    write_mask(folder / "SegmentationClass/b.png", np.full((6, 8), 77))
    dataset = data.load(f"voc:{folder}")
    with pytest.raises(data.DataError, match=r"a\.png: mask height and width \(5, 8\) differ"):
        dataset[0]
    with pytest.raises(data.DataError, match=r"b\.png: mask value 77 is out of range; expected 0 to 20"):
        dataset[1]
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(folder / "SegmentationClass/b.png")
    with pytest.raises(data.DataError, match=r"b\.png: pixel x=0, y=0: colour \(7, 7, 7\) is not in"):
        dataset[1]
    assert len([problem for problem in data.check(dataset) if problem.severity == "error"]) == 2


def test_voc_duplicate_id_in_list_is_named(folder):
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.raises(data.DataError, match=r"train\.txt: line 3: 'a' is listed twice, first on line 1"):
        data.load(f"voc:{folder}")
    assert len(data.load(f"voc:{folder}", strict=False)) == 2


def test_voc_unknown_split_lists_those_there_are(folder):
    with pytest.raises(data.SplitError, match=r"`split` 'trainn' has no list; did you mean 'train'"):
        data.load(f"voc:{folder}", split="trainn")


@pytest.mark.parametrize("line", ["../../etc/passwd", "/etc/passwd", "..\\x"])
def test_voc_id_that_leaves_the_folder_is_refused_even_when_lenient(folder, line):
    (folder / "ImageSets/Main/train.txt").write_text(line + "\n")
    with pytest.raises(data.DataError, match="leads outside the data folder"):
        data.load(f"voc:{folder}", strict=False)


def test_voc_filename_that_leaves_the_folder_is_refused(folder):
    (folder / "JPEGImages/a.jpg").unlink()
    write_xml(folder / "Annotations/a.xml", [], filename="../../secret.jpg")
    with pytest.raises(data.DataError, match="leads outside the data folder"):
        data.load(f"voc:{folder}")


def test_voc_missing_folder_names_path_and_layout(tmp_path):
    with pytest.raises(data.DataError, match=r"nowhere: no such folder; expected JPEGImages/"):
        data.load(f"voc:{tmp_path}/nowhere")
    with pytest.raises(data.DataError, match="holds no images in JPEGImages"):
        data.load(f"voc:{tmp_path}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_parse_xml_refuses_document_types_in_any_encoding(tmp_path, encoding):
    bomb = f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'
    (tmp_path / "x.xml").write_bytes(bomb.encode(encoding))
    with pytest.raises(data.DataError, match=r"x\.xml: line 2: DOCTYPE is refused"):
        parse_xml(tmp_path / "x.xml")


def test_parse_xml_malformed_names_line(tmp_path):
    (tmp_path / "x.xml").write_text("<annotation>\n<object>\n</annotation>")
    with pytest.raises(data.DataError, match=r"x\.xml: line 3: XML is malformed: mismatched tag"):
        parse_xml(tmp_path / "x.xml")


def test_voc_reading_writes_nothing_into_the_folder(folder):
    before = snapshot(folder)
    data.check(data.load(f"voc:{folder}", strict=False))
    assert snapshot(folder) == before
