"""From the painted canvas of a street scene to the picture: blur, rain, grain and contrast.

Integer arithmetic throughout, so that the picture is the same on every platform.
"""

from __future__ import annotations

import numpy as np

from kerasvision.data.street_objects import Dice

BLOCK = 32  # rows handled at a time where whole-image temporaries would leave the cache


def photograph(pixels: np.ndarray, dice: Dice, *, hard: bool, night: bool, rain: bool) -> np.ndarray:
    """The canvas (H, W, 4) as a camera would give it: (H, W, 3) uint8 RGB; the fourth channel is left out.

    The easy variant is slightly softened and grainy; `hard` adds defocus, motion blur, strong grain and
    low contrast, and `rain` streaks.
    """
    import cv2

    picture = _soften(pixels)
    if hard:
        if rain:
            picture = _rain(picture, dice)
        for _ in range(dice.whole(0, 2)):  # out of focus
            picture = _soften(picture)
        if dice.chance(0.4):
            picture = _smear(picture, dice.pick((1, 2, 2)))
    image = cv2.cvtColor(picture, cv2.COLOR_RGBA2RGB)
    shift = dice.pick((3, 4)) if hard else 5  # amplitude of the grain: 256 >> shift
    contrast = dice.between(0.55, 0.95) if hard else dice.between(0.9, 1.08)
    grain = dice.noise(image.shape[:2]) >> shift  # last: the draws before it must not depend on the size
    cv2.add(image, cv2.merge([grain, grain, grain]), dst=image)
    middle = 60.0 if night else 118.0
    offset = (256 >> shift) / 2 + 1.5
    lut = [int(max(0.0, min(255.0, middle + (v - offset - middle) * contrast))) for v in range(256)]
    return cv2.LUT(image, np.array(lut, np.uint8))


def _rain(picture: np.ndarray, dice: Dice) -> np.ndarray:
    """Adds slanted bright streaks. (H, W, 4) uint8 to the same."""
    import cv2

    height, width = picture.shape[:2]
    slant, light = dice.between(-0.3, 0.3), dice.whole(24, 60)
    streaks = np.zeros((height, width), np.uint8)
    for _ in range(dice.whole(60, 220)):
        x, y = int(dice.unit() * width), int(dice.unit() * height)
        length = int(dice.between(0.03, 0.1) * height)
        cv2.line(streaks, (x, y), (x + int(slant * length), y + length), light)
    return cv2.add(picture, cv2.merge([streaks, streaks, streaks, np.zeros_like(streaks)]))


def _soften(picture: np.ndarray) -> np.ndarray:
    """Blurs with [1 2 1] x [1 2 1] / 16, rounded down; edges repeat. (H, W, 4) uint8 to the same.

    Two channels at a time in one uint32, 16 bits each: exact, and faster than four planes.
    """
    import cv2

    padded = cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    words = padded.view(np.uint32)[..., 0]  # (H + 2, W + 2)
    lanes = np.uint32(0x00FF00FF)
    out = np.empty(picture.shape[:2], np.uint32)
    for row in range(0, len(out), BLOCK):
        block = words[row : row + BLOCK + 2]
        even, odd = _sum_121(block & lanes), _sum_121((block >> np.uint32(8)) & lanes)
        even >>= np.uint32(4)
        even &= lanes
        odd <<= np.uint32(4)
        odd &= ~lanes
        np.bitwise_or(even, odd, out=out[row : row + BLOCK])
    return out.view(np.uint8).reshape(picture.shape)


def _sum_121(words: np.ndarray) -> np.ndarray:
    """Sums of [1 2 1] x [1 2 1] neighbourhoods: (H + 2, W + 2) to (H, W)."""
    words = words[:, :-1] + words[:, 1:]
    words = words[:, :-1] + words[:, 1:]
    words = words[:-1] + words[1:]
    return words[:-1] + words[1:]


def _smear(picture: np.ndarray, passes: int) -> np.ndarray:
    """Motion blur along rows over 2 ** passes pixels. (H, W, 4) uint8 to the same; edges repeat."""
    for step in range(passes):
        moved = np.roll(picture, 1 << step, axis=1)
        moved[:, : 1 << step] = picture[:, :1]
        # (a & b) + ((a ^ b) >> 1) is the mean of two bytes without overflow
        picture = (picture & moved) + ((picture ^ moved) >> 1)
    return picture
