"""What `benchmarks.ops` compares beside detection's operations: dense ones, layers, losses of masks, assignment."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.ops import Call, Sides, comparison
from benchmarks.peers.ops import ANCHORS, CANDIDATES, KEPT, channels_first, random_boxes, scores_and_labels, torch_call

# Logits of Pascal VOC's 21 classes.
MASK_SIZE, MASK_CLASSES = 256, 21


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _torch_module(module, *features):
    """Return a function without arguments that runs a PyTorch module on (B, H, W, C) maps."""
    return torch_call(module.eval(), *map(channels_first, features))


# --- boxes, assignment, suppression


@comparison("decode_deltas", case="120,087 anchors")
def decode_deltas():
    """Deltas of all anchors of an 800 x 800 image to boxes."""
    from kerasvision.ops.boxes import decode_deltas as ours

    deltas, anchors = 0.1 * _random(ANCHORS, 4), random_boxes(ANCHORS)

    def torchvision():
        from torchvision.models.detection._utils import BoxCoder

        coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        return torch_call(coder.decode_single, deltas, anchors)

    def keras_utils():
        import keras

        return Call(
            lambda deltas, anchors: keras.utils.bounding_boxes.decode_deltas_to_boxes(
                anchors, deltas, anchor_format="xyxy", box_format="xyxy"
            ),
            (deltas, anchors),
        )

    return Sides(
        Call(ours, (deltas, anchors)),
        {"torchvision BoxCoder": torchvision, "keras.utils.bounding_boxes.decode_deltas_to_boxes": keras_utils},
        why="a dozen element-wise operations that each write 1 to 2 MB: alone and warm 3 ms beside PyTorch's 1 ms, and "
        "1.8 ms under XLA, which writes once. They are 0.3% of RetinaNet's detection of 1 s.",
    )


def _assignment(solver):
    from kerasvision.ops.hungarian import assign

    cost = np.random.default_rng(0).uniform(size=(8, 100, 50)).astype(np.float32)

    def scipy():
        from scipy.optimize import linear_sum_assignment

        return lambda: [linear_sum_assignment(image) for image in cost]

    return Sides(
        Call(lambda cost: assign(cost, solver=solver), (cost,)),
        {"scipy.optimize.linear_sum_assignment": scipy},
        why={
            "auto": "the host's solver is SciPy's; the rest is the way out of the graph and back, NaN, infinite and "
            "padding pairs. A training step of DETR takes seconds.",
            "graph": "one augmenting path after the other, each a loop of small operations: for exports and XLA alone.",
        }[solver],
    )


@comparison("hungarian", case="8 images, 100 queries x 50 objects")
def hungarian():
    """The assignment of DETR's set loss, as it is solved by default."""
    return _assignment("auto")


@comparison("hungarian", case="the same, in the graph")
def hungarian_in_the_graph():
    """Solved by Keras operations, as where no host can be called."""
    return _assignment("graph")


def _parallel_nms(method):
    from kerasvision.ops.nms import non_max_suppression

    boxes = random_boxes(CANDIDATES)
    scores, _ = scores_and_labels()

    def call(method):
        return Call(
            lambda boxes, scores: tuple(non_max_suppression(boxes, scores, max_detections=KEPT, method=method)),
            (boxes[None], scores[None]),
        )

    return Sides(
        call(method),
        {"kerasvision, greedy": lambda: call("greedy")},
        {"kerasvision": "the best 1000 boxes take part", "kerasvision, greedy": "no other package has this operation"},
        why="all pairs of 1000 boxes are compared, which needs no loop: made for accelerators and exports, where "
        "greedy suppression is slow, and for CPUs with fewer candidates.",
    )


@comparison("fast_nms", case="5000 boxes, one class")
def fast_nms():
    """YOLACT's."""
    return _parallel_nms("fast")


@comparison("matrix_nms", case="5000 boxes, one class")
def matrix_nms():
    """SOLOv2's."""
    return _parallel_nms("matrix_gaussian")


# --- dense operations and layers


def _resizing(align_corners):
    from kerasvision.ops.interpolation import resize_bilinear

    logits = _random(1, 65, 65, MASK_CLASSES)

    def torch_interpolate():
        from torch.nn.functional import interpolate

        return torch_call(
            lambda maps: interpolate(maps, (520, 520), mode="bilinear", align_corners=align_corners),
            channels_first(logits),
        )

    return Sides(
        Call(lambda maps: resize_bilinear(maps, (520, 520), align_corners=align_corners), (logits,)),
        {"torch interpolate": torch_interpolate},
    )


