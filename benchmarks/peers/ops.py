"""What `benchmarks.ops` compares: our operations and their peers, at realistic sizes."""

import numpy as np

from benchmarks.ops import Call, Sides, comparison, needs_backend

# NMS as after RetinaNet's or EfficientDet's selection of candidates.
CANDIDATES, CLASSES, KEPT = 5000, 80, 300

# RetinaNet's five levels of an 800 x 800 image, nine anchors a cell: 120,087 anchors.
GRIDS = [(100, 100), (50, 50), (25, 25), (13, 13), (7, 7)]
SIZES = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128, 256, 512))
ANCHORS = 9 * sum(rows * columns for rows, columns in GRIDS)


def torch_call(function, *arrays):
    """Return a function without arguments that calls a PyTorch function in inference mode."""
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return torch.inference_mode()(lambda: function(*tensors))


def channels_first(features):
    """Return maps (B, H, W, C) as PyTorch has them, (B, C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(features, -1, 1))


def random_boxes(count, *, side=800.0, smallest=8.0, largest=200.0, seed=0):
    """Return float32 (count, 4) boxes of many sizes inside an image."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(smallest), np.log(largest), (count, 1))) * rng.uniform(0.7, 1.4, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (side - sizes).clip(1)
    return np.minimum(np.concatenate([corners, corners + sizes], axis=1), side).astype(np.float32)


# --- non-maximum suppression


def _overlapping(places, seed=0):
    """Return boxes that lie on one of so many places, a pixel more or less."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, places, CANDIDATES)
    size = 400 if places == 1 else 30
    corners = np.stack([40 * (place % 20), 40 * (place // 20)], 1) + rng.uniform(0, 1, (CANDIDATES, 2))
    return np.concatenate([corners, corners + size], axis=1).astype(np.float32)


def scores_and_labels(count=CANDIDATES):
    """Return float32 (count,) scores, all different and in no order, and int32 (count,) labels."""
    rng = np.random.default_rng(1)
    scores = rng.permutation(np.linspace(0.05, 1, count, dtype=np.float32))
    return scores, rng.integers(0, CLASSES, count).astype(np.int32)


def _one_hot(scores, labels):
    """Return (1, N, 80): what the Keras layers and TensorFlow's combined op take."""
    table = np.zeros((1, CANDIDATES, CLASSES), np.float32)
    table[0, np.arange(CANDIDATES), labels] = scores
    return table


def _keras_layer(package, name, boxes, scores, labels):
    """Return a `Call` of KerasHub's or KerasCV's layer."""
    if package == "keras_cv":
        needs_backend("tensorflow")
        import keras_cv as library
    else:
        import keras_hub as library
    layer = getattr(library.layers, name)(
        bounding_box_format="xyxy",
        from_logits=False,
        iou_threshold=0.5,
        confidence_threshold=0.01,
        max_detections=KEPT,
    )
    return Call(lambda boxes, scores: layer(boxes, scores), (boxes[None], _one_hot(scores, labels)))


def _nms_per_class(boxes):
    from kerasvision.ops.nms import non_max_suppression

    scores, labels = scores_and_labels()

    def ours(boxes, scores, labels):
        return tuple(non_max_suppression(boxes, scores, labels, iou_threshold=0.5, max_detections=KEPT))

    def torchvision():
        from torchvision.ops import batched_nms

        return torch_call(
            lambda boxes, scores, labels: batched_nms(boxes, scores, labels, 0.5)[:KEPT], boxes, scores, labels
        )

    def combined():
        needs_backend("tensorflow")
        import tensorflow as tf

        def run(boxes, scores):
            return tuple(
                tf.image.combined_non_max_suppression(
                    boxes, scores, KEPT, KEPT, iou_threshold=0.5, score_threshold=0.01, clip_boxes=False
                )
            )

        return Call(run, (boxes[None, :, None], _one_hot(scores, labels)))

    return Sides(
        Call(ours, (boxes[None], scores[None], labels[None])),
        {
            "torchvision batched_nms": torchvision,
            "tf.image.combined_non_max_suppression": combined,
            "keras_cv MultiClassNonMaxSuppression": lambda: _keras_layer(
                "keras_cv", "MultiClassNonMaxSuppression", boxes, scores, labels
            ),
        },
        {"torchvision batched_nms": "has no limit: suppresses among all, 300 are cut off after"},
        why="ours takes all boxes from one queue and compares each with every box kept so far, 80 here; the others go "
        "class by class, 62 boxes and one kept in each, on both cores.",
    )


