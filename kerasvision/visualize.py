"""Draw boxes, masks and contact sheets that a person can read.

Everything takes and gives uint8 RGB arrays, so the functions chain: draw a mask, draw boxes on top of it,
put several results into a `grid`, write it with `save_image`. Pillow is imported on the first drawing.
"""

import functools
import importlib.util
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from kerasvision.files import replacing

_INK = (24, 24, 27)
_PAPER = (255, 255, 255)
_TITLE_GREY = (63, 63, 70)
_IGNORED_GREY = (160, 160, 160)
_MIN_FONT_SIZE = 7  # DejaVu Sans is no longer readable below

# Of pixels that are not labelled, in VOC's masks.
_VOID_COLOUR = (224, 224, 192)

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


# -- Colours ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _ordered_colours() -> np.ndarray:
    """Return 256 colours, each as far as possible in CIELAB from all before it (greedy farthest point)."""
    import colorsys

    hues = np.arange(48) / 48
    candidates = np.array(
        [colorsys.hsv_to_rgb(h, s, v) for v in (1.0, 0.85, 0.65) for s in (1.0, 0.75, 0.5) for h in hues]
    )
    lab = _to_lab(candidates)
    # Neither near black nor near white, so that a line of the colour shows on a road and in the sky.
    usable = (lab[:, 0] > 38) & (lab[:, 0] < 88)
    candidates, lab = candidates[usable], lab[usable]
    chosen = [int(np.argmin(np.linalg.norm(candidates - (1.0, 0.25, 0.25), axis=1)))]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    while len(chosen) < 256:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    return np.round(candidates[chosen] * 255).astype(np.uint8)


def _to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB in 0-1, (N, 3), to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def default_palette(count: int) -> np.ndarray:
    """Return `count` colours that are easy to tell apart.

    The colours of the first classes do not change with `count`. After 256 colours they repeat.

    Args:
        count: Number of classes, 0 or more.

    Returns:
        (count, 3) uint8 RGB.
    """
    if count < 0:
        raise ValueError(f"`count` {count} must be 0 or more classes")
    return _ordered_colours()[np.arange(count) % 256]


def _palette_for(labels: np.ndarray, class_names, palette) -> np.ndarray:
    """Return a (C, 3) uint8 palette with a row for every label."""
    highest = int(labels.max()) if labels.size else -1
    if palette is None:
        return default_palette(max(highest + 1, len(class_names or ()), 1))
    palette = np.asarray(palette)
    if palette.ndim != 2 or palette.shape[1] != 3:
        raise ValueError(f"`palette` of shape {palette.shape} must be (classes, 3), RGB 0-255")
    if highest >= len(palette):
        raise ValueError(
            f"`palette` has {len(palette)} colours but label {highest} is drawn; "
            f"give {highest + 1} colours or leave it out"
        )
    return palette.astype(np.uint8)


def _ink_on(colour: np.ndarray) -> tuple[int, int, int]:
    """Return black or white, whichever contrasts more with a background `colour` (WCAG 2 luminance)."""
    channels = np.asarray(colour, float) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return _INK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else _PAPER


