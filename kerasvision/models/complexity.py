"""Counting a model's parameters and multiply-accumulate operations."""

import math

import keras

from kerasvision.layers import BilinearUpsampling


def count_parameters(model) -> int:
    """Return the number of parameters, trainable or not, moving statistics included."""
    return int(sum(math.prod(variable.shape) for variable in model.weights))


def count_macs(model, *, size_hw) -> int:
    """Return the multiply-accumulate operations of one image's forward pass.

    Counts what convolutions, transposed convolutions and dense layers multiply, each use of a shared layer
    on its own; additions of biases, activations, normalisation and resampling are left out, as is usual.
    This is the unit torchvision prints as "GFLOPS"; darknet's BFLOPs are twice as many.

    Args:
        model: A built model that takes images (B, H, W, 3).
        size_hw: (height, width) of the image in pixels.
    """
    total = 0

    def counting(layer, call):
        def counted(inputs, *args, **kwargs):
            nonlocal total
            outputs = call(inputs, *args, **kwargs)
            # Every kernel element is used once for each output position; a transposed convolution's for each input's.
            transposed = isinstance(layer, keras.layers.Conv2DTranspose | BilinearUpsampling)
            positions = math.prod((inputs if transposed else outputs).shape[:-1])  # of one image, or of its boxes
            total += math.prod(layer.kernel.shape) * positions
            return outputs

        return counted

    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "kernel", None) is not None and len(layer.kernel.shape) >= 2
    ]

    def starting_anew(call):
        def started(*args, **kwargs):
            nonlocal total
            total = 0  # some backends trace a symbolic call more than once; the last trace counts
            return call(*args, **kwargs)

        return started

    for layer in layers:
        object.__setattr__(layer, "call", counting(layer, layer.call))
    object.__setattr__(model, "call", starting_anew(model.call))
    try:
        model(keras.KerasTensor((1, *size_hw, 3)))
    finally:
        for layer in [*layers, model]:
            object.__delattr__(layer, "call")
    return total
