"""Synchronised batch normalisation: two replicas, in processes of their own, see the statistics of the whole batch."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import ConvolutionBlock, SyncBatchNormalization

# What all of them do: normalise 4 images in two halves; print outputs, gradients and moving statistics.
START = """
import json, sys
import numpy as np
import keras
from keras import ops
from kerasvision.layers import SyncBatchNormalization

images = np.random.default_rng(0).normal(1, 2, (4, 3, 2, 5)).astype("float32")
images[:2] += 3  # so that the halves differ
weights = np.random.default_rng(1).normal(size=images.shape).astype("float32")
layer = SyncBatchNormalization()


def report(outputs, gradients):
    statistics = [ops.convert_to_numpy(v).tolist() for v in (layer.moving_mean, layer.moving_variance)]
    print("RESULT", json.dumps([np.asarray(outputs).tolist(), np.asarray(gradients).tolist(), *statistics]))
"""

TENSORFLOW = """
import tensorflow as tf

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@tf.function
def step(images, weights):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        total = tf.reduce_sum(outputs * weights)
    return outputs, tape.gradient(total, images)


with strategy.scope():
    layer.build((None, 3, 2, 5))
halves = [
    strategy.experimental_distribute_values_from_function(
        lambda context: array[2 * context.replica_id_in_sync_group :][:2]
    )
    for array in (tf.constant(images), tf.constant(weights))
]
found = strategy.run(step, args=halves)
report(*(np.concatenate([part.numpy() for part in strategy.experimental_local_results(f)]) for f in found))
"""

JAX = """
import jax

assert jax.device_count() == 2
keras.distribution.set_distribution(keras.distribution.DataParallel())
inputs = keras.Input((3, 2, 5))
model = keras.Model(inputs, layer(inputs))
mesh = jax.sharding.Mesh(jax.devices(), ("batch",))
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
images, weights = (jax.device_put(array, sharding) for array in (images, weights))
trainable, fixed = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))


def total(images):
    outputs, state = model.stateless_call(trainable, fixed, images, training=True)
    return ops.sum(outputs * weights), (outputs, state)


gradients, (outputs, state) = jax.jit(jax.grad(total, has_aux=True))(images)
assert len(outputs.sharding.device_set) == 2
for variable, value in zip(model.non_trainable_variables, state):
    variable.assign(value)
report(outputs, gradients)
"""

TORCH = """
import torch

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
half = torch.from_numpy(images[2 * rank :][:2]).requires_grad_()
outputs = layer(half, training=True)
(gradients,) = torch.autograd.grad((outputs * torch.from_numpy(weights[2 * rank :][:2])).sum(), half)
report(outputs.detach().numpy(), gradients.numpy())
torch.distributed.destroy_process_group()
"""


def _run(script, *arguments, **environment):
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend(), "CUDA_VISIBLE_DEVICES": ""} | environment
    command = [sys.executable, "-c", textwrap.dedent(START + script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _result(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT "))
    return [np.array(part) for part in json.loads(line.removeprefix("RESULT "))]


def _whole_batch():
    """Return outputs, gradients by images, moving mean and variance, in float64 with the formulas of the paper."""
    images = np.random.default_rng(0).normal(1, 2, (4, 3, 2, 5))
    images[:2] += 3
    weights = np.random.default_rng(1).normal(size=images.shape)
    axes = (0, 1, 2)
    mean, variance = images.mean(axes), images.var(axes)
    deviation = np.sqrt(variance + 1e-5)
    outputs = (images - mean) / deviation
    gradients = (weights - weights.mean(axes) - outputs * (weights * outputs).mean(axes)) / deviation
    return outputs, gradients, 0.1 * mean, 0.9 + 0.1 * variance


def test_sync_batch_normalization_sees_the_whole_batch(tmp_path):
    backend = keras.backend.backend()
    if backend == "torch":
        processes = [_run(TORCH, rank, tmp_path) for rank in (0, 1)]
        first, second = map(_result, processes)
        found = [np.concatenate([a, b]) for a, b in zip(first[:2], second[:2], strict=True)] + first[2:]
        for a, b in zip(first[2:], second[2:], strict=True):
            np.testing.assert_array_equal(a, b)
    elif backend == "jax":
        found = _result(_run(JAX, XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    else:
        found = _result(_run(TENSORFLOW, TF_CPP_MIN_LOG_LEVEL="3"))
    for mine, wanted in zip(found, _whole_batch(), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


def test_sync_batch_normalization_alone_is_batch_normalization():
    images = np.random.default_rng(0).normal(1, 2, (4, 3, 2, 5)).astype(np.float32)
    layer = SyncBatchNormalization(epsilon=0.1, momentum=0.7)
    plain = keras.layers.BatchNormalization(epsilon=0.1, momentum=0.7)
    for training in (True, False):
        found, expected = (ops.convert_to_numpy(norm(images, training=training)) for norm in (layer, plain))
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_convolution_block_takes_sync_batch(training):
    images = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    block = ConvolutionBlock(4, 3, normalization="sync_batch")
    plain = ConvolutionBlock(4, 3, normalization="batch")
    block(images), plain(images)
    assert type(block.normalization) is SyncBatchNormalization
    plain.set_weights(block.get_weights())
    found, expected = (ops.convert_to_numpy(layer(images, training=training)) for layer in (block, plain))
    np.testing.assert_allclose(found, expected, atol=1e-5)
