"""Fully connected conditional random field: labels that follow the edges of the image. On the host, after a network."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from kerasvision.ops.permutohedral import permutohedral_lattice

Method = Literal["lattice", "exact"]

# Of `unary_from_softmax` in pydensecrf2: surer than this, no pixel is.
SMALLEST_PROBABILITY = 1e-5

# Kernel values that the exact method holds: 256 MB, enough for 75x75 pixels. For more it computes them anew, in blocks.
_KERNEL_VALUES = 32_000_000


def dense_crf(
    images,
    probabilities,
    *,
    from_logits=False,
    iterations=10,
    position_weight=3.0,
    position_sigma=1.0,
    bilateral_weight=4.0,
    bilateral_position_sigma=67.0,
    bilateral_color_sigma=3.0,
    method: Method = "lattice",
):
    """Refine a segmentation by mean field inference in a dense CRF with Potts compatibility.

    Every pixel sends its probabilities Q to every other, weighted by how near and how alike they are:
    Q <- softmax(log p + `position_weight` K1 Q + `bilateral_weight` K2 Q), where K1 is a Gaussian of positions, K2 one
    of positions and colours, both with their own pixel included and normalised symmetrically: D^-1/2 K D^-1/2, D being
    the sums of K's rows.

    Args:
        images: (H, W, 3) or (B, H, W, 3) RGB, 0-255, uint8 or float; arrays or tensors that NumPy can read.
        probabilities: (H, W, C) or (B, H, W, C) of each class, at the size of the images; clipped to [1e-5, 1].
        from_logits: `probabilities` are logits, of which the softmax is taken first.
        iterations: Mean field steps, 0 or more.
        position_weight: Weight of K1, 0 or more.
        position_sigma: Standard deviation of K1 in pixels, above 0.
        bilateral_weight: Weight of K2, 0 or more.
        bilateral_position_sigma: Standard deviation of K2 in pixels, above 0.
        bilateral_color_sigma: Standard deviation of K2 in levels of 0-255, above 0.
        method: ``"lattice"`` filters on the permutohedral lattice, in time and memory linear in the number of pixels.
            ``"exact"`` sums over all pairs of pixels, in float64: a second for 60x80 pixels, and the
            square of that factor for more.

    Returns:
        float32 array of the shape of `probabilities`: the marginals Q, which add up to 1 over classes. Empty for
        empty images. One picture's result does not depend on the others of the batch.

    Raises:
        ValueError: Shapes that do not match, a number out of range, values that are NaN or infinite, an unknown
            method, or sigmas so small that the lattice cannot hold the picture.

    The defaults are DeepLabV2's for VOC; they suit VOC's size of pictures, about 500x375.

    The lattice's kernel is only roughly Gaussian, but it is the one that published figures were made with: results
    equal those of pydensecrf2 to float32 rounding where H W is a multiple of 4, and to less than 0.01 elsewhere, where
    that code lays up to 3 black pixels into the lattice. The two methods agree on most labels, not on all.

    Time: 0.9 times that of pydensecrf2 where two cores are free, 1.25 times on one; memory: some 700 bytes and 5 C
    floats a pixel.

    Source: Krähenbühl and Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge potentials",
    algorithm 1; Chen et al. 2016, DeepLab, https://arxiv.org/abs/1606.00915, section 3.3; the normalisation is that of
    Krähenbühl's code, as is that a pixel's own message counts, which the paper leaves out.

    >>> left = np.array([[[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]]])
    >>> image = np.array([[[0, 0, 0], [0, 0, 0], [255, 255, 255]]])
    >>> dense_crf(image, left).argmax(-1).tolist()  # the pixel in doubt goes with the one of its colour
    [[0, 0, 1]]
    """
    kernels = {
        "position": (position_weight, position_sigma, None),
        "bilateral": (bilateral_weight, bilateral_position_sigma, bilateral_color_sigma),
    }
    _check_numbers(kernels, iterations, method)
    images, probabilities = np.asarray(images, np.float32), np.asarray(probabilities, np.float32)
    _check_arrays(images, probabilities)
    if images.ndim == 4:
        pairs = zip(images, probabilities, strict=True)
        refined = [_refine(*pair, from_logits, iterations, kernels, method) for pair in pairs]
        return np.stack(refined) if refined else np.zeros(probabilities.shape, np.float32)
    return _refine(images, probabilities, from_logits, iterations, kernels, method)


def _refine(image, probabilities, from_logits, iterations, kernels, method):
    """Return the marginals (H, W, C) of one image (H, W, 3)."""
    if probabilities.size == 0:
        return np.zeros(probabilities.shape, np.float32)
    flat = probabilities.reshape(-1, probabilities.shape[-1])  # (N, C)
    if from_logits:
        flat = _softmax(flat.copy())
    log_likelihood = np.log(np.clip(flat, SMALLEST_PROBABILITY, 1.0))
    used = [kernel for kernel in kernels.values() if kernel[0] > 0 and iterations > 0]
    prepare = _lattice_messages if method == "lattice" else _exact_messages
    marginals = _softmax(log_likelihood.copy())
    # One thread for each kernel: NumPy and SciPy let go of the interpreter while they work.
    with ThreadPoolExecutor(2) as pool:
        messengers = list(pool.map(lambda kernel: prepare(_features(image, *kernel[1:]), kernel[0]), used))
        for _ in range(iterations):
            energy = log_likelihood.copy()
            for message in pool.map(lambda send, values: send(values), messengers, repeat(marginals)):
                energy += message
            marginals = _softmax(energy)
    return marginals.reshape(probabilities.shape)


def _features(image, position_sigma, color_sigma):
    """Return float32 (N, 2) x, y in sigmas, or (N, 5) x, y, red, green, blue."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    features = np.stack([x, y], axis=-1) / np.float32(position_sigma)  # (H, W, 2)
    if color_sigma is not None:
        features = np.concatenate([features, image / np.float32(color_sigma)], axis=-1)  # (H, W, 5)
    return features.reshape(height * width, -1)


