"""Layers made of others: what is frozen comes back frozen, down to the last part."""

import keras
import numpy as np
import pytest

from kerasvision import layers
from kerasvision.layers.trainability import restore_trainable, trainable_config

LAYERS = {
    "ConvolutionBlock": (lambda **options: layers.ConvolutionBlock(4, 3, normalization="batch", **options), 1),
    "UNetDoubleConvolution": (lambda **options: layers.UNetDoubleConvolution(4, normalization="batch", **options), 1),
    "UNetDecoderBlock": (lambda **options: layers.UNetDecoderBlock(4, upsampling="transpose", **options), 1),
    "FeaturePyramid": (lambda **options: layers.FeaturePyramid(4, **options), 2),
}


def _model(layer, inputs):
    tensors = [keras.Input((8 // 2**level, 8 // 2**level, 3)) for level in range(inputs)]
    return keras.Model(tensors, layer(tensors if inputs > 1 else tensors[0]))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_that_is_frozen_comes_back_frozen(name):
    make, inputs = LAYERS[name]
    assert _model(make(), inputs).trainable_variables
    assert _model(make(trainable=False), inputs).trainable_variables == []
    layer = make()
    model = _model(layer, inputs)
    layer.trainable = False
    copy = keras.Model.from_config(model.get_config())
    assert copy.trainable_variables == []
    # Batch normalisation that is frozen keeps its statistics.
    before = copy.get_weights()
    copy([np.ones((2, *tensor.shape[1:]), np.float32) for tensor in copy.inputs], training=True)
    for mine, wanted in zip(copy.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_trainable_config_names_what_differs_from_its_surroundings():
    block = layers.UNetDecoderBlock(4, upsampling="transpose", name="step")
    block.build((None, 4, 4, 3))
    assert trainable_config(block) == {"trainable": True, "trainable_parts": {}}
    block.convolutions.trainable = False
    block.convolutions.second.trainable = True
    config = trainable_config(block)
    assert config == {
        "trainable": True,
        "trainable_parts": {"convolutions": False, "convolutions/second": True},
    }
    other = layers.UNetDecoderBlock(4, upsampling="transpose", name="other")
    other.build((None, 4, 4, 3))
    restore_trainable(other, config)
    assert trainable_config(other) == config
    # up and convolutions/second: kernel and bias each.
    assert len(other.trainable_variables) == 4
    left_out = trainable_config(block, without=block.convolutions)
    assert left_out == {"trainable": True, "trainable_parts": {}}
    other.convolutions.trainable = True
    other.convolutions.first.trainable = False
    restore_trainable(other, {"trainable": False, "trainable_parts": {"up": True}}, without=other.convolutions)
    assert [layer.trainable for layer in (other, other.up, other.convolutions)] == [False, True, True]
    assert [other.convolutions.first.trainable, other.convolutions.second.trainable] == [False, True]
