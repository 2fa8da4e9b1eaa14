"""Augmentation: geometry by hand, alignment of everything that belongs to a box, determinism."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerasvision.data import Augmentation, Sample
from kerasvision.ops.resizing import ResizeRule

STILL = {"flip": False, "scale": (1, 1), "colour": 0}


def coloured_sample(size_hw=(40, 60), count=6, seed=0):
    """Rectangles that do not overlap, each with its own grey, mask class and instance id."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*size_hw, 3), np.uint8)
    mask = np.zeros(size_hw, np.uint8)
    instances = np.zeros(size_hw, np.int32)
    boxes = []
    for k in range(count):
        left = 2 + k * 10
        top, height = int(rng.integers(0, 20)), int(rng.integers(6, 20))
        boxes.append([left, top, left + 7, top + height])
        image[top : top + height, left : left + 7] = 100 + 20 * k
        mask[top : top + height, left : left + 7] = k + 1
        instances[top : top + height, left : left + 7] = k + 1
    return Sample(
        "s",
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count, dtype=np.int32),
        np.zeros(count, bool),
        mask,
        instances,
    )


def seed_where(condition, augmentation, sample, **options):
    for seed in range(200):
        result = augmentation(sample, seed=seed, **options)
        if condition(result):
            return result
    raise AssertionError("no seed fulfils the condition")


def test_augmentation_of_nothing_returns_the_sample():
    sample = coloured_sample()
    result = Augmentation(**STILL)(sample, seed=3)
    for name in ("image", "boxes", "labels", "ignored", "mask", "instances"):
        np.testing.assert_array_equal(getattr(result, name), getattr(sample, name))


def test_augmentation_flip_mirrors_boxes_by_hand():
    sample = coloured_sample()
    flipped = seed_where(
        lambda result: not np.array_equal(result.image, sample.image),
        Augmentation(**{**STILL, "flip": True}),
        sample,
    )
    np.testing.assert_array_equal(flipped.image, sample.image[:, ::-1])
    np.testing.assert_array_equal(flipped.mask, sample.mask[:, ::-1])
    # Width 60: the first box, x 2 to 9, comes to 51 to 58.
    assert flipped.boxes[0, [0, 2]].tolist() == [51, 58]
    np.testing.assert_array_equal(flipped.boxes[:, [1, 3]], sample.boxes[:, [1, 3]])


def test_augmentation_halved_image_is_placed_on_filled_canvas():
    sample = coloured_sample()
    result = Augmentation(**{**STILL, "scale": (0.5, 0.5)}, fill=(1, 2, 3))(sample, seed=5)
    assert result.image.shape == (40, 60, 3)
    covered = result.mask != 255
    assert covered.sum() == 20 * 30
    top, left = (int(axis.min()) for axis in np.nonzero(covered))
    assert covered[top : top + 20, left : left + 30].all()
    assert (result.image[~covered] == (1, 2, 3)).all()
    assert not result.instances[~covered].any()
    np.testing.assert_allclose(result.boxes, sample.boxes / 2 + [left, top, left, top])


@pytest.mark.parametrize("seed", range(12))
def test_augmentation_boxes_labels_and_instances_stay_aligned(seed):
    sample = coloured_sample()
    result = Augmentation(scale=(1.5, 2.5), colour=0)(sample, seed=seed)
    assert len(result.boxes) == len(result.labels) == len(result.ignored)
    assert result.instances.max() <= len(result.boxes)
    for k, (box, label) in enumerate(zip(result.boxes, result.labels, strict=True), start=1):
        rows, columns = np.nonzero(result.instances == k)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # The box of the pixels, to within the rounding of a nearest-neighbour resize.
        np.testing.assert_allclose(box, drawn, atol=1.01)
        assert set(result.mask[rows, columns]) == {label + 1}
        assert box.min() >= 0
        assert box[2] <= 60
        assert box[3] <= 40


