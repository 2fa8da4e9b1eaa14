"""Parity tests compare with PyTorch references, under Keras's TensorFlow backend."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Loaded after TensorFlow, PyTorch's compiler crashes the process; loaded first, both live in peace.
import torchvision  # noqa: F401
