"""The gallery: every public piece has a picture, and the page shows every picture."""

import io
from pathlib import Path

import pytest
from PIL import Image

from examples.gallery import page
from examples.gallery.__main__ import main
from examples.gallery.registry import find_piece, pictures
from kerasvision import layers, losses, metrics

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/gallery.md"


@pytest.mark.parametrize("room", [layers, losses, metrics], ids=lambda room: room.__name__)
def test_gallery_shows_every_public_name(room):
    shown = {piece for picture in pictures().values() for piece in picture.pieces}
    prefix = room.__name__.removeprefix("kerasvision.")
    assert not [name for name in room.__all__ if f"{prefix}.{name}" not in shown]


def test_gallery_names_pieces_that_exist():
    for picture in pictures().values():
        assert picture.pieces and picture.title and picture.caption.endswith(".")
        for piece in picture.pieces:
            assert callable(find_piece(piece)) or isinstance(find_piece(piece), tuple), piece


def test_gallery_page_is_that_of_the_registry():
    # After a change of a title, a caption or a list of pieces: python -m examples.gallery
    assert PAGE.read_text() == page.page(pictures().values(), "pictures/gallery")


def test_gallery_files_are_those_of_the_registry_and_small():
    files = {path.stem: path for path in (ROOT / "docs/pictures/gallery").iterdir()}
    assert files.keys() == pictures().keys()
    assert max(path.stat().st_size for path in files.values()) < 120_000
    assert sum(path.stat().st_size for path in files.values()) < 2_500_000
    for path in files.values():
        with Image.open(path) as picture:
            assert 900 <= picture.width <= 1000, path


def test_gallery_links_lead_to_headings():
    lines = PAGE.read_text().splitlines()
    headings = {page.anchor(line.lstrip("# ")) for line in lines if line.startswith("#")}
    titles = [picture.title for picture in pictures().values()]
    assert {page.anchor(title) for title in titles} <= headings and len(set(titles)) == len(titles)


def test_gallery_draws_the_same_picture_again(tmp_path, capsys):
    drawn = []
    for folder in ("first", "second"):
        main(["--out", str(tmp_path / folder), "--only", "box_overlap"])
        drawn.append((tmp_path / folder / "box_overlap.png").read_bytes())
    assert drawn[0] == drawn[1] and "box_overlap" in capsys.readouterr().out
    with Image.open(io.BytesIO(drawn[0])) as picture:
        assert picture.format == "PNG" and picture.width == 950
    assert not (tmp_path / "gallery.md").exists()


def test_gallery_refuses_unknown_names(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--only", "boxes_overlap"])
    assert "`--only` boxes_overlap is no picture; they are box_formats, " in capsys.readouterr().err
