"""The accuracy-against-latency plot: inline SVG with a linear and a logarithmic time axis."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 860, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 32, 52
_RADIUS = 7
_LABEL_HEIGHT, _LABEL_CHARACTER = 15, 6.9  # pixels of a 12.5 px sans-serif line, and of its mean character


@dataclass(frozen=True)
class Mark:
    """One model in the plot.

    Args:
        name: Label beside the mark.
        x: Milliseconds, above 0.
        y: Accuracy, 0-1.
        colour: CSS colour.
        tip: Lines shown on hover.
    """

    name: str
    x: float
    y: float
    colour: str
    tip: str


def svg(marks: Sequence[Mark], *, x_title: str, y_title: str) -> str:
    """Return a <figure> with the plot, its switch between linear and logarithmic, and its hover texts.

    Args:
        marks: At least one.
        x_title: Of the time axis.
        y_title: Of the accuracy axis.
    """
    low, high = min(mark.x for mark in marks), max(mark.x for mark in marks)
    start = "log" if high / low > 8 else "linear"
    y_ticks = _linear_ticks(*_y_range([mark.y for mark in marks]), 5)
    axes = {"linear": _linear_axis(high), "log": _log_axis(low, high)}
    parts = []
    for value in y_ticks:
        y = _y_position(value, y_ticks)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    bottom = _HEIGHT - _BOTTOM
    for mode, (position, ticks) in axes.items():
        parts.append(f'<g class="ticks" data-mode="{mode}"{"" if mode == start else " hidden"}>')
        for value in ticks:
            x = position(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
        parts.append("</g>")
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{html.escape(x_title)}</text>')
    parts.append(f'<text x="{_LEFT - 40}" y="{_TOP - 16}">{html.escape(y_title)}</text>')
    places = {
        mode: place_labels([(position(mark.x), _y_position(mark.y, y_ticks)) for mark in marks], marks)
        for mode, (position, _) in axes.items()
    }
    for index, mark in enumerate(marks):
        parts.append(_point(mark, {mode: placed[index] for mode, placed in places.items()}, start))
    buttons = "".join(
        f'<button type="button" data-mode="{mode}" aria-pressed="{json.dumps(mode == start)}">{mode}</button>'
        for mode in ("linear", "log")
    )
    return (
        '<figure class="plot" style="margin:0"><div class="plot-head"><h3>Accuracy against latency</h3>'
        f'<span class="switch" role="group" aria-label="time axis">{buttons}</span></div>'
        f'<div class="scroll"><svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(y_title)} against {html.escape(x_title)}">'
        f"{''.join(parts)}</svg></div></figure>"
    )


def _point(mark: Mark, places: dict[str, tuple], start: str) -> str:
    x, y, label_x, label_y, anchor = places[start]
    data = " ".join(f'data-{mode}="{html.escape(json.dumps(place))}"' for mode, place in places.items())
    return (
        f'<g class="point" tabindex="0" transform="translate({x} {y})" {data} '
        f'data-tip="{html.escape(mark.tip)}" aria-label="{html.escape(mark.tip)}">'
        f'<circle r="14" fill="transparent"/>'
        f'<circle class="mark" r="{_RADIUS}" fill="{mark.colour}"/>'
        f'<text class="label" x="{label_x}" y="{label_y}" text-anchor="{anchor}">'
        f"{html.escape(mark.name)}</text></g>"
    )


def place_labels(points: Sequence[tuple[float, float]], marks: Sequence[Mark]) -> list[tuple]:
    """Choose for each mark a place of its label: inside the plot, over no other mark or label if possible.

    Args:
        points: (x, y) of each mark in pixels.
        marks: Their names give the widths.

    Returns:
        For each mark (x, y, label x, label y, text anchor), the label's place relative to the mark.
    """
    boxes = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in points]
    placed: list[tuple | None] = [None] * len(points)
    for index in sorted(range(len(points)), key=lambda index: points[index][1]):
        x, y = points[index]
        width = _LABEL_CHARACTER * len(marks[index].name)
        best, best_cost, best_box = None, math.inf, None
        candidates = [(12, 4, "start"), (-12, 4, "end"), (0, -12, "middle"), (0, 22, "middle")]
        candidates += [(12, 4 + dy, "start") for dy in (-15, 15, -30, 30)]
        candidates += [(-12, 4 + dy, "end") for dy in (-15, 15, -30, 30)]
        for preference, (dx, dy, anchor) in enumerate(candidates):
            left = x + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
            box = (left, y + dy - _LABEL_HEIGHT + 4, left + width, y + dy + 4)
            outside = max(0, _LEFT - box[0]) + max(0, box[2] - _WIDTH) + max(0, _TOP - 12 - box[1])
            outside += max(0, box[3] - (_HEIGHT - _BOTTOM))
            others = [other for number, other in enumerate(boxes) if number != index]
            cost = 30 * outside + sum(_overlap(box, other) for other in others) + 4 * preference
            if cost < best_cost:
                best, best_cost, best_box = (dx, dy, anchor), cost, box
        assert best is not None and best_box is not None
        boxes.append(best_box)
        placed[index] = (round(x, 1), round(y, 1), *best)
    return placed  # type: ignore[return-value]


def _overlap(a: tuple, b: tuple) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _y_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.05, 0.15 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _y_position(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def _linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`."""
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _linear_axis(high: float):
    ticks = _linear_ticks(0.0, high * 1.08, 6)

    def position(value: float) -> float:
        return _LEFT + value / ticks[-1] * (_WIDTH - _RIGHT - _LEFT)

    return position, ticks


def _log_axis(low: float, high: float):
    steps = [factor * 10.0**power for power in range(-4, 8) for factor in (1, 2, 5)]
    first = max(number for number, step in enumerate(steps) if step <= low * 0.92)
    last = min(number for number, step in enumerate(steps) if step >= high * 1.08)
    ticks = steps[first : last + 1]

    def position(value: float) -> float:
        share = math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
        return _LEFT + share * (_WIDTH - _RIGHT - _LEFT)

    return position, ticks
