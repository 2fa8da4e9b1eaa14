"""Xception: published sizes, strides, dilations, freezing, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.xception import Xception, xception41, xception65, xception71

TINY = {"entry": ((4, 2), (5, 2), (6, 2)), "middle_blocks": 1, "exit_filters": (7, 8, 9), "stem_filters": (3, 4)}
IMAGE = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "parameters"),
    # timm's published counts, less the classifier's 2048 * 1000 + 1000.
    [(xception41, 26_969_560), (xception65, 39_916_312), (xception71, 42_338_736)],
)
def test_xception_has_the_published_parameters_and_channels(build, parameters):
    model = build()
    assert tuple(feature.shape[-1] for feature in model.outputs) == (128, 256, 728, 1024, 2048)
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trained == parameters - 2_049_000


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (1, 1)])
def test_xception_features_of_any_size_round_up(size):
    model = Xception(**TINY)
    assert model.strides == (2, 4, 8, 16, 32)
    found = [tuple(feature.shape[1:]) for feature in model(np.zeros((1, *size, 3), np.float32))]
    channels = (4, 5, 6, 7, 9)
    assert found == [
        (*(-(-side // stride) for side in size), count) for stride, count in zip(model.strides, channels, strict=True)
    ]


@pytest.mark.parametrize("output_stride", [16, 8])
def test_xception_with_an_output_stride_keeps_its_weights_and_dilates(output_stride):
    plain, model = Xception(**TINY), Xception(**TINY, output_stride=output_stride)
    assert [v.shape for v in model.weights] == [v.shape for v in plain.weights]
    assert model.strides == tuple(min(s, output_stride) for s in (2, 4, 8, 16, 32))
    for feature, stride in zip(model(IMAGE), model.strides, strict=True):
        assert tuple(feature.shape[1:3]) == (32 // stride, 64 // stride)
    # A block that loses its stride has the dilation of the one before.
    blocks = ("entry2", "middle0", "exit0", "exit1")
    dilations = [model.get_layer(f"{block}_separable2").depthwise.dilation for block in blocks]
    assert dilations == ([1, 1, 1, 2] if output_stride == 16 else [1, 2, 2, 4])


def test_xception_block_without_convolutions_is_its_shortcut():
    model = Xception(**TINY)
    part = keras.Model(model.inputs[0], [model.get_layer(f"{name}_add").output for name in ("entry2", "middle0")])
    before, after = (ops.convert_to_numpy(feature) for feature in part(IMAGE))
    assert np.abs(after - before).max() > 0.01
    model.get_layer("middle0_separable2").pointwise.kernel.assign(np.zeros((1, 1, 6, 6)))
    before, after = (ops.convert_to_numpy(feature) for feature in part(IMAGE))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert before.min() < 0  # nothing is rectified on the way


@pytest.mark.parametrize("frozen_stages", range(5))
def test_xception_frozen_stages_are_not_trained(frozen_stages):
    model = Xception(**TINY, frozen_stages=frozen_stages)
    parts = ("stem", "entry", "middle", "exit")
    trained = {part for part in parts for v in model.trainable_variables if v.path.split("/")[0].startswith(part)}
    assert trained == set(parts[frozen_stages:])


@pytest.mark.parametrize(
    "options",
    [
        {**TINY, "epsilon": 1e-2, "momentum": 0.5, "frozen_stages": 2, "output_stride": 8, "name": "x"},
        {**TINY, "entry": ((4, 2), (4, 1), (5, 2), (6, 2)), "normalization": "frozen_batch", "middle_blocks": 0},
    ],
)
def test_xception_config_round_trip_keeps_every_argument(options):
    model = Xception(**options)
    config = model.get_config()
    assert {name: config[name] for name in options} == options
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(restored) is Xception
    assert restored.get_config() == config
    assert len(restored.trainable_variables) == len(model.trainable_variables)
    restored.set_weights(model.get_weights())
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


def test_xception_survives_saving(tmp_path):
    model = Xception(**TINY, frozen_stages=1)
    model(IMAGE, training=True)  # statistics that are not the initial ones
    model.save(tmp_path / "xception.keras")
    restored = keras.saving.load_model(tmp_path / "xception.keras")
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_xception_computes_in_the_precision_it_is_given_and_keeps_it(policy):
    model = Xception(**TINY, dtype=policy)
    for network in (model, Xception.from_config(model.get_config())):
        for training in (True, False):
            for feature in network(IMAGE, training=training):
                assert keras.backend.standardize_dtype(feature.dtype) == policy.removeprefix("mixed_")
                assert np.isfinite(ops.convert_to_numpy(ops.cast(feature, "float32"))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entry": ((4, 2), (4, 2))}, "`entry` .* must have three blocks with strides of 2, and 1 in all others"),
        ({"entry": ((4, 2), (4, 2), (4, 2), (4, 4))}, "`entry` .* must have three blocks"),
        ({"middle_blocks": -1}, "`middle_blocks` -1 must be 0 or more; Xception-65 has 16"),
        ({"exit_filters": (4, 5)}, r"`exit_filters` \(4, 5\) and `stem_filters` \(3, 4\) must be three and two"),
        ({"frozen_stages": 5}, r"`frozen_stages` 5 must be 0 \(train all\) to 4"),
        ({"output_stride": 4}, "`output_stride` 4 must be 8, 16 or 32"),
    ],
)
def test_xception_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Xception(**{**TINY, **options})
