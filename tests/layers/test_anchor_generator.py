"""The anchor layers: by hand, in graphs of unknown size, and their configurations."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import AnchorGenerator, DefaultBoxGenerator, OctaveAnchorGenerator, PriorBoxGenerator

# Each with no argument at its default.
LAYERS = {
    "AnchorGenerator": AnchorGenerator(((8, 12), (16, 20)), (0.5, 2.0), name="a"),
    "OctaveAnchorGenerator": OctaveAnchorGenerator(2, 2, (1.0, (1.4, 0.7)), 3.0, name="o"),
    "DefaultBoxGenerator": DefaultBoxGenerator(
        [[2], [2, 3]], scales=(0.2, 0.5, 1.3), smallest=0.1, largest=0.8, steps=(8, 16), clipped=False, name="d"
    ),
    "PriorBoxGenerator": PriorBoxGenerator([[(10, 13)], [(33, 23), (30, 61)]], name="p"),
}
CALL = {"grids_hw": [(3, 5), (2, 3)], "image_hw": (24, 40)}


def _numpy(levels):
    return [ops.convert_to_numpy(level) for level in levels]


def test_octave_anchor_generator_by_hand():
    (found,) = _numpy(OctaveAnchorGenerator(1, 1, (1.0,), 2.0)(grids_hw=[(1, 2)], image_hw=(10, 16)))
    # Strides 10 and 8; centres (4, 5) and (12, 5); twice the stride: 16 wide and 20 high.
    np.testing.assert_allclose(found, [[-4, -5, 12, 15], [4, -5, 20, 15]])


def test_default_box_generator_by_hand():
    layer = DefaultBoxGenerator([[]], scales=(0.25, 1.0))
    (found,) = _numpy(layer(grids_hw=[(1, 2)], image_hw=(20, 40)))
    # Squares as fractions are not squares in pixels: 10 x 5 and, for sqrt(0.25), 20 x 10; centres (10, 10), (30, 10).
    expected = [[5, 7.5, 15, 12.5], [0, 5, 20, 15], [25, 7.5, 35, 12.5], [20, 5, 40, 15]]
    np.testing.assert_allclose(found, expected)


def test_default_box_generator_places_cells_by_its_steps():
    layer = DefaultBoxGenerator([[]], scales=(0.25, 1.0), steps=(16,))
    (found,) = _numpy(layer(grids_hw=[(1, 2)], image_hw=(20, 40)))
    np.testing.assert_allclose((found[::2, :2] + found[::2, 2:]) / 2, [[8, 8], [24, 8]])  # not 10 and 30


def test_prior_box_generator_by_hand():
    (found,) = _numpy(PriorBoxGenerator([[(4, 2)]])(grids_hw=[(1, 2)], image_hw=(8, 16)))
    np.testing.assert_allclose(found, [[2, 3, 6, 5], [10, 3, 14, 5]])


@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_state_the_shapes_they_return(name):
    layer = LAYERS[name]
    found = _numpy(layer(**CALL))
    assert [level.shape for level in found] == layer.compute_output_shape(**CALL)
    assert layer.compute_output_shape([(None, 5), (2, 3)], (24, 40))[0] == (None, 4)
    assert {level.dtype for level in found} == {np.dtype("float32")}
    per_cell = np.broadcast_to(layer.anchors_per_cell, 2)
    assert [len(level) for level in found] == [15 * per_cell[0], 6 * per_cell[1]]
    assert not layer.weights


@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_take_their_arguments_by_position(name):
    by_position = _numpy(LAYERS[name](CALL["grids_hw"], CALL["image_hw"]))
    for found, expected in zip(by_position, _numpy(LAYERS[name](**CALL)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow's graphs have unknown sizes")
@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_in_a_graph_of_unknown_size(name):
    import tensorflow as tf

    layer = LAYERS[name]

    @tf.function(input_signature=[tf.TensorSpec((2,), tf.int32), tf.TensorSpec((2, 2), tf.int32)])
    def call(image, grids):
        return layer(grids_hw=[(grids[0, 0], grids[0, 1]), (grids[1, 0], grids[1, 1])], image_hw=(image[0], image[1]))

    for found, expected in zip(call([24, 40], [[3, 5], [2, 3]]), layer(**CALL), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_keep_their_arguments(name):
    layer = LAYERS[name]
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is type(layer) and restored.get_config() == layer.get_config()
    for found, expected in zip(_numpy(restored(**CALL)), _numpy(layer(**CALL)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_want_their_number_of_levels(name):
    with pytest.raises(ValueError, match=r"`grids_hw` has 1 levels, but `\w+` describes 2"):
        LAYERS[name](grids_hw=[(3, 5)], image_hw=(24, 40))


def test_anchor_layers_are_float32_under_a_half_precision_policy():
    layer = PriorBoxGenerator([[(4, 2)]], dtype="mixed_float16")
    assert layer(grids_hw=[(1, 2)], image_hw=(8, 4096))[0].dtype == ops.convert_to_tensor(0.0, "float32").dtype


def test_default_box_generator_wants_one_step_for_each_level():
    with pytest.raises(ValueError, match=r"`steps` \(8,\) must have one number for each of 2 levels"):
        DefaultBoxGenerator([[2], [2]], steps=(8,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnchorGenerator([[-32]]), r"`sizes` \(-32,\) must be one number of pixels or more, all above 0"),
        (lambda: AnchorGenerator([[0]]), r"`sizes` \(0,\) must be"),
        (lambda: AnchorGenerator([[]]), r"`sizes` \(\) must be"),
        (lambda: AnchorGenerator([[32, math.inf]]), r"`sizes` \(32, inf\) must be"),
        (
            lambda: AnchorGenerator([[1]], (1.0,)),
            r"`sizes` \[1.0\] hold anchors that round to no width .* rounded=False",
        ),
        (lambda: AnchorGenerator([[32]], (0.0, 1.0)), r"`aspect_ratios` \(0.0, 1.0\) must be above 0: heights divided"),
        (lambda: AnchorGenerator([[32]], ()), r"`aspect_ratios` \(\) must be above 0"),
        (lambda: OctaveAnchorGenerator(aspect_ratios=(0.0, 1.0)), r"`aspect_ratios` \(0.0, 1.0\) must be .* factors"),
        (lambda: OctaveAnchorGenerator(aspect_ratios=((1.0, -1.0),)), r"`aspect_ratios` \(\(1.0, -1.0\),\) must be"),
        (lambda: OctaveAnchorGenerator(aspect_ratios=()), r"`aspect_ratios` \(\) must be above 0"),
        (lambda: OctaveAnchorGenerator(octaves=0), "`octaves` 0 must be 1 or more, a whole number"),
        (lambda: OctaveAnchorGenerator(octaves=1.5), "`octaves` 1.5 must be 1 or more, a whole number"),
        (lambda: OctaveAnchorGenerator(0), "`levels` 0 must be 1 or more, a whole number"),
        (lambda: OctaveAnchorGenerator(anchor_scale=0), "`anchor_scale` 0 must be one number of strides"),
        (
            lambda: DefaultBoxGenerator([[0]]),
            r"`aspect_ratios` \(0,\) must be above 0: longer divided by shorter sides",
        ),
        (lambda: DefaultBoxGenerator([[2]], scales=(0.0, 0.5)), r"`scales` \(0.0, 0.5\) must be"),
        (lambda: DefaultBoxGenerator([[2]], smallest=-0.1), r"`smallest` -0.1 must be"),
        (lambda: DefaultBoxGenerator([[2]], largest=0), r"`largest` 0 must be"),
        (lambda: DefaultBoxGenerator([[2]], steps=(0,)), r"`steps` \(0,\) must be numbers of pixels above 0"),
        (
            lambda: PriorBoxGenerator([[(-3, 4)]]),
            r"`priors_wh` \(\(\(-3.0, 4.0\),\),\) must be widths and heights above 0",
        ),
        (lambda: PriorBoxGenerator([[(3, math.nan)]]), "`priors_wh` .* must be widths and heights above 0"),
        (lambda: PriorBoxGenerator([[(3, 4)], []]), "`priors_wh` .* a pair or more for each level"),
    ],
)
def test_anchor_layers_refuse_anchors_of_no_size(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", LAYERS)
def test_anchor_layers_of_an_empty_grid_have_no_anchors(name):
    found = _numpy(LAYERS[name](grids_hw=[(0, 5), (2, 0)], image_hw=(24, 40)))
    assert [level.shape for level in found] == [(0, 4), (0, 4)]
    found, expected = (_numpy(LAYERS[name]([(0, 5) if skip else (3, 5), (2, 3)], (24, 40))) for skip in (True, False))
    np.testing.assert_array_equal(found[1], expected[1])
    with pytest.raises(ValueError, match=r"`grid_hw` \(-1, 5\) must be numbers of rows and columns of at least 0"):
        LAYERS[name](grids_hw=[(-1, 5), (2, 3)], image_hw=(24, 40))


def test_octave_anchor_generator_takes_numbers_of_numpy():
    config = OctaveAnchorGenerator(np.int64(2), np.int64(2), name="o").get_config()
    assert [type(config[key]) for key in ("levels", "octaves")] == [int, int]
