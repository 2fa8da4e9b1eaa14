import os
import stat

import numpy as np
import pytest
from PIL import Image

from kerasvision import visualize
from kerasvision.data import palette_of
from kerasvision.data.checks import read_mask
from kerasvision.data.voc import VOC_CLASSES, voc_palette
from kerasvision.visualize import default_palette, draw_detections, draw_mask, grid, save_image, save_mask

GREY = np.full((100, 160, 3), 128, np.uint8)
RED, BLUE = (255, 0, 0), (0, 0, 255)
PALETTE = np.array([RED, BLUE], np.uint8)


def is_colour(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_default_palette_of_more_classes_keeps_the_first_colours():
    np.testing.assert_array_equal(default_palette(40)[:8], default_palette(8))


def test_default_palette_of_twenty_classes_has_no_two_alike():
    colours = default_palette(20).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=-1) + 1000 * np.eye(20, dtype=int)
    assert distance.min() > 60


def test_default_palette_of_no_class_is_empty_and_of_a_negative_count_fails():
    assert default_palette(0).shape == (0, 3)
    with pytest.raises(ValueError, match="`count` -1 must be 0 or more"):
        default_palette(-1)


def test_draw_detections_outline_lies_on_the_box_and_the_inside_stays():
    picture = draw_detections(GREY, [[40, 50, 90, 80]], [1], palette=PALETTE, line_width=1)
    outline = is_colour(picture, BLUE)
    assert outline[50, 40:91].all() and outline[80, 40:91].all()
    assert outline[50:81, 40].all() and outline[50:81, 90].all()
    assert (picture[52:79, 42:89] == 128).all()


def test_draw_detections_leaves_the_input_alone():
    image = GREY.copy()
    draw_detections(image, [[40, 50, 90, 80]], [0])
    np.testing.assert_array_equal(image, GREY)


def test_draw_detections_without_boxes_gives_the_image():
    picture = draw_detections(GREY, np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    np.testing.assert_array_equal(picture, GREY)


def test_draw_detections_padding_and_non_finite_boxes_are_not_drawn():
    boxes = [[10, 50, 90, 80], [np.nan, 0, 10, 10]]
    np.testing.assert_array_equal(draw_detections(GREY, boxes, [-1, 0], [0.9, 0.8]), GREY)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 10, 10],
        [150, 0, 159, 10],
        [0, 92, 8, 99],
        [152, 92, 159, 99],
        [-50, -50, 400, 400],
        [60, 3, 70, 9],
    ],
)
def test_draw_detections_tag_at_a_border_stays_whole(box, monkeypatch):
    tags = []
    drawn = visualize._draw_text

    def record(draw, x, y, text, size, fill):
        tags.append((x, y, x + visualize._text_width(text, size), y + visualize._line_height(size), text))
        drawn(draw, x, y, text, size, fill)

    monkeypatch.setattr(visualize, "_draw_text", record)
    draw_detections(GREY, [box], [0], [0.875], ["traffic light"])
    left, top, right, bottom, text = tags[0]
    assert text == "traffic light 0.88"
    assert left >= 0 and top >= 0 and right <= 160 and bottom <= 100


def test_draw_detections_tags_of_one_place_do_not_cover_each_other(monkeypatch):
    tags = []
    monkeypatch.setattr(visualize, "_draw_text", lambda draw, x, y, text, size, fill: tags.append((x, y)))
    draw_detections(GREY, [[40, 40, 120, 80]] * 2, [0, 1], [0.9, 0.8], ["car", "truck"])
    assert abs(tags[0][1] - tags[1][1]) >= 10 or abs(tags[0][0] - tags[1][0]) >= 40


def test_draw_detections_higher_score_lies_on_top():
    boxes = [[40, 30, 90, 80], [40, 30, 90, 80]]
    picture = draw_detections(GREY, boxes, [0, 1], [0.9, 0.8], palette=PALETTE, line_width=2)
    assert is_colour(picture, RED)[79, 60]


