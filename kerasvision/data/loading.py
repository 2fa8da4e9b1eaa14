"""`load`: from the name of a data set, as in `--data voc:DIR`, to a `Dataset`."""

from __future__ import annotations

from kerasvision.data.samples import Dataset, Task, check_task
from kerasvision.naming import close_matches

KINDS = ("streets", "streets:hard", "voc:DIR", "coco:DIR", "tfds:NAME")


def load(spec: str, *, split: str = "train", task: Task | None = None, strict: bool = True, **options) -> Dataset:
    """Opens a data set by name.

    Args:
        spec: "streets" or "streets:hard" (embedded, generated, no network); "voc:DIR" (VOC layout);
            "coco:DIR" or "coco:FILE.json" (COCO JSON); "tfds:NAME" (a builder of tensorflow-datasets).
        split: name of the split, "train", "val", "test" …, as the data set calls it.
        task: "detection" or "segmentation" reads the annotations of that task alone, and VOC's list of images
            for it; None reads all there are. Say it if you can: it saves decoding masks that are not used.
        strict: raise `DataError` on the first bad annotation; False skips each bad annotation, and each
            sample whose image is missing or broken, and lists them in `dataset.problems`.
        **options: passed to the reader: `kerasvision.data.streets.Streets`, `kerasvision.data.voc.Voc`,
            `kerasvision.data.coco.Coco`, `kerasvision.data.tfds_builders.TfdsDataset`.

    Returns:
        The data set. Nothing is ever written into the folder it reads.

    Raises:
        ValueError: unknown name, listing close matches; unknown `task`.
        SplitError: the data set has no such split; a `DataError`.
        DataError: missing folder; no annotations for `task`; if strict, a bad annotation.
    """
    if not isinstance(spec, str):
        raise ValueError(f"`spec` {spec!r} must be a string such as {', '.join(map(repr, KINDS))}")
    check_task(task)
    kind, _, rest = spec.partition(":")
    if spec in ("streets", "streets:hard"):
        from kerasvision.data.streets import Streets

        scenes = Streets(split=split, hard=bool(rest), **options)
        return scenes if task is None else scenes.for_task(task)
    if kind in ("voc", "coco", "tfds") and not rest:
        expected = next(name for name in KINDS if name.startswith(kind))
        raise ValueError(f"`spec` {spec!r} names no data; expected {expected!r}")
    if kind == "voc":
        from kerasvision.data.voc import Voc

        return Voc(rest, split=split, task=task, strict=strict, **options)
    if kind == "coco":
        from kerasvision.data.coco import Coco

        return Coco(rest, split=split, task=task, strict=strict, **options)
    if kind == "tfds":
        from kerasvision.data.tfds_builders import TfdsDataset

        return TfdsDataset(rest, split=split, task=task, strict=strict, **options)
    raise ValueError(f"`spec` {spec!r} is not a known data set; {close_matches(spec, KINDS, what='expected')}")
