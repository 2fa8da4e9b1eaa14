"""ResNet: published sizes, shapes, freezing, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import ResNet, resnet10, resnet18, resnet34, resnet50, resnet101

TINY = {"depths": (1, 2, 1, 1), "widths": (4, 6, 8, 10), "stem_filters": 4}
IMAGE = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "parameters", "channels"),
    [
        # torchvision's published counts, less the classifier's (512 or 2048) * 1000 + 1000.
        (resnet18, 11_689_512 - 513_000, (64, 64, 128, 256, 512)),
        (resnet34, 21_797_672 - 513_000, (64, 64, 128, 256, 512)),
        (resnet50, 25_557_032 - 2_049_000, (64, 256, 512, 1024, 2048)),
        (resnet101, 44_549_160 - 2_049_000, (64, 256, 512, 1024, 2048)),
        (resnet10, None, (32, 32, 64, 128, 256)),
    ],
)
def test_resnet_has_the_published_parameters_and_channels(build, parameters, channels):
    # Shapes only: the weights of the large ones need not exist.
    with keras.device("cpu"):
        model = build()
    assert tuple(feature.shape[-1] for feature in model.outputs) == channels
    if parameters is not None:
        trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        assert trained == parameters
    else:
        assert 1.1e6 < model.count_params() < 1.3e6  # "1.2M"


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("normalization", ["batch", "frozen_batch"])
def test_resnet_features_have_their_strides(block, normalization):
    model = ResNet(block, **TINY, normalization=normalization)
    expansion = 4 if block == "bottleneck" else 1
    expected = [
        (2, 16, 32, 4),
        (2, 8, 16, 4 * expansion),
        (2, 4, 8, 6 * expansion),
        (2, 2, 4, 8 * expansion),
        (2, 1, 2, 10 * expansion),
    ]
    features = model(IMAGE)
    assert [tuple(feature.shape) for feature in features] == expected
    assert all((ops.convert_to_numpy(feature) >= 0).all() for feature in features)
    assert [feature.shape[1:3] for feature in model.outputs] == [(None, None)] * 5


def test_resnet_of_an_odd_size_rounds_up():
    features = ResNet("basic", **TINY)(np.zeros((1, 33, 47, 3), np.float32))
    assert [tuple(f.shape[1:3]) for f in features] == [(17, 24), (9, 12), (5, 6), (3, 3), (2, 2)]


def test_resnet_block_without_strides_adds_its_input():
    model = ResNet("basic", (1, 1, 1, 1), widths=(4, 4, 4, 4), stem_filters=4)
    for layer in model.layers:
        if layer.name.startswith("stage1_block0_conv"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    c1, c2 = (ops.convert_to_numpy(feature) for feature in model(IMAGE)[:2])
    # With convolutions of zero, stage 1 is the max pool alone: 3 x 3 around every second pixel.
    padded = np.pad(c1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, i : i + 16 : 2, j : j + 32 : 2] for i in range(3) for j in range(3)]
    np.testing.assert_allclose(c2, np.max(windows, axis=0), atol=1e-6)


@pytest.mark.parametrize("frozen_stages", range(6))
def test_resnet_frozen_stages_are_not_trained(frozen_stages):
    model = ResNet("basic", **TINY, frozen_stages=frozen_stages)
    frozen = ("stem", "stage1", "stage2", "stage3", "stage4")[:frozen_stages]
    trained = {
        variable.path.split("/")[-2 if "normalization" not in variable.path else -3]
        for variable in model.trainable_variables
    }
    for layer in model.layers:
        if layer.weights:
            assert (layer.name in trained) == (not layer.name.startswith(frozen) if frozen else True), layer.name


def test_resnet_frozen_stages_keep_their_batch_statistics_in_training():
    model = ResNet("basic", **TINY, frozen_stages=2)
    before = {v.path: ops.convert_to_numpy(v) for v in model.non_trainable_variables}
    model(IMAGE, training=True)
    changed = {v.path for v in model.non_trainable_variables if (before[v.path] != ops.convert_to_numpy(v)).any()}
    moving = {path for path in before if "moving" in path}
    assert changed == {path for path in moving if "stem" not in path and "stage1" not in path}


@pytest.mark.parametrize(
    "options",
    [
        {"block": "basic", **TINY, "normalization": "frozen_batch", "epsilon": 1e-3, "frozen_stages": 2, "name": "r"},
        {"block": "bottleneck", **TINY, "normalization": "batch", "epsilon": 1e-2, "frozen_stages": 1, "name": "s"},
    ],
)
def test_resnet_config_round_trip_keeps_every_argument(options):
    model = ResNet(**options)
    config = model.get_config()
    assert {name: config[name] for name in options} == options
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert type(restored) is ResNet
    assert restored.get_config() == config
    assert len(restored.trainable_variables) == len(model.trainable_variables)
    restored.set_weights(model.get_weights())
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


def test_resnet_that_is_not_trainable_stays_so():
    model = ResNet("basic", **TINY)
    model.trainable = False
    restored = ResNet.from_config(model.get_config())
    assert not restored.trainable and restored.trainable_variables == []


def test_resnet_survives_saving(tmp_path):
    model = ResNet("basic", **TINY, frozen_stages=1)
    model(IMAGE, training=True)  # statistics that are not the initial ones
    model.save(tmp_path / "resnet.keras")
    restored = keras.saving.load_model(tmp_path / "resnet.keras")
    assert type(restored) is ResNet
    for mine, wanted in zip(restored(IMAGE), model(IMAGE), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(wanted))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [True, False])
def test_resnet_computes_in_the_precision_it_is_given_and_keeps_it(policy, training):
    model = ResNet("basic", **TINY, dtype=policy)
    restored = ResNet.from_config(model.get_config())
    for network in (model, restored):
        for feature in network(IMAGE, training=training):
            assert keras.backend.standardize_dtype(feature.dtype) == policy.removeprefix("mixed_")
            assert np.isfinite(ops.convert_to_numpy(ops.cast(feature, "float32"))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "dense"}, "`block` 'dense' is unknown; use 'basic' or 'bottleneck'"),
        ({"frozen_stages": 6}, "`frozen_stages` 6 must be 0 .train all. to 5"),
        ({"frozen_stages": -1}, "`frozen_stages` -1 must be 0"),
        ({"depths": (1, 1)}, r"`depths` \(1, 1\) and `widths` \(64, 128, 256, 512\) must both list four stages"),
    ],
)
def test_resnet_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


def test_resnet_with_an_output_stride_keeps_its_weights_and_dilates():
    image = np.zeros((1, 64, 96, 3), np.float32)
    plain = ResNet("bottleneck", **TINY)
    for output_stride, coarse in ((16, [(4, 6), (4, 6)]), (8, [(8, 12), (8, 12)])):
        model = ResNet("bottleneck", **TINY, output_stride=output_stride)
        assert [tuple(f.shape[1:3]) for f in model(image)[3:]] == coarse
        assert [v.shape for v in model.weights] == [v.shape for v in plain.weights]
    assert model.strides == (2, 4, 8, 8, 8)
    # torchvision's rule: a stage's first block has the dilation of the stage before.
    assert [model.get_layer(f"stage{s}_block{b}_conv2").dilation for s, b in ((2, 1), (3, 0), (4, 0))] == [1, 1, 2]
    own = ResNet("bottleneck", **TINY, output_stride=8, dilate_first_blocks=True)
    assert [own.get_layer(f"stage{s}_block0_conv2").dilation for s in (2, 3, 4)] == [1, 2, 4]
    again = ResNet.from_config(own.get_config())
    assert again.strides == (2, 4, 8, 8, 8) and again.get_layer("stage4_block0_conv2").dilation == 4


def test_resnet_of_an_output_stride_it_cannot_have_says_so():
    with pytest.raises(ValueError, match="`output_stride` 4 must be 8, 16 or 32"):
        ResNet("basic", **TINY, output_stride=4)