def test_draw_detections_ignored_box_is_dashed():
    solid = draw_detections(GREY, [[40, 30, 90, 80]], [0], palette=PALETTE, line_width=1)
    dashed = draw_detections(GREY, [[40, 30, 90, 80]], [0], palette=PALETTE, line_width=1, ignored=[True])
    assert is_colour(solid, RED)[80, 41:90].all()
    assert 0.3 < is_colour(dashed, RED)[80, 41:90].mean() < 0.8


def test_draw_detections_scale_enlarges_image_and_boxes():
    picture = draw_detections(GREY, [[40, 30, 90, 80]], [0], palette=PALETTE, line_width=1, scale=2)
    assert picture.shape == (200, 320, 3)
    assert is_colour(picture, RED)[160, 90:170].all()


@pytest.mark.parametrize("image", [GREY[..., 0], GREY[..., :1], GREY.astype(np.float32)])
def test_draw_detections_grey_and_float_images_become_uint8_rgb(image):
    picture = draw_detections(image, np.zeros((0, 4)), [])
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, GREY)


@pytest.mark.parametrize("name", ["Straße", "велосипед", "自転車", "🚲", "a" * 300, ""])
def test_draw_detections_any_name_is_drawn_without_error(name):
    picture = draw_detections(GREY[:20, :24], [[2, 2, 20, 15]], [0], [1.0], [name])
    assert picture.shape == (20, 24, 3)


def test_draw_detections_label_without_a_name_shows_its_number():
    assert visualize._tag_text(7, None, ["car"]) == "7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes_xyxy": [1, 2, 3, 4], "labels": [0]}, r"`boxes_xyxy` of shape \(4,\) must be \(N, 4\)"),
        (
            {"boxes_xyxy": [[1, 2, 3, 4]], "labels": [0, 1]},
            "`labels` has 2 values but `boxes_xyxy` has 1 boxes",
        ),
        ({"boxes_xyxy": [[1, 2, 3, 4]], "labels": [0], "scores": []}, "`scores` has 0 values"),
        (
            {"boxes_xyxy": [[1, 2, 3, 4]], "labels": [5], "palette": PALETTE},
            "`palette` has 2 colours but label 5",
        ),
    ],
)
def test_draw_detections_arguments_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(GREY, **arguments)


def test_draw_mask_blends_by_alpha_and_leaves_ignored_pixels():
    mask = np.zeros((100, 160), np.uint8)
    mask[:, 80:] = 255
    picture = draw_mask(GREY, mask, palette=PALETTE, alpha=0.5, legend=False)
    # 128 + .5 (255 − 128) = 191.5 → 192 (to even); 128 + .5 (0 − 128) = 64
    np.testing.assert_array_equal(picture[50, 20], (192, 64, 64))
    assert (picture[:, 80:] == 128).all()


def test_draw_mask_background_class_is_not_drawn():
    mask = np.zeros((100, 160), np.int64)
    np.testing.assert_array_equal(draw_mask(GREY, mask, ["background", "cat"]), GREY)


def test_draw_mask_legend_names_only_present_classes(monkeypatch):
    names = []
    monkeypatch.setattr(visualize, "_draw_text", lambda draw, x, y, text, size, fill: names.append(text))
    mask = np.zeros((100, 160), np.uint8)
    mask[:10] = 2
    mask[20:30] = 255
    picture = draw_mask(GREY, mask, ["road", "car", "sky"])
    assert names == ["road", "sky"]
    assert picture.shape[0] > 100 and picture.shape[1] == 160


def test_draw_mask_scale_enlarges_by_nearest_neighbour():
    mask = np.zeros((100, 160), np.uint8)
    mask[:, 80:] = 1
    picture = draw_mask(GREY, mask, palette=PALETTE, alpha=1.0, legend=False, scale=2)
    assert is_colour(picture, RED)[:, :158].all() and is_colour(picture, BLUE)[:, 160:].all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((10, 10), np.uint8), r"`mask` of shape \(10, 10\).* must be integer .*\(100, 160\)"),
        (np.zeros((100, 160), np.float32), "float32 must be integer"),
        (np.full((100, 160), -3), "`mask` has the value -3"),
    ],
)
def test_draw_mask_wrong_mask_is_named(mask, message):
    with pytest.raises(ValueError, match=message):
        draw_mask(GREY, mask)


