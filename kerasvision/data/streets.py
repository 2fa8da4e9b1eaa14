"""Streets: synthetic driving scenes with boxes, semantic masks and instance ids, drawn when asked for.

A scene is a pure function of (seed, split, hard, index): no files, no network, the same pixels on every
platform. `street_objects` draws the things; this module decides what stands where, in metres, and sees
to ground, sky, weather and annotation. The same scene can be drawn at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kerasvision.data import street_objects as draw
from kerasvision.data.checks import SplitError
from kerasvision.data.samples import IGNORE, Dataset, Sample, Task
from kerasvision.data.street_objects import Air, Camera, Dice, Pen
from kerasvision.data.street_weather import BLOCK, photograph

CLASSES = ("car", "truck", "bus", "pedestrian", "cyclist", "traffic light", "traffic sign")
"""Box classes; a label is an index into them."""
MASK_CLASSES = ("road", "lane marking", "pavement", "building", "vegetation", "sky", "pole", *CLASSES)
"""Mask classes; a mask value is an index into them (grass counts as vegetation). 255 = ignore."""
PALETTE = np.array(
    [
        (128, 64, 128),
        (255, 255, 255),
        (244, 35, 232),
        (102, 60, 60),
        (107, 142, 35),
        (70, 130, 180),
        (153, 153, 153),
        (0, 0, 180),
        (0, 90, 110),
        (0, 180, 190),
        (220, 20, 60),
        (250, 120, 20),
        (250, 220, 40),
        (120, 220, 60),
    ],
    np.uint8,
)
"""(14, 3) RGB, one colour per mask class."""
SPLITS = {"train": 4000, "validation": 200, "test": 500}
"""The splits and their default numbers of scenes."""

MIN_SIZE = 32  # pixels; below, hardly an object would be large enough to keep
# A thing keeps its box if it shows at least this much; else its pixels become 255 in the mask.
MIN_AREA, MIN_SIDE, MIN_VISIBLE = 24, 4, 0.2

# Codes: what the canvas's fourth channel says about a pixel. Several may share a mask class.
_CODE_CLASS = {
    "sky": 5,
    "field": 4,
    "plaza": 2,
    "road": 0,
    "patch": 0,
    "pave": 2,
    "kerb": 2,
    "white": 1,
    "yellow": 1,
    "building": 3,
    "plant": 4,
    "pole": 6,
    "slab": 2,
}
_CODES = {name: code for code, name in enumerate(_CODE_CLASS)}
_FIRST_OBJECT = 32  # object k has code 32 + k
_MAX_OBJECTS = 255 - _FIRST_OBJECT
_LANE = 3.4  # metres


@dataclass(frozen=True)
class _Mood:
    """How much of everything a scene has; distances in metres, chances 0-1."""

    vehicles_to: float  # farthest vehicle
    people_to: float  # farthest pedestrian, cyclist
    signals_to: float  # farthest light, sign
    gap: float  # least distance between vehicles of one lane
    traffic: float  # chance that a slot of a lane is taken
    crowd: float  # factor on the numbers of people and signals
    parked: float  # chance that a parking slot is taken
    hidden: float  # an object is not placed where more than this of it, or of another, would be hidden


_EASY = _Mood(vehicles_to=36, people_to=19, signals_to=19, gap=7.0, traffic=0.55, crowd=1.3, parked=0.4, hidden=0.45)
_HARD = _Mood(vehicles_to=70, people_to=42, signals_to=38, gap=2.5, traffic=0.6, crowd=2.2, parked=0.6, hidden=0.95)


@dataclass
class _Painted:
    """One object on the canvas: what it is, where it may be seen and how large it was before occlusion."""

    label: int
    code: int
    window: tuple[int, int, int, int]  # row and column range that holds all of it
    area: int  # pixels when it had just been painted
    inside: float  # part of its extent that lies inside the image


class Streets(Dataset):
    """Synthetic driving scenes.

    Args:
        split: "train", "validation" or "test"; no two splits share a scene.
        count: number of scenes; None for 4000, 200 or 500. Scene i does not depend on it.
        size_hw: height and width of the images in pixels, each at least 32.
        hard: night, rain, fog, blur, noise, crowds and small objects, so that architectures can be told
            apart. The easy variant shows fair weather and objects of 10 pixels and more at 256 x 384.
        seed: non-negative integer; another seed gives other scenes.

    Samples have `boxes` tight around the visible pixels, `mask` and `instances`. Things of which less than
    24 pixels, 4 rows or columns, or a fifth is visible have no box; their pixels are 255 in `mask`.

    Raises:
        ValueError: unknown split, size below 32, negative count or seed.

    Example:
        >>> streets = Streets("validation", count=2, size_hw=(128, 192))
        >>> len(streets), streets[0].image.shape, streets.sample_name(1)
        (2, (128, 192, 3), 'streets/validation/00001')
    """

    tasks = frozenset({"detection", "segmentation"})
    classes = CLASSES
    mask_classes = MASK_CLASSES
    palette = PALETTE

    def __init__(
        self,
        split: str = "train",
        *,
        count: int | None = None,
        size_hw: tuple[int, int] = (256, 384),
        hard: bool = False,
        seed: int = 0,
    ):
        if split not in SPLITS:
            raise SplitError(f"`split` {split!r} is unknown; expected one of {', '.join(SPLITS)}")
        if count is None:
            count = SPLITS[split]
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
            raise ValueError(f"`count` {count!r} must be an integer of at least 0, or None for {SPLITS[split]}")
        sides = tuple(size_hw) if isinstance(size_hw, (tuple, list, np.ndarray)) else ()
        if len(sides) != 2 or not all(isinstance(s, (int, np.integer)) for s in sides):
            raise ValueError(f"`size_hw` {size_hw!r} must be two integers, height and width in pixels")
        if min(sides) < MIN_SIZE:
            raise ValueError(f"`size_hw` {size_hw!r} is too small; each side must be at least {MIN_SIZE} pixels")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"`seed` {seed!r} must be an integer of at least 0")
        self.split, self.count, self.hard, self.seed = split, int(count), bool(hard), int(seed)
        self.size_hw = (int(sides[0]), int(sides[1]))
        self.name = "streets:hard" if hard else "streets"

    def __len__(self) -> int:
        return self.count

    def for_task(self, task: Task) -> Dataset:
        """The same scenes for one task alone: samples for detection have no masks."""
        return self._narrowed(task)

    def sample_name(self, index: int) -> str:
        """The scene's id, such as "streets/train/00017"."""
        return f"{self.name}/{self.split}/{self.checked_index(index):05d}"

    def __getitem__(self, index: int) -> Sample:
        """Draws scene `index`, negative counting from the end; IndexError beyond either end."""
        index = self.checked_index(index)
        entropy = (self.seed, list(SPLITS).index(self.split), int(self.hard), index)
        scene = _Scene(Dice(entropy), self.size_hw, hard=self.hard)
        scene.compose()
        boxes, labels, mask, instances = scene.annotate()
        sample = Sample(
            name=self.sample_name(index),
            image=scene.picture(),
            boxes=boxes,
            labels=labels,
            ignored=np.zeros(len(labels), bool),
            mask=mask,
            instances=instances,
        )
        return self._of_tasks(sample)


