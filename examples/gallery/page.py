"""The page that shows the pictures."""

from itertools import groupby

_HEAD = """# Gallery

What each block of kerasvision does, in one picture each. No picture is a sketch: the numbers, boxes, maps and curves
come out of the very layers, operations, losses and metrics that are named above it, run on scenes of the embedded
`streets` data set. `python -m examples.gallery` draws this page anew (see `examples/gallery/`).
"""


def page(pictures, folder: str) -> str:
    """Return the page as Markdown.

    Args:
        pictures: `Picture`s in the order of the page.
        folder: Where their files are, relative to the page.
    """
    sections = [(name, list(group)) for name, group in groupby(pictures, key=lambda one: one.section)]
    contents = [
        f"- **{name}**: " + ", ".join(f"[{one.title}](#{anchor(one.title)})" for one in group)
        for name, group in sections
    ]
    parts = [_HEAD, "\n".join(contents)]
    for name, group in sections:
        parts.append(f"## {name}")
        for one in group:
            pieces = ", ".join(f"`kerasvision.{piece}`" for piece in one.pieces)
            parts.append(f"### {one.title}\n\n{pieces}\n\n{one.caption}\n\n![{one.title}]({folder}/{one.name}.png)")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def anchor(title: str) -> str:
    """Return what GitHub calls a heading in links."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
