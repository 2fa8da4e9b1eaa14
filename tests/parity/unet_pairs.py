"""Compare a segmenter with a torch module that has the same weights: logits, losses and gradients."""

import copy

import numpy as np
import tensorflow as tf
import torch
from torch.nn import functional

from kerasvision.layers.normalization import IMAGENET_MEAN, IMAGENET_STD


def randomise(module, seed=0):
    """Give a module random weights, biases and statistics that matter; activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                # The last normalisation of a residual block is kept small, or their sums would blow up.
                scale = 0.3 if name.endswith("bn2") else 1.0
                uniform(part.weight, 0.5 * scale, 1.5 * scale)
                uniform(part.bias, -0.3, 0.3)
                uniform(part.running_mean, -0.3, 0.3)
                uniform(part.running_var, 0.5, 2.0)
            elif isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                inputs = part.weight[0].numel() if isinstance(part, torch.nn.Conv2d) else part.weight.shape[0]
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * (2 / inputs) ** 0.5)
                if part.bias is not None:
                    uniform(part.bias, -0.1, 0.1)
    return module.eval()


def image_batch(height, width, count=2, seed=0):
    """Return (count, H, W, 3) images, 0-255, smooth enough to be like photos."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.uniform(0, 255, (count, 3, max(2, height // 4), max(2, width // 4))).astype("f4"))
    images = functional.interpolate(noise, size=(height, width), mode="bilinear", align_corners=True)
    return images.permute(0, 2, 3, 1).numpy() * 0.8 + rng.uniform(0, 50, (count, height, width, 3)).astype("f4")


def to_torch(images):
    """Return normalised images (B, 3, H, W)."""
    normalised = (images - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    return torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)


def assert_equal_logits(ours, theirs, images, tolerance=1e-4):
    """Assert equal logits at inference, relative to the largest; return the difference."""
    with torch.no_grad():
        expected = theirs.eval()(to_torch(images))
    expected = (expected[0] if isinstance(expected, tuple) else expected).permute(0, 2, 3, 1).numpy()
    found = ours(images).numpy()
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < tolerance, difference
    return difference


def assert_equal_training(ours, theirs, images, masks, pairs, *, auxiliary_weight=0.0, training=True):
    """Assert equal cross-entropy, and equal gradients of every parameter.

    Args:
        ours: The segmenter.
        theirs: A module that returns logits (B, C, H, W), or them and auxiliary ones, at the size of the masks.
        images: (B, H, W, 3).
        masks: (B, H, W), 255 = ignore.
        pairs: `Assignment`s from their tensors to our variables.
        auxiliary_weight: Of the loss of their auxiliary logits.
        training: With the batch's statistics, which multiply roundings until a ReLU here and there falls the other
            way: ours must be float64 then. Else with fixed ones.
    """
    theirs = copy.deepcopy(theirs).train(training)
    inputs = to_torch(images)
    assert not training or ours.compute_dtype == "float64"
    outputs = theirs.double()(inputs.double()) if training else theirs(inputs)
    target = torch.from_numpy(masks).long()
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    expected = functional.cross_entropy(logits, target, ignore_index=255)
    for more in auxiliary:
        expected = expected + auxiliary_weight * functional.cross_entropy(more, target, ignore_index=255)
    expected.backward()

    with tf.GradientTape() as tape:
        losses = ours.losses_from_outputs(ours(images, training=training), images, tf.constant(masks))
        total = sum(value for name, value in losses.items() if name != "dice_loss")
    np.testing.assert_allclose(float(total), expected.item(), rtol=1e-4)
    variables = ours.trainable_variables
    gradients = dict(zip((v.path for v in variables), tape.gradient(total, [v.value for v in variables]), strict=True))
    parameters = dict(theirs.named_parameters())
    largest = max(float(parameter.grad.norm()) for parameter in parameters.values())
    differences = {}
    for pair in pairs:
        if pair.source in parameters:  # and no statistic
            wanted = pair.transform(parameters[pair.source].grad.numpy())
            mine = gradients[pair.variable.path].numpy()
            # A bias that normalisation takes away again has no gradient but rounding.
            scale = max(np.linalg.norm(wanted), 1e-4 * largest)
            differences[pair.source] = np.linalg.norm(mine - wanted) / scale
    assert len(differences) == len(parameters) == len(variables)
    worst = max(differences, key=differences.__getitem__)
    # In single precision a ReLU may still fall the other way.
    assert differences[worst] < (1e-4 if training else 3e-3), f"{worst}: gradients differ by {differences[worst]}"


def masks_of(images, classes, seed=0):
    """Return random masks (B, H, W) with some ignored pixels."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, classes, images.shape[:3]).astype(np.int32)
    masks[:, :3] = 255
    return masks
