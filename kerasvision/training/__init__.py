"""Training runs: `train`, its callbacks and checkpoints."""

from kerasvision.models.non_finite import NonFiniteLossError, StopOnNonFiniteLoss
from kerasvision.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from kerasvision.training.runs import check_classes, load_model, train

__all__ = [
    "CheckpointError",
    "NonFiniteLossError",
    "StopOnNonFiniteLoss",
    "check_classes",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
    "train",
]
