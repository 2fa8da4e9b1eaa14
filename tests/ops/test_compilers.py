"""Calls out of a graph to the host, where the host has no thread to spare."""

import os
import subprocess
import sys

import keras
import pytest

from kerasvision.ops.compilers import can_call_host

# Arrays of more than about 200 kB: smaller ones are handed over at once.
_PROGRAM = """
import os
{setup}
import jax, numpy as np
from kerasvision.losses import LovaszSoftmaxLoss
from kerasvision.ops.compilers import can_call_host
from kerasvision.ops.hungarian import assign

assert not can_call_host()
rng = np.random.default_rng(0)
cost = rng.uniform(size=(4, 128, 128)).astype(np.float32)
for _ in range(4):
    rows = np.asarray(jax.jit(assign)(cost))
assert (np.sort(rows) == np.arange(128)).all()
logits = rng.normal(size=(2, 128, 128, 3)).astype(np.float32)
masks = rng.integers(0, 3, (2, 128, 128))
print("loss", float(jax.jit(LovaszSoftmaxLoss())(masks, logits)))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others call Python on the thread they have")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are told apart on Linux only")
@pytest.mark.parametrize(
    "setup",
    [
        "os.sched_setaffinity(0, {0})",
        "os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}'",
    ],
    ids=["one core", "as many devices as cores"],
)
def test_programs_end_where_jax_has_no_thread_to_spare(setup):
    """A callback there waits for ever: the subprocess would be killed."""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(setup=setup)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("loss ")


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="depends on the cores there")
def test_host_can_be_called_eagerly():
    assert can_call_host()
