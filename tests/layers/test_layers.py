"""The other layers: values by hand, shapes, precision; and the configuration of all."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import layers

RNG = np.random.default_rng(0)
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


# --- image normalisation


def test_image_normalization_by_hand():
    layer = layers.ImageNormalization(mean=(10, 20, 30), std=(1, 2, 4))
    image = np.array([[[[11, 24, 22]]]], np.uint8)
    # 1 / 1, 4 / 2, -8 / 4.
    np.testing.assert_allclose(_numpy(layer(image)), [[[[1, 2, -2]]]])
    np.testing.assert_allclose(_numpy(layer(image.astype(np.float32))), [[[[1, 2, -2]]]])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_image_normalization_rounds_only_its_result(policy, dtype):
    image = RNG.integers(0, 256, (1, 8, 8, 3)).astype(dtype)
    if dtype == "float32":
        image = np.clip(image + 0.37, 0, 255).astype(np.float32)  # resized images are not whole
    layer = layers.ImageNormalization(dtype=policy)
    found = layer(image)
    assert _dtype(found) == layer.compute_dtype
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = (image - mean) / std
    # Half a unit in the last place: 8, 11 and 24 bits.
    precision = {"float32": 1e-6, "mixed_float16": 2**-11, "mixed_bfloat16": 2**-8}[policy]
    np.testing.assert_allclose(_numpy(ops.cast(found, "float32")), expected, rtol=precision, atol=2e-6)


def test_image_normalization_of_no_spread_is_refused():
    with pytest.raises(ValueError, match=r"`std` \(1, 0, 1\) must be positive"):
        layers.ImageNormalization(std=(1, 0, 1))


# --- feature pyramid


def _features(size, channels, batch=2):
    count = len(channels)
    return [
        RNG.normal(size=(batch, size[0] << (count - 1 - i), size[1] << (count - 1 - i), c)).astype(np.float32)
        for i, c in enumerate(channels)
    ]


@pytest.mark.parametrize(
    ("coarse_levels", "coarse"),
    [("p6p7_from_p5", [(3, 2), (2, 1)]), ("p6p7_from_c5", [(3, 2), (2, 1)]), ("pool", [(3, 2)]), (None, [])],
)
def test_feature_pyramid_shapes_round_up_on_coarse_levels(coarse_levels, coarse):
    layer = layers.FeaturePyramid(6, coarse_levels=coarse_levels)
    features = _features((5, 3), (2, 3, 4))
    found = layer(features)
    expected = [(2, *size, 6) for size in [(20, 12), (10, 6), (5, 3), *coarse]]
    assert [tuple(level.shape) for level in found] == expected
    assert [tuple(s) for s in layer.compute_output_shape([f.shape for f in features])] == expected


def test_feature_pyramid_of_ones_by_hand():
    layer = layers.FeaturePyramid(1, coarse_levels=None)
    layer.build([(None, None, None, 1)] * 2)
    for block in (*layer.laterals, *layer.outputs):
        kernel = np.zeros(block.kernel.shape)
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
        block.kernel.assign(kernel)
    fine, coarse = np.full((1, 4, 4, 1), 1.0, np.float32), np.array([[2, 3], [4, 5]], np.float32).reshape(1, 2, 2, 1)
    found_fine, found_coarse = (_numpy(level) for level in layer([fine, coarse]))
    np.testing.assert_array_equal(found_coarse, coarse)
    np.testing.assert_array_equal(found_fine, 1 + coarse.repeat(2, 1).repeat(2, 2))


def test_feature_pyramid_traces_with_unknown_size():
    inputs = [keras.Input((None, None, c)) for c in (2, 3, 4)]
    model = keras.Model(inputs, layers.FeaturePyramid(6)(inputs))
    assert [tuple(output.shape) for output in model.outputs] == [(None, None, None, 6)] * 5
    for size in ((4, 6), (1, 1)):
        found = model(_features(size, (2, 3, 4)))
        assert tuple(found[2].shape[1:3]) == size


@pytest.mark.parametrize(("fine", "coarse"), [((5, 3), (3, 2)), ((5, 3), (2, 1))])
def test_feature_pyramid_over_odd_sizes_traces_and_repeats(fine, coarse):
    inputs = [keras.Input((None, None, 2)), keras.Input((None, None, 3))]
    layer = layers.FeaturePyramid(4, coarse_levels="pool")
    model = keras.Model(inputs, layer(inputs))
    features = [RNG.normal(size=(2, *size, c)).astype(np.float32) for size, c in ((fine, 2), (coarse, 3))]
    shapes = layer.compute_output_shape([feature.shape for feature in features])
    for found, traced, shape in zip(layer(features), model.predict(features, verbose=0), shapes, strict=True):
        assert tuple(found.shape) == tuple(shape)
        np.testing.assert_allclose(_numpy(found), traced, atol=1e-5)


@pytest.mark.parametrize("normalization", ["batch", "sync_batch", "group"])
def test_feature_pyramid_normalizes_in_training(normalization):
    layer = layers.FeaturePyramid(32, coarse_levels="p6p7_from_c5", normalization=normalization, epsilon=1e-6)
    features = _features((3, 3), (2, 3))
    for level in layer(features, training=True)[:2]:
        axes = (0, 1, 2) if normalization != "group" else (1, 2)
        np.testing.assert_allclose(_numpy(level).mean(axes), 0, atol=1e-5)
        np.testing.assert_allclose(_numpy(level).std(axes), 1, atol=1e-2)
    assert layer.laterals[0].bias is None and layer.outputs[0].bias is None
    assert layer.p6.bias is not None and layer.p6.normalization is None


def test_feature_pyramid_unknown_coarse_levels_are_named():
    with pytest.raises(ValueError, match="`normalization` 'layer' is unknown; use 'batch', 'sync_batch'"):
        layers.FeaturePyramid(8, normalization="layer")
    with pytest.raises(ValueError, match="`coarse_levels` 'p8' is unknown; use 'p6p7_from_p5'"):
        layers.FeaturePyramid(8, coarse_levels="p8")


@pytest.mark.parametrize("policy", POLICIES)
def test_feature_pyramid_computes_in_its_own_precision(policy):
    layer = layers.FeaturePyramid(6, dtype=policy)
    for level in layer(_features((2, 2), (2, 3, 4))):
        assert _dtype(level) == layer.compute_dtype
        assert np.isfinite(_numpy(ops.cast(level, "float32"))).all()


# --- anchors


def test_anchor_generator_by_hand():
    layer = layers.AnchorGenerator([[4], [8]], aspect_ratios=[1.0])
    fine, coarse = layer(grids_hw=[(2, 1), (1, 1)], image_hw=(9, 8))
    # Strides 9 // 2 = 4 and 8; the first anchors are centred on the corner of the image.
    np.testing.assert_array_equal(_numpy(fine), [[-2, -2, 2, 2], [-2, 2, 2, 6]])
    np.testing.assert_array_equal(_numpy(coarse), [[-4, -4, 4, 4]])
    assert layer.anchors_per_cell == 1


def test_anchor_generator_stays_in_float32_whatever_the_policy():
    layer = layers.AnchorGenerator([[4]], [1.0], dtype="mixed_bfloat16")
    (anchors,) = layer(grids_hw=[(1, 600)], image_hw=(8, 4800))
    assert _dtype(anchors) == "float32"
    np.testing.assert_array_equal(_numpy(anchors)[-1], [599 * 8 - 2, -2, 599 * 8 + 2, 2])


def test_anchor_generator_wrong_levels_are_named():
    with pytest.raises(ValueError, match="must list equally many sizes for each level"):
        layers.AnchorGenerator([[4], [8, 10]])
    with pytest.raises(ValueError, match="`grids_hw` has 1 levels, but `sizes` describes 2"):
        layers.AnchorGenerator([[4], [8]])(grids_hw=[(1, 1)], image_hw=(8, 8))


# --- U-Net blocks


UPSAMPLING = ["transpose", "nearest", "bilinear", "bilinear_convolution"]


@pytest.mark.parametrize("normalization", [None, "batch"])
@pytest.mark.parametrize("upsampling", UPSAMPLING)
@pytest.mark.parametrize("with_skip", [True, False])
def test_unet_decoder_block_shapes_agree(normalization, upsampling, with_skip):
    layer = layers.UNetDecoderBlock(6, upsampling=upsampling, normalization=normalization)
    inputs = [RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)]
    if with_skip:
        inputs.append(RNG.normal(size=(2, 6, 10, 7)).astype(np.float32))
    found = layer(*inputs)
    assert tuple(found.shape) == (2, 6, 10, 6) == tuple(layer.compute_output_shape(*(x.shape for x in inputs)))
    assert np.isfinite(_numpy(found)).all() and (_numpy(found) >= 0).all()


def test_unet_decoder_block_by_hand():
    layer = layers.UNetDecoderBlock(1)
    layer.build((None, None, None, 1), (None, None, None, 1))
    for block, taps in ((layer.convolutions.first, [1, 10]), (layer.convolutions.second, [1])):
        kernel = np.zeros(block.kernel.shape)
        kernel[1, 1, :, 0] = taps
        block.kernel.assign(kernel)
    skip = np.array([[1, 2], [3, -9]], np.float32).reshape(1, 2, 2, 1)
    # The one pixel of 5, repeated, plus ten times the skip; -85 falls to the ReLU.
    found = _numpy(layer(np.full((1, 1, 1, 1), 5, np.float32), skip))[0, :, :, 0]
    np.testing.assert_allclose(found, [[15, 25], [35, 0]])


@pytest.mark.parametrize("upsampling", UPSAMPLING)
def test_unet_decoder_block_takes_skips_of_odd_size(upsampling):
    layer = layers.UNetDecoderBlock(2, upsampling=upsampling)
    features, skip = np.ones((1, 3, 4, 2), np.float32), np.ones((1, 5, 7, 1), np.float32)
    found = layer(features, skip)
    assert tuple(found.shape) == (1, 5, 7, 2) == tuple(layer.compute_output_shape(features.shape, skip.shape))
    with pytest.raises(ValueError, match=r"`skip` of \(8, 7\) pixels does not fit features of \(3, 4\)"):
        layer(features, np.ones((1, 8, 7, 1), np.float32))


def test_unet_encoder_block_by_hand():
    layer = layers.UNetEncoderBlock(1)
    layer.build((None, None, None, 1))
    for block, tap in ((layer.convolutions.first, 2), (layer.convolutions.second, -1)):
        kernel = np.zeros(block.kernel.shape)
        kernel[1, 1] = tap
        block.kernel.assign(kernel)
    layer.convolutions.second.bias.assign([20])
    image = np.array([[1, 4, 2], [3, -9, 0], [7, 5, -6]], np.float32).reshape(1, 3, 3, 1)
    # Maxima 4, 2, 7, -6 of windows that end with the image; 20 - relu(2 x).
    np.testing.assert_allclose(_numpy(layer(image))[0, :, :, 0], [[12, 16], [6, 20]])
    assert layer.compute_output_shape((1, 3, 3, 1)) == (1, 2, 2, 1)


def test_unet_decoder_block_traces_with_unknown_size():
    inputs, skip = keras.Input((None, None, 4)), keras.Input((None, None, 3))
    model = keras.Model([inputs, skip], layers.UNetDecoderBlock(5, upsampling="transpose")(inputs, skip))
    assert tuple(model.outputs[0].shape) == (None, None, None, 5)
    found = model([np.zeros((1, 3, 2, 4), np.float32), np.zeros((1, 6, 4, 3), np.float32)])
    assert tuple(found.shape) == (1, 6, 4, 5)


def test_unet_decoder_block_unknown_upsampling_is_named():
    with pytest.raises(ValueError, match="`upsampling` 'cubic' is unknown; use one of 'transpose', 'nearest', 'bili"):
        layers.UNetDecoderBlock(4, upsampling="cubic")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("upsampling", UPSAMPLING)
@pytest.mark.parametrize("training", [True, False])
def test_unet_decoder_block_computes_in_its_own_precision(policy, upsampling, training):
    layer = layers.UNetDecoderBlock(6, upsampling=upsampling, normalization="batch", dtype=policy)
    found = layer(np.ones((1, 3, 5, 4), np.float32), np.ones((1, 6, 10, 2), np.float32), training=training)
    assert _dtype(found) == layer.compute_dtype
    assert np.isfinite(_numpy(ops.cast(found, "float32"))).all()


# --- configuration of every layer: no argument at its default

CASES = {
    "BatchNormalization": ({"epsilon": 0.1, "momentum": 0.7}, [(1, 2, 2, 3)]),
    "BiFPN": (
        {
            "filters": 4,
            "repeats": 2,
            "levels": 3,
            "fusion": "softmax",
            "padding": "symmetric",
            "activation": "relu",
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.7,
            "use_bias": False,
        },
        [[(1, 5, 3, 3), (1, 3, 2, 4)]],
    ),
    "SSDLiteExtraLayers": (
        {"filters": (6, 4), "normalization": "frozen_batch", "epsilon": 0.1, "momentum": 0.7, "activation": "relu"},
        [(1, 5, 3, 3)],
    ),
    "WeightedFusion": ({"method": "softmax"}, [[(1, 2, 2, 3), (1, 2, 2, 3)]]),
    "AttentionGate": ({"filters": 6}, [(1, 4, 5, 3), (1, 2, 3, 4)]),
    "AnchorGenerator": ({"sizes": ((4, 6), (8, 12)), "aspect_ratios": (0.3, 3.0)}, None),
    "ASPP": (
        {
            "filters": 4,
            "rates": (2, 3),
            "separable": True,
            "dropout": 0.1,
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.7,
        },
        [(1, 4, 3, 3)],
    ),
    "AtrousPyramidClassifier": ({"num_classes": 3, "rates": (2, 5)}, [(1, 4, 3, 2)]),
    "BilinearInitializer": None,
    "BilinearUpsampling": (
        {"factor": 4, "learned": False, "kernel_size": 7, "padding": "valid"},
        [(1, 4, 3, 2)],
    ),
    "BoxHead": (
        {
            "units": (6, 5),
            "convolutions": 2,
            "filters": 4,
            "normalization": "batch",
            "epsilon": 0.1,
            "momentum": 0.7,
            "dropout": 0.1,
        },
        [(1, 2, 3, 3, 4)],
    ),
    "BoxPredictor": ({"num_classes": 3}, [(1, 2, 5)]),
    "ConvolutionBlock": (
        {
            "filters": 5,
            "kernel_size": 4,
            "strides": 2,
            "dilation": 1,
            "padding": 2,
            "normalization": "batch",
            "epsilon": 1e-2,
            "momentum": 0.7,
            "activation": "silu",
            "use_bias": True,
            "kernel_initializer": keras.initializers.RandomNormal(0, 0.5, seed=1),
            "bias_initializer": keras.initializers.Constant(0.5),
        },
        [(1, 8, 8, 3)],
    ),
    "ConvolutionalCRF": (
        {
            "kernel_size": 3,
            "stride": 2,
            "iterations": 2,
            "position_weight": 1.5,
            "position_sigma": 2.0,
            "bilateral_weight": 2.5,
            "bilateral_position_sigma": 12.0,
            "bilateral_color_sigma": 30.0,
            "train_sigmas": True,
        },
        [(1, 5, 6, 4), (1, 5, 6, 3)],
    ),
    "CSPBlock": (
        {
            "filters": 6,
            "repeats": 2,
            "shortcut": False,
            "expansion": 0.7,
            "depthwise": True,
            "activation": "relu",
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.7,
        },
        [(1, 3, 2, 4)],
    ),
    "CSPPathAggregation": (
        {
            "filters": (2, 4),
            "repeats": 1,
            "depthwise": True,
            "activation": "relu",
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.7,
        },
        [[(1, 4, 3, 3), (1, 2, 2, 5)]],
    ),
    "DeepLabV3PlusDecoder": (
        {
            "filters": 4,
            "rates": (2, 3),
            "low_level_filters": 3,
            "before": 2,
            "after": 3,
            "separable": False,
            "dropout": 0.1,
            "align_corners": False,
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.7,
        },
        [[(1, 8, 6, 2), (1, 4, 3, 3)]],
    ),
    "DefaultBoxGenerator": (
        {
            "aspect_ratios": ((2,), (2, 3)),
            "scales": (0.2, 0.5, 1.3),
            "smallest": 0.1,
            "largest": 0.8,
            "steps": (8, 16),
            "clipped": False,
        },
        None,
    ),
    "DepthwiseConvolutionBlock": (
        {
            "kernel_size": 5,
            "strides": 2,
            "dilation": 1,
            "padding": "same",
            "normalization": "batch",
            "epsilon": 1e-2,
            "momentum": 0.7,
            "activation": "silu",
            "use_bias": True,
            "kernel_initializer": keras.initializers.RandomNormal(0, 0.5, seed=1),
            "bias_initializer": keras.initializers.Constant(0.5),
        },
        [(1, 8, 7, 3)],
    ),
    "FCNHead": (
        {"num_classes": 3, "filters": 5, "dropout": 0.2, "normalization": "frozen_batch", "epsilon": 0.1},
        [(1, 4, 3, 2)],
    ),
    "FCNSkip": (
        {"num_classes": 3, "learned": False, "offset": 1, "kernel_size": 3, "scale": 0.5},
        [(1, 3, 2, 3), (1, 8, 6, 2)],
    ),
    "FeaturePyramid": (
        {"filters": 6, "coarse_levels": "pool", "normalization": "batch", "epsilon": 0.1, "momentum": 0.7},
        [[(1, 4, 4, 2), (1, 2, 2, 3)]],
    ),
    "FrozenBatchNormalization": ({"epsilon": 0.1}, [(1, 2, 2, 3)]),
    "ImageNormalization": ({"mean": (1.0, 2.0), "std": (3.0, 4.0)}, [(1, 2, 2, 2)]),
    "InvertedResidual": (
        {
            "filters": 4,
            "expanded_filters": 8,
            "kernel_size": 5,
            "strides": 2,
            "dilation": 1,
            "squeeze_filters": 3,
            "activation": "hard_silu",
            "residual": False,
            "return_expanded": True,
            "normalization": "frozen_batch",
            "epsilon": 0.1,
            "momentum": 0.5,
            "kernel_initializer": keras.initializers.RandomNormal(0, 0.5, seed=1),
        },
        [(1, 4, 3, 4)],
    ),
    "L2Normalization": ({"scale": 3.0}, [(1, 2, 2, 3)]),
    "LocalResponseNormalization": ({"size": 3, "alpha": 0.5, "beta": 0.25, "bias": 2.0}, [(1, 2, 2, 4)]),
    "MaxPooling": ({"pool_size": 5, "strides": 3, "padding": 1, "ceil_mode": True}, [(1, 7, 6, 2)]),
    "PathAggregation": (
        {
            "filters": 4,
            "downsample": "sum",
            "activation": "silu",
            "normalization": "batch",
            "epsilon": 0.1,
            "momentum": 0.7,
        },
        [[(1, 4, 3, 4), (1, 2, 2, 4)]],
    ),
    "SPP": ({"kernel_sizes": (3, 7), "input_first": False}, [(1, 3, 4, 2)]),
    "SPPF": ({"kernel_size": 3, "repeats": 2}, [(1, 3, 4, 2)]),
    "SSDExtraLayers": ({"blocks": ((6, 3, 2, 1), (4, 2, 1, 0)), "filters": 3}, [(1, 5, 4, 2)]),
    "SpatialPyramidPooling": ({"bins": (2, 3)}, [(1, 3, 4, 2)]),
    "NonMaxSuppression": (
        {
            "iou_threshold": 0.7,
            "max_detections": 7,
            "per_class": False,
            "method": "matrix_gaussian",
            "sigma": 0.3,
            "score_threshold": 0.01,
            "max_candidates": 70,
            "exportable": True,
        },
        None,
    ),
    "RoIAlign": (
        {
            "output_size": (2, 3),
            "strides": (8, 16),
            "sampling_ratio": None,
            "aligned": True,
            "canonical_size": 100,
            "canonical_level": 3,
            "max_adaptive_samples": 3,
        },
        [[(1, 6, 5, 2), (1, 3, 3, 2)], (1, 4, 4)],
    ),
    "RoIPool": ({"output_size": (2, 3), "stride": 8}, [(1, 6, 5, 2), (1, 4, 4)]),
    "OctaveAnchorGenerator": (
        {"levels": 2, "octaves": 2, "aspect_ratios": (1.0, (1.4, 0.7)), "anchor_scale": 3.0},
        None,
    ),
    "PriorBoxGenerator": ({"priors_wh": (((10.0, 13.0),), ((33.0, 23.0), (30.0, 61.0)))}, None),
    "SeparableConvolutionBlock": (
        {
            "filters": 4,
            "kernel_size": 5,
            "strides": 2,
            "dilation": 1,
            "padding": 1,
            "normalization": "batch",
            "depthwise_normalization": "frozen_batch",
            "epsilon": 1e-2,
            "momentum": 0.7,
            "activation": "silu",
            "depthwise_activation": "relu",
            "use_bias": True,
            "kernel_initializer": keras.initializers.RandomNormal(0, 0.5, seed=1),
            "bias_initializer": keras.initializers.Constant(0.5),
        },
        [(1, 8, 7, 3)],
    ),
    "SqueezeExcitation": ({"squeeze_filters": 3, "activation": "silu", "gate": "hard_sigmoid"}, [(1, 4, 3, 2)]),
    "SyncBatchNormalization": ({"epsilon": 0.1, "momentum": 0.7}, [(1, 2, 2, 3)]),
    "UNetDecoderBlock": (
        {"filters": 6, "mid_filters": 5, "upsampling": "transpose", "normalization": "batch", "padding": "valid"},
        [(1, 4, 3, 3), (1, 8, 10, 2)],
    ),
    "UNetDoubleConvolution": (
        {"filters": 6, "mid_filters": 5, "normalization": "batch", "padding": "valid"},
        [(1, 5, 6, 3)],
    ),
    "UNetEncoderBlock": (
        {"filters": 6, "normalization": "batch", "padding": "valid", "round_down": True},
        [(1, 10, 13, 3)],
    ),
}


def _random_inputs(shapes):
    if isinstance(shapes, list):
        return [_random_inputs(shape) for shape in shapes]
    return RNG.uniform(0, 255, shapes).astype(np.float32)


def test_configs_cover_every_layer():
    assert set(CASES) == set(layers.__all__)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]])
def test_config_round_trip_keeps_every_argument(name):
    arguments, shapes = CASES[name]
    cls = getattr(layers, name)
    layer = cls(**arguments, name="given", trainable=False, dtype="mixed_bfloat16")
    signature = inspect.signature(cls).parameters
    assert set(arguments) == {p for p in signature if p != "kwargs"}
    defaults = {p: v.default for p, v in signature.items()}
    same = [p for p in arguments if arguments[p] == defaults[p]]
    # With strides, `dilation` must be 1.
    assert same == (["dilation"] if "strides" in arguments and "dilation" in arguments else []), "use no default"

    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is cls
    assert restored.get_config() == layer.get_config()
    assert (restored.name, restored.trainable, restored.dtype_policy.name) == ("given", False, "mixed_bfloat16")
    for argument, value in arguments.items():
        renamed = argument == "normalization" and hasattr(restored, "normalization_kind")
        found = getattr(restored, "normalization_kind" if renamed else argument)
        if argument.endswith("activation") or argument == "gate":
            assert found is keras.activations.get(value)
        elif isinstance(value, keras.initializers.Initializer):
            assert type(found) is type(value) and found.get_config() == value.get_config()
        else:
            assert found == value, argument
    if shapes is not None:
        inputs = _random_inputs(shapes)
        expected = layer(*inputs)
        restored(*inputs)
        restored.set_weights(layer.get_weights())
        for mine, wanted in zip(_flat(restored(*inputs)), _flat(expected), strict=True):
            np.testing.assert_array_equal(_numpy(ops.cast(mine, "float32")), _numpy(ops.cast(wanted, "float32")))


def _flat(outputs):
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name] and CASES[name][1]])
def test_images_are_channels_last_whatever_keras_is_set_to(name):
    arguments, shapes = CASES[name]
    inputs = _random_inputs(shapes)
    layer = getattr(layers, name)(**arguments)
    expected = layer(*inputs)
    keras.config.set_image_data_format("channels_first")
    try:
        other = getattr(layers, name)(**arguments)
        other(*inputs)
        other.set_weights(layer.get_weights())
        found = other(*inputs)
    finally:
        keras.config.set_image_data_format("channels_last")
    for mine, wanted in zip(_flat(found), _flat(expected), strict=True):
        np.testing.assert_allclose(_numpy(mine), _numpy(wanted), rtol=1e-5, atol=1e-5)


def test_convolution_block_dilation_comes_back():
    block = layers.ConvolutionBlock(5, 3, dilation=4)
    assert layers.ConvolutionBlock.from_config(block.get_config()).dilation == 4


def test_layers_survive_saving_a_model(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = layers.ImageNormalization()(inputs)
    fine = layers.ConvolutionBlock(4, 3, normalization="frozen_batch", activation="relu")(x)
    coarse = layers.ConvolutionBlock(5, 3, strides=2, normalization="batch")(fine)
    p, q = layers.FeaturePyramid(4, coarse_levels=None)([fine, coarse])
    model = keras.Model(inputs, layers.UNetDecoderBlock(3, upsampling="transpose")(q, p))
    image = RNG.uniform(0, 255, (1, 6, 8, 3)).astype(np.float32)
    for variable in model.weights:  # statistics and biases that are not trivial
        variable.assign(RNG.uniform(0.5, 1, variable.shape))
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(_numpy(restored(image)), _numpy(model(image)))