@comparison("nms", case="easy: 5000 boxes, 80 classes")
def nms_easy():
    """Boxes all over the image."""
    return _nms_per_class(random_boxes(CANDIDATES))


@comparison("nms", case="worst: all on one place, 80 classes")
def nms_all_overlap():
    """All boxes overlap: 80 are kept."""
    return _nms_per_class(_overlapping(1))


def _nms_one_class(boxes):
    from kerasvision.ops.nms import non_max_suppression

    scores, labels = scores_and_labels()

    def ours(boxes, scores):
        return tuple(non_max_suppression(boxes, scores, iou_threshold=0.5, max_detections=KEPT))

    def exportable(boxes, scores):
        return tuple(non_max_suppression(boxes, scores, iou_threshold=0.5, max_detections=KEPT, exportable=True))

    def torchvision():
        from torchvision.ops import nms

        return torch_call(lambda boxes, scores: nms(boxes, scores, 0.5)[:KEPT], boxes, scores)

    def tensorflow(function):
        def make():
            needs_backend("tensorflow")
            import tensorflow as tf

            return Call(
                lambda boxes, scores: getattr(tf.image, function)(boxes, scores, KEPT, iou_threshold=0.5),
                (boxes, scores),
            )

        return make

    return Sides(
        Call(ours, (boxes[None], scores[None])),
        {
            "kerasvision, exportable": lambda: Call(exportable, (boxes[None], scores[None])),
            "torchvision nms": torchvision,
            "tf.image.non_max_suppression": tensorflow("non_max_suppression"),
            "tf.image.non_max_suppression_padded": tensorflow("non_max_suppression_padded"),
            "keras_hub NonMaxSuppression": lambda: _keras_layer(
                "keras_hub", "NonMaxSuppression", boxes, scores, labels
            ),
            "keras_cv NonMaxSuppression": lambda: _keras_layer("keras_cv", "NonMaxSuppression", boxes, scores, labels),
        },
        {
            "torchvision nms": "has no limit: suppresses among all, 300 are cut off after",
            "keras_hub NonMaxSuppression": "also takes the best of 80 classes for each box",
            "keras_cv NonMaxSuppression": "also takes the best of 80 classes for each box",
        },
        why="ours is tf.image's kernel after 1 ms for the check of the boxes (NaN, infinite, inverted, padding), which "
        "the others do not have. torchvision's sorts 5000 boxes and goes through the rest once for each box kept: "
        "quick where few are, 100 ms where many are.",
    )


@comparison("nms", case="easy: 5000 boxes, one class")
def nms_agnostic_easy():
    """Boxes all over the image."""
    return _nms_one_class(random_boxes(CANDIDATES, largest=40))


@comparison("nms", case="worst: all on one place, one class")
def nms_agnostic_all_overlap():
    """All boxes overlap: one is kept."""
    return _nms_one_class(_overlapping(1))


@comparison("nms", case="worst: 299 places, one class")
def nms_agnostic_places():
    """One box fewer is found than there is room for: nothing can stop early."""
    return _nms_one_class(_overlapping(299))


def _soft_nms(boxes):
    from kerasvision.ops.nms import non_max_suppression

    scores, _ = scores_and_labels(len(boxes))

    def ours(boxes, scores):
        return tuple(
            non_max_suppression(boxes, scores, max_detections=100, method="soft_gaussian", score_threshold=0.001)
        )

    def effdet():
        from effdet.soft_nms import soft_nms

        return torch_call(lambda boxes, scores: soft_nms(boxes, scores, score_threshold=0.001), boxes, scores)

    def tensorflow():
        needs_backend("tensorflow")
        import tensorflow as tf

        # Its Gaussian is exp(-o^2 / (2 sigma)).
        return Call(
            lambda boxes, scores: tuple(
                tf.image.non_max_suppression_with_scores(
                    boxes, scores, 100, iou_threshold=1.0, score_threshold=0.001, soft_nms_sigma=0.25
                )
            ),
            (boxes, scores),
        )

    return Sides(
        Call(ours, (boxes[None], scores[None])),
        {"effdet soft_nms": effdet, "tf.image.non_max_suppression_with_scores": tensorflow},
        {
            "effdet soft_nms": "has no limit: goes on until all are below 0.001",
            "tf.image.non_max_suppression_with_scores": "one image; does not compile under XLA",
        },
        why="TensorFlow's kernel, which ours calls, without the check of the boxes (NaN, infinite, inverted).",
    )


