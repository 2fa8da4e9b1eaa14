"""Separable convolution, squeeze and excitation, DeepLab's and FCN's blocks: by hand, shapes, precision, folding."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers.convolution import ConvolutionBlock, DepthwiseConvolutionBlock
from kerasvision.layers.deeplab_blocks import ASPP, AtrousPyramidClassifier, DeepLabV3PlusDecoder
from kerasvision.layers.fcn_blocks import BilinearInitializer, BilinearUpsampling, FCNSkip
from kerasvision.layers.normalization import BatchNormalization
from kerasvision.layers.separable_convolution import SeparableConvolutionBlock
from kerasvision.layers.squeeze_excitation import SqueezeExcitation

RNG = np.random.default_rng(0)


def _numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def _random(shape):
    return RNG.normal(size=shape).astype(np.float32)


def _column(*values):
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


# What each takes, H and W of the first map being 5 x 7: (shapes of the arguments, in a list if they are one argument).
ONE = [(2, 5, 7, 4)]
BLOCKS = {
    "depthwise": (lambda **o: DepthwiseConvolutionBlock(3, strides=2, normalization="batch", **o), ONE),
    "separable": (
        lambda **o: SeparableConvolutionBlock(
            6, dilation=2, normalization="batch", depthwise_normalization="batch", activation="relu", **o
        ),
        ONE,
    ),
    "squeeze": (lambda **o: SqueezeExcitation(3, **o), ONE),
    "aspp": (lambda **o: ASPP(6, (2, 9), **o), ONE),
    "aspp_separable": (lambda **o: ASPP(6, (2, 9), separable=True, **o), ONE),
    "classifier": (lambda **o: AtrousPyramidClassifier(3, (2, 9), **o), ONE),
    "decoder": (
        lambda **o: DeepLabV3PlusDecoder(6, (2, 9), low_level_filters=3, **o),
        [[(2, 10, 13, 5), (2, 5, 7, 4)]],
    ),
    "upsampling": (lambda **o: BilinearUpsampling(3, **o), ONE),
    "upsampling_fixed": (lambda **o: BilinearUpsampling(4, learned=False, **o), ONE),
    "upsampling_uncut": (lambda **o: BilinearUpsampling(4, kernel_size=7, padding="valid", **o), ONE),
    "skip": (lambda **o: FCNSkip(4, **o), [(2, 5, 7, 4), (2, 9, 14, 5)]),
    "skip_fixed": (lambda **o: FCNSkip(4, learned=False, scale=0.5, **o), [(2, 5, 7, 4), (2, 9, 14, 5)]),
    "skip_with_offset": (lambda **o: FCNSkip(4, offset=2, kernel_size=3, **o), [(2, 5, 7, 4), (2, 14, 17, 5)]),
}


def _each(shapes, function):
    return [_each(shape, function) if isinstance(shape, list) else function(shape) for shape in shapes]


@pytest.mark.parametrize("name", BLOCKS)
def test_block_output_shape_is_what_it_says(name):
    make, shapes = BLOCKS[name]
    block = make()
    options = {"training": True} if block._call_has_training_arg else {}
    found = block(*_each(shapes, _random), **options)
    assert tuple(found.shape) == tuple(block.compute_output_shape(*shapes))
    assert np.isfinite(_numpy(found)).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_block_traces_with_unknown_size(name):
    make, shapes = BLOCKS[name]
    block = make()
    unknown = _each(shapes, lambda shape: keras.Input((None, None, shape[-1])))
    outputs = block(*unknown)
    assert tuple(outputs.shape[:3]) == (None, None, None)
    model = keras.Model(keras.tree.flatten(unknown), outputs)
    arrays = _each(shapes, _random)
    found = model.predict_on_batch(keras.tree.flatten(arrays))
    np.testing.assert_allclose(_numpy(found), _numpy(block(*arrays)), atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_block_computes_in_its_own_precision(name, policy):
    make, shapes = BLOCKS[name]
    block, full = make(dtype=policy), make(dtype="float32")
    arrays = _each(shapes, _random)
    found = block(*arrays)
    assert keras.backend.standardize_dtype(found.dtype) == block.compute_dtype
    full(*arrays)
    full.set_weights(block.get_weights())
    np.testing.assert_allclose(_numpy(found), _numpy(full(*arrays)), atol=0.1)


@pytest.mark.parametrize("name", ["squeeze", "aspp"])
def test_block_means_of_large_values_stay_finite_in_half_precision(name):
    make, _ = BLOCKS[name]
    # 64 * 64 * 60 is above 65504, the largest float16.
    found = make(dtype="mixed_float16")(np.full((1, 64, 64, 2), 60, np.float32))
    assert np.isfinite(_numpy(found)).all()


@pytest.mark.parametrize("name", ["depthwise", "separable", "aspp", "decoder"])
def test_block_folds_batch_normalization_at_inference(name, monkeypatch):
    # That the folded values are right, tests/parity/pieces/test_segmentation_blocks.py says.
    make, shapes = BLOCKS[name]
    block, arrays = make(), _each(shapes, _random)
    block(*arrays)

    def refuse(*args, **kwargs):
        raise AssertionError("a map was normalised by itself")

    monkeypatch.setattr(BatchNormalization, "call", refuse)
    block(*arrays, training=False)
    with pytest.raises(AssertionError, match="normalised"):
        block(*arrays, training=True)


def test_block_that_is_frozen_freezes_all_it_holds():
    for make, shapes in BLOCKS.values():
        block = make(trainable=False)
        block(*_each(shapes, _random))
        assert not block.trainable_weights


# --- by hand


def test_depthwise_block_by_hand():
    block = DepthwiseConvolutionBlock(3, strides=2, normalization="batch", epsilon=0.0, activation="relu")
    block.build((None, None, None, 2))
    kernel = np.zeros((3, 3, 2, 1))
    kernel[1, 1, :, 0] = 1, 2
    block.kernel.assign(kernel)
    block.normalization.moving_variance.assign([4.0, 1.0])
    block.normalization.beta.assign([0.0, -5.0])
    # Pixel (0, 0) and (2, 0) of 3 x 1: 1, 3 halved; 2 * (2, 6) - 5 = -1, 7.
    image = np.array([[1, 2], [9, 9], [3, 6]], np.float32).reshape(1, 3, 1, 2)
    np.testing.assert_allclose(_numpy(block(image))[0, :, 0], [[0.5, 0], [1.5, 7]], atol=1e-6)


def test_depthwise_block_pads_as_tensorflow_on_demand():
    image = _column(1, 2, 3, 4)
    for padding, expected in ((None, [0 + 1 + 2, 2 + 3 + 4]), ("same", [1 + 2 + 3, 3 + 4]), (0, [1 + 2 + 3])):
        block = DepthwiseConvolutionBlock(3, strides=2, padding=padding, kernel_initializer="ones")
        # One column alone: both paddings see it once.
        found = _numpy(block(np.pad(image, ((0, 0), (0, 0), (1, 1), (0, 0)))))[0, :, 0, 0]
        np.testing.assert_allclose(found, expected)
    dense = ConvolutionBlock(1, 3, strides=2, padding="same", kernel_initializer="ones")
    np.testing.assert_allclose(_numpy(dense(image))[0, :, 0, 0], [6, 7])
    assert dense.compute_output_shape((1, 4, 1, 1)) == (1, 2, 1, 1)


def test_separable_block_by_hand():
    block = SeparableConvolutionBlock(1, 3, dilation=2, depthwise_activation="relu")
    block.build((None, None, None, 2))
    kernel = np.zeros((3, 3, 2, 1))
    kernel[:, 1, 0, 0] = 1
    kernel[1, 1, 1, 0] = -1
    block.depthwise.kernel.assign(kernel)
    block.pointwise.kernel.assign(np.array([10, 1]).reshape(1, 1, 2, 1))
    block.pointwise.bias.assign([0.5])
    image = np.array([[1, 3], [2, -4], [3, -5]], np.float32).reshape(1, 3, 1, 2)
    # Channel 0 adds rows two apart: 1 + 3, 2, 1 + 3; channel 1 changes sign, and -3 falls to the ReLU.
    np.testing.assert_allclose(_numpy(block(image))[0, :, 0, 0], [40.5, 24.5, 45.5])
    assert len(block.weights) == 3  # no bias between


def test_squeeze_excitation_by_hand():
    block = SqueezeExcitation(1, gate="hard_sigmoid")
    block.build((None, None, None, 2))
    block.reduce.kernel.assign(np.array([1, 1]).reshape(1, 1, 2, 1))
    block.expand.kernel.assign(np.array([1, -1]).reshape(1, 1, 1, 2))
    # Means 1.5 and -1 add up to 0.5; the gates are .5 / 6 + 1 / 2 = 7 / 12 and 5 / 12.
    image = np.array([[1, 0], [2, -2]], np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(_numpy(block(image))[0, 0], [[7 / 12, 0], [14 / 12, -10 / 12]], atol=1e-6)


def test_aspp_of_one_tap_a_branch_by_hand():
    block = ASPP(1, (1, 2), normalization=None, dropout=0.0)
    block.build((None, None, None, 1))
    for branch, row in ((block.atrous[0], 0), (block.atrous[1], 2)):
        kernel = np.zeros((3, 3, 1, 1))
        kernel[row, 1] = 1
        branch.kernel.assign(kernel)
    for branch in (block.point, block.whole):
        branch.kernel.assign(np.ones((1, 1, 1, 1)))
    block.projection.kernel.assign(np.array([1, 10, 100, 1000]).reshape(1, 1, 4, 1))
    # Each pixel, 10 times the one above, 100 times the second below, 1000 times the mean, 5 / 2.
    found = _numpy(block(_column(1, 4, 3, 2)))[0, :, 0, 0]
    np.testing.assert_allclose(found, [2801, 2714, 2543, 2532])


def test_aspp_drops_in_training_only():
    block = ASPP(4, (1,), dropout=0.5, normalization=None)
    image = np.ones((2, 6, 6, 3), np.float32)
    for branch in (block.point, *block.atrous, block.whole, block.projection):
        branch.kernel_initializer = keras.initializers.Constant(0.1)
    full = _numpy(block(image, training=False))
    dropped = _numpy(block(image, training=True))
    kept = dropped != 0
    assert (full > 0).all() and 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], 2 * full[kept], rtol=1e-5)  # 1 / (1 - .5)


def test_atrous_pyramid_classifier_by_hand():
    block = AtrousPyramidClassifier(1, (1, 2))
    block.build((None, None, None, 1))
    for branch, factor in zip(block.branches, (1, 10), strict=True):
        branch.kernel.assign(np.full((3, 3, 1, 1), factor))
        branch.bias.assign([0.25])
    # Neighbours, and ten times those two apart: 1 + 2 + 10 * (1 + 4), 1 + 2 + 4 + 20, ...; both biases.
    found = _numpy(block(_column(1, 2, 4)))[0, :, 0, 0]
    np.testing.assert_allclose(found, [53.5, 27.5, 56.5])


def test_deeplab_decoder_enlarges_to_the_fine_level():
    block = DeepLabV3PlusDecoder(1, (1,), low_level_filters=1, before=0, after=0, normalization=None, dropout=0.0)
    block.build([(None, None, None, 1)] * 2)
    block.low_level.kernel.assign(np.ones((1, 1, 1, 1)))
    for branch in (block.pyramid.atrous[0].pointwise, block.pyramid.whole, block.pyramid.projection):
        branch.kernel.assign(np.zeros(branch.kernel.shape))
    block.pyramid.point.kernel.assign(np.ones((1, 1, 1, 1)))
    block.pyramid.projection.kernel.assign(np.array([1, 0, 0]).reshape(1, 1, 3, 1))
    found = _numpy(block([_column(1, 2, 3, 4, 5), _column(0, 8)]))[0, :, 0]
    # Corners aligned: 0, 2, 4, 6, 8 beside the fine level.
    np.testing.assert_allclose(found, [[0, 1], [2, 2], [4, 3], [6, 4], [8, 5]], atol=1e-5)
    assert block.compute_output_shape([(1, 5, 1, 1), (1, 2, 1, 1)]) == (1, 5, 1, 2)


@pytest.mark.parametrize(
    ("size", "taps"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear_initializer_by_hand(size, taps):
    kernel = _numpy(BilinearInitializer()((size, size, 2, 2)))
    np.testing.assert_allclose(kernel[:, :, 0, 0], np.outer(taps, taps), atol=1e-6)
    np.testing.assert_allclose(kernel[:, :, 1, 1], np.outer(taps, taps), atol=1e-6)
    assert not kernel[:, :, 0, 1].any() and not kernel[:, :, 1, 0].any()


def test_bilinear_initializer_is_serialised_and_checked():
    config = keras.initializers.serialize(BilinearInitializer())
    assert isinstance(keras.initializers.get(config), BilinearInitializer)
    assert BilinearInitializer()((4, 4, 3, 2), "float16").dtype == ops.zeros((), "float16").dtype
    with pytest.raises(ValueError, match=r"`shape` \(4, 4\) must be \(rows, columns, filters, channels\)"):
        BilinearInitializer()((4, 4))


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (1, [4, 8]),
        # 1/4 and 3/4 of the two neighbours, of which the outer ones are 0.
        (2, [3, 5, 7, 6]),
        (3, [8 / 3, 4, 16 / 3, 20 / 3, 8, 16 / 3]),
    ],
)
def test_bilinear_upsampling_by_hand(factor, expected):
    found = _numpy(BilinearUpsampling(factor)(np.array([4, 8], np.float32).reshape(1, 1, 2, 1)))
    assert found.shape == (1, factor, 2 * factor, 1)
    rows = {1: [1], 2: [0.75, 0.75], 3: [2 / 3, 1, 2 / 3]}[factor]  # one pixel between zeros
    np.testing.assert_allclose(found[0, :, :, 0], np.outer(rows, expected), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_bilinear_upsampling_that_is_not_learned_equals_the_initial_kernel(factor, padding):
    features = _random((2, 3, 5, 2))
    for kernel_size in {2 * factor - 1, 2 * factor - factor % 2}:
        options = {"kernel_size": kernel_size, "padding": padding}
        learned, fixed = (BilinearUpsampling(factor, learned=learned, **options) for learned in (True, False))
        expected, found = _numpy(learned(features)), _numpy(fixed(features))
        assert found.shape == expected.shape == tuple(fixed.compute_output_shape(features.shape))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        fixed.trainable = True
        assert len(learned.weights) == 1 and fixed.weights == []


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize(
    ("kernel_size", "expected"),
    [
        # Taps 1/4, 3/4, 3/4, 1/4: 4 spread over four pixels, 8 over four, from the third on.
        (4, [1, 3, 5, 7, 6, 2]),
        # Taps 1/2, 1, 1/2.
        (3, [2, 4, 6, 8, 4]),
    ],
)
def test_bilinear_upsampling_uncut_by_hand(learned, kernel_size, expected):
    layer = BilinearUpsampling(2, learned=learned, kernel_size=kernel_size, padding="valid")
    found = _numpy(layer(_column(4, 8)))[0, :, :, 0]
    columns = [0.25, 0.75, 0.75, 0.25] if kernel_size == 4 else [0.5, 1, 0.5]
    np.testing.assert_allclose(found, np.outer(expected, columns), atol=1e-6)


def test_fcn_skip_with_an_offset_by_hand():
    block = FCNSkip(1, offset=1, kernel_size=3, scale=0.5, learned=False)
    block.build((None, None, None, 1), (None, None, None, 1))
    block.score.kernel.assign(np.full((1, 1, 1, 1), 4.0))
    # Twice the finer rows 3 to 7 of columns of 1, with 2, 4, 6, 8, 4 times 1/2, 1, 1/2.
    fine = np.repeat(np.array([9, 3, 4, 5, 6, 7, 9], np.float32).reshape(1, 7, 1, 1), 5, axis=2)
    expected = 2 * np.array([3, 4, 5, 6, 7])[:, None] + np.outer([2, 4, 6, 8, 4], [0.5, 1, 0.5])
    found = block(_column(4, 8), fine)
    np.testing.assert_allclose(_numpy(found)[0, :, :, 0], expected, atol=1e-5)
    assert tuple(found.shape) == block.compute_output_shape((1, 2, 1, 1), fine.shape)


def test_fcn_skip_by_hand():
    block = FCNSkip(1)
    block.build((None, None, None, 1), (None, None, None, 1))
    coarse = np.array([4, 8], np.float32).reshape(1, 2, 1, 1)
    fine = np.array([[1, 2], [3, 4], [5, 6]], np.float32).reshape(1, 3, 2, 1)
    # At first only the coarse map counts: rows 3, 5, 7, 6 of which the last is cut, times .75 for the one column.
    np.testing.assert_allclose(_numpy(block(coarse, fine))[0, :, :, 0], np.outer([3, 5, 7], [0.75, 0.75]), atol=1e-6)
    block.score.kernel.assign(np.full((1, 1, 1, 1), 10.0))
    block.score.bias.assign([0.5])
    expected = np.outer([3, 5, 7], [0.75, 0.75]) + 10 * fine[0, :, :, 0] + 0.5
    np.testing.assert_allclose(_numpy(block(coarse, fine))[0, :, :, 0], expected, atol=1e-5)


def test_segmentation_blocks_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"`rates` \(0, 3\) must be whole numbers of 1 or more"):
        ASPP(4, (0, 3))
    with pytest.raises(ValueError, match=r"`rates` \(\) must be whole numbers"):
        AtrousPyramidClassifier(4, ())
    with pytest.raises(ValueError, match=r"`dropout` 1 must be in \[0, 1\)"):
        ASPP(4, dropout=1)
    with pytest.raises(ValueError, match="`normalization` 'layer' is unknown"):
        ASPP(4, normalization="layer")
    with pytest.raises(ValueError, match="`features` are 3 maps; give two"):
        DeepLabV3PlusDecoder(4).compute_output_shape([(1, 2, 2, 1)] * 3)
    with pytest.raises(ValueError, match="`squeeze_filters` 0 must be 1 or more"):
        SqueezeExcitation(0)
    with pytest.raises(ValueError, match=r"`factor` 1\.5 must be a whole number"):
        BilinearUpsampling(1.5)
    with pytest.raises(ValueError, match="`kernel_size` 5 does not interpolate between pixels 4 apart; use 8, the def"):
        BilinearUpsampling(4, kernel_size=5)
    with pytest.raises(ValueError, match="`padding` 'full' is unknown"):
        BilinearUpsampling(4, padding="full")
    with pytest.raises(ValueError, match="`features` of width 5 must be at most twice the logits' 2"):
        FCNSkip(2)(np.zeros((1, 2, 2, 2), np.float32), np.zeros((1, 4, 5, 3), np.float32))
