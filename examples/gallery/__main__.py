"""Draw the gallery: `python -m examples.gallery [--out docs/pictures/gallery] [--only NAME ...]`.

Without `--only`, docs/gallery.md is written too, two folders above the pictures.
"""

import argparse
import time
from pathlib import Path

from examples.gallery.drawing import styled, to_png
from examples.gallery.page import page
from examples.gallery.registry import pictures


def main(words=None):
    parser = argparse.ArgumentParser(prog="python -m examples.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/gallery"), help="folder for the pictures")
    parser.add_argument("--page", type=Path, help="file of the page; by default gallery.md, two folders above --out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="draw these alone")
    arguments = parser.parse_args(words)
    known = pictures()
    for name in arguments.only or ():
        if name not in known:
            parser.error(f"`--only` {name} is no picture; they are {', '.join(known)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    start, total = time.perf_counter(), 0
    for name in arguments.only or known:
        began = time.perf_counter()
        png = to_png(styled(known[name].draw))
        (arguments.out / f"{name}.png").write_bytes(png)
        total += len(png)
        print(f"{name:32} {len(png) / 1e3:5.0f} kB {time.perf_counter() - began:5.1f} s", flush=True)
    file = arguments.page or arguments.out.parents[1] / "gallery.md"
    if not arguments.only or file.exists():  # captions may have changed with the picture
        file.write_text(page(known.values(), arguments.out.resolve().relative_to(file.resolve().parent).as_posix()))
        print(f"{file}: {len(known)} pictures, drawn {total / 1e6:.2f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
