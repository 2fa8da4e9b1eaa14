"""`check`, `check_sample`, `path_inside` and `load`: each thing that can be wrong, by its message."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from kerasvision import data
from kerasvision.data.checks import check_sample, image_looks_whole, path_inside, read_image, read_mask


class Listed(data.Dataset):
    name = "listed"
    tasks = frozenset({"detection", "segmentation"})
    classes = ("a", "b")
    mask_classes = ("zero", "one")

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def sample_name(self, index):
        return getattr(self.samples[index], "name", "broken")

    def __getitem__(self, index):
        if isinstance(self.samples[index], Exception):
            raise self.samples[index]
        return self.samples[index]


def good(**changes):
    sample = data.Sample(
        "good",
        np.zeros((6, 8, 3), np.uint8),
        np.float32([[1, 1, 4, 4]]),
        np.int32([1]),
        np.array([False]),
        np.zeros((6, 8), np.uint8),
        np.zeros((6, 8), np.int32),
    )
    return replace(sample, **changes)


def test_check_flawless_sample_gives_nothing():
    assert data.check(Listed(good())) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.float32([[1, 1, 1, 4]])}, r"good: box 0: box \[1, 1, 1, 4\] has no area \(0×3\)"),
        ({"boxes": np.float32([[9, 1, 12, 4]])}, "lies outside the image of width 8 and height 6"),
        ({"boxes": np.float32([[1, 1, np.nan, 4]])}, "not a finite number"),
        ({"labels": np.int32([2])}, "good: box 0: class id 2 is out of range; expected 0 to 1"),
        ({"labels": np.int32([])}, "1 boxes, 0 labels"),
        ({"mask": np.zeros((5, 8), np.uint8)}, r"good: mask: mask height and width \(5, 8\) differ"),
        ({"mask": np.full((6, 8), 2, np.uint8)}, "mask value 2 is out of range; expected 0 to 1"),
        ({"mask": None}, "has no mask"),
        ({"instances": np.full((6, 8), 2, np.int32)}, "instances: value 2 is out of range; expected 0 to 1"),
        ({"instances": np.zeros((6, 7), np.int32)}, r"instances: size \(6, 7\) differs"),
        ({"image": np.zeros((6, 8, 3), np.float32)}, "image is float32"),
    ],
)
def test_check_sample_names_what_is_wrong(changes, message):
    problems = check_sample(good(**changes), Listed())
    assert len(problems) == 1
    assert problems[0].severity == "error"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(str(problems[0]))


def test_check_notes_are_no_errors():
    clipped = check_sample(good(boxes=np.float32([[1, 1, 12, 4]])), Listed())
    assert [problem.severity for problem in clipped] == ["note"]
    nothing = good(boxes=np.zeros((0, 4), np.float32), labels=np.int32([]), ignored=np.zeros(0, bool))
    assert [problem.severity for problem in check_sample(nothing, Listed())] == ["note"]


def test_check_walks_on_after_unreadable_samples_and_reports_progress():
    steps = []
    broken = data.DataError(data.Problem("x.jpg", "", "is broken"))
    dataset = Listed(broken, good(), good(labels=np.int32([7])), OSError("disk"))
    problems = data.check(dataset, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [str(problem) for problem in problems] == [
        "x.jpg: is broken",
        "good: sample 2: same name as sample 1",
        "good: box 0: class id 7 is out of range; expected 0 to 1",
        "broken: sample 3: same name as sample 0",
        "broken: cannot be read (disk)",
    ]


def test_check_of_streets_finds_nothing_wrong():
    problems = data.check(data.load("streets", split="validation", count=3, size_hw=(96, 144)))
    assert [problem for problem in problems if problem.severity == "error"] == []


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/a", "\\a", "C:/a", "a\\..\\b", "", "a\0b"])
def test_path_inside_refuses_what_leads_out(name, tmp_path):
    with pytest.raises(data.DataError, match="leads outside the data folder"):
        path_inside(tmp_path, name, "file.json", "image 1")


def test_path_inside_takes_folders_and_dots_in_names():
    assert path_inside(Path("/d"), "a/..b.jpg", "f", "") == Path("/d/a/..b.jpg")


def test_read_image_converts_grey_and_palette_and_ignores_orientation(tmp_path):
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == np.full((4, 6, 3), 7).tolist()
    turned = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # rotate by 90° to display
    turned.save(tmp_path / "turned.jpg", exif=exif)
    # Annotations are in the stored pixels, as COCO's and VOC's are.
    assert read_image(tmp_path / "turned.jpg").shape == (4, 6, 3)
    with pytest.raises(data.DataError, match=r"gone\.jpg: file is missing"):
        read_image(tmp_path / "gone.jpg")


def test_read_image_upright_agrees_with_pil_for_each_orientation(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for orientation in range(1, 9):
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        image.save(path, exif=exif)
        with Image.open(path) as stored:
            expected = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(read_image(path, upright=True), expected)
        np.testing.assert_array_equal(read_image(path), pixels)
    # 6: the first row is the right-hand side, so the top right corner is the first pixel.
    assert read_image(tmp_path / "6.png", upright=True)[0, -1].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 40])
def test_read_image_upright_with_damaged_exif_is_as_stored(tmp_path, exif):
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", upright=True).shape == (2, 3, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_image_of_16_bits_is_scaled_not_clipped(tmp_path, suffix):
    # 257 is one step of 8 bits, 128 less than half of it.
    Image.fromarray(np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)).save(tmp_path / f"a.{suffix}")
    grey = read_image(tmp_path / f"a.{suffix}")
    assert grey.dtype == np.uint8
    assert grey[0].tolist() == [[value] * 3 for value in (0, 0, 1, 1, 128, 255)]


def test_read_image_of_32_bits_is_refused_by_name(tmp_path):
    for name, dtype in (("integers", np.int32), ("floats", np.float32)):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(np.full((2, 3), 9, dtype)).save(path)
        with pytest.raises(data.DataError, match=rf"{name}\.tif: pixels are 32-bit {name}, .*; convert it to 8 or 16"):
            read_image(path)


def test_read_image_of_far_too_many_pixels_is_named(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(data.DataError, match=r"bomb\.png: Image size \(2400 pixels\) exceeds.*; make it .*\.npy"):
        read_image(tmp_path / "bomb.png")


def test_read_mask_of_16_bits_beyond_255_is_named(tmp_path):
    Image.fromarray(np.full((4, 6), 300, np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(data.DataError, match=r"m\.png: mask value 300 is out of range; expected 0 to 255"):
        read_mask(tmp_path / "m.png")


def test_image_looks_whole_finds_cut_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    assert image_looks_whole(path) is None
    path.write_bytes(path.read_bytes()[:-2])
    assert "truncated" in image_looks_whole(path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("stret", r"`spec` 'stret' is not a known data set; did you mean 'streets'"),
        ("cocoo:x", r"`spec` 'cocoo:x' is not a known data set; did you mean 'coco:DIR'"),
        ("imagenet", r"expected: 'streets', 'streets:hard', 'voc:DIR', 'coco:DIR', 'tfds:NAME'"),
        ("voc:", r"`spec` 'voc:' names no data; expected 'voc:DIR'"),
        ("tfds", r"`spec` 'tfds' names no data; expected 'tfds:NAME'"),
        (3, r"`spec` 3 must be a string"),
    ],
)
def test_load_unknown_name_lists_close_matches(spec, message):
    with pytest.raises(ValueError, match=message):
        data.load(spec)


def test_load_streets_passes_options_on():
    dataset = data.load("streets:hard", split="validation", count=2, size_hw=(64, 96))
    assert len(dataset) == 2
    assert dataset.hard
    assert dataset[1].image.shape == (64, 96, 3)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_load_for_a_task_has_that_task_alone(task):
    dataset = data.load("streets", split="validation", task=task, count=2, size_hw=(64, 96))
    assert dataset.tasks == {task}
    assert bool(dataset.classes) == (task == "detection") == (dataset[0].mask is None)
    assert bool(dataset.mask_classes) == (task == "segmentation")
    assert dataset[0].instances is None
    assert [problem for problem in data.check(dataset) if problem.severity == "error"] == []


@pytest.mark.parametrize("spec", ["streets", "voc:x", "coco:x", "tfds:x"])
def test_load_for_an_unknown_task_is_refused(spec):
    with pytest.raises(ValueError, match=r"`task` 'depth' is unknown; use 'detection', 'segmentation' or None"):
        data.load(spec, task="depth")
