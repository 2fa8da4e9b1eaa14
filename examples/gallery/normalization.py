"""Normalisation of images and of features."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.data.streets import Streets
from kerasvision.layers import (
    BatchNormalization,
    FrozenBatchNormalization,
    ImageNormalization,
    LocalResponseNormalization,
    SyncBatchNormalization,
)


@picture("Normalisation", "layers.ImageNormalization")
def image_normalization():
    """Image normalisation: pixels as networks want them.

    The red, green and blue values of 20 `streets` scenes before and after: less ImageNet's mean, divided by its
    deviation, for each channel. It is the first layer of every model, so that it is saved and exported with the
    weights.
    """
    images = np.stack([sample.image for sample in Streets("validation", count=20)])
    normalized = d.array(ImageNormalization()(images))
    figure, axes = d.panels(1, 2, height=2.4)
    for channel, colour in enumerate((d.RED, d.TRUTH, d.BLUE)):
        for place, values in zip(axes, (images, normalized), strict=True):
            values = values[..., channel].ravel()
            label = f"{'RGB'[channel]}: mean {values.mean():.2f}, deviation {values.std():.2f}"
            place.hist(values, bins=64, histtype="step", color=colour, linewidth=1.8, label=label, density=True)
    for place, title in zip(axes, ("before: uint8, 0-255", "after"), strict=True):
        place.set_title(title)
        place.set_yticks([])
        place.legend(fontsize=7.5)
        place.set_ylim(0, 1.45 * place.get_ylim()[1])
    return figure


@picture(
    "Normalisation", "layers.BatchNormalization", "layers.FrozenBatchNormalization", "layers.SyncBatchNormalization"
)
def batch_normalization():
    """Batch normalisation: plain, synchronised and frozen.

    Batches of two images of one channel come in, their mean wandering from 0 to 4 and back; all layers start with the
    statistics that they learnt at 0. Left and middle: mean and deviation of what comes out of each batch in training.
    Plain and synchronised batch normalisation (the same without replicas) take each batch's own statistics: the output
    is always at 0. The frozen one uses what it was given for good, so it passes the drift on, but one odd batch cannot
    upset it. Right: at inference the moving averages serve, and these have followed the drift with a delay.
    """
    rng = np.random.default_rng(0)
    drift = 2 - 2 * np.cos(np.linspace(0, 2 * np.pi, 60))
    batches = [(rng.normal(mean, 1 + mean / 4, (2, 8, 8, 1))).astype("float32") for mean in drift]
    layers = (
        ("BatchNormalization", BatchNormalization(momentum=0.9), "-"),
        ("SyncBatchNormalization", SyncBatchNormalization(momentum=0.9), "--"),
        ("FrozenBatchNormalization", FrozenBatchNormalization(), "-"),
    )
    figure, axes = d.panels(1, 3, height=2.7)
    for place in axes[:2]:
        place.set_xlabel("batch")
    means = [batch.mean() for batch in batches]
    axes[0].plot(means, color=d.FAINT, linewidth=4, label="input")
    axes[1].plot([batch.std() for batch in batches], color=d.FAINT, linewidth=4)
    axes[2].plot(means, color=d.FAINT, linewidth=4)
    for name, layer, style in layers:
        training, inference = [], []
        for batch in batches:
            training.append(d.array(layer(batch, training=True) if "Frozen" not in name else layer(batch)))
            inference.append(d.array(layer(batch, training=False) if "Frozen" not in name else layer(batch)))
        axes[0].plot([output.mean() for output in training], style, label=name)
        axes[1].plot([output.std() for output in training], style)
        axes[2].plot([output.mean() for output in inference], style)
    axes[0].set(title="in training: mean of the output")
    axes[1].set(title="in training: its deviation", ylim=(0, None))
    axes[2].set(title="at inference: mean of the output", xlabel="after training on so many batches")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


@picture("Normalisation", "layers.LocalResponseNormalization")
def local_response_normalization():
    """Local response normalisation: a strong channel quietens its neighbours.

    Sixteen channels of one pixel before and after AlexNet's normalisation by the sum over five channels, with a large
    alpha so that it shows (left), and with the one that AlexNet was trained with (right), which only bites where
    features are of size 100 and more.
    """
    features = np.array([1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 5, 5, 1, 1, 1], np.float32)
    figure, axes = d.panels(1, 2, height=2.3)
    for place, factor, alpha in zip(axes, (1, 100), (0.5, 1e-4), strict=True):
        values = factor * features
        found = d.array(LocalResponseNormalization(alpha=alpha)(values[None]))[0]
        place.bar(np.arange(16) - 0.2, values, 0.4, color=d.FAINT, label="before")
        place.bar(np.arange(16) + 0.2, found, 0.4, color=d.RED, label="after")
        place.set(title=f"alpha={alpha:g}", xlabel="channel")
        place.legend(fontsize=7.5)
    return figure
