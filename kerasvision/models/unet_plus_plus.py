"""U-Net++: a nested U-Net architecture (Zhou et al. 2018, https://arxiv.org/abs/1807.10165).

```
X00 ---- X01 ---- X02 ---- X03        Xi0: features of the backbone, i = 0 the finest
    /        /        /               Xij: double convolution of X(i+1)(j-1), enlarged twice, joined with
X10 ---- X11 ---- X12                      all of Xi0 ... Xi(j-1)
    /        /
X20 ---- X21                          a 1x1 convolution of X0j is branch j's answer
    /
X30
```

Differs from the paper, as segmentation_models.pytorch does: pixels are repeated in place of learned enlarging; with a
backbone that begins at stride 2, one more step without skip connections follows the last node, and branches before it
are enlarged bilinearly.
"""

import keras
from keras import ops

from kerasvision.backbones.contracting_path import ContractingPath
from kerasvision.backbones.resnet import resnet10, resnet34
from kerasvision.layers import ConvolutionBlock
from kerasvision.layers.trainability import pass_on_frozen
from kerasvision.layers.unet_blocks import UNetDecoderBlock, Upsampling
from kerasvision.models.auxiliary import attach_auxiliary, auxiliary_logits
from kerasvision.models.base import Segmenter, split_inputs
from kerasvision.models.encoder_decoder import check_steps
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.interpolation import resize_bilinear
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class UNetPlusPlus(Segmenter):
    """U-Net++ on any backbone that halves the resolution from feature to feature.

    Args:
        backbone: A model that maps normalised images to a list of features, from fine to coarse, each half as large
            as the one before: `ContractingPath` (from stride 1) or `ResNet` (from stride 2).
        num_classes: Number of classes, the background included where there is one.
        decoder_filters: Channels of the last node of each resolution, from coarse to fine: one a feature above the
            bottom, and one more if the finest feature has stride 2. All other nodes have as many channels as the
            feature of their resolution.
        upsampling: As in `UNetDecoderBlock`.
        normalization: Of all nodes; see `ConvolutionBlock`.
        head_kernel_size: Side of the kernel of the convolution to classes.
        deep_supervision: Whether each node of the finest resolution has a head, and a share in the losses: each loss
            is its mean over these branches.
        branch: Which branch answers, from 1 (the shallowest, and the quickest) to the number of features above the
            bottom: the paper's fast mode; ``None``, its accurate mode, answers with the mean of all branches' logits.
            Only with deep supervision.
        **kwargs: As in `VisionModel`.

    Raises:
        ValueError: A number of nodes that does not fit the backbone's features, or a branch that is not there.
    """

    default_recipe = Recipe(
        optimizer="adamw",
        learning_rate=3e-4,
        batch_size=8,
        weight_decay=1e-4,
        warmup_steps=100,
        epochs=50,
        clip_norm=1.0,
        source="the paper's Adam with a rate of 3e-4 (section 3); the rest is this project's, as of U-Net",
    )

    def __init__(
        self,
        backbone,
        num_classes,
        *,
        decoder_filters=(256, 128, 64, 32, 16),
        upsampling: Upsampling = "nearest",
        normalization="batch",
        head_kernel_size=3,
        deep_supervision=False,
        branch=None,
        name="unet_plus_plus",
        **kwargs,
    ):
        super().__init__(num_classes, name=name, **kwargs)
        self.depth = len(backbone.outputs) - 1
        check_steps(backbone, decoder_filters)
        if branch is not None and not (deep_supervision and 1 <= branch <= self.depth):
            raise ValueError(
                f"`branch` {branch!r} must be 1 to {self.depth}, with deep_supervision=True; leave it out for the "
                f"{'mean of all' if deep_supervision else 'last one'}"
            )
        self.backbone = backbone
        self.decoder_filters = tuple(decoder_filters)
        self.upsampling: Upsampling = upsampling
        self.normalization = normalization
        self.head_kernel_size = head_kernel_size
        self.deep_supervision = deep_supervision
        self.branch = branch
        self.size_divisor = 2 ** len(self.decoder_filters)
        self.auxiliary_weight = 1 / self.depth  # of a loss given to `compile`, in each branch
        self.nodes = {
            f"{level}_{step}": self._decoder_block(self._filters(level, step), f"node{level}_{step}")
            for step in range(1, self.depth + 1)
            for level in range(self.depth - step + 1)
        }
        self.final = None
        if len(self.decoder_filters) > self.depth:
            self.final = self._decoder_block(self.decoder_filters[-1], "final")
        self.heads = [
            ConvolutionBlock(num_classes, head_kernel_size, name=f"head{step}", dtype=self.dtype_policy)
            for step in (range(1, self.depth + 1) if deep_supervision else [self.depth])
        ]
        self.build()

    def _filters(self, level, step):
        """Return the channels of node X(level, step)."""
        if level + step == self.depth and step:
            return self.decoder_filters[step - 1]
        return self.backbone.outputs[level].shape[-1]

    def _decoder_block(self, filters, name):
        return UNetDecoderBlock(
            filters,
            upsampling=self.upsampling,
            normalization=self.normalization,
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape=None):
        """Create the weights of all nodes and heads."""
        if not self.built:
            for step in range(1, self.depth + 1):
                for level in range(self.depth - step + 1):
                    joined = sum(self._filters(level, earlier) for earlier in range(step))
                    coarser = (None, None, None, self._filters(level + 1, step - 1))
                    self.nodes[f"{level}_{step}"].build(coarser, (None, None, None, joined))
            last = (None, None, None, self._filters(0, self.depth))
            if self.final is not None:
                self.final.build(last)
                last = self.final.compute_output_shape(last)
            for head in self.heads[:-1]:
                head.build((None, None, None, self._filters(0, 1)))  # all but the last have the feature's channels
            self.heads[-1].build(last)
            pass_on_frozen(self)

    def call(self, inputs, training=None):
        """Return logits (B, H, W, num_classes) of images (B, H, W, 3)."""
        pixels = self.prepare(inputs)
        images, _ = split_inputs(inputs)
        nodes = _Nodes(
            self,
            self.backbone(pixels, training=training),
            canvas_hw=tuple(ops.shape(pixels)[1:3]),
            image_hw=tuple(ops.shape(images)[1:3]),
            training=training,
        )
        if not self.deep_supervision:
            return nodes.logits(self.depth)
        steps = range(1, self.depth + 1)
        if self.branch is None:
            answer = sum(nodes.logits(step) for step in steps) / self.depth
        else:
            answer = nodes.logits(self.branch) + 0  # a tensor of its own, to which all branches can be attached
        return attach_auxiliary(answer, lambda: [nodes.logits(step) for step in steps])

    def losses_from_outputs(self, outputs, inputs, targets):
        """Return the losses by name; with deep supervision their means over the branches."""
        branches = auxiliary_logits(outputs) or [outputs]
        losses = [super(UNetPlusPlus, self).losses_from_outputs(logits, inputs, targets) for logits in branches]
        return {name: sum(of_branch[name] for of_branch in losses) / len(losses) for name in losses[0]}

    def get_config(self):
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "decoder_filters": self.decoder_filters,
            "upsampling": self.upsampling,
            "normalization": self.normalization,
            "head_kernel_size": self.head_kernel_size,
            "deep_supervision": self.deep_supervision,
            "branch": self.branch,
        }


