"""What comparisons of whole models with PyTorch's share: random weights that matter, and gradients by name."""

import numpy as np
import tensorflow as tf
import torch

from kerasvision.data.streets import Streets


def randomize(module, seed=0):
    """Fill a torch module with random weights and batch-norm statistics that keep activations of size about 1.

    With fresh statistics, a wrong epsilon, momentum or order of running mean and variance would not show.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, part in module.named_modules():
            if hasattr(part, "running_mean"):
                # The last normalisation of a residual block is kept small, or sums would blow up.
                scale = 0.3 if name.endswith(("bn3", "layer1.bn2", "layer2.bn2", "layer3.bn2")) else 1.0
                uniform(part.weight, 0.5 * scale, 1.5 * scale)
                uniform(part.bias, -0.3, 0.3)
                uniform(part.running_mean, -0.3, 0.3)
                uniform(part.running_var, 0.5, 2.0)
            elif isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
                fan_in = part.weight[0].numel()
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * (1.6 / fan_in) ** 0.5)
                if part.bias is not None:
                    uniform(part.bias, -0.1, 0.1)
    return module.eval()


def to_torch(images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """Return images (B, H, W, 3), 0-255, as a normalised torch batch (B, 3, H, W)."""
    pixels = torch.from_numpy(np.asarray(images, np.float32)).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def padded_batch(short, long):
    """Return a batch of two scenes, landscape and portrait, as we take it and as torchvision's detectors do.

    Args:
        short: Short side of both in pixels, to which torchvision shall be told to resize.
        long: Long side.

    Returns:
        inputs and targets of ours, padded; a list of their images, a list of their targets, with labels from 0 too.
    """
    sizes = [(short, long), (long, short)]
    canvas = np.zeros((2, long, long, 3), np.float32)
    boxes = np.full((2, 5, 4), -1, np.float32)
    labels = np.full((2, 5), -1, np.int32)
    images, targets = [], []
    for index, size in enumerate(sizes):
        sample = Streets("train", count=8, size_hw=size)[index + 3]
        count = min(3 + index, len(sample.boxes))
        canvas[index, : size[0], : size[1]] = sample.image
        boxes[index, :count], labels[index, :count] = sample.boxes[:count], sample.labels[:count]
        images.append(as_unit_tensor(sample.image))
        targets.append(
            {
                "boxes": torch.from_numpy(sample.boxes[:count]),
                "labels": torch.from_numpy(sample.labels[:count].astype(np.int64)),
            }
        )
    inputs = {"images": canvas, "sizes_hw": np.array(sizes, np.int32)}
    return inputs, {"boxes": boxes, "labels": labels}, images, targets


def as_unit_tensor(image):
    """Return an image (H, W, 3), 0-255, as torchvision's detectors take it: (3, H, W) in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def relative_difference(ours, theirs):
    """Return the largest difference between logits (B, H, W, C) and a torch batch (B, C, H, W), by their largest."""
    ours = ours if isinstance(ours, np.ndarray) else ours.numpy()
    theirs = theirs.detach().permute(0, 2, 3, 1).numpy()
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def assert_gradients_equal(ours, loss, theirs, converter, *, tolerance=5e-3):
    """Check the gradient of every trained variable against that of the torch parameter that a converter pairs it with.

    Args:
        ours: Our model, of which the same is trained.
        loss: Function without arguments that returns its loss.
        theirs: The torch module, after `backward`.
        converter: A `zoo.converters.assign.Converter`.
        tolerance: Largest norm of a difference, as a part of the gradient's norm. Batch statistics need more: a unit
            whose activation is all but 0 is on in one framework and off in the other.
    """
    variables = ours.trainable_variables
    with tf.GradientTape() as tape:
        total = loss()
    values = tape.gradient(total, [variable.value for variable in variables])
    gradients = {variable.path: value for variable, value in zip(variables, values, strict=True)}
    parameters = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    compared = 0
    for pair in converter.assignments(ours):
        if pair.source not in parameters:
            continue  # a buffer, such as moving statistics, or not trained
        wanted = pair.transform(parameters[pair.source].grad.numpy())
        found = tf.convert_to_tensor(gradients[pair.variable.path]).numpy()
        size, difference = np.linalg.norm(wanted), np.linalg.norm(found - wanted)
        assert difference <= tolerance * size + 1e-7, f"{pair.source}: {difference} of {size}"
        compared += 1
    assert compared == len(parameters) == len(variables)
