"""Building blocks and models for object detection and segmentation on Keras 3."""

from kerasvision.version import __version__

__all__ = ["__version__"]