@comparison("resize_bilinear", case="65² to 520², 21 classes")
def resize_bilinear():
    """DeepLabV3's last step."""
    return _resizing(False)


@comparison("resize_bilinear", case="the same, corners aligned")
def resize_bilinear_aligned():
    """DeepLabV2's and segmentation_models.pytorch's."""
    return _resizing(True)


def _layer(layer, features):
    """Return a `Call` of a layer at inference."""
    layer(features[:, :8, :8])  # builds it
    return Call(lambda features: layer(features, training=False), (features,))


@comparison("convolution", case="3x3, dilation 24, 65x65x512 to 256")
def atrous_convolution():
    """One branch of atrous spatial pyramid pooling, without its normalisation."""
    from kerasvision.layers import ConvolutionBlock

    features = _random(1, 65, 65, 512)

    def torch_conv():
        from torch import nn

        return _torch_module(nn.Conv2d(512, 256, 3, padding=24, dilation=24), features)

    def keras_conv():
        import keras

        return _layer(keras.layers.Conv2D(256, 3, padding="same", dilation_rate=24), features)

    return Sides(
        _layer(ConvolutionBlock(256, 3, dilation=24), features),
        {"torch Conv2d": torch_conv, "keras.layers.Conv2D": keras_conv},
    )


@comparison("depthwise_convolution", case="3x3, 128x128x96")
def depthwise_convolution():
    """The middle of an inverted residual."""
    from kerasvision.layers import DepthwiseConvolutionBlock

    features = _random(1, 128, 128, 96)

    def torch_conv():
        from torch import nn

        return _torch_module(nn.Conv2d(96, 96, 3, padding=1, groups=96), features)

    def keras_conv():
        import keras

        return _layer(keras.layers.DepthwiseConv2D(3, padding="same"), features)

    return Sides(
        _layer(DepthwiseConvolutionBlock(3), features),
        {"torch Conv2d": torch_conv, "keras.layers.DepthwiseConv2D": keras_conv},
    )


@comparison("aspp", case="65x65x2048 to 256, rates 12, 24, 36")
def aspp():
    """DeepLabV3's head."""
    from kerasvision.layers import ASPP

    features = _random(1, 65, 65, 2048)

    def torchvision():
        from torchvision.models.segmentation.deeplabv3 import ASPP as Theirs

        return _torch_module(Theirs(2048, [12, 24, 36]), features)

    return Sides(_layer(ASPP(256, (12, 24, 36)), features), {"torchvision ASPP": torchvision})


@comparison("feature_pyramid", case="ResNet-50's C3 to C5 of 800², P6 and P7")
def feature_pyramid():
    """RetinaNet's neck."""
    from kerasvision.layers import FeaturePyramid

    channels = (512, 1024, 2048)
    levels = [_random(1, 100 >> k, 100 >> k, count) for k, count in enumerate(channels)]
    layer = FeaturePyramid(256)
    layer([level[:, : 8 >> k, : 8 >> k] for k, level in enumerate(levels)])

    def torchvision():
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        network = FeaturePyramidNetwork(list(channels), 256, extra_blocks=LastLevelP6P7(256, 256)).eval()
        return torch_call(lambda *maps: network(dict(zip("345", maps, strict=True))), *map(channels_first, levels))

    return Sides(Call(lambda *levels: tuple(layer(list(levels))), levels), {"torchvision FPN": torchvision})


@comparison("bifpn", case="EfficientDet-D0: 64 channels, 3 cells, 512²")
def bifpn():
    """EfficientDet's neck."""
    from kerasvision.layers import BiFPN

    channels = (40, 112, 320)
    levels = [_random(1, 64 >> k, 64 >> k, count) for k, count in enumerate(channels)]
    layer = BiFPN(64, 3)
    layer([level[:, : 32 >> k, : 32 >> k] for k, level in enumerate(levels)])

    def effdet():
        from effdet.config import get_efficientdet_config
        from effdet.efficientdet import BiFpn

        feature_info = [{"num_chs": count, "reduction": 8 << k, "module": ""} for k, count in enumerate(channels)]
        network = BiFpn(get_efficientdet_config("tf_efficientdet_d0"), feature_info).eval()
        return torch_call(lambda *maps: network(list(maps)), *map(channels_first, levels))

    return Sides(Call(lambda *levels: tuple(layer(list(levels), training=False)), levels), {"effdet BiFpn": effdet})


