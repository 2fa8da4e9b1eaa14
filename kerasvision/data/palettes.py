"""The colours that data sets draw their classes in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def palette_of(class_names: Sequence[str] | None) -> np.ndarray | None:
    """Returns the palette of the data set whose mask classes these are: VOC's, Cityscapes', streets'.

    Args:
        class_names: names of mask classes in the order of their ids; case and underscores around them do not count.

    Returns:
        (C, 3) uint8 RGB, or (256, 3) where there is a colour for 255; None for names of no data set with colours.
    """
    from kerasvision.data.streets import MASK_CLASSES, PALETTE
    from kerasvision.data.tfds_builders import MASK_CODINGS
    from kerasvision.data.voc import VOC_CLASSES, voc_palette

    known = [(("background", *VOC_CLASSES), voc_palette()), (MASK_CLASSES, PALETTE)]
    known += [(coding.classes, coding.palette) for coding in MASK_CODINGS.values() if coding.palette is not None]
    wanted = _plain(class_names or ())
    return next((palette for names, palette in known if _plain(names) == wanted), None)


def _plain(names: Sequence[str]) -> list[str]:
    return [name.strip("_").casefold() for name in names]