class _Scene:
    """One scene: `compose` paints the canvas, `annotate` reads it, `picture` adds weather."""

    def __init__(self, dice: Dice, size_hw: tuple[int, int], *, hard: bool):
        self.dice, self.size_hw, self.hard = dice, size_hw, hard
        self.mood = _HARD if hard else _EASY
        self.night = hard and dice.chance(0.5)
        self.fog = hard and not self.night and dice.chance(0.4)
        self.rain = hard and dice.chance(0.5)
        self._plan_road()
        self._plan_light()
        self.pixels = np.zeros((*size_hw, 4), np.uint8)
        self.things: list[tuple[float, int, Callable[[], None]]] = []  # (depth, tie-break, painter)
        self.painted: list[_Painted] = []
        self.taken: list[tuple[float, float, float, float, float]] = []  # depth and extent of objects

    # -- Plan ----------------------------------------------------------------------------------------

    def _plan_road(self) -> None:
        """Chooses lanes, junction, roadside and the camera."""
        dice, (height, width) = self.dice, self.size_hw
        self.lanes_own, self.lanes_oncoming = dice.whole(1, 2), dice.whole(0, 2)
        if self.lanes_own + self.lanes_oncoming == 1:
            self.lanes_oncoming = 1
        parking = [2.3 if dice.chance(0.5) else 0.0 for _ in range(2)]
        self.parking = parking
        self.left = -self.lanes_oncoming * _LANE - parking[0]
        self.right = self.lanes_own * _LANE + parking[1]
        self.pave = [dice.between(2.2, 3.6) for _ in range(2)]
        self.style = [dice.pick(("city", "city", "park", "rural")) for _ in range(2)]
        self.junction = dice.between(15, 26) if dice.chance(0.5) else None
        unit = min(height, width / 1.5)
        self.camera = Camera(
            focal=unit * dice.between(0.95, 1.15),
            horizon=height * dice.between(0.36, 0.47),
            vanishing=width * dice.between(0.36, 0.64),
            height=dice.between(1.5, 1.9),
            x=_LANE * (dice.whole(0, self.lanes_own - 1) + 0.5) + dice.between(-0.5, 0.5),
            bend=dice.between(-0.0035, 0.0035) if dice.chance(0.6) else 0.0,
        )

    def _plan_light(self) -> None:
        """Chooses sky, light and haze."""
        dice = self.dice
        if self.night:
            level = dice.between(0.2, 0.4)
            self.sky = ((10, 12, 28), (38, 36, 52))
            self.air = Air(
                (level * 0.9, level * 0.95, level * 1.2),
                (30, 30, 44),
                dice.between(120, 300),
                night=True,
                beam=dice.between(0.25, 0.6),
            )
            return
        self.sky = dice.pick(
            (
                ((70, 130, 205), (196, 218, 238)),
                ((96, 150, 214), (226, 232, 236)),
                ((150, 162, 176), (208, 212, 216)),
                ((104, 120, 168), (242, 196, 150)),
                ((120, 176, 226), (222, 234, 240)),
            )
        )
        level, warm = dice.between(0.78, 1.1), dice.between(-0.06, 0.08)
        reach = dice.between(14, 40) if self.fog else dice.between(200, 600)
        haze = (196, 200, 204) if self.fog else self.sky[1]
        if self.fog:
            self.sky = ((190, 194, 198), haze)
        self.air = Air((level * (1 + warm), level, level * (1 - warm)), haze, reach)

    # -- Painting ------------------------------------------------------------------------------------

    def compose(self) -> None:
        """Paints everything from back to front."""
        self._paint_ground()
        self._paint_backdrop()
        for side in (0, 1):
            self._place_roadside(side)
        self._place_traffic()
        self._place_people()
        self._place_signals()
        for _, _, painter in sorted(self.things, key=lambda thing: (-thing[0], thing[1])):
            painter()

    def _paint_ground(self) -> None:
        """Paints sky and ground: first as codes, then all colours at once from a (row, code) table."""
        camera, height = self.camera, self.size_hw[0]
        self.codes = np.full(self.size_hw, _CODES["sky"], np.uint8)
        horizon = min(max(int(camera.horizon), 1), height - 1)
        self.codes[horizon:, : max(0, int(camera.vanishing))] = _CODES[self._ground(0)]
        self.codes[horizon:, max(0, int(camera.vanishing)) :] = _CODES[self._ground(1)]
        self.near = camera.focal * camera.height / (height - camera.horizon) * 0.9
        outer_l, outer_r = self.left - self.pave[0], self.right + self.pave[1]
        self._strip(outer_l - 60, outer_l, self.near, 300, self._ground(0))
        self._strip(outer_r, outer_r + 60, self.near, 300, self._ground(1))
        self._strip(outer_l, self.left, self.near, 300, "pave")
        self._strip(self.right, outer_r, self.near, 300, "pave")
        for z in range(4, 23, 2):  # joints between paving slabs
            self._strip(outer_l, self.left, z, z + 0.12, "slab")
            self._strip(self.right, outer_r, z, z + 0.12, "slab")
        self._strip(self.left - 0.25, self.left, self.near, 60, "kerb")
        self._strip(self.right, self.right + 0.25, self.near, 60, "kerb")
        self._strip(self.left, self.right, self.near, 300, "road")
        if self.junction:
            self._strip(-70, 70, self.junction, self.junction + 8, "road")
        for _ in range(self.dice.whole(0, 3)):  # mended asphalt
            x, z = self.dice.between(self.left, self.right - 1.5), self.dice.between(4, 30)
            wide, deep = self.dice.between(0.8, 3), self.dice.between(1, 6)
            self._strip(x, min(x + wide, self.right), z, z + deep, "patch")
        self._mark_lanes()
        self._colour_ground(horizon)

    def _ground(self, side: int) -> str:
        return "plaza" if self.style[side] == "city" else "field"

    def _strip(self, x1: float, x2: float, z1: float, z2: float, name: str) -> None:
        """Paints the ground between two lateral positions and two depths as `name`."""
        import cv2

        camera, z1 = self.camera, max(z1, self.near)
        if z2 <= z1:
            return
        steps = 2 if z2 - z1 < 4 else 4 if z2 - z1 < 12 else 14
        inverse = [1 / z1 + (1 / z2 - 1 / z1) * i / (steps - 1) for i in range(steps)]  # even in rows
        left = [camera.project(x1, 0.0, 1 / v) for v in inverse]
        right = [camera.project(x2, 0.0, 1 / v) for v in reversed(inverse)]
        corners = [(int(max(-20000.0, min(20000.0, x)) * 16), int(y * 16)) for x, y in left + right]
        cv2.fillPoly(self.codes, [np.array(corners, np.int32)], _CODES[name], 8, 4)

    def _mark_lanes(self) -> None:
        """Paints lane lines up to 26 m (beyond, they would be hair-thin), stop lines and zebra crossings."""
        dice, far = self.dice, 26.0
        w = dice.between(0.2, 0.28)  # width of a line in metres
        stop = self.junction - 3.6 if self.junction else far
        centre = dice.pick(("white", "white", "yellow"))
        lines = [(x * _LANE, "white", True) for x in range(1 - self.lanes_oncoming, self.lanes_own) if x]
        if self.lanes_oncoming and self.lanes_own:
            if dice.chance(0.25):
                lines += [(-0.22, centre, False), (0.22, centre, False)]
            else:
                lines.append((0.0, centre, dice.chance(0.6)))
        edge = dice.chance(0.6)
        if edge or self.parking[0]:
            lines.append((self.left + self.parking[0] + 0.2, "white", False))
        if edge or self.parking[1]:
            lines.append((self.right - self.parking[1] - 0.2, "white", False))
        phase = dice.between(0, 6)
        for x, colour, dashed in lines:
            if not dashed:
                self._strip(x - w / 2, x + w / 2, self.near, min(far, stop), colour)
                continue
            z = phase - 6
            while z < min(far, stop) - 1:
                self._strip(x - w / 2, x + w / 2, z, min(z + 3.2, stop), colour)
                z += 6.4
        if self.junction and dice.chance(0.75):
            self._strip(0.3, self.right - self.parking[1], stop - 0.8, stop - 0.2, "white")
            x = self.left + 0.5
            while x < self.right - 0.8:
                self._strip(x, x + 0.6, stop + 0.3, stop + 3.0, "white")
                x += 1.3
        elif dice.chance(0.3):  # zebra crossing
            z, x = dice.between(7, 14), self.left + 0.4
            self._strip(self.left, self.right, z, z + 3.2, "road")
            while x < self.right - 0.5:
                self._strip(x, x + 0.55, z, z + 3.0, "white")
                x += 1.15

    def _colour_ground(self, horizon: int) -> None:
        """Turns codes into colours with light and haze by row, and adds texture."""
        import cv2

        dice, camera, air, (height, _) = self.dice, self.camera, self.air, self.size_hw
        grey = dice.between(74, 108)
        green = dice.pick(((96, 128, 58), (112, 130, 64), (80, 116, 62), (140, 132, 78)))
        tile = dice.pick(((158, 152, 148), (172, 164, 150), (140, 142, 146), (168, 148, 136)))
        paint = np.zeros((32, 3))
        paint[_CODES["road"]] = (grey, grey, grey + 4)
        paint[_CODES["patch"]] = (grey * 0.84, grey * 0.84, grey * 0.86)
        paint[_CODES["field"]] = green
        paint[_CODES["plaza"]] = [c * 0.9 for c in tile]
        paint[_CODES["pave"]] = tile
        paint[_CODES["slab"]] = [c * 0.88 for c in tile]
        paint[_CODES["kerb"]] = [min(c * 1.18, 230) for c in tile]
        paint[_CODES["white"]] = (236, 236, 230)
        paint[_CODES["yellow"]] = (236, 190, 50)
        rows = np.maximum(np.arange(height) + 0.5 - camera.horizon, 0.5)
        z = camera.focal * camera.height / rows
        t = (z / (z + air.reach))[:, None, None]
        beam = (air.beam * 12.0 / (12.0 + z))[:, None, None]
        table = np.zeros((height, 32, 4), np.uint8)
        seen = paint * (np.array(air.light) + beam) * (1 - t) + np.array(air.haze, float) * t
        table[..., :3] = np.minimum(seen, 255)
        up = (np.arange(horizon) / horizon)[:, None]
        top, low = np.array(self.sky[0], float), np.array(self.sky[1], float)
        table[:horizon, _CODES["sky"], :3] = top + (low - top) * up
        table[horizon:, _CODES["sky"], :3] = self.sky[1]
        table[..., 3] = np.arange(32)
        words, values = np.empty(self.size_hw, np.uint32), table.view(np.uint32).ravel()
        for row in range(0, height, BLOCK):  # blocks stay in the cache
            block = self.codes[row : row + BLOCK]
            index = block + (np.arange(row, row + len(block)) * 32)[:, None]
            np.take(values, index, out=words[row : row + BLOCK], mode="clip")
        self.pixels = words.view(np.uint8).reshape(*self.size_hw, 4)
        coarse = cv2.resize(dice.noise((44, 66)) >> 3, self.size_hw[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
        np.right_shift(coarse[:horizon], 2, out=coarse[:horizon])
        cv2.add(self.pixels, cv2.merge([coarse, coarse, coarse, np.zeros_like(coarse)]), dst=self.pixels)

    def _pen(self, x: float, z: float, code: str | int) -> Pen:
        number = _CODES[code] if isinstance(code, str) else code
        return Pen(self.pixels, self.camera, self.air, x=x, z=z, code=number)

    def _paint_backdrop(self) -> None:
        """Paints clouds, and hills, woods or a skyline along the horizon."""
        dice, camera, (height, width) = self.dice, self.camera, self.size_hw
        sky = self._pen(0, 1000.0, "sky")
        cloud = [c + (246 - c) * dice.between(0.35, 0.8) for c in self.sky[1]]
        for _ in range(0 if self.night or self.fog else dice.whole(0, 5)):
            x, y = dice.between(0, width), dice.between(0.02, 0.6) * camera.horizon
            r = dice.between(0.03, 0.08) * height
            for _ in range(4):
                cx, cy = x + dice.between(-2.2, 2.2) * r, y + dice.between(-0.3, 0.3) * r
                puff = [(cx + 1.6 * r * u, cy + 0.6 * r * v) for u, v in draw.CIRCLE]
                sky.pixel_polygon(puff, sky.lamp(cloud))
        skyline = "city" in self.style and dice.chance(0.6)
        pen = self._pen(0, 130.0, "building" if skyline else "plant")
        base, x = camera.horizon + 0.015 * height, -0.02 * width
        green, wall = dice.pick(draw.GREENS), dice.pick(draw.WALLS)
        while x < width:
            wide, tall = dice.between(0.03, 0.09) * width, dice.between(0.02, 0.09) * height
            if skyline:
                value = pen.ink(wall, dice.between(0.75, 1.05))
                roof = base - tall
                pen.pixel_polygon(((x, base), (x + wide, base), (x + wide, roof), (x, roof)), value)
                x += wide
            else:
                value = pen.ink(green, dice.between(0.8, 1.05))
                hill = [(x + wide * u, base - tall * max(v, -0.05)) for u, v in draw.CIRCLE]
                pen.pixel_polygon(hill, value)
                x += wide * 0.7

    # -- Placement -----------------------------------------------------------------------------------

    def _add(self, z: float, painter: Callable[[], None]) -> None:
        self.things.append((z, len(self.things), painter))

    def _place_roadside(self, side: int) -> None:
        """Places buildings, trees, bushes and lamp posts left (0) or right (1) of the road."""
        dice, sign = self.dice, 1 if side else -1
        edge = self.right + self.pave[1] if side else self.left - self.pave[0]
        junction = (self.junction - 3, self.junction + 11) if self.junction else (1e9, 1e9)
        z, city = 2.6, self.style[side] == "city"
        while z < (110 if city else 70):
            depth = dice.between(9, 18) if city else dice.between(3, 8)
            free = z + depth < junction[0] or z > junction[1]
            if city and free and dice.chance(0.85):
                self._building(edge + sign * dice.between(0.2, 2.0), z, sign, depth, dice.between(6, 18))
            elif free and z > 5 and not (self.style[side] == "rural" and dice.chance(0.45)):
                x = edge + sign * dice.between(0.8, 6 if not city else 2)
                self._plant(x, z + depth / 2, dice.between(4, 8) if dice.chance(0.7) else 0.0)
            z += depth + (dice.between(0, 4) if not city else dice.pick((0, 0, 5)))
        if not city:
            for _ in range(3):  # woods or houses behind
                x, z = edge + sign * dice.between(12, 40), dice.between(25, 60)
                if dice.chance(0.3):
                    self._building(x, z, sign, dice.between(8, 12), dice.between(5, 8))
                else:
                    self._plant(x, z, dice.between(5, 10))
        z = dice.between(8, 14)
        while z < 24 and dice.chance(0.7):  # street lamps
            self._post(self.right + 0.6 if side else self.left - 0.6, z, 6.5, -sign * 1.6)
            z += dice.between(10, 14)

    def _building(self, x: float, z: float, sign: int, depth: float, height: float) -> None:
        self._add(
            z + depth * 0.5 if depth < z else z,
            lambda: draw.draw_building(self._pen(x, z, "building"), self.dice, side=sign, depth=depth, height=height),
        )

    def _plant(self, x: float, z: float, height: float) -> None:
        pen = self._pen
        self._add(
            z,
            (lambda: draw.draw_tree(pen(x, z, "plant"), self.dice, height))
            if height
            else (lambda: draw.draw_bush(pen(x, z, "plant"), self.dice)),
        )

    def _post(self, x: float, z: float, height: float, arm: float = 0.0) -> None:
        self._add(z, lambda: draw.draw_pole(self._pen(x, z, "pole"), height, 0.22, arm))

    def _place_traffic(self) -> None:
        """Places vehicles in lanes, parking strips and the junction."""
        dice, mood = self.dice, self.mood
        for lane in range(-self.lanes_oncoming, self.lanes_own):
            x = _LANE * (lane + 0.5)
            z = dice.between(7, 12) if abs(x - self.camera.x) < 2 else dice.between(4.5, 9)
            while z < mood.vehicles_to:
                if dice.chance(mood.traffic):
                    z += self._vehicle(x + dice.between(-0.35, 0.35), z, front=lane < 0)
                z += dice.between(mood.gap, mood.gap + 9)
        for side, x in ((0, self.left + 1.1), (1, self.right - 1.1)):
            z = dice.between(5, 10)
            while self.parking[side] and z < mood.vehicles_to * 0.8:
                if dice.chance(mood.parked):
                    self._vehicle(x, z, front=side == 0, car_only=True)
                z += 6.2
        if self.junction:
            for row, flip in ((2.2, False), (5.8, True)):
                if dice.chance(0.6 if not self.hard else 0.8):
                    # the free columns at this depth: keep most of the vehicle inside the picture
                    z, width = self.junction + row, self.size_hw[1]
                    reach = 0.4 * width * z / self.camera.focal
                    middle = (width / 2 - self.camera.vanishing) * z / self.camera.focal + self.camera.x
                    self._vehicle(middle + dice.between(-reach, reach), z, front=True, across=True, flip=flip)

    def _vehicle(
        self, x: float, z: float, *, front: bool, across: bool = False, flip: bool = False, car_only: bool = False
    ) -> float:
        """Places a vehicle with its near end at (x, z); returns the depth it takes up, in metres."""
        dice = self.dice
        kind = 0 if car_only else dice.pick((0, 0, 0, 0, 1, 1, 2, 2))
        painter = (draw.draw_car, draw.draw_truck, draw.draw_bus)[kind]
        length = (4.7, 8.5, 11.0)[kind]
        half, back = (length / 2, 0.0) if across else (1.3, length)

        def paint(pen: Pen) -> None:
            painter(pen, dice, front=front, across=across, flip=flip)

        placed = self._object(kind, x, z, half, (1.85, 3.6, 3.2)[kind], back, paint, shadow="road")
        return 0.0 if across or not placed else length

    def _object(
        self,
        label: int,
        x: float,
        z: float,
        half: float,
        top: float,
        back: float,
        paint: Callable[[Pen], object],
        *,
        low: float = 0.0,
        shadow: str | None = None,
    ) -> bool:
        """Places a labelled object inside x ± half, low ... top, z ... z + back metres; False if hidden."""
        extent = x1, y1, x2, y2 = self._extent(x, z, half, low, top, back)
        for other_z, a1, b1, a2, b2 in self.taken:
            wide, tall = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            if wide > 0 and tall > 0:
                behind = (a2 - a1) * (b2 - b1) if other_z > z else (x2 - x1) * (y2 - y1)
                if wide * tall > self.mood.hidden * behind:
                    return False
        self.taken.append((z, *extent))
        self._add(z, lambda: self._paint_object(label, x, z, half, back, extent, paint, shadow))
        return True

    def _extent(
        self, x: float, z: float, half: float, low: float, top: float, back: float
    ) -> tuple[float, float, float, float]:
        """Pixel extent (x1, y1, x2, y2) of a box of road metres."""
        corners = [
            self.camera.project(x + dx, y, z + dz)
            for dx in (-half, half)
            for y in (low, top)
            for dz in ((0.0, back) if back else (0.0,))
        ]
        columns, rows = [c[0] for c in corners], [c[1] for c in corners]
        return min(columns), min(rows), max(columns), max(rows)

    def _paint_object(
        self,
        label: int,
        x: float,
        z: float,
        half: float,
        back: float,
        extent: tuple[float, float, float, float],
        paint: Callable[[Pen], object],
        shadow: str | None,
    ) -> None:
        """Paints an object with a code of its own and notes its extent."""
        if len(self.painted) >= _MAX_OBJECTS:
            return
        camera, (height, width) = self.camera, self.size_hw
        x1, y1, x2, y2 = extent
        # Out of sight: an empty window. It is painted all the same, so that every size draws the same dice.
        col_1, row_1 = min(max(int(x1) - 4, 0), width), min(max(int(y1) - 4, 0), height)
        col_2, row_2 = max(min(int(x2) + 5, width), col_1), max(min(int(y2) + 5, height), row_1)
        pen = self._pen(x, z, _CODES[shadow] if shadow else 0)
        if shadow:
            ground = (78, 78, 82) if shadow == "road" else (120, 116, 112)
            reach = min(back, 6.0) / 2 + 0.25
            centre = camera.project(x, 0.0, z + reach - 0.25)
            far = camera.project(x, 0.0, z + 2 * reach - 0.25)
            rx, ry = half * camera.focal / (z + reach), max((pen.foot_y - far[1]) * 0.6, 1.0)
            if back == 0.0:
                rx, ry = half * pen.scale * 1.02, 0.16 * pen.scale * camera.height / 1.7 * 7.0 / (5.0 + z)
                centre = (pen.foot_x, pen.foot_y)
            pen.pixel_polygon([(centre[0] + rx * u, centre[1] + ry * v) for u, v in draw.CIRCLE], pen.ink(ground, 0.5))
        pen.code = _FIRST_OBJECT + len(self.painted)
        paint(pen)
        area = int(np.count_nonzero(self.pixels[row_1:row_2, col_1:col_2, 3] == pen.code))
        inside = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / ((x2 - x1) * (y2 - y1))
        self.painted.append(_Painted(label, pen.code, (row_1, row_2, col_1, col_2), area, inside))

    def _place_people(self) -> None:
        """Places pedestrians on pavements and crossings, cyclists on the road's edges and crossing it."""
        dice, far = self.dice, self.mood.people_to
        for _ in range(int(dice.between(1.2, 4.6) * self.mood.crowd)):
            side, z = dice.whole(0, 1), dice.between(6, far)
            if dice.chance(0.22):
                x, ground = dice.between(self.left, self.right), "road"
            else:
                x = self.right + dice.between(0.5, 2.0) if side else self.left - dice.between(0.5, 2.0)
                ground = "pave"
            for i in range(2 if dice.chance(0.15) else 1):
                self._object(
                    3,
                    x + 0.75 * i,
                    z + 0.1 * i,
                    0.5,
                    2.0,
                    0.0,
                    lambda pen: draw.draw_pedestrian(pen, dice),
                    shadow=ground,
                )
        for _ in range(int(dice.between(0.5, 2.8) * self.mood.crowd)):
            z, across, flip = dice.between(6, far), dice.chance(0.55), dice.chance(0.5)
            if across:
                x = dice.between(self.left - 1, self.right + 1)
            else:
                x = dice.pick((self.left + 0.7, self.right - 0.7, self.right - self.parking[1] - 0.9))
            self._object(
                4,
                x,
                z,
                1.0 if across else 0.5,
                1.9,
                0.0,
                lambda pen, a=across, f=flip: draw.draw_cyclist(pen, dice, across=a, flip=f),
                shadow="road",
            )

    def _place_signals(self) -> None:
        """Places traffic lights (on posts, sometimes on an arm over the road) and traffic signs."""
        dice, far = self.dice, self.mood.signals_to
        lights = dice.whole(1, 3) if self.junction else int(dice.chance(0.4))
        for i in range(int(lights * (1.5 if self.hard else 1))):
            z = min(self.junction - 4.5, far) if self.junction else dice.between(9, far)
            z += dice.between(-1.5, 0)
            right = i != 1
            x, arm = (self.right + 0.5, -dice.between(2.0, 4.0)) if right else (self.left - 0.5, 0.0)
            arm = arm if dice.chance(0.4) else 0.0
            y = dice.between(3.6, 4.4) if arm else dice.between(2.3, 2.9)
            if self._object(
                5,
                x + arm,
                z - 0.02,
                0.3,
                y + 1.4,
                0.0,
                lambda pen, y=y: draw.draw_traffic_light(pen, dice, 0.0, y),
                low=y,
            ):
                self._post(x, z, y + 1.3 if arm else y + 0.2, arm)
            z = dice.between(9, far)
        for _ in range(int(dice.between(0.5, 2.6) * self.mood.crowd)):
            z, y = dice.between(6.5, far), dice.between(2.1, 2.7)
            off = dice.between(0.5, 1.5)
            x = self.right + off if dice.chance(0.65) else self.left - off
            if self._object(
                6, x, z - 0.02, 0.6, y + 0.55, 0.0, lambda pen, y=y: draw.draw_traffic_sign(pen, dice, y), low=y - 0.55
            ):
                self._post(x, z, y)

    # -- Reading the canvas --------------------------------------------------------------------------

    def annotate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Reads boxes (N, 4), labels (N,), mask (H, W) and instances (H, W) off the finished canvas."""
        import cv2

        codes = np.ascontiguousarray(self.pixels[..., 3])
        mask_of = np.full(256, IGNORE, np.uint8)
        mask_of[: len(_CODE_CLASS)] = list(_CODE_CLASS.values())
        instance_of = np.zeros(256, np.uint8)
        boxes, labels = [], []
        for thing in self.painted:
            row_1, row_2, col_1, col_2 = thing.window
            seen = codes[row_1:row_2, col_1:col_2] == thing.code
            area = int(np.count_nonzero(seen))
            if area < MIN_AREA or area < MIN_VISIBLE * thing.area or thing.inside < MIN_VISIBLE:
                continue
            rows, columns = seen.any(axis=1), seen.any(axis=0)
            top, left = int(rows.argmax()), int(columns.argmax())
            bottom, right = len(rows) - int(rows[::-1].argmax()), len(columns) - int(columns[::-1].argmax())
            if bottom - top < MIN_SIDE or right - left < MIN_SIDE:
                continue
            boxes.append((col_1 + left, row_1 + top, col_1 + right, row_1 + bottom))
            labels.append(thing.label)
            mask_of[thing.code] = len(MASK_CLASSES) - len(CLASSES) + thing.label
            instance_of[thing.code] = len(boxes)
        return (
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int32),
            cv2.LUT(codes, mask_of),
            cv2.LUT(codes, instance_of).astype(np.int32),
        )

    def picture(self) -> np.ndarray:
        """The finished (H, W, 3) uint8 RGB image."""
        return photograph(self.pixels, self.dice, hard=self.hard, night=self.night, rain=self.rain)