# -- Text ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _bundled_font() -> str | None:
    """Return the path of the DejaVu Sans that matplotlib ships, without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return str(path)
    return None


@functools.lru_cache(maxsize=256)
def _font_file(characters: frozenset[str]) -> str | None:
    """Return a font file that has these characters; DejaVu Sans where none has."""
    bundled = _bundled_font()
    # DejaVu Sans has all of Latin, Greek and Cyrillic (below U+0530), so only other scripts need a search.
    if bundled is None or all(ord(character) < 0x530 for character in characters):
        return bundled
    from matplotlib import font_manager, ft2font

    codes = {ord(character) for character in characters if not character.isspace()}
    for path in [bundled, *sorted(font_manager.findSystemFonts())]:
        try:
            if codes <= ft2font.FT2Font(path).get_charmap().keys():
                return path
        except (RuntimeError, OSError, ValueError):  # a font of the system that FreeType cannot read
            continue
    return bundled


@functools.lru_cache(maxsize=256)
def _load_font(path: str | None, size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def _font(text: str, size: int):
    return _load_font(_font_file(frozenset(text)), size)


def _text_width(text: str, size: int) -> int:
    return int(np.ceil(_font(text, size).getlength(text)))


def _line_height(size: int) -> int:
    return round(size * 1.36)  # ascent and descent of DejaVu Sans: 0.928 + 0.236 em, and a little air


def _fit_text(text: str, size: int, width: int) -> tuple[str, int]:
    """Make `text` at most `width` pixels wide: first with a smaller font, then with an ellipsis."""
    text = " ".join(text.split())
    smallest = max(_MIN_FONT_SIZE, round(size * 0.7))
    while size > smallest and _text_width(text, size) > width:
        size -= 1
    if _text_width(text, size) <= width:
        return text, size
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return (text + "…" if text else ""), size


def _default_font_size(height: int, width: int) -> int:
    return int(np.clip(round(6 + 0.016 * np.sqrt(height * width)), 9, 48))


def _default_line_width(height: int, width: int) -> int:
    return int(np.clip(round(1 + np.sqrt(height * width) / 450), 1, 12))


def _draw_text(draw, x: int, y: int, text: str, size: int, fill) -> None:
    """Draw one line of text whose line box starts at (x, y)."""
    draw.text((x, y + _line_height(size) / 2), text, font=_font(text, size), fill=tuple(fill), anchor="lm")


# -- Pictures --------------------------------------------------------------------------------------------


def _as_picture(image: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return `image` as contiguous uint8 RGB, enlarged by `scale`; grey images get three channels."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"`image` of shape {image.shape} must be (H, W, 3) or (H, W), RGB 0-255")
    if image.dtype != np.uint8:
        image = np.clip(np.round(np.nan_to_num(image.astype(np.float32))), 0, 255).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    if scale != 1:
        from PIL import Image

        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(image)


def _dashed_rectangle(draw, box, colour, width: int) -> None:
    """Draw a dashed outline: the mark of boxes that are not scored."""
    x1, y1, x2, y2 = box
    dash = 4 * width
    for start in np.arange(x1, x2, 2 * dash):
        for y in (y1, y2):
            draw.line((start, y, min(start + dash, x2), y), fill=colour, width=width)
    for start in np.arange(y1, y2, 2 * dash):
        for x in (x1, x2):
            draw.line((x, start, x, min(start + dash, y2)), fill=colour, width=width)


def _tag_position(box, tag_wh, canvas_wh, taken: list) -> tuple[int, int]:
    """Choose where a tag goes: inside the canvas, at its box, over as few other tags as possible."""
    (x1, y1, x2, y2), (width, height), (canvas_width, canvas_height) = box, tag_wh, canvas_wh
    corners = [
        (x1, y1 - height),
        (x1, y1),
        (x1, y2),
        (x2 - width, y1 - height),
        (x1, y2 - height),
        (x2 - width, y2),
    ]
    best, best_cost = (0, 0), np.inf
    for preference, (x, y) in enumerate(corners):
        left = int(np.clip(x, 0, max(0, canvas_width - width)))
        top = int(np.clip(y, 0, max(0, canvas_height - height)))
        covered = sum(
            max(0, min(left + width, r) - max(left, a)) * max(0, min(top + height, b) - max(top, t))
            for a, t, r, b in taken
        )
        # A tag that had to be pushed back into the picture is no longer at its corner.
        pushed = abs(left - x) + abs(top - y)
        cost = covered + 0.05 * width * height * preference + 0.5 * height * pushed
        if cost < best_cost:
            best, best_cost = (left, top), cost
    return best


class _Boxes(NamedTuple):
    """Boxes that can be drawn: (N, 4) float32, (N,) labels, (N,) ignored flags, the text of each tag.

    `order` holds the indices from the lowest score to the highest.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    tags: list[str]
    order: np.ndarray


def _drawable(boxes_xyxy, labels, scores, class_names, ignored) -> _Boxes:
    """Check the arguments of `draw_detections` and leave out what cannot be drawn."""
    boxes = np.asarray(boxes_xyxy, np.float32)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"`boxes_xyxy` of shape {boxes.shape} must be (N, 4) absolute xyxy pixels")
    labels = np.asarray(labels).reshape(-1).astype(np.int64)
    for name, values in {"labels": labels, "scores": scores, "ignored": ignored}.items():
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"`{name}` has {len(values)} values but `boxes_xyxy` has {len(boxes)} boxes")
    ignored = np.zeros(len(boxes), bool) if ignored is None else np.asarray(ignored, bool)
    scores = None if scores is None else np.asarray(scores, np.float32)
    # −1 labels are padding; a box that is not finite cannot be drawn.
    keep = np.flatnonzero((labels >= 0) & np.isfinite(boxes).all(axis=1))
    tags = [
        _tag_text(int(labels[index]), None if scores is None else float(scores[index]), class_names) for index in keep
    ]
    order = np.arange(len(keep)) if scores is None else np.argsort(scores[keep], kind="stable")
    return _Boxes(boxes[keep], labels[keep], ignored[keep], tags, order)


