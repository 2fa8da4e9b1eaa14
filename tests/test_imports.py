"""What importing the packages brings along: Keras and nothing heavier."""

import os
import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "torchvision", "cv2", "matplotlib", "albumentations", "PIL", "tensorflow_datasets", "faster_coco_eval"),
    *("pycocotools", "typer", "rich", "safetensors", "scipy", "pandas", "keras_hub", "skimage"),
)
_CODE = """
import sys
import keras
before = set(sys.modules)
import kerasvision
import zoo
assert zoo.list_models()
str(zoo.info("unet"))
print(" ".join(sorted(set(module.partition(".")[0] for module in set(sys.modules) - before))))
print(" ".join(sorted(set(module.partition(".")[0] for module in sys.modules))))
"""


def _imported(backend):
    """Return the top-level modules that our packages import beyond Keras's, and all that are loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", _CODE],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, everything = done.stdout.strip().splitlines()[-2:]
    return set(ours.split()), set(everything.split())


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_import_brings_nothing_heavy_along(backend):
    ours, everything = _imported(backend)
    # Keras itself imports h5py, rich, its backend and, if there, PIL and pandas; what counts is what we add.
    assert not ours & set(HEAVY)
    if backend != "tensorflow":
        assert "tensorflow" not in everything
    if backend != "torch":
        assert "torch" not in ours


def test_import_of_the_models_brings_nothing_heavy_along():
    """Under JAX, also what `zoo.get(..., weights=None)` needs does without TensorFlow."""
    code = """
import sys
import keras
before = set(sys.modules)
import kerasvision.data, kerasvision.inference, kerasvision.metrics, kerasvision.models, kerasvision.training
import kerasvision.visualize, zoo
print(" ".join(sorted(set(module.partition(".")[0] for module in set(sys.modules) - before))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"tensorflow", *HEAVY}


def test_a_card_of_partial_weights_is_shown_without_keras():
    code = "import sys, zoo; str(zoo.info('fcn8s_vgg16')); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "False"
