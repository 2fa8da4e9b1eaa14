"""Compare a layer with a PyTorch module that has the same weights: values, gradients by inputs and by parameters."""

import inspect
from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
import torch

from tests.parity.pieces.compare import check

Pairs = Iterable[tuple[keras.Variable, torch.Tensor]]


def convolution_pairs(block, convolution: torch.nn.Module, norm: torch.nn.Module | None = None) -> Pairs:
    """Pair the weights of a `ConvolutionBlock` with those of a torch convolution and batch normalisation."""
    yield block.kernel, convolution.weight
    if block.bias is not None:
        yield block.bias, convolution.bias
    if norm is not None:
        yield from norm_pairs(block.normalization, norm)


def norm_pairs(layer, norm: torch.nn.Module) -> Pairs:
    """Pair the weights of a normalisation layer with those of torch's; group normalisation has no statistics."""
    yield layer.gamma, norm.weight
    yield layer.beta, norm.bias
    if getattr(norm, "running_mean", None) is not None:
        yield layer.moving_mean, norm.running_mean
        yield layer.moving_variance, norm.running_var


def check_module(
    piece: str,
    reference: str,
    layer: keras.layers.Layer,
    module: torch.nn.Module,
    pairs: Pairs,
    features: Sequence[np.ndarray] | np.ndarray,
    *,
    training: bool = False,
    theirs: Callable | None = None,
    **tolerances,
) -> None:
    """Give both the same weights, and assert equal outputs and gradients.

    Args:
        piece: As in `check`.
        reference: As in `check`.
        layer: Ours, built.
        module: The reference. Its convolutions keep their values, all vectors get new ones between 0.5 and 1.5.
        pairs: (our variable, its tensor): all variables of `layer` and all parameters of `module`.
        features: (B, H, W, C), or a list of them if the layer takes a list.
        training: Mode of both.
        theirs: Makes the list of outputs (B, C, H, W) of `module` and channels-first features; default: calls it.
        tolerances: As in `check`.
    """
    listed = isinstance(features, list | tuple)
    features = list(features) if listed else [features]
    pairs, count = list(pairs), len(features)
    _vary_vectors(module)
    _assert_complete(layer, module, pairs)
    for variable, tensor in pairs:
        variable.assign(_as_ours(tensor).detach().numpy())
    learned = [(variable, tensor) for variable, tensor in pairs if tensor.requires_grad]
    names = {id(tensor): name for name, tensor in module.named_parameters()}
    module.double().train(training)
    mode = {"training": training} if "training" in inspect.signature(layer.call).parameters else {}

    def ours(*tensors):
        values = {id(variable): value for (variable, _), value in zip(learned, tensors[count:], strict=True)}
        inputs = list(tensors[:count]) if listed else tensors[0]
        outputs, _ = layer.stateless_call(
            [values[id(variable)] for variable in layer.trainable_variables],
            [variable.value for variable in layer.non_trainable_variables],
            inputs,
            **mode,
        )
        return _with_signs(outputs, keras.ops.convert_to_tensor)

    if keras.backend.backend() == "jax":
        import jax

        ours = jax.jit(ours)  # one compilation instead of one for each operation

    def reference_outputs(*tensors):
        # In double precision, so that what differs is our rounding alone.
        tensors = [tensor.double() for tensor in tensors]
        inputs = [tensor.permute(0, 3, 1, 2) for tensor in tensors[:count]]
        inputs = inputs if listed else inputs[0]
        values = {names[id(t)]: _as_theirs(value, t) for (_, t), value in zip(learned, tensors[count:], strict=True)}
        call = _Call(module, theirs or (lambda module, inputs: module(inputs)))
        outputs = torch.func.functional_call(call, {f"module.{k}": v for k, v in values.items()}, (inputs,))
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        outputs = [(output.permute(0, 2, 3, 1) if output.ndim == 4 else output).float() for output in outputs]
        return _with_signs(outputs, torch.from_numpy)

    arrays = [*features, *(_as_ours(tensor).detach().numpy() for _, tensor in learned)]
    check(piece, reference, ours, reference_outputs, arrays, **tolerances)


def _with_signs(outputs, to_tensor):
    """Turn the sign of half of all outputs, at random.

    `check` differentiates the sum with positive weights. Normalisation lets no gradient of a plain sum through: what
    is left would be the rounding of large terms that cancel.
    """
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    rng = np.random.default_rng(0)
    return [output * to_tensor(rng.choice([-1, 1], tuple(output.shape)).astype(np.float32)) for output in outputs]


class _Call(torch.nn.Module):
    """A module together with the way to call it."""

    def __init__(self, module, function):
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, inputs):
        return self.function(self.module, inputs)


def _vary_vectors(module):
    generator = torch.Generator().manual_seed(1)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 1:
            tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))


def _assert_complete(layer, module, pairs):
    assert {id(variable) for variable, _ in pairs} == {id(variable) for variable in layer.weights}
    assert len(pairs) == len(layer.weights)
    assert {id(parameter) for parameter in module.parameters()} <= {id(tensor) for _, tensor in pairs}


def _as_ours(tensor):
    """Lay a kernel out as Keras does: (k, k, C, filters), or (k, k, C, 1) of a depthwise one."""
    if tensor.ndim != 4:
        return tensor
    depthwise = tensor.shape[1] == 1 and tensor.shape[0] > 1 and tensor.shape[2] > 1
    return tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(2, 3, 1, 0)


def _as_theirs(value, tensor):
    """Lay a kernel out as `tensor`."""
    if value.ndim != 4:
        return value
    for axes in ((3, 2, 0, 1), (2, 3, 0, 1)):  # a symmetric kernel fits both: it is a dense one
        if value.permute(axes).shape == tensor.shape and torch.equal(value.permute(axes), tensor):
            return value.permute(axes)
    raise AssertionError(f"{tuple(value.shape)} is no layout of {tuple(tensor.shape)}")