def test_grid_places_images_in_rows_by_the_gap():
    images = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(images, columns=2, gap=2)
    assert sheet.shape == (2 * 12 + 2, 2 * 22 + 2, 3)
    assert (sheet[2:12, 2:22] == 10).all() and (sheet[2:12, 24:44] == 20).all() and (sheet[14:24, 2:22] == 30).all()
    assert (sheet[14:24, 24:44] == 255).all()


def test_grid_titles_take_room_above_each_image():
    sheet = grid([GREY, GREY], columns=1, titles=["one", "two " * 50], gap=0, font_size=10)
    assert sheet.shape == (2 * (100 + 14), 160, 3)
    assert (sheet[14:114] == 128).all() and (sheet[:14] < 128).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "`images` is empty"),
        ({"images": [GREY], "titles": []}, "`titles` has 0 lines"),
        ({"images": [GREY], "columns": 0}, "`columns` 0"),
        ({"images": [np.zeros((3, 4, 5, 6))]}, r"`image` of shape \(3, 4, 5, 6\)"),
    ],
)
def test_grid_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid(**arguments)


def test_save_image_writes_the_pixels_and_nothing_else(tmp_path):
    path = save_image(GREY, tmp_path / "new" / "picture.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), GREY)
    assert os.listdir(tmp_path / "new") == ["picture.png"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_save_image_failing_keeps_the_old_file(tmp_path, monkeypatch):
    path = save_image(GREY, tmp_path / "picture.png")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_image(GREY // 2, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["picture.png"]


def test_save_image_unknown_suffix_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"suffix '.xyz'; use one of .png"):
        save_image(GREY, tmp_path / "picture.xyz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_save_mask_writes_the_ids_with_the_palette_and_they_come_back(tmp_path, dtype):
    mask = np.random.default_rng(0).integers(0, 21, (30, 50)).astype(dtype)
    mask[:5] = 255
    path = save_mask(mask, tmp_path / "new" / "mask.png", voc_palette())
    np.testing.assert_array_equal(read_mask(path), mask)
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), voc_palette()[mask])
    assert os.listdir(tmp_path / "new") == ["mask.png"]


def test_save_mask_of_few_colours_shows_255_as_voc_does(tmp_path):
    mask = np.array([[0, 1, 255]], np.uint8)
    for palette, colours in ((PALETTE, [RED, BLUE]), (None, default_palette(2).tolist())):
        with Image.open(save_mask(mask, tmp_path / "mask.png", palette)) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[0], [*colours, voc_palette()[255]])


@pytest.mark.parametrize(
    ("mask", "name", "palette", "message"),
    [
        (np.zeros((2, 2), np.float32), "a.png", None, "float32 must be integer"),
        (np.zeros((2, 2, 1), np.uint8), "a.png", None, r"`mask` of shape \(2, 2, 1\)"),
        (np.full((2, 2), 256), "a.png", None, "`mask` has ids 256 to 256, but an indexed PNG holds 0-255"),
        (np.full((2, 2), -1), "a.png", None, "`mask` has ids -1 to -1"),
        (np.full((2, 2), 2), "a.png", PALETTE, "`palette` has 2 colours but label 2"),
        (np.zeros((2, 2), np.uint8), "a.jpg", None, r"'.*a.jpg' must end in \.png, which keeps class ids"),
    ],
)
def test_save_mask_of_what_a_png_cannot_hold_is_named(tmp_path, mask, name, palette, message):
    with pytest.raises(ValueError, match=message):
        save_mask(mask, tmp_path / name, palette)
    assert os.listdir(tmp_path) == []


def test_palette_of_a_data_set_is_found_by_its_classes():
    from kerasvision.data.streets import MASK_CLASSES, PALETTE

    for background in ("background", "__background__", "Background"):
        np.testing.assert_array_equal(palette_of((background, *VOC_CLASSES)), voc_palette())
    np.testing.assert_array_equal(palette_of(MASK_CLASSES), PALETTE)
    assert palette_of(("road", "kite")) is None and palette_of(None) is None