def draw_detections(
    image: np.ndarray,
    boxes_xyxy: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    *,
    ignored: ArrayLike | None = None,
    palette: ArrayLike | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw boxes with tags of class name and score.

    Tags stay inside the picture whole, and step aside for each other where there is room. Boxes with the
    highest scores lie on top. A tag wider than the picture is set smaller, then shortened with "…".

    Args:
        image: (H, W, 3) or (H, W), uint8 or float, 0-255. Not changed.
        boxes_xyxy: (N, 4) absolute pixels of `image`; parts outside are not drawn.
        labels: (N,) integers; −1 is padding and not drawn.
        scores: (N,) in 0-1, or None to leave them out of the tags.
        class_names: Name of each label, in any script; None or a missing name gives the number.
        ignored: (N,) bool; such boxes (COCO crowds, VOC difficult) are drawn dashed.
        palette: (C, 3) RGB 0-255; None for `default_palette`.
        line_width: Pixels; None to follow the picture's size.
        font_size: Pixels; None to follow the picture's size.
        scale: Draw on a picture enlarged this many times, for small images.

    Returns:
        (H·scale, W·scale, 3) uint8.

    Raises:
        ValueError: Shapes that do not fit each other, or a palette with too few colours.
    """
    from PIL import Image, ImageDraw

    drawable = _drawable(boxes_xyxy, labels, scores, class_names, ignored)
    colours = _palette_for(drawable.labels, class_names, palette)[drawable.labels]  # (N, 3)
    picture = Image.fromarray(_as_picture(image, scale))
    width, height = picture.size
    line_width = line_width or _default_line_width(height, width)
    font_size = font_size or _default_font_size(height, width)
    limits = np.array([width - 1, height - 1, width - 1, height - 1])
    corners = np.sort((drawable.boxes * scale).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    boxes = [tuple(box) for box in np.round(np.clip(corners, 0, limits)).astype(int).tolist()]
    fills = [tuple(colour) for colour in colours.tolist()]
    draw = ImageDraw.Draw(picture)
    for index in drawable.order:
        if drawable.ignored[index]:
            _dashed_rectangle(draw, boxes[index], fills[index], line_width)
        else:
            draw.rectangle(boxes[index], outline=fills[index], width=line_width)
    taken: list[tuple[int, int, int, int]] = []
    placed = []
    padding = max(2, font_size // 4)
    for index in drawable.order[::-1]:  # the best box gets the first choice of places
        text, size = _fit_text(drawable.tags[index], font_size, width - 2 * padding)
        tag_wh = _text_width(text, size) + 2 * padding, _line_height(size)
        left, top = _tag_position(boxes[index], tag_wh, (width, height), taken)
        taken.append((left, top, left + tag_wh[0], top + tag_wh[1]))
        placed.append((index, text, size))
    for (index, text, size), (left, top, right, bottom) in zip(placed[::-1], taken[::-1], strict=True):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=fills[index])
        _draw_text(draw, left + padding, top, text, size, _ink_on(colours[index]))
    return np.array(picture)


def _tag_text(label: int, score: float | None, class_names: Sequence[str] | None) -> str:
    name = class_names[label] if class_names is not None and label < len(class_names) else str(label)
    return str(name) if score is None else f"{name} {score:.2f}"


def draw_mask(
    image: np.ndarray,
    mask: np.ndarray,
    class_names: Sequence[str] | None = None,
    palette: np.ndarray | None = None,
    *,
    alpha: float = 0.55,
    legend: bool = True,
    ignore_index: int = 255,
    font_size: int | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Lay a semantic mask over an image, with a legend of the classes that occur in it.

    The edges between classes are drawn opaque. Pixels of `ignore_index`, and of class 0 if it is called
    "background", show the image unchanged.

    Args:
        image: (H, W, 3) or (H, W), uint8 or float, 0-255. Not changed.
        mask: (H, W) integer classes.
        class_names: Name of each class; None or a missing name gives the number.
        palette: (C, 3) RGB 0-255; None for `default_palette`.
        alpha: Opacity of the colours, 0-1.
        legend: Append a strip with the names and colours of the classes present below the picture.
        ignore_index: The value that means "not labelled".
        font_size: Of the legend, in pixels; None to follow the picture's size.
        scale: Draw on a picture enlarged this many times, for small images.

    Returns:
        (H·scale + legend, W·scale, 3) uint8.

    Raises:
        ValueError: A mask of another size than the image, values below 0, or a palette with too few colours.
    """
    mask = np.asarray(mask)
    if mask.shape != np.shape(image)[:2] or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(
            f"`mask` of shape {mask.shape} and type {mask.dtype} must be integer (H, W) = "
            f"{tuple(np.shape(image)[:2])} as `image`"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` {alpha} must be in 0-1")
    picture = _as_picture(image, scale)
    if scale != 1:
        rows = np.minimum((np.arange(picture.shape[0]) / scale).astype(int), mask.shape[0] - 1)
        columns = np.minimum((np.arange(picture.shape[1]) / scale).astype(int), mask.shape[1] - 1)
        mask = mask[rows[:, None], columns]
    drawn = mask != ignore_index
    if class_names and str(class_names[0]).strip("_").casefold() == "background":
        drawn &= mask != 0
    present = np.unique(mask[drawn])
    if present.size and present[0] < 0:
        raise ValueError(f"`mask` has the value {present[0]}; classes are 0 or more, {ignore_index} = ignore")
    colours = _palette_for(present, class_names, palette)
    filled = colours[np.where(drawn, mask, 0)]  # (H, W, 3)
    opacity = np.where(_edges(mask, _default_line_width(*mask.shape)), 1.0, alpha) * drawn
    blended = picture + opacity[..., None].astype(np.float32) * (filled.astype(np.float32) - picture)
    picture = np.round(blended).astype(np.uint8)
    if not legend or not present.size:
        return picture
    entries = [(_tag_text(int(index), None, class_names), colours[index]) for index in present]
    return np.concatenate(
        [picture, _legend_strip(entries, picture.shape[1], font_size or _default_font_size(*mask.shape))]
    )


def _edges(mask: np.ndarray, width: int) -> np.ndarray:
    """Return (H, W) bool: the pixels just above or left of a change of class, `width` pixels deep."""
    edges = np.zeros(mask.shape, bool)
    for shift in range(1, max(1, width // 2) + 1):
        edges[:-shift] |= mask[:-shift] != mask[shift:]
        edges[:, :-shift] |= mask[:, :-shift] != mask[:, shift:]
    return edges


def _legend_strip(entries: list[tuple[str, np.ndarray]], width: int, font_size: int) -> np.ndarray:
    """Draw (name, colour) entries in as many rows as the width asks for; (L, width, 3) uint8."""
    from PIL import Image, ImageDraw

    padding, swatch = max(3, font_size // 2), round(font_size * 0.9)
    fitted = []
    for name, colour in entries:
        name, size = _fit_text(name, font_size, width - swatch - 3 * padding)
        fitted.append((name, size, colour, swatch + padding + _text_width(name, size)))
    places, x, y, row = [], padding, padding, _line_height(font_size)
    for name, size, colour, entry_width in fitted:
        if x > padding and x + entry_width + padding > width:
            x, y = padding, y + row + padding // 2
        places.append((x, y, name, size, colour))
        x += entry_width + 2 * padding
    strip = Image.new("RGB", (width, y + row + padding), _PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, name, size, colour in places:
        top = y + (row - swatch) // 2
        # The outline keeps a white class visible on white.
        square = (x, top, x + swatch - 1, top + swatch - 1)
        draw.rectangle(square, fill=tuple(int(v) for v in colour), outline=_IGNORED_GREY)
        _draw_text(draw, x + swatch + padding // 2, y + (row - _line_height(size)) // 2, name, size, _INK)
    return np.array(strip)


def grid(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    *,
    gap: int | None = None,
    font_size: int | None = None,
    background: tuple[int, int, int] = _PAPER,
) -> np.ndarray:
    """Arrange images of any sizes on one sheet, row by row.

    Args:
        images: (H, W, 3) or (H, W) arrays, at least one. Smaller ones keep their size, centred in their cell.
        columns: Images per row; None for a sheet about as wide as high.
        titles: One line above each image; too long ones are set smaller, then shortened.
        gap: Pixels between and around cells; None to follow the cells' size.
        font_size: Of the titles; None to follow the cells' size.
        background: RGB 0-255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: No images, or another number of titles than images.
    """
    from PIL import Image, ImageDraw

    if len(images) == 0:
        raise ValueError("`images` is empty; give at least one image")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"`titles` has {len(titles)} lines but `images` has {len(images)} images")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` {columns} must be 1 or more")
    pictures = [_as_picture(image) for image in images]
    cell_height, cell_width = np.max([picture.shape[:2] for picture in pictures], axis=0).tolist()
    columns = min(columns or int(np.ceil(np.sqrt(len(pictures) * cell_height / cell_width))), len(pictures))
    gap = max(4, round(0.02 * max(cell_height, cell_width))) if gap is None else gap
    font_size = font_size or _default_font_size(cell_height, cell_width)
    title_height = 0 if titles is None else _line_height(font_size)
    row_heights = [
        max(len(picture) for picture in pictures[first : first + columns]) + title_height + gap
        for first in range(0, len(pictures), columns)
    ]
    sheet = Image.new("RGB", (columns * (cell_width + gap) + gap, sum(row_heights) + gap), background)
    draw = ImageDraw.Draw(sheet)
    ink = _TITLE_GREY if _ink_on(np.array(background)) == _INK else _PAPER
    for index, picture in enumerate(pictures):
        left = gap + (index % columns) * (cell_width + gap)
        top = gap + sum(row_heights[: index // columns])
        offset = (cell_width - picture.shape[1]) // 2
        sheet.paste(Image.fromarray(picture), (left + offset, top + title_height))
        if titles is not None:
            text, size = _fit_text(str(titles[index]), font_size, cell_width)
            _draw_text(draw, left + min(offset, cell_width - _text_width(text, size)), top, text, size, ink)
    return np.array(sheet)


def encode_image(image: np.ndarray, file_format: str = "PNG", *, quality: int = 92) -> bytes:
    """Return `image` as the bytes of an image file.

    Args:
        image: (H, W, 3) or (H, W), uint8 or float, 0-255.
        file_format: A format that Pillow writes: "PNG", "JPEG", "WEBP" …
        quality: Of JPEG and WebP, 1-100.
    """
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": quality} if file_format in ("JPEG", "WEBP") else {}
    Image.fromarray(_as_picture(image)).save(buffer, format=file_format, **options)
    return buffer.getvalue()


def save_image(image: np.ndarray, path: str | os.PathLike, *, quality: int = 92) -> Path:
    """Write `image` to `path` whole or not at all, and make its folder.

    The file is written under another name in the same folder and then renamed.

    Args:
        image: (H, W, 3) or (H, W), uint8 or float, 0-255.
        path: Its suffix chooses the format.
        quality: Of JPEG and WebP, 1-100.

    Returns:
        The path written.

    Raises:
        ValueError: A suffix that names no image format.
    """
    path = Path(path)
    file_format = _FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise ValueError(f"`path` {str(path)!r} has the suffix {path.suffix!r}; use one of {', '.join(_FORMATS)}")
    content = encode_image(image, file_format, quality=quality)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def save_mask(mask: np.ndarray, path: str | os.PathLike, palette: ArrayLike | None = None) -> Path:
    """Write class ids as an indexed PNG, whole or not at all, and make its folder.

    The file's pixels are the ids themselves, as in VOC's masks and as `kerasvision.data` reads them; viewers show the
    palette's colours.

    Args:
        mask: (H, W) integer class ids, 0-254; 255 = not labelled.
        path: Must end in .png.
        palette: (C, 3) RGB 0-255, a colour for each id; None for `default_palette`. Without a 256th colour, 255 is
            shown as in VOC.

    Returns:
        The path written.

    Raises:
        ValueError: A mask that is not (H, W) or no integers of 0-255, a palette with too few colours, another suffix.
    """
    from PIL import Image

    path, mask = Path(path), np.asarray(mask)
    if path.suffix.lower() != ".png":
        raise ValueError(f"`path` {str(path)!r} must end in .png, which keeps class ids as they are")
    if mask.ndim != 2 or 0 in mask.shape or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"`mask` of shape {mask.shape} and type {mask.dtype} must be integer (H, W)")
    lowest, highest = int(mask.min()), int(mask.max())
    if lowest < 0 or highest > 255:
        raise ValueError(f"`mask` has ids {lowest} to {highest}, but an indexed PNG holds 0-255 only")
    ids = mask.astype(np.uint8, copy=False)
    labelled = highest if highest < 255 else int(ids.max(where=ids < 255, initial=0))
    colours = _palette_for(np.array([labelled]), None, default_palette(255) if palette is None else palette)[:256]
    table = np.zeros((256, 3), np.uint8)
    table[255] = _VOID_COLOUR
    table[: len(colours)] = colours
    image = Image.fromarray(ids)
    image.putpalette(table.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        image.save(partial, format="PNG")
    return path
