"""R-CNN's last two stages: what holds the support vector machines and box regressors, and what finds them."""

import keras
import numpy as np
from keras import ops

from kerasvision.ops import boxes
from kerasvision.ops.linear_models import fit_linear_svm, fit_ridge

# Mean norm that features are scaled to before the machines, on which their cost depends: the authors' rcnn_train.m.
_FEATURE_NORM = 20.0
# Negatives of a larger margin are hard and join the others; those under the second are let go after each solution:
# rcnn_train.m, `hard_thresh` and `evict_thresh`.
_HARD, _EASY = -1.0001, -1.2
# The machines are solved again after so many new negatives, at the latest; rcnn_train.m: 50,000, of all classes.
_SOLVE_AFTER = 20_000
# Examples of each class's regressor, of which there are thousands in a large data set and which a few determine.
_MOST_PAIRS = 3000


@keras.saving.register_keras_serializable("kerasvision")
class RegionClassifiers(keras.layers.Layer):
    """A linear support vector machine and a linear box regressor of each class; solved, never trained by gradients.

    Args:
        num_classes: C.

    Call: [features (N, F), pooled features (N, G)]; returns margins (N, C) and deltas (N, 4 C), float32.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        """Create the weights, all of them zero."""
        (_, self.width), (_, self.pooled_width) = input_shape
        shapes = {
            "svm_kernel": (self.width, self.num_classes),
            "svm_bias": (self.num_classes,),
            "regressor_kernel": (self.pooled_width, 4 * self.num_classes),
            "regressor_bias": (4 * self.num_classes,),
            "fitted": (1,),
        }
        for name, shape in shapes.items():
            # Not cast to a mixed policy's half precision: pooled features of thousands of cells are added up.
            variable = self.add_weight(
                shape, initializer="zeros", trainable=False, name=name, dtype="float32", autocast=False
            )
            setattr(self, name, variable)

    @property
    def is_fitted(self):
        """Whether the weights were solved for: a scalar bool tensor, saved with them."""
        return ops.convert_to_tensor(self.fitted)[0] > 0

    def reset(self):
        """Forget all."""
        for variable in self.weights:
            variable.assign(np.zeros(variable.shape))

    def assign(self, solution):
        """Take over the weights of a `ClassifierFit`."""
        self.svm_kernel.assign(solution.svm_kernel * solution.scale)
        self.svm_bias.assign(solution.svm_bias)
        self.regressor_kernel.assign(solution.regressor_kernel)
        self.regressor_bias.assign(solution.regressor_bias)
        self.fitted.assign(np.ones(1))

    def call(self, inputs):
        """Return margins and deltas."""
        features, pooled = (ops.cast(part, "float32") for part in inputs)
        variables = (self.svm_kernel, self.svm_bias, self.regressor_kernel, self.regressor_bias)
        # As tensors: JAX takes no variables that are exempt from casts.
        svm_kernel, svm_bias, regressor_kernel, regressor_bias = map(ops.convert_to_tensor, variables)
        return ops.matmul(features, svm_kernel) + svm_bias, ops.matmul(pooled, regressor_kernel) + regressor_bias

    def compute_output_shape(self, input_shape):
        """Return the shapes of margins and deltas."""
        count = input_shape[0][0]
        return (count, self.num_classes), (count, 4 * self.num_classes)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}


class ClassifierFit:
    """Collects examples image by image and solves for the machines and regressors.

    First `add_objects` for all images, then `solve`, then `mine` for all, then `solve`. Each takes the proposals
    (P, 4) of an image, its objects (M, 4) and their labels (M,), and a function from boxes (N, 4) to features (N, F)
    and pooled features (N, G).

    Args:
        num_classes: C.
        cost: Of the machines; see `fit_linear_svm`.
        penalty: Of the regressors; see `fit_ridge`.
        regression_iou: IoU from which a proposal is an example of its object's regressor.
        negative_iou: IoU with all objects of a class under which a proposal is a negative of its machine.
    """

    def __init__(self, num_classes, *, cost, penalty, regression_iou, negative_iou):
        self.num_classes = num_classes
        self.cost, self.penalty = cost, penalty
        self.regression_iou, self.negative_iou = regression_iou, negative_iou
        self.positives = [[] for _ in range(num_classes)]
        self.negatives = [[] for _ in range(num_classes)]
        self.pairs = [[] for _ in range(num_classes)]
        self.pair_counts = np.zeros(num_classes, int)
        self.generator = np.random.default_rng(0)
        self.norms = []
        self.new_negatives = 0
        self.scale = 1.0
        self.images = 0
        # Their sizes are those of the first features.
        self.svm_kernel, self.svm_bias = np.zeros((0, num_classes), np.float32), np.zeros(num_classes, np.float32)
        self.regressor_kernel = np.zeros((0, 4 * num_classes), np.float32)
        self.regressor_bias = np.zeros(4 * num_classes, np.float32)

    def add_objects(self, proposals, objects, labels, features_of):
        """Add an image's objects to the machines' positives, and proposals that overlap them well to the regressors."""
        overlaps = _iou(proposals, objects)  # (P, M)
        best = overlaps.max(axis=1) if len(objects) else np.zeros(len(proposals))
        pairs = np.flatnonzero(best >= self.regression_iou) if len(objects) else np.zeros(0, int)
        features, pooled = features_of(np.concatenate([objects, proposals[pairs]]))
        if not self.images:
            self.svm_kernel = np.zeros((features.shape[1], self.num_classes), np.float32)
            self.regressor_kernel = np.zeros((pooled.shape[1], 4 * self.num_classes), np.float32)
        self.images += 1
        self.norms += np.linalg.norm(features, axis=1).tolist()
        for row, label in enumerate(labels):
            self.positives[label].append(features[row])
        if not len(pairs):
            return
        nearest = overlaps[pairs].argmax(axis=1)
        deltas = ops.convert_to_numpy(boxes.encode_deltas(objects[nearest], proposals[pairs]))  # (N, 4)
        for example, wanted, label in zip(pooled[len(objects) :], deltas, labels[nearest], strict=True):
            self._add_pair(int(label), example, wanted)

    def _add_pair(self, label, example, wanted):
        """Keep an example of a regressor, in the place of a random one if there are many."""
        self.pair_counts[label] += 1
        if len(self.pairs[label]) < _MOST_PAIRS:
            self.pairs[label].append((example, wanted))
            return
        place = self.generator.integers(self.pair_counts[label])  # each of all has the same chance to be kept
        if place < _MOST_PAIRS:
            self.pairs[label][place] = (example, wanted)

    def mine(self, proposals, objects, labels, features_of):
        """Add an image's proposals to the negatives of the machines that find them hard."""
        features, _ = features_of(proposals)
        if not len(features):
            return
        margins = features * self.scale @ self.svm_kernel + self.svm_bias  # (P, C)
        overlaps = _iou(proposals, objects)  # (P, M)
        for label in range(self.num_classes):
            own = overlaps[:, labels == label]
            best = own.max(axis=1) if own.shape[1] else np.zeros(len(proposals))
            hard = (best < self.negative_iou) & (margins[:, label] > _HARD)
            if hard.any() and self.positives[label]:
                self.negatives[label].append(features[hard])
                self.new_negatives += int(hard.sum())
        if self.new_negatives >= _SOLVE_AFTER:
            self._solve_machines()

    def solve(self):
        """Solve the regressors after the first pass, the machines after the second.

        Raises:
            ValueError: No image was seen.
        """
        if not self.images:
            raise ValueError("`x` gave no image to learn from; check the data set's split and size")
        if self.new_negatives:
            self._solve_machines()
            return
        mean = float(np.mean(self.norms)) if self.norms else 0.0
        self.scale = _FEATURE_NORM / mean if mean > 0 else 1.0
        for label, pairs in enumerate(self.pairs):
            if pairs:
                examples, wanted = (np.stack(part) for part in zip(*pairs, strict=True))
                kernel, bias = fit_ridge(examples, wanted, penalty=self.penalty)
                self.regressor_kernel[:, 4 * label : 4 * label + 4] = kernel
                self.regressor_bias[4 * label : 4 * label + 4] = bias
        # A class without an object in the data is never found.
        self.svm_bias[[not found for found in self.positives]] = -10.0

    def _solve_machines(self):
        for label in range(self.num_classes):
            if not self.negatives[label]:
                continue
            negatives = np.concatenate(self.negatives[label])
            examples = np.concatenate([np.stack(self.positives[label]), negatives]) * self.scale
            positive = np.arange(len(examples)) < len(self.positives[label])
            start = self.svm_kernel[:, label], float(self.svm_bias[label])
            kernel, bias = fit_linear_svm(examples, positive, cost=self.cost, start=start)
            self.svm_kernel[:, label], self.svm_bias[label] = kernel, bias
            margins = examples[~positive] @ kernel + bias
            self.negatives[label] = [negatives[margins > _EASY]]
        self.new_negatives = 0


def _iou(proposals, objects):
    """Return NumPy (P, M)."""
    if not len(proposals) or not len(objects):
        return np.zeros((len(proposals), len(objects)), np.float32)
    return ops.convert_to_numpy(boxes.pairwise_iou(proposals, objects))
