"""Segmenters with a contracting and an expanding path: what U-Net and the networks made after it have in common.

```
image -> features of a backbone, fine to coarse: f0, f1, ... the bottom
         the bottom -> step up, joined with the skip f(n-1) -> ... -> joined with f0 -> of the image's size
```

Each architecture has a file of its own, with its head and what it does to the skip connections.
"""

import itertools

import keras
from keras import ops

from kerasvision.layers.unet_blocks import Padding, UNetDecoderBlock, Upsampling
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.models.recipe import Recipe
from kerasvision.ops.mirror import mirror_pad


class EncoderDecoder(Segmenter):
    """Base of segmenters that double the resolution step by step, joining a feature of the backbone at each.

    Args:
        backbone: A model that maps normalised images to a list of features, from fine to coarse, each half as large
            as the one before: `ContractingPath` (from stride 1) or `ResNet` (from stride 2). If it is a
            `ContractingPath` with ``padding="valid"``, nothing else is padded either.
        num_classes: Number of classes, the background included where there is one.
        decoder_filters: Channels after each step of the expanding path, from coarse to fine: one step a feature above
            the bottom, and one more without a skip connection if the finest feature has stride 2.
        upsampling: As in `UNetDecoderBlock`. With ``"bilinear"``, which leaves the number of channels as it is, the
            first convolution of each step halves those that were joined.
        normalization: Of the expanding path; see `ConvolutionBlock`.
        pad_to_multiple: Whether images are padded, with zeros at the bottom and on the right, until every feature is
            twice as large as the next. If not, features of odd sizes are fitted to each other, as PyTorch's U-Nets do;
            padding of a batch then changes the results of the images in it.
        **kwargs: As in `Segmenter`.

    Raises:
        ValueError: A number of steps that does not fit the backbone's features, or features that are not halved.
    """

    default_recipe = Recipe(
        optimizer="adamw",
        learning_rate=1e-3,
        batch_size=8,
        weight_decay=1e-4,
        warmup_steps=100,
        epochs=50,
        clip_norm=1.0,
        source="this project; the paper's SGD with momentum 0.99 at batch size 1 suits its 572x572 tiles only",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        decoder_filters=(512, 256, 128, 64),
        upsampling: Upsampling = "transpose",
        normalization=None,
        pad_to_multiple=True,
        **kwargs,
    ):
        super().__init__(num_classes, **kwargs)
        check_steps(backbone, decoder_filters)
        self.backbone = backbone
        self.decoder_filters = tuple(decoder_filters)
        self.upsampling = upsampling
        self.normalization = normalization
        self.pad_to_multiple = pad_to_multiple
        self.padding: Padding = getattr(backbone, "padding", "same")
        self._scale = 2 ** len(self.decoder_filters)
        self.size_divisor = self._scale if pad_to_multiple and self.padding == "same" else 1
        self.decoder = [
            UNetDecoderBlock(
                filters,
                mid_filters=joined // 2 if upsampling == "bilinear" else None,
                upsampling=upsampling,
                normalization=normalization,
                padding=self.padding,
                name=f"decoder{index}",
                dtype=self.dtype_policy,
            )
            for index, (filters, joined) in enumerate(zip(self.decoder_filters, self._joined_channels(), strict=True))
        ]

    def _joined_channels(self):
        """Return how many channels the features and the skip connection of each step have together."""
        *skips, channels = (feature.shape[-1] for feature in self.backbone.outputs)
        joined = []
        for filters in self.decoder_filters:
            joined.append(channels + (skips.pop() if skips else 0))
            channels = filters
        return joined

    def build_decoder(self):
        """Create the weights of the expanding path; return the shape after each step."""
        *skips, shape = (feature.shape for feature in self.backbone.outputs)
        shapes = []
        for block in self.decoder:
            block.build(shape, skips.pop() if skips else None)
            shape = block.compute_output_shape(shape)
            shapes.append(shape)
        return shapes

    def prepare(self, inputs):
        """Normalise images and pad them: with zeros, see `VisionModel`, or by mirroring for a network without padding.

        What the convolutions of the paper take away is 12 * 2^n - 8 pixels, half of it on each side, for n steps: 184
        for four. Its logits have 2^n k + 4 pixels a side, so that each pooling halves an even size.
        """
        pixels = super().prepare(inputs)
        if self.padding == "same":
            return pixels
        images, sizes_hw = split_inputs(inputs)
        margin = 6 * self._scale - 4
        logits_hw = (-(-(size - 4) // self._scale) * self._scale + 4 for size in ops.shape(images)[1:3])
        canvas_hw = tuple(size + 2 * margin for size in logits_hw)
        return mirror_pad(pixels, before=margin, canvas_hw=canvas_hw, sizes_hw=sizes_hw)

    def canvas_hw(self, inputs):
        """Return (height, width) of the input after padding with zeros: at least a cell of the coarsest feature."""
        height, width = super().canvas_hw(inputs)
        if self.padding == "valid" or self.pad_to_multiple:
            return height, width
        if isinstance(height, int) and isinstance(width, int):
            return max(height, self._scale), max(width, self._scale)
        return ops.maximum(height, self._scale), ops.maximum(width, self._scale)

    def expand(self, inputs, training):
        """Run backbone and expanding path; return the features after each step, of the image's padded size at last."""
        pixels = self.prepare(inputs)
        *skips, features = self.backbone(pixels, training=training)
        outputs = []
        for step, block in enumerate(self.decoder):
            if skips:
                skip = self.skip_connection(step, skips.pop(), features, training)
                features = block(features, skip, training=training)
            else:
                size_hw = tuple(ops.shape(pixels)[1:3])
                if not all(isinstance(size, int) for size in size_hw):  # Keras takes all tensors, or none
                    size_hw = tuple(ops.convert_to_tensor(size, "int32") for size in size_hw)
                features = block(features, size_hw=size_hw, training=training)
            outputs.append(features)
        return outputs

    def skip_connection(self, step, skip, features, training):
        """Return what a step of the expanding path joins, given the backbone's feature and the coarser features."""
        return skip

    def crop_to_image(self, logits, inputs):
        """Cut logits of the padded image to the size of the image."""
        images, _ = split_inputs(inputs)
        height, width = ops.shape(images)[1:3]
        return logits[:, :height, :width]  # (B, H, W, num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "decoder_filters": self.decoder_filters,
            "upsampling": self.upsampling,
            "normalization": self.normalization,
            "pad_to_multiple": self.pad_to_multiple,
        }


def check_steps(backbone, decoder_filters):
    """Raise ValueError unless steps that double the resolution lead from a backbone's last features to the image.

    A backbone that does not say its `strides` is believed to begin at 1 or 2, whichever fits the number of steps.
    """
    features, steps = len(backbone.outputs), len(decoder_filters)
    strides = getattr(backbone, "strides", None)
    if strides is None:
        fitting, first = (features - 1, features), ""
    else:
        if strides[0] not in (1, 2) or any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(
                f"`backbone` {backbone.name!r} has features of strides {tuple(strides)}, but each must have twice the "
                "stride of the one before, and the first 1 or 2; give one without an output stride, such as ResNet's 32"
            )
        fitting, first = (features - 1 + (strides[0] == 2),), f", the first of stride {strides[0]}"
    if steps not in fitting:
        raise ValueError(
            f"`decoder_filters` {tuple(decoder_filters)!r} has {steps} steps, but the backbone gives {features} "
            f"features{first}; give {' or '.join(map(str, fitting))} steps"
        )
