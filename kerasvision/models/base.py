"""The bases of all models, each in a file of its own: `VisionModel`, and for the two tasks `Detector`, `Segmenter`."""

from kerasvision.models.detector import Detector
from kerasvision.models.segmenter import Segmenter
from kerasvision.models.vision_model import VisionModel, split_inputs, valid_sizes_hw

__all__ = ["Detector", "Segmenter", "VisionModel", "split_inputs", "valid_sizes_hw"]
