"""Tiny weights inside the package, so that everything can be tried with no network.

`index.json` lists them: what each file is, its checksum, what it reached and how it was trained. `embed`
writes a file and its line; training recipes end with it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kerasvision.ops.resizing import ResizeRule
from zoo.registry import EMBEDDED, NATIVE, Weights

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent
MAX_BYTES = 5_000_000


def weights_of(name: str, *, folder: Path = FOLDER) -> tuple[Weights, ...]:
    """Return the embedded weights of a model, for its entry; none if there are none."""
    return tuple(
        Weights(
            tag=key.partition(".")[2],
            source=EMBEDDED + line["file"],
            sha256=line["sha256"],
            size_bytes=line["size_bytes"],
            converter=NATIVE,
            license=line["license"],
            num_classes=line["num_classes"],
            class_names=None if line["class_names"] is None else tuple(line["class_names"]),
            resize_rule=ResizeRule(**line["resize_rule"]),
            measured=line["measured"],
            recipe=line["recipe"],
        )
        for key, line in sorted(_read_index(folder).items())
        if key.partition(".")[0] == name
    )


def embed(
    model: "keras.Model",
    name: str,
    tag: str,
    *,
    measured: Mapping[str, float],
    recipe: str,
    license: str = "Apache-2.0",
    folder: Path = FOLDER,
) -> Path:
    """Put a trained model's weights into the package.

    Args:
        model: The trained model.
        name: The entry's name.
        tag: The weights' tag, such as ``"streets"``.
        measured: The figures that these weights reach, such as ``{"streets val AP50": 0.9}``.
        recipe: The command that made them.
        license: Licence of the weights.
        folder: Where to; default: this package.

    Returns:
        The path of the file.

    Raises:
        WeightsError: The file would be larger than 5 MB.
    """
    from zoo.cache import sha256_of
    from zoo.errors import WeightsError
    from zoo.native import Metadata, save_weights

    metadata = Metadata.of(model, name)
    path = save_weights(model, folder / f"{name}.{tag}.safetensors", name=name, float16=True)
    size = path.stat().st_size
    if size > MAX_BYTES:
        path.unlink()
        raise WeightsError(f"{path.name} has {size} bytes; embedded weights have at most {MAX_BYTES}")
    index = _read_index(folder)
    index[f"{name}.{tag}"] = {
        "file": path.name,
        "sha256": sha256_of(path),
        "size_bytes": size,
        "license": license,
        "num_classes": metadata.num_classes,
        "class_names": metadata.class_names,
        "resize_rule": (metadata.resize_rule or ResizeRule()).get_config(),
        "measured": dict(measured),
        "recipe": recipe,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return path


def _read_index(folder: Path) -> dict[str, dict]:
    path = folder / "index.json"
    return json.loads(path.read_text()) if path.exists() else {}
