"""FCN on a dilated residual network, as torchvision has it (Long et al. 2015, https://arxiv.org/abs/1411.4038).

```
image -> ResNet, stages 3 and 4 dilated by 2 and 4 -> C5 (stride 8) -> 3x3, 512 -> 1x1 -> logits, enlarged 8 times
                        | C4 (stride 8)
                        +--> auxiliary head: 3x3, 256 -> 1x1
```

Differs from the paper: a residual network instead of VGG-16, dilation (Yu and Koltun 2016,
https://arxiv.org/abs/1511.07122) instead of skip connections, interpolation instead of learned enlarging, and an
auxiliary head (Zhao et al. 2017, https://arxiv.org/abs/1612.01105). The paper's own networks are in `models/fcn.py`.
"""

import keras

from kerasvision.backbones.resnet import resnet10, resnet50, resnet101
from kerasvision.layers import FCNHead
from kerasvision.models.dilated import DilatedSegmenter
from kerasvision.models.recipe import SMALL_SEGMENTER, Recipe
from kerasvision.ops.resizing import ResizeRule

# What torchvision's weights expect: references/segmentation/presets.py, SegmentationPresetEval.
RESIZE_RULE = ResizeRule("shortest_side", shortest=520, antialias=True)


@keras.saving.register_keras_serializable("kerasvision")
class DilatedFCN(DilatedSegmenter):
    """FCN with a dilated backbone: one 3x3 convolution and a 1x1 convolution on its last features.

    Args:
        backbone: See `DilatedSegmenter`.
        num_classes: Number of classes, the background included where there is one.
        dropout: Share of the head's activations dropped in training.
        **kwargs: As in `DilatedSegmenter`.
    """

    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        batch_size=32,
        weight_decay=1e-4,
        warmup_steps=0,
        decay="polynomial",
        epochs=30,
        rate_factors=(("auxiliary_head", 10.0),),
        source="torchvision references/segmentation: SGD 0.02, batch 32, 30 epochs, power 0.9, auxiliary rate x10",
    )

    def __init__(self, backbone, num_classes, *, dropout=0.1, name="dilated_fcn", dtype=None, **kwargs):
        head = FCNHead(num_classes, dropout=dropout, name="head", dtype=dtype)
        super().__init__(backbone, head, num_classes, name=name, dtype=dtype, **kwargs)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "dropout": self.head.dropout}


def _fcn(backbone, num_classes, **options):
    return DilatedFCN(backbone, num_classes, **{"auxiliary": True, "resize_rule": RESIZE_RULE, **options})


def fcn_resnet50(num_classes=21, *, output_stride=8, frozen_stages=0, dtype=None, **options):
    """Return torchvision's `fcn_resnet50`: 35.3M parameters.

    Args:
        num_classes: Number of classes, the background included where there is one.
        output_stride: Pixels a cell of the last features: 8, 16 or 32.
        frozen_stages: Parts of the backbone that stay as they are; see `ResNet`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `DilatedFCN`.
    """
    backbone = resnet50(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    return _fcn(backbone, num_classes, dtype=dtype, **{"name": "fcn_resnet50", **options})


def fcn_resnet101(num_classes=21, *, output_stride=8, frozen_stages=0, dtype=None, **options):
    """Return torchvision's `fcn_resnet101`: 54.3M parameters; see `fcn_resnet50`."""
    backbone = resnet101(output_stride=output_stride, frozen_stages=frozen_stages, dtype=dtype)
    return _fcn(backbone, num_classes, dtype=dtype, **{"name": "fcn_resnet101", **options})


def fcn_resnet10(num_classes=21, *, output_stride=8, dtype=None, **options):
    """Return a small FCN that trains on a CPU: a half-width ResNet-10; see `fcn_resnet50`."""
    options = {
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_SEGMENTER,
        "name": "fcn_resnet10",
        **options,
    }
    return _fcn(resnet10(output_stride=output_stride, dtype=dtype), num_classes, dtype=dtype, **options)
