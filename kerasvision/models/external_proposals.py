"""Detectors that classify boxes which something outside of the network proposed: R-CNN and Fast R-CNN.

Their inputs are `{"images", "proposals"}`. The data pipeline and `Predictor` ask the model's `proposer` for the boxes;
so does the model itself, for images that come without, where it can see their pixels.
"""

import keras
import numpy as np
from keras import ops

from kerasvision.data.proposals import Proposer, pad_proposals
from kerasvision.data.selective_search import SelectiveSearch
from kerasvision.data.sliding_windows import SlidingWindows
from kerasvision.models.vision_model import split_inputs
from kerasvision.ops.compilers import known_value

# They are data's, which does without Keras; their configurations are part of a model's.
for _method in (SelectiveSearch, SlidingWindows):
    keras.saving.register_keras_serializable("kerasvision")(_method)


class ExternalProposals:
    """What detectors over external proposals add to `Detector`; before it among the bases.

    `model.proposer`, a function from an image (H, W, 3) to boxes (N, 4) with `max_proposals` and `get_config`, such as
    `kerasvision.data.SelectiveSearch`, is part of the model's configuration.
    """

    proposer: Proposer

    def use_proposer(self, proposer):
        """Set what proposes boxes: an object, its serialised configuration, or ``None`` for a fast selective search.

        Raises:
            ValueError: Something else.
        """
        if isinstance(proposer, dict):
            proposer = keras.saving.deserialize_keras_object(proposer)
        proposer = SelectiveSearch() if proposer is None else proposer
        if not all(hasattr(proposer, name) for name in ("max_proposals", "get_config")) or not callable(proposer):
            raise ValueError(
                f"`proposer` {proposer!r} must be a function of an image with max_proposals and get_config, such as "
                "kerasvision.data.SelectiveSearch()"
            )
        self.proposer = proposer

    def complete_inputs(self, inputs):
        """Return inputs with `proposals`, worked out by `proposer` where they lack and pixels are known.

        Args:
            inputs: images (B, H, W, 3), or a dict of `images` and perhaps `sizes_hw` and `proposals`.

        Returns:
            dict with `proposals` (B, P, 4) `xyxy` pixels, padded with -1.

        Raises:
            ValueError: No proposals in a graph, where the pixels have no values yet.
        """
        if isinstance(inputs, dict) and "proposals" in inputs:
            return inputs
        images, sizes_hw = split_inputs(inputs)
        if isinstance(images, keras.KerasTensor):  # a shape to be counted with
            found = keras.KerasTensor((images.shape[0], self.proposer.max_proposals, 4))
        elif len(images.shape) != 4 or images.shape[-1] != 3:
            return inputs  # `prepare` says what is wrong
        else:
            pixels, sizes = known_value(images), None if sizes_hw is None else known_value(sizes_hw)
            if pixels is None:
                raise ValueError(
                    f"`inputs` of {self.name} lack 'proposals', which cannot be worked out in a graph; use "
                    "data.pipeline(..., proposals=model.proposer), or kerasvision.inference.Predictor"
                )
            found = ops.convert_to_tensor(self.propose(pixels, sizes))
        return {**(inputs if isinstance(inputs, dict) else {"images": images}), "proposals": found}

    def propose(self, images, sizes_hw=None):
        """Return the proposals of images.

        Args:
            images: NumPy (B, H, W, 3), 0-255.
            sizes_hw: NumPy (B, 2): each image's valid region; default: all of it.

        Returns:
            NumPy float32 (B, P, 4) `xyxy` pixels of `images`, padded with -1.
        """
        sizes_hw = [images.shape[1:3]] * len(images) if sizes_hw is None else np.asarray(sizes_hw, int)
        found = [
            self.proposer(np.asarray(image)[:height, :width])
            for image, (height, width) in zip(images, sizes_hw, strict=True)
        ]
        return pad_proposals(found, self.proposer.max_proposals)

    def _completed(self, x):
        """Return the data of `fit` and the like with proposals, if it holds images rather than batches."""
        images = x.get("images") if isinstance(x, dict) else x
        return self.complete_inputs(x) if hasattr(images, "shape") and not hasattr(x, "element_spec") else x

    def __call__(self, inputs, *args, **kwargs):
        """Call the model; see `complete_inputs` for images without proposals."""
        return super().__call__(self.complete_inputs(inputs), *args, **kwargs)

    def _checked_data(self, x, y=None):
        x, y = super()._checked_data(x, y)
        return self._completed(x), y

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """Take one step; see `VisionModel.train_on_batch`."""
        return super().train_on_batch(self._completed(x), y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """Measure one batch; see `VisionModel.test_on_batch`."""
        return super().test_on_batch(self._completed(x), y, *args, **kwargs)

    def predict_on_batch(self, x):
        """Predict one batch; see `keras.Model.predict_on_batch`."""
        return super().predict_on_batch(self._completed(x))

    def predict(self, x, *args, **kwargs):
        """Detect objects; see `Detector`. Images without proposals get those of `proposer`."""
        return super().predict(self._completed(x), *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Measure the model; see `Detector.evaluate`."""
        return super().evaluate(x if y is None else self._completed(x), y, *args, **kwargs)

    def get_config(self):
        """Return the constructor's arguments."""
        return {**super().get_config(), "proposer": keras.saving.serialize_keras_object(self.proposer)}
