"""How the pictures of the gallery look: sizes, colours, and the few things that most of them draw."""

import functools
import io

import keras
import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import patches, pyplot
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

from kerasvision.data.streets import PALETTE, Streets

WIDTH = 10.0  # inches; at `DPI` 950 pixels, which GitHub shows without shrinking on a wide screen
DPI = 95
LARGEST = 115_000  # bytes of a picture; beyond, it gets fewer colours

INK = "#24292f"
FAINT = "#b8bfc6"
TRUTH = "#009e73"
BLUE, ORANGE, RED, PURPLE, SKY, YELLOW = "#0072b2", "#e08e00", "#d1495b", "#8a5fbf", "#56b4e9", "#f0d43a"
# Colours of levels, classes and curves, in this order; told apart by people with any kind of colour vision.
COLOURS = (BLUE, ORANGE, TRUTH, RED, PURPLE, SKY, "#8c564b", "#666666")
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#fde3b4", "#f4a259", "#c8553d", "#5c2036"])

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.grid": False,
    "grid.color": "#e6e9ec",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "lines.linewidth": 1.8,
    "image.interpolation": "nearest",
}


def styled(draw):
    """Return the figure that a function draws, in the gallery's style and with the same random numbers every time."""
    keras.utils.set_random_seed(0)
    with matplotlib.rc_context(_STYLE):
        return draw()


def panels(rows=1, columns=1, *, height, **options):
    """Return a figure of the gallery's width and its axes."""
    return pyplot.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **options)


def to_png(figure) -> bytes:
    """Return a figure as a PNG of at most 256 colours, without metadata: the same picture is the same file."""
    with matplotlib.rc_context(_STYLE):
        for _ in range(2):  # until the layout, which images of fixed aspect change, has settled
            figure.draw_without_rendering()
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=DPI, facecolor="white")
        pyplot.close(figure)
        picture = Image.open(buffer).convert("RGB")
        for colours in (256, 128, 64, 32):
            packed = io.BytesIO()
            few = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
            few.save(packed, "PNG", optimize=True)
            if packed.tell() < LARGEST:
                break
        return packed.getvalue()


# -- Data ------------------------------------------------------------------------------------------------


@functools.cache
def scene(index=2, size_hw=(256, 384)):
    """Return a `Sample` of streets' validation split: boxes, labels, mask, instances."""
    return Streets("validation", size_hw=size_hw)[index]


def batch(image):
    """Return an array as a float32 batch of one."""
    return np.asarray(image, np.float32)[None]


def array(tensor):
    """Return a tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(tensor)


def shrunk(image, factor):
    """Return an (H, W, C) or (H, W) array averaged over cells of `factor` by `factor` pixels."""
    image = np.asarray(image, np.float32)
    height, width = (side // factor * factor for side in image.shape[:2])
    cells = image[:height, :width].reshape(height // factor, factor, width // factor, factor, *image.shape[2:])
    return cells.mean(axis=(1, 3))


def one_hot(mask, classes):
    """Return (H, W, C) float32 of an integer mask; nothing for pixels that are no class."""
    return (np.asarray(mask)[..., None] == np.arange(classes)).astype(np.float32)


# -- Drawing ---------------------------------------------------------------------------------------------


def show(axes, image, title="", *, faded=0.0, extent=None):
    """Draw an image without ticks, mixed with white by `faded`; pixel i covers i to i + 1, as boxes have it."""
    image = np.asarray(image)
    if faded:
        image = (image * (1 - faded) + 255 * faded).astype(np.uint8)
    height, width = image.shape[:2]
    axes.imshow(image, extent=extent or (0, width, height, 0))
    bare(axes)
    axes.set_title(title)


def show_mask(axes, mask, title=""):
    """Draw a mask of streets' classes in its colours; ignored pixels are grey."""
    mask = np.asarray(mask)
    show(axes, np.where((mask < len(PALETTE))[..., None], PALETTE[np.minimum(mask, len(PALETTE) - 1)], 200), title)


def heat(axes, values, title="", **options):
    """Draw a map of numbers, white being 0."""
    values = np.asarray(values)
    options = {"cmap": HEAT, "vmin": 0, **options}
    drawn = axes.imshow(values, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.set_title(title)
    return drawn


def bare(axes):
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def box(axes, xyxy, colour, *, text="", width=1.8, fill=0.0, **options):
    """Draw one box, with a small label at its upper left corner."""
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    if fill:
        axes.add_patch(patches.Rectangle((x1, y1), x2 - x1, y2 - y1, color=colour, alpha=fill, linewidth=0))
    axes.add_patch(
        patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width, **options)
    )
    if text:
        label(axes, x1, y1, text, colour, alpha=options.get("alpha", 1.0))


def label(axes, x, y, text, colour, *, alpha=1.0, below=False, size=7.5):
    """Write white on a colour, standing on (x, y) or hanging from it."""
    axes.text(
        x,
        y,
        text,
        color="white",
        fontsize=size,
        va="top" if below else "bottom",
        alpha=alpha,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": alpha},
        clip_on=True,
    )


def note(axes, text):
    """Write a line or two under the axes."""
    axes.set_xlabel(text, fontsize=8.5, color="#57606a")


def legend(figure, entries, **options):
    """Draw one legend for the figure, under it: pairs of text and colour."""
    handles = [patches.Patch(color=colour, label=text) for text, colour in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), **options)
