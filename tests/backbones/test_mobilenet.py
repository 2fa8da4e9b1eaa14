"""MobileNetV2 and V3: published sizes, strides, dilations, freezing, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.inverted_residual_network import round_filters
from kerasvision.backbones.mobilenet_v2 import MobileNetV2, mobilenet_v2, mobilenet_v2_035
from kerasvision.backbones.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small

TINY = {"width_multiplier": 0.1}
IMAGE = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype(np.float32)
BOTH = pytest.mark.parametrize("network", [MobileNetV2, MobileNetV3])


@pytest.mark.parametrize(
    ("filters", "rounded"),
    [(32, 32), (3.2, 8), (11.2, 16), (12, 16), (16.8, 16), (17.6, 16), (20, 24), (44, 48), (1792, 1792)],
)
def test_round_filters_by_hand(filters, rounded):
    # 11.2 would be rounded to 8, which is less than 0.9 * 11.2 = 10.08, so it is 16; 17.6 to 16 > 15.84.
    assert round_filters(filters) == rounded


@pytest.mark.parametrize(
    ("build", "parameters", "channels"),
    [
        # torchvision's published counts, less the classifiers': 1280 * 1000 + 1000; 960 * 1280 + 1280 + 1280 * 1000
        # + 1000; 576 * 1024 + 1024 + 1024 * 1000 + 1000.
        (mobilenet_v2, 3_504_872 - 1_281_000, (16, 24, 32, 96, 1280)),
        (mobilenet_v3_large, 5_483_032 - 2_511_080, (16, 24, 40, 112, 960)),
        (mobilenet_v3_small, 2_542_856 - 1_615_848, (16, 16, 24, 48, 576)),
        (mobilenet_v2_035, None, (8, 8, 16, 32, 112)),
    ],
)
def test_mobilenets_have_the_published_parameters_and_channels(build, parameters, channels):
    model = build()
    assert tuple(feature.shape[-1] for feature in model.outputs) == channels
    assert model.strides == (2, 4, 8, 16, 32)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trained == parameters if parameters is not None else 0.24e6 < trained < 0.26e6  # "0.3M"


@BOTH
def test_features_of_any_size_round_up(network):
    model = network(**TINY)
    for size in ((32, 64), (33, 47), (1, 1)):
        found = [tuple(feature.shape[1:3]) for feature in model(np.zeros((1, *size, 3), np.float32))]
        assert found == [tuple(-(-side // stride) for side in size) for stride in model.strides]
    assert [feature.shape[1:3] for feature in model.outputs] == [(None, None)] * 5


@pytest.mark.parametrize(("network", "output_stride"), [(MobileNetV2, 16), (MobileNetV3, 8)])
def test_output_stride_keeps_weights_and_dilates_whole_stages(network, output_stride):
    plain, model = network(**TINY), network(**TINY, output_stride=output_stride)
    assert [v.shape for v in model.weights] == [v.shape for v in plain.weights]
    assert model.strides == tuple(min(s, output_stride) for s in (2, 4, 8, 16, 32))
    image = np.zeros((1, 64, 96, 3), np.float32)
    for feature, stride in zip(model(image), model.strides, strict=True):
        assert tuple(feature.shape[1:3]) == (64 // stride, 96 // stride)
    first16, first32 = (7, 14) if network is MobileNetV2 else (7, 13)

    def dilations(network):
        return [network.get_layer(f"block{i}").depthwise.dilation for i in (first16, first16 + 1, first32, first32 + 1)]

    assert dilations(model) == ([1, 1, 2, 2] if output_stride == 16 else [2, 2, 4, 4])
    authors = network(**TINY, output_stride=output_stride, dilate_first_blocks=False)
    assert dilations(authors) == ([1, 1, 1, 2] if output_stride == 16 else [1, 2, 2, 4])
    # A block that lost its stride has no residual sum, though with so few channels it could have one.
    assert not model.get_layer(f"block{first32}").adds and model.get_layer(f"block{first32 + 1}").adds


def test_feature_indices_choose_and_cut_off():
    model = MobileNetV3(**TINY, reduced_tail=True, feature_indices=(4, 13, 16), expanded_features=(13,))
    assert model.strides == (8, 16, 32)
    # 672 channels times 0.1 are 67.2, rounded to 64; the last convolution has six times the last block's 8.
    assert [feature.shape[-1] for feature in model.outputs] == [8, 64, 48]
    found = [tuple(feature.shape[1:3]) for feature in model(IMAGE)]
    assert found == [(4, 8), (2, 4), (1, 2)]
    cut = MobileNetV2(**TINY, feature_indices=[0, 3])
    assert [layer.name for layer in cut.layers if layer.weights] == ["stem", "block1", "block2", "block3"]
    assert cut.strides == (2, 4)


@pytest.mark.parametrize(("frozen_stages", "last"), [(0, -1), (2, 3), (5, 17), (6, 18)], ids=str)
def test_frozen_stages_are_torchvisions(frozen_stages, last):
    model = MobileNetV2(**TINY, frozen_stages=frozen_stages)
    names = ["stem", *(f"block{index}" for index in range(1, 18)), "last"]
    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert frozen == names[: last + 1]
    trained = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert trained == set(names[last + 1 :])


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (MobileNetV2, {"width_multiplier": 0.2, "epsilon": 1e-2, "momentum": 0.5, "frozen_stages": 2, "name": "n"}),
        (
            MobileNetV2,
            {"feature_indices": (2, 17), "expanded_features": (2,), **TINY, "normalization": "frozen_batch"},
        ),
        (MobileNetV3, {"size": "small", **TINY, "reduced_tail": True, "epsilon": 1e-2, "momentum": 0.5}),
        (MobileNetV3, {**TINY, "output_stride": 8, "dilate_first_blocks": False, "frozen_stages": 3}),
    ],
)
def test_config_round_trip_keeps_every_argument(network, options):
    model = network(**options)
    config = model.get_config()
    assert {name: config[name] for name in options} == options
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(restored) is network
    assert restored.get_config() == config
    assert len(restored.trainable_variables) == len(model.trainable_variables)
    restored.set_weights(model.get_weights())
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


@BOTH
def test_mobilenets_survive_saving(network, tmp_path):
    model = network(**TINY, frozen_stages=1)
    model(IMAGE, training=True)  # statistics that are not the initial ones
    model.save(tmp_path / "network.keras")
    restored = keras.saving.load_model(tmp_path / "network.keras")
    assert type(restored) is network
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


@pytest.mark.parametrize(("network", "policy"), [(MobileNetV2, "mixed_bfloat16"), (MobileNetV3, "mixed_float16")])
def test_mobilenets_compute_in_the_precision_they_are_given_and_keep_it(network, policy):
    model = network(**TINY, dtype=policy)
    for each in (model, network.from_config(model.get_config())):
        for training in (True, False):
            for feature in each(IMAGE, training=training):
                assert keras.backend.standardize_dtype(feature.dtype) == policy.removeprefix("mixed_")
                assert np.isfinite(ops.convert_to_numpy(ops.cast(feature, "float32"))).all()


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (MobileNetV2, {"width_multiplier": 0}, "`width_multiplier` 0 must be positive"),
        (MobileNetV3, {"width_multiplier": -1.0}, "`width_multiplier` -1.0 must be positive"),
        (MobileNetV3, {"size": "medium"}, "`size` 'medium' is unknown; use 'large' or 'small'"),
        (MobileNetV2, {"output_stride": 4}, "`output_stride` 4 must be 8, 16 or 32"),
        (MobileNetV2, {"frozen_stages": 7}, r"`frozen_stages` 7 must be 0 \(train all\) to 6 \(all frozen\)"),
        (MobileNetV2, {"feature_indices": (3, 19)}, r"`feature_indices` \(3, 19\) must ascend from 0 .* to 18 at most"),
        (MobileNetV3, {"feature_indices": (4, 4)}, r"`feature_indices` \(4, 4\) must ascend .* to 16 at most"),
        (MobileNetV3, {"feature_indices": ()}, r"`feature_indices` \(\) must ascend"),
        (MobileNetV3, {"expanded_features": (13,)}, r"`expanded_features` \(13,\) must be some of `feature_indices`"),
        (MobileNetV3, {"expanded_features": (16,)}, r"neither 0 \(the stem\) nor 16 \(the last convolution\)"),
        (MobileNetV3, {"expanded_features": (1,)}, "`expanded_features` has 1, but that block does not expand its in"),
    ],
)
def test_wrong_arguments_are_named(network, options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)