def _lattice_messages(features, weight):
    """Return the function from Q (N, C) to weight D^-1/2 K D^-1/2 Q (N, C), approximately."""
    lattice = permutohedral_lattice(features)
    sums = lattice.filter(np.ones((len(features), 1), np.float32))[:, 0]
    norm = 1 / np.sqrt(sums + 1e-20)
    return lattice.scaled(norm, norm * np.float32(weight)).filter


def _exact_messages(features, weight):
    """Return the function from Q (N, C) to weight D^-1/2 K D^-1/2 Q (N, C), summed over all pairs in float64."""
    features = features.astype(np.float64)
    rows = max(1, _KERNEL_VALUES // len(features))
    blocks = [features[start : start + rows] for start in range(0, len(features), rows)]

    def kernel(block):
        return np.exp(-0.5 * cdist(block, features, "sqeuclidean"))  # (rows, N)

    held = kernel(features) if len(blocks) == 1 else None

    def filter(values):
        if held is not None:
            return held @ values
        return np.concatenate([kernel(block) @ values for block in blocks])

    norm = 1 / np.sqrt(filter(np.ones((len(features), 1))))  # (N, 1)
    return lambda marginals: weight * norm * filter(norm * marginals)


def _softmax(energy):
    """Return the softmax over the last axis, written over the argument."""
    # Maxima of short rows are slow, that of all is not; float32 holds exp(60) and exp(-60) well.
    if energy.max() > 60 or energy.min() < -60:
        energy -= energy.max(axis=-1, keepdims=True)
    np.exp(energy, out=energy)
    energy /= energy.sum(axis=-1, keepdims=True)
    return energy


def _check_numbers(kernels, iterations, method):
    if method not in ("lattice", "exact"):
        raise ValueError(f"`method` {method!r} is unknown; use 'lattice' or 'exact'")
    if isinstance(iterations, bool) or iterations != int(iterations) or iterations < 0:
        raise ValueError(f"`iterations` {iterations!r} must be a whole number, 0 or more; 10 is usual")
    for name, (weight, position_sigma, color_sigma) in kernels.items():
        if not 0 <= weight < float("inf"):
            raise ValueError(f"`{name}_weight` {weight} must be 0 or more, and finite; 0 leaves that kernel out")
        prefix = "bilateral_" if name == "bilateral" else ""
        sigmas = {f"{prefix}position_sigma": position_sigma, f"{prefix}color_sigma": color_sigma}
        for argument, sigma in sigmas.items():
            if sigma is not None and not 0 < sigma < float("inf"):
                raise ValueError(f"`{argument}` {sigma} must be above 0, and finite; use a weight of 0 to leave it out")


def _check_arrays(images, probabilities):
    if images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ValueError(f"`images` of shape {images.shape} must be (H, W, 3) or (B, H, W, 3); pass RGB, channels last")
    if probabilities.shape[:-1] != images.shape[:-1]:
        raise ValueError(
            f"`probabilities` of shape {probabilities.shape} must be {(*images.shape[:-1], 'C')}, as `images` of shape "
            f"{images.shape}; resize one of them"
        )
    if probabilities.shape[-1] == 0:
        raise ValueError(f"`probabilities` of shape {probabilities.shape} must have 1 class or more")
    for name, array in (("images", images), ("probabilities", probabilities)):
        bad = array.size - np.isfinite(array).sum()
        if bad:
            raise ValueError(f"`{name}` has {bad} values that are NaN or infinite; all must be finite")