@comparison("soft_nms", case="easy: 1000 boxes, 100 kept")
def soft_nms_easy():
    """Boxes all over the image."""
    return _soft_nms(random_boxes(1000))


@comparison("soft_nms", case="worst: all on one place")
def soft_nms_all_overlap():
    """All boxes overlap."""
    return _soft_nms(_overlapping(1)[:1000])


# --- features of boxes


def _pyramid(seed=0):
    """Return P2 to P5 of an 800 x 800 image, float32 (1, H, W, 256)."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 200 >> k, 200 >> k, 256)).astype(np.float32) for k in range(4)]


def _roi_align(boxes, sampling_ratio):
    from kerasvision.ops.roi_align import roi_align

    levels = _pyramid()

    def ours(boxes, *levels):
        return roi_align(list(levels), boxes, output_size=7, strides=(4, 8, 16, 32), sampling_ratio=sampling_ratio)

    def torchvision():
        from torchvision.ops import MultiScaleRoIAlign

        names = [str(number) for number in range(len(levels))]
        pool = MultiScaleRoIAlign(names, 7, sampling_ratio or -1)
        return torch_call(
            lambda boxes, *levels: pool(dict(zip(names, levels, strict=True)), [boxes], [(800, 800)]),
            boxes,
            *map(channels_first, levels),
        )

    return Sides(
        Call(ours, (boxes[None], *levels)),
        {"torchvision MultiScaleRoIAlign": torchvision},
        why="shapes are static, for XLA and exports: where the number of samples adapts to the box, ours reads as many "
        "cells for every box as the largest may need, torchvision's own loop as many as each needs.",
    )


@comparison("roi_align", case="1000 boxes, 7x7x256, P2-P5 of 800²")
def roi_align_pyramid():
    """Proposals of all sizes, two samples along each side of a bin."""
    return _roi_align(random_boxes(1000, smallest=16, largest=600), 2)


@comparison("roi_align", case="the same, adaptive sampling")
def roi_align_adaptive():
    """Proposals of all sizes, as many samples as a bin has cells."""
    return _roi_align(random_boxes(1000, smallest=16, largest=600), None)


@comparison("roi_align", case="worst: 1000 boxes of the whole image")
def roi_align_whole():
    """No box reads what another one has just read."""
    return _roi_align(np.tile(np.array([[0, 0, 800, 800]], np.float32), (1000, 1)), 2)


@comparison("roi_pool", case="1000 boxes, 7x7x256, stride 16")
def roi_pool_one_map():
    """Fast R-CNN's proposals on one map of 50 x 50."""
    from kerasvision.ops.roi_pool import roi_pool

    features, boxes = _pyramid()[2], random_boxes(1000, smallest=16, largest=600)

    def torchvision():
        from torchvision.ops import roi_pool as theirs

        return torch_call(lambda features, boxes: theirs(features, [boxes], 7, 1 / 16), channels_first(features), boxes)

    return Sides(
        Call(lambda features, boxes: roi_pool(features, boxes, output_size=7, stride=16), (features, boxes[None])),
        {"torchvision roi_pool": torchvision},
    )


# --- boxes, anchors, matching, losses


