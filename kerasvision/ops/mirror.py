"""Mirroring images at their borders: the context that a network without padding asks for."""

from keras import ops


def mirror_pad(images, *, before, canvas_hw, sizes_hw=None):
    """Extend images to a canvas by mirroring them at their borders, as often as it takes.

    The border pixel is not repeated: left of a row ``a b c d`` stand ``... c d c b``. An image smaller than the margin
    is mirrored again and again: ``a b`` goes on as ``a b a b``, a single pixel is repeated.

    Args:
        images: (B, H, W, C), H and W at least 1.
        before: Pixels above and left of the image.
        canvas_hw: (height, width) of the result, integers or scalar tensors.
        sizes_hw: (B, 2) integers: the valid region of each image, at the top left, which alone is mirrored; ``None``
            if the images fill H x W.

    Returns:
        (B, *canvas_hw, C) in the dtype of `images`.

    Source: the overlap-tile strategy of Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, figure 2;
    `numpy.pad(mode="reflect")`.
    """
    for axis in (1, 2):
        places = ops.arange(canvas_hw[axis - 1], dtype="int32") - before
        if sizes_hw is None:
            images = ops.take(images, _mirrored(places, ops.shape(images)[axis]), axis=axis)
            continue
        rows = _mirrored(places[None, :], ops.cast(sizes_hw[:, axis - 1 : axis], "int32"))  # (B, canvas)
        rows = ops.reshape(rows, (-1, canvas_hw[axis - 1], *(1,) * (3 - axis)))  # (B, canvas, 1, 1) or (B, canvas, 1)
        images = ops.take_along_axis(images, rows if axis == 1 else ops.expand_dims(rows, 1), axis=axis)
    return images


def _mirrored(places, size):
    """Return the pixels of 0 to `size` - 1 that are seen at whole-numbered places, which may lie outside."""
    period = ops.maximum(2 * (size - 1), 1)  # there and back again; a single pixel is its own mirror image
    places = ops.mod(places, period)
    return ops.minimum(places, period - places)
