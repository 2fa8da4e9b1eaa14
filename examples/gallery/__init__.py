"""The gallery: what each block of kerasvision does, in one picture each, drawn with the blocks themselves.

`python -m examples.gallery` writes docs/gallery.md and docs/pictures/gallery/; see `examples/gallery/__main__.py`.
"""