@comparison("dense_crf", case="10 iterations, 375x500, 21 classes")
def dense_crf():
    """DeepLab's last step, on the host."""
    from kerasvision.ops.dense_crf import dense_crf as ours

    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (15, 20, 3)), np.ones((25, 25, 1))).astype(np.uint8)  # (375, 500, 3)
    logits = np.kron(rng.normal(size=(15, 20, MASK_CLASSES)), np.ones((25, 25, 1))) + rng.normal(
        size=(375, 500, MASK_CLASSES)
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    probabilities = probabilities.astype(np.float32)

    def pydensecrf():
        from pydensecrf import densecrf, utils

        def run():
            field = densecrf.DenseCRF2D(500, 375, MASK_CLASSES)
            field.setUnaryEnergy(utils.unary_from_softmax(np.ascontiguousarray(np.moveaxis(probabilities, -1, 0))))
            field.addPairwiseGaussian(sxy=1, compat=3)
            field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
            return field.inference(10)

        return run

    return Sides(lambda: ours(image, probabilities), {"pydensecrf2": pydensecrf})


# --- losses of masks, with their gradients


def _with_gradient(loss, masks, logits):
    """Return a `Call` of a Keras loss and its gradient by the logits."""
    import keras

    def on_tensorflow(masks, logits):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(masks, logits)
        return value, tape.gradient(value, logits)

    def on_jax(masks, logits):
        import jax

        return jax.value_and_grad(lambda logits: loss(masks, logits))(logits)

    def on_torch(masks, logits):
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            logits = logits.clone().requires_grad_()
            value = loss(masks.clone(), logits)
            return value, torch.autograd.grad(value, logits)[0]

    run = {"tensorflow": on_tensorflow, "jax": on_jax, "torch": on_torch}[keras.backend.backend()]
    return Call(run, (masks, logits))


def _mask_loss(ours, theirs, **peers):
    """Return `Sides` of a loss, a function that makes the PyTorch one, and functions that make Keras's."""
    rng = np.random.default_rng(0)
    logits = _random(2, MASK_SIZE, MASK_SIZE, MASK_CLASSES)
    masks = rng.integers(0, MASK_CLASSES, logits.shape[:3]).astype(np.int32)

    def pytorch():
        import torch

        module = theirs()
        predicted = torch.from_numpy(channels_first(logits)).requires_grad_()
        truth = torch.from_numpy(masks).long()

        def run():
            return torch.autograd.grad(module(predicted, truth), predicted)

        return run

    sides: dict[str, Callable] = {"PyTorch": pytorch}
    for name, make in peers.items():
        sides[name] = lambda make=make: _with_gradient(make(), masks, logits)
    return Sides(_with_gradient(ours, masks, logits), sides)


@comparison("cross_entropy", case="2 x 256², 21 classes, with gradient")
def cross_entropy():
    """With ignored pixels allowed for."""
    from kerasvision.losses import CrossEntropyLoss

    def theirs():
        from torch import nn

        return nn.CrossEntropyLoss(ignore_index=255)

    def keras_loss():
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)

    sides = _mask_loss(CrossEntropyLoss(), theirs, **{"keras.losses.SparseCategoricalCrossentropy": keras_loss})
    why = "TensorFlow's kernel of softmax and cross-entropy, which Keras's loss calls too, takes three times PyTorch's."
    return replace(sides, why=why)


@comparison("dice_loss", case="2 x 256², 21 classes, with gradient")
def dice_loss():
    """PyTorch: segmentation_models.pytorch's."""
    from kerasvision.losses import DiceLoss

    def theirs():
        from segmentation_models_pytorch.losses import DiceLoss as Theirs

        return Theirs("multiclass", ignore_index=255)

    return _mask_loss(DiceLoss(), theirs)


@comparison("lovasz_softmax_loss", case="2 x 256², 21 classes, with gradient")
def lovasz_softmax_loss():
    """PyTorch: segmentation_models.pytorch's."""
    from kerasvision.losses import LovaszSoftmaxLoss

    def theirs():
        from segmentation_models_pytorch.losses import LovaszLoss

        return LovaszLoss("multiclass", ignore_index=255, from_logits=True)

    return _mask_loss(LovaszSoftmaxLoss(), theirs)
