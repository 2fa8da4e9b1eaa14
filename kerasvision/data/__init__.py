"""Data sets, their readers, the embedded streets generator, object proposals, augmentation and batch pipelines.

>>> from kerasvision import data
>>> train = data.load("streets", split="train")            # or "voc:DIR", "coco:DIR", "tfds:NAME"
>>> train.classes[:3]
('car', 'truck', 'bus')

Importing this package imports numpy only; tensorflow, keras, cv2, skimage, PIL and albumentations come in when a
function that needs them is called.
"""

from kerasvision.data.augmentation import Augmentation
from kerasvision.data.checks import DataError, Problem, SplitError, check
from kerasvision.data.class_weights import PixelCounts, class_weights, count_pixels
from kerasvision.data.loading import load
from kerasvision.data.palettes import palette_of
from kerasvision.data.pipelines import pipeline
from kerasvision.data.proposals import CachedProposals
from kerasvision.data.samples import IGNORE, Dataset, Sample
from kerasvision.data.selective_search import SelectiveSearch
from kerasvision.data.sliding_windows import SlidingWindows

__all__ = [
    "IGNORE",
    "Augmentation",
    "CachedProposals",
    "DataError",
    "Dataset",
    "PixelCounts",
    "Problem",
    "Sample",
    "SelectiveSearch",
    "SlidingWindows",
    "SplitError",
    "check",
    "class_weights",
    "count_pixels",
    "load",
    "palette_of",
    "pipeline",
]
