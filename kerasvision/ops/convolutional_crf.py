"""Mean field inference in a CRF whose kernels end at a window: differentiable, static, in the graph."""

import functools

import keras
from keras import ops


def convolutional_crf(
    logits,
    images,
    *,
    iterations,
    kernel_size,
    stride,
    position_weight,
    position_sigma,
    bilateral_weight,
    bilateral_position_sigma,
    bilateral_color_sigma,
    compatibility=None,
):
    """Refine the logits of a segmentation by messages between pixels that are near and alike.

    Each step is Q <- softmax(x - mu (w1 K1 Q + w2 K2 Q)): K1 is a Gaussian of positions and K2 one of positions and
    colours, both cut off at a square window, with their own pixel included and normalised symmetrically: D^-1/2 K
    D^-1/2, D being the sums of K's rows. With a stride s, Q and the image are averaged over cells of s x s pixels
    first, and the sum of the messages is brought back to pixels by bilinear interpolation. With a stride of 1 and a
    window that covers the image this is `kerasvision.ops.dense_crf.dense_crf` by its exact method.

    Args:
        logits: (B, H, W, C) of any float dtype.
        images: (B, H, W, 3) RGB, 0-255, of any dtype.
        iterations: Mean field steps, 0 or more; the graph grows with it and with `kernel_size` squared.
        kernel_size: Odd side of the window in cells.
        stride: Side s of a cell in pixels; the last row and column of cells may be smaller.
        position_weight: w1, a number or (C,).
        position_sigma: Standard deviation of K1 in pixels, a number or a scalar tensor.
        bilateral_weight: w2, a number or (C,).
        bilateral_position_sigma: Standard deviation of K2 in pixels, a number or a scalar tensor.
        bilateral_color_sigma: Standard deviation of K2 in levels of 0-255, a number or a scalar tensor.
        compatibility: mu (C, C), the cost of class l beside class l' in row l, column l'; default: Potts, as -1 on the
            diagonal, which the softmax cannot tell from 1 off it.

    Returns:
        Refined logits (B, H, W, C), in the dtype of `logits`; computed in float32. Their softmax is Q after the
        last step. No pixels give no logits. A pixel with a logit of NaN spreads NaN over its window in each step, to
        some or all classes, and harms no other image.

    Raises:
        ValueError: A number out of range.

    Source: Teichmann and Cipolla 2018, "Convolutional CRFs", https://arxiv.org/abs/1805.04777, section 4; the steps
    of Zheng et al. 2015, "CRF as RNN", https://arxiv.org/abs/1502.03240, section 4. Differs from the papers: a pixel's
    own message counts, as in Krähenbühl's code.
    """
    check_numbers(iterations, kernel_size, stride)
    logits = ops.convert_to_tensor(logits)
    if iterations == 0 or 0 in logits.shape:
        return logits
    weights = tuple(map(_float32, (position_weight, bilateral_weight, compatibility)))
    sigmas = tuple(map(_float32, (position_sigma, bilateral_position_sigma, bilateral_color_sigma)))
    return _compiled()(logits, images, weights, sigmas, iterations, kernel_size, stride)


@functools.cache
def _compiled():
    """Return `_refine`, compiled under JAX, which called eagerly would compile hundreds of slices one by one."""
    if keras.backend.backend() != "jax":
        return _refine
    import jax

    return jax.jit(_refine, static_argnums=(4, 5, 6))