@comparison("pairwise_iou", case="100 x 120,087 boxes")
def pairwise_iou():
    """Ground truth with all anchors of an 800 x 800 image."""
    from kerasvision.ops.boxes import pairwise_iou as ours

    first, second = random_boxes(100), random_boxes(ANCHORS, seed=1)

    def torchvision():
        from torchvision.ops import box_iou

        return torch_call(box_iou, first, second)

    def keras_utils():
        import keras

        return Call(
            lambda a, b: keras.utils.bounding_boxes.compute_iou(a, b, bounding_box_format="xyxy"), (first, second)
        )

    return Sides(
        Call(ours, (first, second)),
        {"torchvision box_iou": torchvision, "keras.utils.bounding_boxes.compute_iou": keras_utils},
        why="Keras's adds an epsilon to the union, which makes the IoU of small boxes wrong; ours divides where there "
        "is an area, and passes over the 12 million pairs once more.",
    )


@comparison("anchors", case="RetinaNet, 800²: 120,087")
def anchors():
    """Five levels, nine anchors a cell; the features give nothing but their sizes."""
    from kerasvision.layers import AnchorGenerator

    layer = AnchorGenerator(SIZES)
    features = [np.zeros((1, *grid, 1), np.float32) for grid in GRIDS]

    def ours(*features):
        # Sizes that a graph learns only when it runs, or the anchors would be computed once and for all.
        import keras

        grids = [tuple(keras.ops.shape(level)[1:3]) for level in features]
        return layer(grids_hw=grids, image_hw=(800, 800))

    def torchvision():
        import torch
        from torchvision.models.detection.anchor_utils import AnchorGenerator as Theirs
        from torchvision.models.detection.image_list import ImageList

        generator = Theirs(SIZES, ((0.5, 1.0, 2.0),) * len(SIZES))
        images = ImageList(torch.zeros(1, 3, 800, 800), [(800, 800)])
        return torch_call(lambda *maps: generator(images, list(maps)), *map(channels_first, features))

    return Sides(
        Call(ours, features, open_sizes=True),
        {"torchvision AnchorGenerator": torchvision},
        {"kerasvision": "image sizes known; those of the maps are not, in a TensorFlow graph"},
        why="a millisecond once a batch. Where sizes are known, as in most graphs, they are constants and take none.",
    )


@comparison("matching", case="50 boxes, 120,087 anchors")
def matching():
    """RetinaNet's matcher on the IoU of ground truth with anchors."""
    from kerasvision.ops.boxes import pairwise_iou as our_iou
    from kerasvision.ops.matching import match_by_iou

    truth, boxes = random_boxes(50), random_boxes(ANCHORS, seed=1)
    valid = np.ones(50, bool)

    def ours(truth, boxes, valid):
        return match_by_iou(our_iou(truth, boxes), valid, foreground_iou=0.5, background_iou=0.4)

    def torchvision():
        from torchvision.models.detection._utils import Matcher
        from torchvision.ops import box_iou

        matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
        return torch_call(lambda truth, boxes: matcher(box_iou(truth, boxes)), truth, boxes)

    return Sides(Call(ours, (truth, boxes, valid)), {"torchvision box_iou, Matcher": torchvision})


@comparison("sigmoid_focal_loss", case="120,087 anchors x 80 classes")
def sigmoid_focal_loss():
    """RetinaNet's classification loss of one 800 x 800 image, forward."""
    from kerasvision.losses.focal import sigmoid_focal_loss as ours

    rng = np.random.default_rng(0)
    logits = rng.normal(-4, 2, (ANCHORS, CLASSES)).astype(np.float32)
    targets = (rng.random(logits.shape) < 0.001).astype(np.float32)

    def torchvision():
        from torchvision.ops import sigmoid_focal_loss as theirs

        return torch_call(
            lambda targets, logits: theirs(logits, targets, alpha=0.25, gamma=2, reduction="sum"), targets, logits
        )

    def keras_loss():
        import keras

        loss = keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True, alpha=0.25, gamma=2, from_logits=True, reduction="sum"
        )
        return Call(loss, (targets, logits))

    def total(targets, logits):
        import keras

        return keras.ops.sum(ours(targets, logits))

    return Sides(
        Call(total, (targets, logits)),
        {"torchvision sigmoid_focal_loss": torchvision, "keras.losses.BinaryFocalCrossentropy": keras_loss},
        why="Keras's clips probabilities and so has no slope where the network is wrong and sure of it; ours keeps the "
        "logits' full range.",
    )