def test_augmentation_marks_mostly_hidden_boxes_ignored_and_drops_lost_ones():
    box = np.array([[0, 0, 60, 40], [0, 0, 2, 2]], np.float32)
    sample = Sample("s", np.zeros((40, 60, 3), np.uint8), box, np.array([4, 5], np.int32), np.array([False, False]))
    strict = Augmentation(**{**STILL, "scale": (2, 2)}, min_visible=0.3)
    result = seed_where(lambda result: len(result.boxes) == 1, strict, sample)
    # Twice the size on the same canvas shows a quarter of the first box.
    assert result.boxes.tolist() == [[0, 0, 60, 40]]
    assert result.labels.tolist() == [4]
    assert result.ignored.tolist() == [True]
    loose = Augmentation(**{**STILL, "scale": (2, 2)}, min_visible=0.2)
    assert not loose(sample, seed=0).ignored[0]


def test_augmentation_without_boxes_keeps_shapes():
    sample = coloured_sample(count=0)
    result = Augmentation()(sample, seed=1)
    assert result.boxes.shape == (0, 4)
    assert result.instances.max() == 0


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ResizeRule("stretch", size_hw=(32, 32)), (32, 32)),
        (ResizeRule("letterbox", size_hw=(48, 48)), (48, 48)),
        (ResizeRule("shortest_side", shortest=20), (20, 30)),
        (ResizeRule(), (40, 60)),
    ],
)
def test_augmentation_output_has_the_rules_canvas_size(rule, expected):
    for seed in range(6):
        result = Augmentation(scale=(0.5, 2))(coloured_sample(), seed=seed, resize=rule)
        assert result.image.shape[:2] == result.mask.shape == result.instances.shape == expected
        assert result.image.dtype == np.uint8


def test_augmentation_without_crop_keeps_the_whole_image():
    sample = coloured_sample()
    for seed in range(20):
        result = Augmentation(scale=(0.5, 2), crop=False)(sample, seed=seed)
        assert len(result.boxes) == 6
        np.testing.assert_allclose(
            (result.boxes[:, 2] - result.boxes[:, 0]) / 7, (result.mask != 255).sum(1).max() / 60, rtol=0.02
        )


def test_augmentation_is_deterministic_across_threads_calls_and_pickling():
    sample = coloured_sample()
    augmentation = Augmentation(colour=1.0)
    alone = [augmentation(sample, seed=(7, 1, i)).image for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: augmentation(sample, seed=(7, 1, i)).image, reversed(range(40))))
    np.testing.assert_array_equal(alone, together[::-1])
    copied = pickle.loads(pickle.dumps(augmentation))
    assert copied == augmentation
    np.testing.assert_array_equal(copied(sample, seed=(7, 1, 3)).image, alone[3])
    assert len({image.tobytes() for image in alone}) > 35


def test_augmentation_colour_leaves_fill_and_input_alone():
    sample = coloured_sample()
    before = sample.image.copy()
    result = Augmentation(scale=(0.5, 0.5), colour=1.0, fill=(9, 8, 7))(sample, seed=2)
    assert (result.image[result.mask == 255] == (9, 8, 7)).all()
    np.testing.assert_array_equal(sample.image, before)


def test_augmentation_runs_further_pixel_transforms_each_with_its_own_chance():
    import albumentations

    augmentation = Augmentation(**STILL, transforms=(albumentations.InvertImg(p=0.5), albumentations.ToGray(p=0.5)))
    sample = Sample(
        "s",
        np.full((4, 4, 3), (200, 100, 0), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, bool),
    )
    pixels = [tuple(augmentation(sample, seed=i).image[0, 0].tolist()) for i in range(60)]
    # Albumentations' own seeding would fire both or neither: two results instead of four.
    assert len(set(pixels)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0, 1)}, r"`scale` \(0, 1\) must be"),
        ({"scale": (2, 1)}, r"`scale` \(2, 1\) must be"),
        ({"scale": (1.5, 2), "crop": False}, "needs crop=True"),
        ({"colour": 2}, "`colour` 2 must be 0 to 1"),
        ({"min_visible": -1}, "`min_visible` -1 must be 0 to 1"),
        ({"transforms": (object(),)}, "object, which is not an Albumentations transform of pixels only"),
    ],
)
def test_augmentation_wrong_argument_names_it(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)
