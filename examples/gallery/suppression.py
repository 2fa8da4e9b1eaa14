"""Non-maximum suppression, method by method."""

import numpy as np

from examples.gallery import drawing as d
from examples.gallery.registry import picture
from kerasvision.layers import NonMaxSuppression

# Of the seven classes of streets: car, truck, bus, pedestrian, cyclist, traffic light, traffic sign.
MISTAKEN_FOR = {0: 1, 2: 1, 4: 3, 5: 6}
WINDOW = (40, 10, 384, 190)  # what is shown of the scene


def _candidates():
    """Return boxes (N, 4), scores and labels of a detector that finds each object several times."""
    scene, rng = d.scene(), np.random.default_rng(2)
    boxes, scores, labels = [], [], []
    for truth, label in zip(scene.boxes, scene.labels, strict=True):
        best = rng.uniform(0.75, 0.95)
        for number in range(6):
            spread = 0.01 if number == 0 else 0.1
            sizes = np.tile(truth[2:] - truth[:2], 2)
            boxes.append(truth + rng.normal(0, spread, 4) * sizes)
            scores.append(best - 0.08 * number - rng.uniform(0, 0.05))
            labels.append(MISTAKEN_FOR[label] if number == 2 else label)
    return np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels, np.int32)


def _draw(axes, boxes, scores, labels, title):
    scene = d.scene()
    d.show(axes, scene.image, title, faded=0.5)
    for one, score, label in sorted(zip(boxes, scores, labels, strict=True), key=lambda found: found[1]):
        strength = float(np.clip(score, 0.12, 1))
        d.box(axes, one, d.COLOURS[label], width=0.6 + 2.2 * strength, alpha=strength)
    axes.set_xlim(WINDOW[0], WINDOW[2])
    axes.set_ylim(WINDOW[3], WINDOW[1])
    d.note(axes, f"{len(boxes)} boxes, sum of scores {scores.sum():.1f}")


@picture("Suppression", "layers.NonMaxSuppression", "ops.nms.non_max_suppression")
def non_max_suppression():
    """Non-maximum suppression in eight ways.

    A detector finds each of six objects six times, once of them as another class (colours are classes; the fainter and
    thinner, the lower the score). Greedy suppression leaves about one box an object and class; with `per_class=False`
    those taken for another class go too. Soft suppression keeps all boxes that still score above 0.2 after their decay:
    linear by overlap above the threshold, or Gaussian. Fast and Matrix NMS need no loop: Fast drops what overlaps any
    better box, even one that is dropped itself, here one box more than greedy; Matrix decays scores as soft suppression
    does.
    """
    boxes, scores, labels = _candidates()
    figure, axes = d.panels(2, 4, height=4.0)
    _draw(axes[0, 0], boxes, scores, labels, "before")
    ways = (
        ("greedy, per class", {}),
        ("greedy, per_class=False", {"per_class": False}),
        ("soft_linear", {"method": "soft_linear"}),
        ("soft_gaussian", {"method": "soft_gaussian"}),
        ("fast", {"method": "fast"}),
        ("matrix_linear", {"method": "matrix_linear"}),
        ("matrix_gaussian", {"method": "matrix_gaussian"}),
    )
    for place, (title, options) in zip(axes.flat[1:], ways, strict=True):
        layer = NonMaxSuppression(0.5, max_detections=len(boxes), score_threshold=0.2, **options)
        found = {name: d.array(value)[0] for name, value in layer(boxes[None], scores[None], labels[None]).items()}
        count = found["num_detections"]
        _draw(place, found["boxes"][:count], found["scores"][:count], found["labels"][:count], title)
    return figure