def _refine(logits, images, weights, sigmas, iterations, kernel_size, stride):
    """Return refined logits: see `convolutional_crf`."""
    dtype = logits.dtype
    logits = ops.cast(logits, "float32")
    cells = _shrink(ops.cast(images, "float32"), stride)  # (B, h, w, 3)
    position_sigma, bilateral_position_sigma, color_sigma = sigmas
    position = _position_messages(cells, kernel_size // 2, position_sigma / stride)
    bilateral = _bilateral_messages(cells, kernel_size // 2, bilateral_position_sigma / stride, color_sigma)
    position_weight, bilateral_weight, compatibility = weights

    def step(energy):
        marginals = _shrink(ops.softmax(energy, axis=-1), stride)  # (B, h, w, C)
        messages = position_weight * position(marginals) + bilateral_weight * bilateral(marginals)
        if compatibility is not None:
            messages = -ops.matmul(messages, ops.transpose(compatibility))
        return logits + _enlarge(messages, stride, logits)  # (B, H, W, C)

    energy = logits
    if keras.backend.backend() == "jax":
        energy, _ = ops.scan(lambda energy, _: (step(energy), None), energy, length=iterations)
    else:  # LiteRT and ONNX do better without a loop
        for _ in range(iterations):
            energy = step(energy)
    return ops.cast(energy, dtype)


def check_numbers(iterations, kernel_size, stride):
    """Raise ValueError for arguments of `convolutional_crf` that are out of range."""
    if iterations != int(iterations) or iterations < 0:
        raise ValueError(f"`iterations` {iterations} must be a whole number, 0 or more; 5 is usual")
    if kernel_size != int(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"`kernel_size` {kernel_size} must be an odd number of cells; 7 is usual")
    if stride != int(stride) or stride < 1:
        raise ValueError(f"`stride` {stride} must be 1 or more pixels; 4 is usual")


def _float32(number):
    """Return a tensor in float32, a Python number or None as it is."""
    return number if number is None or isinstance(number, int | float) else ops.cast(number, "float32")


def _position_messages(cells, reach, sigma):
    """Return the function from Q (B, h, w, C) to D^-1/2 K D^-1/2 Q, K a Gaussian of positions with `sigma` in cells."""
    steps = range(-reach, reach + 1)

    def filter(values):
        padded = _pad(values, reach, 0)
        values = sum(_gaussian((y / sigma) ** 2) * _shifted(padded, (reach, 0), (y, 0)) for y in steps)
        padded = _pad(values, 0, reach)
        return sum(_gaussian((x / sigma) ** 2) * _shifted(padded, (0, reach), (0, x)) for x in steps)

    norm = ops.rsqrt(filter(ops.ones_like(cells[..., :1])))  # (B, h, w, 1)
    return lambda marginals: norm * filter(norm * marginals)


def _bilateral_messages(cells, reach, position_sigma, color_sigma):
    """Return the function from Q (B, h, w, C) to D^-1/2 K D^-1/2 Q, K a Gaussian of positions and colours.

    Args:
        cells: (B, h, w, 3) colours.
        reach: Cells to each side.
        position_sigma: In cells.
        color_sigma: In levels of 0-255.
    """
    reaches = (reach, reach)
    colors = cells / color_sigma
    padded = _pad(colors, *reaches)
    inside = _pad(ops.ones_like(cells[..., :1]), *reaches)
    steps = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    kernels = []
    for step in steps:
        squares = ops.sum(ops.square(_shifted(padded, reaches, step) - colors), axis=-1, keepdims=True)  # (B, h, w, 1)
        squares = squares + (step[0] / position_sigma) ** 2 + (step[1] / position_sigma) ** 2
        kernels.append(_gaussian(squares) * _shifted(inside, reaches, step))

    def filter(values):
        padded = _pad(values, *reaches)
        return sum(kernel * _shifted(padded, reaches, step) for step, kernel in zip(steps, kernels, strict=True))

    norm = ops.rsqrt(sum(kernels))  # (B, h, w, 1); each sum holds the pixel's own 1
    return lambda marginals: norm * filter(norm * marginals)


def _gaussian(square):
    """Return exp(-square / 2) in float32."""
    return ops.exp(-0.5 * ops.cast(square, "float32"))


def _pad(values, rows, columns):
    """Return (B, h, w, C) with so many rows and columns of zeros on each side."""
    return ops.pad(values, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


def _shifted(padded, margins, step):
    """Return what lies `step` (rows, columns) from each cell of a map (B, h, w, C) that `_pad` padded by `margins`."""
    # Borders counted from the far end need no size of the map.
    rows, columns = (slice(margin + move, move - margin or None) for margin, move in zip(margins, step, strict=True))
    return padded[:, rows, columns]


def _shrink(values, stride):
    """Return the averages (B, ceil(H / s), ceil(W / s), C) of cells of s x s pixels of (B, H, W, C)."""
    if stride == 1:
        return values
    margins = [0 if size is not None and size % stride == 0 else stride - 1 for size in values.shape[1:3]]
    options = {"strides": stride, "padding": "valid", "data_format": "channels_last"}
    if margins == [0, 0]:
        return ops.average_pool(values, stride, **options)
    widths = ((0, 0), (0, margins[0]), (0, margins[1]), (0, 0))
    inside = ops.pad(ops.ones_like(values[..., :1]), widths)
    return ops.average_pool(ops.pad(values, widths), stride, **options) / ops.average_pool(inside, stride, **options)


def _enlarge(values, stride, like):
    """Return (B, h, w, C) interpolated between the centres of cells, cut to the size of `like` (B, H, W, C).

    A whole factor needs no size of the map. So this exports for unknown sizes under every backend, which
    `resize_bilinear` does not; beyond the outermost centres values stay the same, as they do there.
    """
    if stride == 1:
        return values
    for axis in (1, 2):
        values = _enlarge_along(values, stride, axis)
    height, width = ops.shape(like)[1:3]
    return values[:, :height, :width]


def _enlarge_along(values, stride, axis):
    """Return (B, h, w, C) with `stride` values for each along one axis: (B, h s, w, C) or (B, h, w s, C)."""

    def part(array, start, stop):
        return array[:, start:stop] if axis == 1 else array[:, :, start:stop]

    around = ops.concatenate([part(values, None, 1), values, part(values, -1, None)], axis=axis)
    previous, following = part(around, None, -2), part(around, 2, None)
    phases = []
    for phase in range(stride):
        place = (phase + 0.5) / stride - 0.5  # in cells, from the centre of the cell
        phases.append(values * (1 - abs(place)) + (previous if place < 0 else following) * abs(place))
    shape = list(ops.shape(values))
    shape[axis] = shape[axis] * stride
    if None not in values.shape[1:]:
        shape[0] = -1  # one unknown size stays static
    return ops.reshape(ops.stack(phases, axis=axis + 1), shape)
