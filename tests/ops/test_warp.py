import numpy as np
import pytest
from keras import ops

from kerasvision.ops.warp import warp_boxes


def _warped(image, box, **options):
    return ops.convert_to_numpy(warp_boxes(image[None], np.zeros(1, np.int32), np.array([box], np.float32), **options))[
        0
    ]


def _ramp(height=8, width=10):
    """Return an image whose value at the middle of row y and column x is 10 y + x."""
    y, x = np.mgrid[:height, :width]
    return (10.0 * y + x)[..., None].astype(np.float32)


def test_warp_box_of_its_own_size_gives_its_pixels():
    np.testing.assert_allclose(_warped(_ramp(), [2, 1, 6, 5], size=4), _ramp()[1:5, 2:6], rtol=1e-6)


def test_warp_stretches_both_axes_by_hand():
    # A box of 4 x 2 pixels to 2 x 2: centres of columns at 2 + 1 and 2 + 3, between pixels 2, 3 and 4, 5: 2.5 and 4.5;
    # of rows at 1.5 and 2.5, the middles of rows 1 and 2.
    expected = [[10 + 2.5, 10 + 4.5], [20 + 2.5, 20 + 4.5]]
    np.testing.assert_allclose(_warped(_ramp(), [2, 1, 6, 3], size=2)[..., 0], expected, rtol=1e-6)


def test_warp_context_enlarges_about_the_centre():
    # 4 pixels of which 1 on each side is context: the box of 2 x 2 fills the inner 2 x 2, its neighbours the rest.
    np.testing.assert_allclose(_warped(_ramp(), [3, 3, 5, 5], size=4, context=1), _ramp()[2:6, 2:6], rtol=1e-6)


def test_warp_outside_of_the_image_is_zero_and_the_edge_is_not_mixed_with_it():
    image = np.full((8, 10, 1), 5, np.float32)
    # The box is all of the image, so each side of context lies outside.
    warped = _warped(image, [0, 0, 10, 8], size=8, context=2)[..., 0]
    np.testing.assert_allclose(warped[2:-2, 2:-2], 5, rtol=1e-6)
    for border in (warped[:2], warped[-2:], warped[:, :2], warped[:, -2:]):
        assert not border.any()


def test_warp_equals_pillow_inside_the_image():
    from PIL import Image

    image = np.random.default_rng(0).uniform(0, 255, (40, 60)).astype(np.float32)
    # Enlarged, so that Pillow's filter is not wider than two pixels: as imresize without
    # antialiasing.
    # Compared away from the crop's border, where Pillow sees nothing beyond its image.
    expected = np.asarray(Image.fromarray(image[10:30, 20:50]).resize((64, 64), Image.Resampling.BILINEAR))
    warped = _warped(image[..., None], [20, 10, 50, 30], size=64)[..., 0]
    np.testing.assert_allclose(warped[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-2)


def test_warp_equals_a_literal_reading_of_the_appendix():
    """Enlarge, clip, resize what is left and put it into a canvas of the mean, for a box at the image's corner."""
    from PIL import Image

    image = np.random.default_rng(1).uniform(-1, 1, (32, 32)).astype(np.float32)
    # 16 pixels of result are 12 of box and 2 x 2 of context; a box of 6 x 6 grows to 8 x 8, -1 to 7 on both axes.
    # One of its 8 pixels, that is 2 of 16, lies outside.
    inner = np.asarray(Image.fromarray(image[:7, :7]).resize((14, 14), Image.Resampling.BILINEAR))
    expected = np.zeros((16, 16), np.float32)
    expected[2:, 2:] = inner
    warped = _warped(image[..., None], [0, 0, 6, 6], size=16, context=2)[..., 0]
    np.testing.assert_allclose(warped[:-1, :-1], expected[:-1, :-1], atol=1e-5)  # the last looks beyond the crop here


def test_warp_valid_region_is_the_image():
    canvas = np.full((1, 8, 10, 1), 9, np.float32)
    canvas[:, :4, :5] = 5
    options = {"size": 6, "context": 1}
    boxes = np.array([[0, 0, 5, 4], [2, 1, 4, 3]], np.float32)
    one = warp_boxes(canvas, np.zeros(2, np.int32), boxes, sizes_hw=np.array([[4, 5]]), **options)
    alone = warp_boxes(canvas[:, :4, :5], np.zeros(2, np.int32), boxes, **options)
    np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(alone))


def test_warp_takes_each_box_from_its_image():
    images = np.stack([np.full((4, 4, 1), value, np.float32) for value in (1, 2, 3)])
    warped = warp_boxes(images, np.array([2, 0], np.int32), np.array([[0, 0, 4, 4]] * 2, np.float32), size=2)
    assert ops.convert_to_numpy(warped)[:, 0, 0, 0].tolist() == [3, 1]


def test_warp_padding_gives_zeros():
    assert not _warped(_ramp() + 1, [-1, -1, -1, -1], size=4, context=1).any()


def test_warp_too_much_context_is_refused():
    with pytest.raises(ValueError, match="`context` 2 must be at least 0 and less than half of `size` 4"):
        _warped(_ramp(), [0, 0, 1, 1], size=4, context=2)
