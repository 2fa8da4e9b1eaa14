"""Files that are written whole or not at all; names that were mistyped."""

import json
import os
import stat

import pytest

from kerasvision.files import finite, replacing, write_json, write_text
from kerasvision.naming import close_matches


def test_replacing_puts_the_new_file_in_place(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_after_an_error(tmp_path, error):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_gives_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "private") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_write_json_writes_null_for_what_json_cannot_hold(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": [1, float("nan")], "b": (float("inf"), "é")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, None], "b": [None, "é"]}


def test_finite_leaves_everything_else():
    assert finite({"a": 1, "b": True, "c": None, "d": 0.5}) == {"a": 1, "b": True, "c": None, "d": 0.5}


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("retinanett", ["unet", "retinanet"], "did you mean 'retinanet'?"),
        ("Retina", ["retinanet_resnet50_fpn"], "did you mean 'retinanet_resnet50_fpn'?"),
        ("xyz", ["unet", "ssd"], "known: 'unet', 'ssd'"),
        ("xyz", [], "known: none"),
        ("xyz", [str(number) for number in range(12)], "known: '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', …"),
    ],
)
def test_close_matches(name, known, expected):
    assert close_matches(name, known) == expected
