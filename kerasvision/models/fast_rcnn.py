"""Fast R-CNN: one pass of the network over the image, and a small one over each proposed box (Girshick 2015).

https://arxiv.org/abs/1504.08083; on a feature pyramid as in https://arxiv.org/abs/1612.03144.

```
image -> selective search -> proposals --------+
      -> backbone [-> FPN] -> features -> RoIPool or RoIAlign -> box head -> class logits (background first)
                                                                          -> deltas of each class
```

What R-CNN does for each box - the convolutions - is done once; classes and boxes are learnt together, with a softmax
in the place of support vector machines.

Differs from the paper: training samples are drawn from each image on its own, and the true boxes are among them, as in
the author's code; the detector on a pyramid is Detectron2's.
"""

import keras

from kerasvision.backbones.resnet import resnet10, resnet50
from kerasvision.backbones.vgg import vgg16
from kerasvision.data.selective_search import SelectiveSearch
from kerasvision.models.external_proposals import ExternalProposals
from kerasvision.models.recipe import SMALL_DETECTOR, Recipe
from kerasvision.models.region_detector import RegionDetector
from kerasvision.ops.resizing import ResizeRule


@keras.saving.register_keras_serializable("kerasvision")
class FastRCNN(ExternalProposals, RegionDetector):
    """Fast R-CNN on any backbone, with or without a feature pyramid.

    Args:
        backbone: As in `RegionDetector`.
        num_classes: Number of foreground classes.
        proposer: What proposes boxes; see `ExternalProposals`. Default: a fast selective search.
        **kwargs: As in `RegionDetector`.

    `model({"images", "proposals"})` gives `features`, a list of maps; `proposals` (B, P, 4), as they came; and, unless
    in training, their `class_logits` (B, P, 1 + num_classes) and `class_deltas` (B, P, num_classes, 4).
    """

    loss_names = ("classification", "box_regression")
    default_recipe = Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        batch_size=16,
        weight_decay=1e-4,
        warmup_steps=1000,
        decay="step",
        milestones=(60 / 90, 80 / 90),
        epochs=12,
        source="detectron2 configs/COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml: 90,000 steps",
    )

    def __init__(self, backbone, num_classes, *, proposer=None, name="fast_rcnn", **kwargs):
        super().__init__(backbone, num_classes, name=name, **kwargs)
        self.use_proposer(proposer)
        self.build()

    def call(self, inputs, training=None):
        """Return the features, the proposals and, unless in training, their classes and deltas; see the class."""
        features = self.features(inputs, training)
        raw = {"features": list(features), "proposals": inputs["proposals"]}
        if not training:
            raw["class_logits"], raw["class_deltas"] = self.classify(features, raw["proposals"])
        return raw

    def losses_from_outputs(self, outputs, inputs, targets):
        """Return both losses, each a mean over the regions that were sampled from the whole batch."""
        return self.region_losses(outputs["features"], outputs["proposals"], targets, "class_logits" not in outputs)


def fast_rcnn_vgg16(num_classes=20, *, widths=(64, 128, 256, 512, 512), frozen_stages=2, dtype=None, **options):
    """Return Fast R-CNN on VGG-16 as in the paper: conv5_3, RoIPool, fc6 and fc7 with dropout.

    Args:
        num_classes: Number of foreground classes.
        widths: Channels of the backbone; see `VGG`.
        frozen_stages: Blocks of the backbone that stay as they are: the first two, as in section 4.5.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FastRCNN`.
    """
    backbone = vgg16(widths=widths, frozen_stages=frozen_stages, ceil_mode=False, dtype=dtype, name="vgg16")
    options = {
        "pyramid_filters": None,
        "pooling": "pool",
        "head_units": (4096, 4096),
        "head_dropout": 0.5,
        "regions_per_image": 64,
        "background_iou": (0.1, 0.5),
        "box_beta": 1.0,
        "iou_threshold": 0.3,
        "resize_rule": ResizeRule("shortest_side", shortest=600, longest=1000),
        "recipe": Recipe(
            optimizer="sgd",
            learning_rate=1e-3,
            batch_size=2,
            weight_decay=5e-4,
            warmup_steps=0,
            decay="step",
            milestones=(3 / 4,),
            epochs=16,
            source="section 2.3 and the author's code: 40,000 steps on VOC 2007, a tenth of the rate after 30,000",
        ),
        "name": "fast_rcnn_vgg16",
        **options,
    }
    return FastRCNN(backbone, num_classes, dtype=dtype, **options)


def fast_rcnn_resnet50_fpn(num_classes=80, *, normalization="frozen_batch", frozen_stages=2, dtype=None, **options):
    """Return Fast R-CNN on ResNet-50 and a feature pyramid, with Detectron2's second stage.

    RoIAlign with aligned corners and as many samples as a box has cells, 512 regions an image, plain L1 on boxes. The
    backbone is torchvision's ResNet-50, whose stride is in the 3x3 convolutions.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `ConvolutionBlock`. Frozen statistics suit pre-trained weights only; random
            ones want ``"batch"``, which `zoo.get(..., weights=None)` sees to.
        frozen_stages: Parts of the backbone that stay as they are: the stem and the first stage. Random ones want 0.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FastRCNN`.
    """
    backbone = resnet50(normalization=normalization, frozen_stages=frozen_stages, dtype=dtype)
    options = {
        "sampling_ratio": None,
        "aligned": True,
        "box_beta": 0.0,
        "resize_rule": ResizeRule("shortest_side", shortest=800, longest=1333),
        "name": "fast_rcnn_resnet50_fpn",
        **options,
    }
    return FastRCNN(backbone, num_classes, dtype=dtype, **options)


def fast_rcnn_resnet10_fpn(num_classes=80, *, normalization="batch", dtype=None, **options):
    """Return a small Fast R-CNN that trains on a CPU: a half-width ResNet-10, 64 channels, 1000 proposals.

    Args:
        num_classes: Number of foreground classes.
        normalization: Of the backbone; see `ConvolutionBlock`.
        dtype: Dtype policy of all layers; default: Keras's global one.
        **options: As in `FastRCNN`.
    """
    options = {
        "proposer": SelectiveSearch(max_proposals=1000),
        "pyramid_filters": 64,
        "head_units": (128, 128),
        "regions_per_image": 128,
        "aligned": True,
        "resize_rule": ResizeRule("letterbox", size_hw=(256, 384)),
        "recipe": SMALL_DETECTOR,
        "name": "fast_rcnn_resnet10_fpn",
        **options,
    }
    return FastRCNN(resnet10(normalization=normalization, dtype=dtype), num_classes, dtype=dtype, **options)
