"""Sprites of the streets data set: vehicles, people, lights, signs, trees and buildings.

All drawing goes through a `Pen`: it projects metres to pixels, applies light and haze, and fills convex
polygons on a (H, W, 4) canvas whose fourth channel is the *code* of whatever owns the pixel. One call
so paints picture and annotation together, and the two cannot disagree.

Coordinates are road metres (X right, Y up from the ground, z away from the camera). Only + - * / on
Python floats and OpenCV's integer polygon filling are used: the same pixels on every platform.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Colour = Sequence[float]  # RGB, 0-255
Point = tuple[float, float]

# Unit circle as a 16-gon, in 1/1024: literals, because sin and cos differ between C libraries.
_OCTANT = ((1024, 0), (946, 392), (724, 724), (392, 946))
_QUARTER = [(x / 1024, y / 1024) for x, y in _OCTANT]
CIRCLE: tuple[Point, ...] = (
    *_QUARTER,
    *((-y, x) for x, y in _QUARTER),
    *((-x, -y) for x, y in _QUARTER),
    *((y, -x) for x, y in _QUARTER),
)

OCTAGON = CIRCLE[::2]  # for circles of a few pixels

CAR_COLOURS = (
    (200, 30, 35),
    (30, 70, 170),
    (235, 235, 238),
    (40, 42, 48),
    (150, 155, 160),
    (95, 100, 108),
    (20, 110, 70),
    (225, 150, 30),
    (120, 30, 45),
    (70, 140, 200),
    (190, 175, 140),
)
TRUCK_COLOURS = ((225, 225, 222), (180, 185, 190), (60, 90, 150), (165, 60, 40), (90, 110, 80), (205, 190, 150))
HAIR = ((40, 30, 25), (90, 60, 35), (190, 160, 90), (120, 120, 120))
BUS_COLOURS = ((235, 180, 20), (190, 25, 35), (35, 120, 190), (60, 150, 70), (240, 120, 30))
CLOTHES = (
    (190, 40, 50),
    (40, 60, 130),
    (50, 50, 55),
    (225, 220, 210),
    (40, 120, 80),
    (220, 180, 50),
    (130, 60, 130),
    (100, 80, 60),
    (90, 130, 180),
    (235, 110, 60),
)
SKINS = ((238, 200, 170), (205, 155, 115), (150, 100, 70), (95, 62, 45))
GREENS = ((62, 118, 48), (48, 98, 44), (84, 132, 52), (40, 84, 50), (104, 128, 50), (128, 112, 44))
WALLS = (
    (178, 98, 76),
    (200, 182, 150),
    (150, 146, 142),
    (214, 206, 192),
    (124, 84, 72),
    (170, 150, 128),
    (118, 124, 136),
    (196, 150, 110),
)
GLASS = (70, 86, 104)
RUBBER = (26, 26, 28)


class Dice:
    """Random numbers of one scene, from PCG64's raw stream (numpy guarantees that one never changes)."""

    def __init__(self, entropy: Sequence[int]):
        """`entropy`: non-negative integers that name the scene; equal ones give equal draws."""
        self._bits = np.random.PCG64(np.random.SeedSequence(list(entropy)))
        self._pool: list[float] = []

    def unit(self) -> float:
        """A number in [0, 1), 53 random bits."""
        if not self._pool:
            raw = self._bits.random_raw(1024) >> np.uint64(11)
            self._pool = (raw.astype(np.float64) * (1.0 / (1 << 53))).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer in low ... high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def pick(self, choices: Sequence):
        """One of `choices`, each as likely."""
        return choices[int(self.unit() * len(choices))]

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform random bytes: uint8 array of `shape`."""
        count = 1
        for side in shape:
            count *= side
        raw = self._bits.random_raw((count + 7) // 8).astype("<u8")
        return raw.view(np.uint8)[:count].reshape(shape)


@dataclass(frozen=True)
class Camera:
    """Pinhole camera over a road that bends as k z²; all pixels are of the output image."""

    focal: float  # pixels
    horizon: float  # row of the vanishing line
    vanishing: float  # column of the vanishing point of a straight road
    x: float  # lateral position of the camera in road metres
    height: float  # metres above the road
    bend: float  # k, 1/metres

    def project(self, x: float, y: float, z: float) -> Point:
        """Pixel (column, row) of road point (x, y, z), z > 0."""
        scale = self.focal / z
        return (self.vanishing + scale * (x - self.x + self.bend * z * z), self.horizon + scale * (self.height - y))


@dataclass(frozen=True)
class Air:
    """Light and haze: seen colour = colour · light · (1 - t) + haze · t with t = z / (z + reach)."""

    light: Colour  # per channel, 1 = as painted
    haze: Colour  # RGB 0-255
    reach: float  # metres at which half of the colour is haze
    night: bool = False
    beam: float = 0.0  # extra light from the own headlights, halved at 12 m (night only)


class Pen:
    """Paints for one thing at depth `z`, with one code. Colours are RGB 0-255 before light and haze."""

    def __init__(self, pixels: np.ndarray, camera: Camera, air: Air, *, x: float, z: float, code: int):
        import cv2

        self._fill, self._fill_many = cv2.fillConvexPoly, cv2.fillPoly
        self.pixels, self.camera, self.air, self.code = pixels, camera, air, code
        self.x, self.z = x, z
        self.scale = camera.focal / z
        self.foot_x, self.foot_y = camera.project(x, 0.0, z)
        t = z / (z + air.reach)
        beam = air.beam * 12.0 / (12.0 + z)
        self._gain = [(light + beam) * (1.0 - t) for light in air.light]
        self._offset = [haze * t for haze in air.haze]

    def ink(self, colour: Colour, shade: float = 1.0) -> tuple[int, int, int, int]:
        """The canvas value of `colour` scaled by `shade`, seen through the air."""
        (r, g, b), gain, offset = colour, self._gain, self._offset
        r, g, b = (
            int(r * shade * gain[0] + offset[0]),
            int(g * shade * gain[1] + offset[1]),
            int(b * shade * gain[2] + offset[2]),
        )
        return (r if r < 255 else 255, g if g < 255 else 255, b if b < 255 else 255, self.code)

    def lamp(self, colour: Colour) -> tuple[int, int, int, int]:
        """The canvas value of something that shines by itself."""
        return (int(colour[0]), int(colour[1]), int(colour[2]), self.code)

    def pixel_polygon(self, points: Sequence[Point], value: tuple[int, int, int, int]) -> None:
        """Fills a convex polygon given in pixels."""
        # array("i") takes a quarter of the time of np.array(list of pairs)
        flat = array("i", [int(v * 16) for point in points for v in point])
        self._fill(self.pixels, np.frombuffer(flat, np.int32).reshape(-1, 2), value, 8, 4)

    def solid(self, points: Sequence[tuple[float, float, float]], value: tuple[int, int, int, int]) -> None:
        """Fills the convex polygon through road points (x, y, z)."""
        project = self.camera.project
        self.pixel_polygon([project(x, y, z) for x, y, z in points], value)

    def flat(self, points: Sequence[Point], value: tuple[int, int, int, int]) -> None:
        """Fills a convex polygon of an upright figure: metres right of and above its foot point."""
        s, x0, y0 = self.scale * 16, self.foot_x * 16, self.foot_y * 16
        flat = array("i", [v for x, y in points for v in (int(x0 + s * x), int(y0 - s * y))])
        self._fill(self.pixels, np.frombuffer(flat, np.int32).reshape(-1, 2), value, 8, 4)

    def box(self, x1: float, y1: float, x2: float, y2: float, value: tuple[int, int, int, int]) -> None:
        """Fills an upright rectangle in figure metres."""
        self.flat(((x1, y1), (x2, y1), (x2, y2), (x1, y2)), value)

    def oval(self, x: float, y: float, rx: float, ry: float, value: tuple[int, int, int, int]) -> None:
        """Fills an ellipse in figure metres."""
        points = CIRCLE if self.scale * (rx + ry) > 8 else OCTAGON
        self.flat([(x + rx * u, y + ry * v) for u, v in points], value)

    def limb(self, a: Point, b: Point, width: float, value: tuple[int, int, int, int]) -> None:
        """Fills a bar from `a` to `b` whose ends are level (`width` metres across)."""
        w = width / 2
        if abs(b[1] - a[1]) >= abs(b[0] - a[0]):
            self.flat(((a[0] - w, a[1]), (a[0] + w, a[1]), (b[0] + w, b[1]), (b[0] - w, b[1])), value)
        else:
            self.flat(((a[0], a[1] - w), (b[0], b[1] - w), (b[0], b[1] + w), (a[0], a[1] + w)), value)

    def many(self, polygons: np.ndarray, value: tuple[int, int, int, int]) -> None:
        """Fills (P, K, 2) polygons, in pixels, that do not overlap."""
        corners = np.ascontiguousarray((polygons * 16).astype(np.int32))
        self._fill_many(self.pixels, list(corners), value, 8, 4)


class Vehicle:
    """Frame of a vehicle that drives along the road ("along") or crosses it ("across").

    Args:
        pen: at the near end's depth and lateral centre (along) or at the left end (across).
        width, length: metres.
        across: True shows the flank only.
        flip: with `across`, the vehicle's v axis runs right to left.
    """

    def __init__(self, pen: Pen, width: float, length: float, *, across: bool, flip: bool):
        self.pen, self.half, self.length = pen, width / 2, length
        self.across, self.flip = across, flip
        project = pen.camera.project
        near, far = project(pen.x - self.half, 0, pen.z), project(pen.x - self.half, 0, pen.z + length)
        self.side = -1.0 if far[0] < near[0] else 1.0  # which flank the camera sees

    def at(self, v: float, y: float, inset: float = 0.0) -> Point:
        """Pixel of the flank point v metres from the near end and y above the ground."""
        pen = self.pen
        if self.across:
            x = pen.x + (self.length - v if self.flip else v) - self.length / 2
            return pen.camera.project(x, y, pen.z)
        return pen.camera.project(pen.x + self.side * (self.half - inset), y, pen.z + v)

    def panel(self, points: Sequence[tuple[float, ...]], value: tuple[int, int, int, int]) -> None:
        """Fills a polygon on the flank; points are (v, y) or (v, y, inset)."""
        self.pen.pixel_polygon([self.at(*point) for point in points], value)

    def band(self, v1: float, v2: float, y1: float, y2: float, value: tuple[int, int, int, int]) -> None:
        """Fills a rectangle on the flank."""
        self.panel(((v1, y1), (v2, y1), (v2, y2), (v1, y2)), value)

    def wheels(self, places: Sequence[float], radius: float) -> None:
        """Draws tyres and hubs on the flank, and the tyres seen under the near end."""
        pen = self.pen
        tyre, hub, r = pen.ink(RUBBER), pen.ink((150, 150, 155)), radius * 0.5
        points = CIRCLE if pen.scale * radius > 5 else OCTAGON
        for v in places:
            self.panel([(v + radius * a, radius + radius * b) for a, b in points], tyre)
            self.panel([(v + r * a, radius + r * b) for a, b in OCTAGON], hub)
        if not self.across:
            outer, inner = self.half * 0.94, self.half * 0.66
            pen.box(-outer, 0, -inner, 0.5, tyre)
            pen.box(inner, 0, outer, 0.5, tyre)

    def face(self, x1: float, x2: float, y1: float, y2: float, value: tuple[int, int, int, int]) -> None:
        """Fills a rectangle on the near end; x in half widths, -1 ... 1."""
        self.pen.box(x1 * self.half, y1, x2 * self.half, y2, value)

    def deck(self, corners: Sequence[tuple[float, float, float]], value: tuple[int, int, int, int]) -> None:
        """Fills a sloped quad seen over the near end from ((half widths, y, v) low, high) pairs, mirrored."""
        (w1, y1, v1), (w2, y2, v2) = corners
        x, z, h = self.pen.x, self.pen.z, self.half
        self.pen.solid(
            ((x - w1 * h, y1, z + v1), (x + w1 * h, y1, z + v1), (x + w2 * h, y2, z + v2), (x - w2 * h, y2, z + v2)),
            value,
        )

    def lights(self, front: bool, low: float, high: float, inner: float = 0.62) -> None:
        """Draws head or tail lights on the near end; at night they shine."""
        pen = self.pen
        if front:
            value = pen.lamp((255, 250, 220)) if pen.air.night else pen.ink((250, 248, 225))
        else:
            value = pen.lamp((235, 40, 30)) if pen.air.night else pen.ink((215, 25, 25), 1.1)
        self.face(-0.95, -inner, low, high, value)
        self.face(inner, 0.95, low, high, value)


def draw_car(pen: Pen, dice: Dice, *, front: bool, across: bool, flip: bool) -> None:
    """Draws a saloon, hatchback, estate or off-roader.

    `front`: the near end is the front (along); `across`, `flip`: see Vehicle.
    """
    paint = [c + dice.between(-14, 14) if c < 240 else c for c in dice.pick(CAR_COLOURS)]
    paint = [c if c > 12 else 12 for c in paint]
    kind = dice.pick("ssheo")  # saloon twice as often
    height = {"s": 1.42, "h": 1.5, "e": 1.48, "o": 1.75}[kind] * dice.between(0.97, 1.05)
    length = {"s": 4.5, "h": 3.8, "e": 4.6, "o": 4.5}[kind] * dice.between(0.95, 1.05)
    belt = height * 0.62
    boot = 0.75 if kind == "s" else 0.12
    rear, roof_r, roof_f, screen = boot, boot + 0.5, length - 2.0, length - 1.25
    if front:
        rear, roof_r, roof_f, screen = length - screen, length - roof_f, length - roof_r, length - rear
    car = Vehicle(pen, dice.between(1.72, 1.9), length, across=across, flip=flip)
    body, dark, pale = pen.ink(paint), pen.ink(paint, 0.72), pen.ink([c * 0.85 + 36 for c in paint])
    glass, trim = pen.ink(GLASS, dice.between(0.5, 1.0)), pen.ink((34, 34, 38))
    flank = body if across else dark
    car.panel(((0, 0.3), (length, 0.3), (length, belt * 0.93), (length * 0.5, belt), (0, belt)), flank)
    car.panel(((rear, belt), (screen, belt), (roof_f, height, 0.16), (roof_r, height, 0.16)), flank)
    low, high = belt + 0.03, height - 0.1
    car.panel(
        ((rear + 0.25, low), (screen - 0.25, low), (roof_f - 0.08, high, 0.14), (roof_r + 0.12, high, 0.14)), glass
    )
    middle = (rear + screen) / 2
    car.band(middle - 0.06, middle + 0.06, low, high, flank)
    car.band(0, length, 0.3, 0.42, trim)
    if across:
        head, tail = (0.0, length) if front else (length, 0.0)
        car.band(
            abs(head - 0.3), head, 0.62, 0.8, pen.lamp((255, 250, 220)) if pen.air.night else pen.ink((250, 248, 225))
        )
        car.band(abs(tail - 0.22), tail, 0.66, 0.84, pen.ink((205, 25, 25)))
    car.wheels((0.8, length - 0.85), 0.34)
    if across:
        return
    car.deck(((0.86, height, roof_r), (0.84, height, roof_f)), pale)
    car.deck(((0.98, belt, rear), (0.84, height, roof_r)), body)
    car.deck(((0.88, belt + 0.05, rear), (0.76, height - 0.08, roof_r)), glass)
    car.deck(((1.0, belt * 0.95, 0.0), (0.98, belt, rear)), pale)
    car.face(-1, 1, 0.28, belt * 0.95, body)
    car.face(-1, 1, 0.28, 0.44, trim)
    if front:
        car.face(-0.5, 0.5, 0.5, 0.68, trim)
    car.face(-0.26, 0.26, 0.46, 0.58, pen.ink((235, 232, 215)))
    car.lights(front, belt * 0.64, belt * 0.86)


def draw_truck(pen: Pen, dice: Dice, *, front: bool, across: bool, flip: bool) -> None:
    """Draws a lorry: a coloured cab before a higher box body."""
    cargo, cab = dice.pick(TRUCK_COLOURS), dice.pick(CAR_COLOURS)
    length, height, cab_length = dice.between(6.0, 8.5), dice.between(3.0, 3.6), dice.between(1.7, 2.1)
    roof = height * dice.between(0.72, 0.82)
    truck = Vehicle(pen, dice.between(2.35, 2.55), length, across=across, flip=flip)
    cab_1, cab_2 = (0.0, cab_length) if front else (length - cab_length, length)
    box_1, box_2 = (cab_length + 0.25, length) if front else (0.0, length - cab_length - 0.25)
    side = 1.0 if across else 0.74
    trim, seam = pen.ink((44, 44, 48)), pen.ink(cargo, side * 0.8)
    truck.band(0.1, length - 0.1, 0.5, 0.95, trim)
    truck.wheels((1.0, length - 1.1, length - 2.2) if front else (1.1, 2.2, length - 1.0), 0.5)
    truck.band(cab_1, cab_2, 0.6, roof, pen.ink(cab, side))
    truck.band(cab_1 + 0.3, cab_2 - 0.5 * (cab_2 - cab_1), roof * 0.58, roof * 0.9, pen.ink(GLASS))
    truck.band(box_1, box_2, 0.95, height, pen.ink(cargo, side))
    for i in range(1, 4):
        v = box_1 + (box_2 - box_1) * i / 4
        truck.band(v - 0.05, v + 0.05, 0.95, height, seam)
    if dice.chance(0.5):  # a stripe in the firm's colour
        truck.band(box_1, box_2, height * 0.5, height * 0.62, pen.ink(cab, side))
    if across:
        return
    if front:
        truck.deck(((1, 0.95, box_1), (1, height, box_1)), pen.ink(cargo, 0.92))
        truck.face(-0.98, 0.98, 0.45, roof, pen.ink(cab))
        truck.face(-0.86, 0.86, roof * 0.58, roof * 0.92, pen.ink(GLASS))
        truck.face(-0.6, 0.6, 0.75, roof * 0.5, trim)
        truck.face(-1, 1, 0.42, 0.62, trim)
        truck.lights(True, 0.7, 1.0, 0.68)
    else:
        truck.face(-1, 1, 0.9, height, pen.ink(cargo, 0.92))
        truck.face(-0.94, -0.03, 1.0, height - 0.12, pen.ink(cargo))
        truck.face(0.03, 0.94, 1.0, height - 0.12, pen.ink(cargo))
        truck.face(-0.2, -0.12, 1.1, height - 0.3, trim)
        truck.face(0.12, 0.2, 1.1, height - 0.3, trim)
        truck.face(-1, 1, 0.5, 0.92, trim)
        truck.lights(False, 0.62, 0.86, 0.72)


def draw_bus(pen: Pen, dice: Dice, *, front: bool, across: bool, flip: bool) -> None:
    """Draws a city bus: one long body with a row of windows."""
    paint = dice.pick(BUS_COLOURS)
    stripe = dice.pick(((240, 240, 235), (50, 50, 60), (250, 220, 60)))
    length, height = dice.between(8.0, 11.0), dice.between(2.95, 3.2)
    bus = Vehicle(pen, 2.5, length, across=across, flip=flip)
    side = 1.0 if across else 0.76
    lit = (240, 225, 160)
    glass = pen.lamp(lit) if pen.air.night else pen.ink(GLASS)
    bus.band(0, length, 0.35, height, pen.ink(paint, side))
    bus.band(0, length, 0.55, 0.85, pen.ink(stripe, side))
    panes = 6
    for i in range(panes):
        v = 0.3 + (length - 0.6) * i / panes
        door = i in (0 if front else panes - 1, panes // 2) and bus.side > 0
        bus.band(v + 0.1, v + (length - 0.6) / panes - 0.1, 0.45 if door else height * 0.46, height * 0.84, glass)
    bus.wheels((1.9, length - 2.2), 0.48)
    if across:
        return
    bus.face(-1, 1, 0.32, height, pen.ink(paint))
    bus.face(-1, 1, 0.32, 0.5, pen.ink((40, 40, 44)))
    bus.face(-1, 1, 0.55, 0.85, pen.ink(stripe))
    sign = pen.lamp((250, 190, 50)) if pen.air.night else pen.ink((245, 190, 60))
    if front:
        bus.face(-0.9, 0.9, height * 0.4, height * 0.83, glass)
        bus.face(-0.03, 0.03, height * 0.4, height * 0.83, pen.ink(paint))
        bus.face(-0.8, 0.8, height * 0.86, height * 0.96, pen.ink((25, 25, 28)))
        bus.face(-0.55, 0.4, height * 0.88, height * 0.94, sign)
    else:
        bus.face(-0.8, 0.8, height * 0.55, height * 0.85, glass)
        bus.face(-0.55, 0.55, 0.95, height * 0.45, pen.ink(paint, 0.7))
        bus.face(0.3, 0.75, height * 0.88, height * 0.96, sign)
    bus.lights(front, 0.62, 0.88, 0.7)


def _draw_rider(pen: Pen, dice: Dice, hip: Point, shoulder: Point, *, helmet: bool) -> None:
    """Draws torso, neck and head between two points in figure metres."""
    coat, skin = dice.pick(CLOTHES), dice.pick(SKINS)
    pen.limb(hip, shoulder, 0.42, pen.ink(coat))
    head = (shoulder[0] + (shoulder[0] - hip[0]) * 0.25, shoulder[1] + 0.19)
    pen.oval(head[0], head[1] + 0.02, 0.145, 0.17, pen.ink(skin))
    top = dice.pick(CLOTHES if helmet else HAIR)
    pen.flat([(head[0] + 0.155 * u, head[1] + 0.05 + 0.155 * v) for u, v in CIRCLE[:9]], pen.ink(top))


def draw_pedestrian(pen: Pen, dice: Dice) -> None:
    """Draws someone walking or standing."""
    size = dice.between(0.9, 1.08)
    pen.scale *= size
    stride, lean = dice.between(-0.3, 0.3), dice.between(-0.04, 0.04)
    trousers, sleeve = pen.ink(dice.pick(CLOTHES), 0.8), pen.ink(dice.pick(CLOTHES))
    shoe = pen.ink((30, 28, 28))
    for way in (-1, 1):
        foot = way * stride + way * 0.09
        pen.limb((foot, 0.05), (way * 0.09, 0.86), 0.18, trousers)
        pen.box(foot - 0.11, 0.0, foot + 0.13, 0.09, shoe)
    if dice.chance(0.25):  # skirt or long coat
        pen.flat(((-0.3, 0.45), (0.3, 0.45), (0.2, 0.95), (-0.2, 0.95)), sleeve)
    swing = stride * 0.7
    pen.limb((-0.28 - swing * 0.5, 0.85), (-0.23 + lean, 1.42), 0.13, sleeve)
    _draw_rider(pen, dice, (0.0, 0.82), (lean, 1.48), helmet=False)
    pen.limb((0.28 + swing * 0.5, 0.85), (0.23 + lean, 1.42), 0.13, sleeve)
    if dice.chance(0.25):  # bag
        pen.box(0.22, 0.55, 0.5, 0.9, pen.ink(dice.pick(CLOTHES), 0.8))


def draw_cyclist(pen: Pen, dice: Dice, *, across: bool, flip: bool) -> None:
    """Draws a rider on a bicycle, from the side or end on."""
    tyre, rim = pen.ink(RUBBER), pen.ink((120, 122, 126))
    frame, legs = pen.ink(dice.pick(CAR_COLOURS)), pen.ink(dice.pick(CLOTHES), 0.8)
    if not across:
        pen.oval(0, 0.36, 0.09, 0.36, tyre)
        pen.limb((-0.17, 0.3 + dice.between(0, 0.2)), (-0.15, 0.95), 0.17, legs)
        pen.limb((0.17, 0.3 + dice.between(0, 0.2)), (0.15, 0.95), 0.17, legs)
        pen.box(-0.34, 0.98, 0.34, 1.06, frame)
        _draw_rider(pen, dice, (0.0, 0.88), (0.0, 1.45), helmet=True)
        pen.limb((-0.32, 1.02), (-0.22, 1.42), 0.13, legs)
        pen.limb((0.32, 1.02), (0.22, 1.42), 0.13, legs)
        return
    m = -1.0 if flip else 1.0
    for x in (-0.55, 0.55):
        pen.oval(x, 0.36, 0.36, 0.36, tyre)
        pen.oval(x, 0.36, 0.25, 0.25, rim)
    pen.limb((-0.55 * m, 0.36), (-0.2 * m, 0.82), 0.09, frame)
    pen.limb((-0.2 * m, 0.8), (0.42 * m, 0.82), 0.1, frame)
    pen.limb((0.0, 0.34), (0.42 * m, 0.82), 0.1, frame)
    pen.limb((0.55 * m, 0.36), (0.42 * m, 1.0), 0.09, frame)
    pedal = dice.between(-0.15, 0.15)
    pen.limb((pedal * m, 0.25 + abs(pedal)), (0.05 * m, 0.6), 0.15, legs)
    pen.limb((0.05 * m, 0.58), (-0.18 * m, 0.95), 0.19, legs)
    _draw_rider(pen, dice, (-0.18 * m, 0.88), (0.12 * m, 1.42), helmet=True)
    pen.limb((0.14 * m, 1.32), (0.45 * m, 1.03), 0.12, pen.ink(dice.pick(SKINS)))


def draw_pole(pen: Pen, height: float, width: float, arm: float = 0.0) -> None:
    """Draws a post `height` metres high with an arm that reaches `arm` metres sideways at its top."""
    grey = pen.ink((112, 114, 118))
    pen.box(-width / 2, 0, width / 2, height, grey)
    if arm:
        pen.box(min(0.0, arm), height - width * 0.8, max(0.0, arm), height, grey)


def draw_traffic_light(pen: Pen, dice: Dice, x: float, y: float) -> None:
    """Draws a three-lamp head 0.56 x 1.36 m whose lower edge is at (x, y) in figure metres."""
    pen.box(x - 0.28, y, x + 0.28, y + 1.36, pen.ink((32, 33, 36)))
    on = dice.whole(0, 2)
    for i, colour in enumerate(((250, 45, 35), (250, 190, 40), (60, 235, 110))):
        value = pen.lamp(colour) if i == on else pen.ink(colour, 0.3)
        pen.oval(x, y + 1.1 - 0.42 * i, 0.18, 0.18, value)


def draw_traffic_sign(pen: Pen, dice: Dice, y: float) -> None:
    """Draws a sign plate whose middle is at height `y`."""
    half = dice.between(0.44, 0.54)
    red, white, blue = pen.ink((205, 25, 30)), pen.ink((242, 242, 240)), pen.ink((25, 75, 175))
    black, yellow = pen.ink((30, 30, 32)), pen.ink((250, 205, 30))
    kind = dice.whole(0, 5)
    if kind == 0:  # prohibition or speed limit
        pen.oval(0, y, half, half, red)
        pen.oval(0, y, half * 0.7, half * 0.7, white)
        pen.box(-half * 0.35, y - half * 0.3, -half * 0.08, y + half * 0.3, black)
        pen.box(half * 0.08, y - half * 0.3, half * 0.35, y + half * 0.3, black)
    elif kind == 1:  # warning
        pen.flat(((-half * 1.1, y - half), (half * 1.1, y - half), (0, y + half)), red)
        low, high = y - half * 0.72, y + half * 0.52
        pen.flat(((-half * 0.66, low), (half * 0.66, low), (0, high)), white)
        pen.box(-half * 0.1, y - half * 0.6, half * 0.1, y, black)
    elif kind == 2:  # stop
        pen.flat(
            [
                (half * a, y + half * b)
                for a, b in (
                    (1, 0.41),
                    (0.41, 1),
                    (-0.41, 1),
                    (-1, 0.41),
                    (-1, -0.41),
                    (-0.41, -1),
                    (0.41, -1),
                    (1, -0.41),
                )
            ],
            red,
        )
        pen.box(-half * 0.66, y - half * 0.2, half * 0.66, y + half * 0.2, white)
    elif kind == 3:  # mandatory direction
        pen.oval(0, y, half, half, blue)
        pen.box(-half * 0.14, y - half * 0.6, half * 0.14, y + half * 0.3, white)
        low, high = y + half * 0.15, y + half * 0.7
        pen.flat(((-half * 0.45, low), (half * 0.45, low), (0, high)), white)
    elif kind == 4:  # priority
        pen.flat(((-half, y), (0, y - half), (half, y), (0, y + half)), white)
        pen.flat(((-half * 0.7, y), (0, y - half * 0.7), (half * 0.7, y), (0, y + half * 0.7)), yellow)
    else:  # crossing or parking
        pen.box(-half, y - half, half, y + half, blue)
        pen.flat(((-half * 0.6, y - half * 0.6), (half * 0.6, y - half * 0.6), (0, y + half * 0.65)), white)


def draw_tree(pen: Pen, dice: Dice, height: float) -> None:
    """Draws a broad-leaved tree or, one time in four, a conifer."""
    green, trunk = dice.pick(GREENS), pen.ink((84, 62, 44))
    pen.box(-0.035 * height, 0, 0.035 * height, height * 0.5, trunk)
    if dice.chance(0.25):
        for i in range(3):
            y, w = height * (0.18 + 0.22 * i), height * (0.26 - 0.06 * i)
            pen.flat(((-w, y), (w, y), (0, y + height * 0.4)), pen.ink(green, 0.7 + 0.12 * i))
        return
    spread = height * dice.between(0.22, 0.3)
    for i in range(6):
        shade = 0.68 + 0.08 * i
        pen.oval(
            dice.between(-0.7, 0.7) * spread,
            height * (0.5 + 0.06 * i) + dice.between(0, 0.1) * height,
            spread * dice.between(0.55, 0.8),
            spread * dice.between(0.5, 0.7),
            pen.ink(green, shade),
        )


def draw_bush(pen: Pen, dice: Dice) -> None:
    """Draws a low bush of three round tufts."""
    green = dice.pick(GREENS)
    for i in range(3):
        pen.oval(
            dice.between(-0.7, 0.7),
            0.4 + 0.15 * i,
            dice.between(0.5, 0.9),
            dice.between(0.45, 0.6),
            pen.ink(green, 0.75 + 0.12 * i),
        )


def draw_building(pen: Pen, dice: Dice, *, side: float, depth: float, height: float) -> None:
    """Draws a house at the pen's corner that runs `depth` metres along the road and fills outwards.

    `side` is -1 left of the road, 1 right of it.
    """
    wall, x, z1, z2 = dice.pick(WALLS), pen.x, pen.z, pen.z + depth
    out, shade = x + side * 14.0, dice.between(0.72, 0.9)
    pen.solid(((x, 0, z1), (out, 0, z1), (out, height, z1), (x, height, z1)), pen.ink(wall))
    pen.solid(((x, 0, z1), (x, 0, z2), (x, height, z2), (x, height, z1)), pen.ink(wall, shade))
    pen.solid(
        ((x, height - 0.5, z1), (x, height - 0.5, z2), (x, height, z2), (x, height, z1)), pen.ink(wall, shade * 0.7)
    )
    pen.solid(((x, height - 0.5, z1), (out, height - 0.5, z1), (out, height, z1), (x, height, z1)), pen.ink(wall, 0.75))
    if z1 > 60:
        return
    floors, bays = int(height / 3.2), int(depth / 2.8)
    lower = 3.2 * np.arange(floors) + 1.0
    glass = (86, 100, 118) if dice.chance(0.6) else (58, 62, 70)
    where = z1 + 0.7 + (depth - 1.0) / bays * np.arange(bays)
    windows = _facade(pen.camera, np.full(bays, x), where, 0.0, 1.3, lower)
    _draw_windows(pen, dice, windows, glass, shade)
    columns = x + side * (0.8 + 2.8 * np.arange(4)) - (1.3 if side < 0 else 0.0)
    _draw_windows(pen, dice, _facade(pen.camera, columns, np.full(4, z1), 1.3, 0.0, lower), glass, 1.0)


def _facade(camera: Camera, x: np.ndarray, z: np.ndarray, dx: float, dz: float, lower: np.ndarray) -> np.ndarray:
    """Pixel quads (columns * floors, 4, 2) of windows 1.5 m high that start at (x, z), dx or dz wide."""
    xs, zs = np.stack([x, x + dx, x + dx, x]), np.stack([z, z + dz, z + dz, z])  # (4, columns)
    ys = np.stack([lower, lower, lower + 1.5, lower + 1.5])  # (4, floors)
    scale = camera.focal / zs
    columns = camera.vanishing + scale * (xs - camera.x + camera.bend * zs * zs)
    rows = camera.horizon + scale[:, :, None] * (camera.height - ys[:, None, :])  # (4, columns, floors)
    quads = np.stack([np.broadcast_to(columns[:, :, None], rows.shape), rows], axis=-1)
    return quads.reshape(4, -1, 2).transpose(1, 0, 2)  # (columns * floors, 4, 2)


def _draw_windows(pen: Pen, dice: Dice, quads: np.ndarray, glass: Colour, shade: float) -> None:
    """Fills windows; at night about a third of them are lit."""
    if not len(quads):
        return
    pen.many(quads, pen.ink(glass, shade))
    if pen.air.night:
        first = dice.whole(0, 2)
        pen.many(quads[first::3], pen.lamp((228, 196, 120)))
