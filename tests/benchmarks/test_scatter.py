import itertools

import pytest

from benchmarks import scatter
from benchmarks.scatter import Mark


def test_linear_ticks_are_round_and_cover_the_range():
    assert scatter._linear_ticks(0.0, 97.0, 5) == [0, 20, 40, 60, 80, 100]
    assert scatter._linear_ticks(0.41, 0.58, 5) == pytest.approx([0.4, 0.45, 0.5, 0.55, 0.6])


def test_log_axis_places_a_decade_evenly():
    position, ticks = scatter._log_axis(1.2, 90.0)
    assert ticks == [1, 2, 5, 10, 20, 50, 100]
    assert position(10) - position(1) == pytest.approx(position(100) - position(10))


def test_place_labels_of_near_marks_do_not_overlap():
    marks = [Mark(f"a model name {index}", 10, 0.5, "red", "") for index in range(4)]
    points = [(300.0, 200.0 + 6 * index) for index in range(4)]
    boxes = []
    for (_, _, dx, dy, anchor), (x, y), mark in zip(scatter.place_labels(points, marks), points, marks, strict=True):
        width = 6.9 * len(mark.name)
        left = x + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
        boxes.append((left, y + dy - 11, left + width, y + dy + 4))
    for first, second in itertools.combinations(boxes, 2):
        assert scatter._overlap(first, second) == 0


def test_svg_of_one_mark_has_both_axes_and_escapes_names():
    text = scatter.svg([Mark("<m>", 12.0, 0.5, "red", "tip")], x_title="ms", y_title="AP")
    assert 'data-mode="linear"' in text and 'data-mode="log" hidden' in text
    assert "&lt;m&gt;" in text and "<m>" not in text


def test_svg_of_equal_and_perfect_marks_still_draws():
    marks = [Mark("a", 5.0, 1.0, "red", ""), Mark("b", 5.0, 1.0, "blue", "")]
    assert scatter.svg(marks, x_title="ms", y_title="AP").count('class="point"') == 2