class _Nodes:
    """The nodes X(level, step) of one call, each worked out when it is first asked for.

    What only another branch needs is so left to the losses.
    """

    def __init__(self, model, features, *, canvas_hw, image_hw, training):
        self.model = model
        self.canvas_hw = canvas_hw
        self.image_hw = image_hw
        self.training = training
        self._nodes = {(level, 0): feature for level, feature in enumerate(features)}
        self._logits = {}

    def node(self, level, step):
        """Return (B, H / 2^level, W / 2^level, C), H and W being those of the finest feature."""
        if (level, step) not in self._nodes:
            # The latest first, as in segmentation_models.pytorch.
            joined = ops.concatenate([self.node(level, earlier) for earlier in reversed(range(step))], axis=-1)
            block = self.model.nodes[f"{level}_{step}"]
            self._nodes[level, step] = block(self.node(level + 1, step - 1), joined, training=self.training)
        return self._nodes[level, step]

    def logits(self, step):
        """Return (B, H, W, num_classes), the answer of the branch after `step` steps, at the image's size."""
        if step not in self._logits:
            model, features = self.model, self.node(0, step)
            coarse = model.final is not None and step < model.depth
            if model.final is not None and not coarse:
                features = model.final(features, training=self.training)
            logits = model.heads[step - 1 if model.deep_supervision else 0](features)
            if coarse:
                logits = resize_bilinear(logits, self.canvas_hw)
            height, width = self.image_hw
            self._logits[step] = logits[:, :height, :width]
        return self._logits[step]


def unet_plus_plus(num_classes=2, *, widths=(32, 64, 128, 256, 512), dropout=0.0, dtype=None, **options):
    """Return a U-Net++ with the paper's widths and U-Net's contracting path: 9.1M parameters.

    Args:
        num_classes: Number of classes, the background included.
        widths: Channels at each resolution, from the image's own down to the bottom.
        dropout: See `ContractingPath`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNetPlusPlus`.
    """
    backbone = ContractingPath(widths, normalization="batch", dropout=dropout, dtype=dtype)
    options = {
        "decoder_filters": tuple(widths[-2::-1]),
        "upsampling": "transpose",
        "head_kernel_size": 1,
        "name": "unet_plus_plus",
        **options,
    }
    return UNetPlusPlus(backbone, num_classes, dtype=dtype, **options)


def unet_plus_plus_resnet34(num_classes=21, *, frozen_stages=0, dtype=None, **options):
    """Return a U-Net++ whose contracting path is ResNet-34, as segmentation_models.pytorch's: 26.1M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNetPlusPlus`.
    """
    backbone = resnet34(frozen_stages=frozen_stages, dtype=dtype)
    return UNetPlusPlus(backbone, num_classes, dtype=dtype, **{"name": "unet_plus_plus_resnet34", **options})


def unet_plus_plus_resnet10(num_classes=21, *, dtype=None, **options):
    """Return a small U-Net++ that trains on a CPU: a half-width ResNet-10 and narrow last nodes.

    Args:
        num_classes: Number of classes, the background included where there is one.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `UNetPlusPlus`.
    """
    options = {
        "decoder_filters": (128, 64, 32, 16, 8),
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "unet_plus_plus_resnet10",
        **options,
    }
    return UNetPlusPlus(resnet10(dtype=dtype), num_classes, dtype=dtype, **options)
