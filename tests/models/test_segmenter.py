"""Segmenters: padded batches, and what a mask with other class ids than the model's does."""

import keras
import numpy as np
import pytest

from kerasvision import data
from kerasvision.inference import Predictor
from kerasvision.metrics import confusion_matrix, figures_of

CANVAS_HW = (64, 96)


class Narrow(data.Dataset):
    """Two images that fill the canvas in one direction only, one in each, without being scaled."""

    name = "narrow"
    tasks = frozenset({"segmentation"})
    mask_classes = ("a", "b", "c")
    sizes = ((64, 48), (40, 96))

    def __len__(self):
        return 2

    def sample_name(self, index):
        return str(index)

    def __getitem__(self, index):
        generator = np.random.default_rng(index)
        size_hw = self.sizes[index]
        return data.Sample(
            str(index),
            generator.integers(0, 256, (*size_hw, 3)).astype(np.uint8),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int32),
            np.zeros(0, bool),
            generator.integers(0, 3, size_hw).astype(np.uint8),
        )


@pytest.mark.parametrize("framework", ["tf", "pydataset"])
def test_pipeline_and_predictor_agree_on_images_of_another_aspect_ratio(segmenter, framework):
    samples = list(Narrow())
    batches = data.pipeline(
        Narrow(), task="segmentation", resize=segmenter.resize_rule, batch_size=2, framework=framework
    )
    found = [result.mask for result in Predictor(segmenter)([sample.image for sample in samples])]
    confusion = sum(confusion_matrix(sample.mask, mask, 3) for sample, mask in zip(samples, found, strict=True))
    expected = figures_of(confusion)
    result = segmenter.evaluate(batches, verbose=0, return_dict=True)
    assert {name: float(result[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    logits = segmenter.predict(batches, verbose=0)
    assert logits.shape == (2, *CANVAS_HW, 3)
    for row, mask in zip(logits, found, strict=True):
        np.testing.assert_array_equal(row[: mask.shape[0], : mask.shape[1]].argmax(axis=-1), mask)


def test_fit_on_a_padded_pipeline_sees_no_padding(segmenter):
    """What lies outside the valid region changes neither the loss nor what is learnt."""
    (inputs, masks), = data.pipeline(
        Narrow(), task="segmentation", resize=segmenter.resize_rule, batch_size=2, framework="pydataset"
    )  # fmt: skip
    other = {**inputs, "images": np.where(masks[..., None] == 255, 255.0, inputs["images"]).astype(np.float32)}
    assert (other["images"] != inputs["images"]).any()
    before, learnt = segmenter.get_weights(), []
    segmenter.compile(optimizer=keras.optimizers.SGD(0.1))
    for batch in (inputs, other):
        segmenter.set_weights(before)
        history = segmenter.fit(batch, masks, verbose=0).history
        learnt.append([history["loss"][0], segmenter.get_weights()])
    assert learnt[0][0] == pytest.approx(learnt[1][0], rel=1e-6)
    for mine, theirs in zip(learnt[0][1], learnt[1][1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 64, 96), (4,)])
def test_recipe_weighs_pixels_as_a_compiled_cross_entropy_does(segmenter, images, shape):
    masks = np.random.default_rng(1).integers(0, 3, (4, 64, 96))
    masks[:, :8] = 255
    weights = np.random.default_rng(2).uniform(0, 3, shape).astype(np.float32)
    logits = segmenter(images)
    losses = segmenter.losses_from_outputs(logits, images, masks, sample_weight=weights)
    segmenter.compile(optimizer="sgd", loss="cross_entropy")
    given = weights.reshape(4, *(shape[1:] or (1, 1))) * np.ones((4, 64, 96), np.float32)
    expected = segmenter.compute_loss(images, masks, logits, sample_weight=given)
    assert float(losses["cross_entropy"]) == pytest.approx(float(expected), rel=1e-5)


def test_fit_takes_weights_of_pixels(segmenter, images):
    """Weights of 0 leave the cross-entropy nothing, and Dice as it is."""
    masks = np.random.default_rng(1).integers(0, 3, (4, 64, 96))
    history = segmenter.fit(images, masks, sample_weight=np.zeros((4, 64, 96), np.float32), verbose=0).history
    assert history["cross_entropy"][0] == 0
    assert history["dice_loss"][0] > 0.3
