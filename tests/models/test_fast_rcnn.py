"""Fast R-CNN and what it shares with R-CNN: where proposals come from; the second stage is tested with Faster R-CNN."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet10
from kerasvision.data import SelectiveSearch, SlidingWindows, pipeline
from kerasvision.inference import Predictor
from kerasvision.models import FastRCNN
from kerasvision.ops.resizing import ResizeRule
from kerasvision.training import train


def _model(**options):
    keras.utils.set_random_seed(0)
    options = {
        "proposer": SlidingWindows((16, 32), max_proposals=12),
        "pyramid_filters": 16,
        "head_units": (8,),
        "regions_per_image": 4,
        "max_detections": 5,
        "resize_rule": ResizeRule("stretch", size_hw=(64, 96)),
        **options,
    }
    return FastRCNN(resnet10(widths=(16, 16, 16, 16), stem_filters=16), 7, **options)


@pytest.fixture(scope="module")
def model():
    return _model()


def _images(size_hw=(64, 96), count=1):
    return np.random.default_rng(0).uniform(0, 255, (count, *size_hw, 3)).astype(np.float32)


def test_call_images_alone_get_the_proposers_boxes(model):
    images = _images(count=2)
    proposals = ops.convert_to_numpy(model(images)["proposals"])
    np.testing.assert_array_equal(proposals[1], model.proposer(images[1]))


def test_call_given_proposals_are_classified_as_they_are(model):
    boxes = np.array([[[0, 0, 20, 20], [10, 10, 60, 50], [-1, -1, -1, -1]]], np.float32)
    raw = model({"images": _images(), "proposals": boxes})
    assert raw["class_logits"].shape == (1, 3, 8) and raw["class_deltas"].shape == (1, 3, 7, 4)
    np.testing.assert_array_equal(ops.convert_to_numpy(raw["proposals"]), boxes)


def test_complete_inputs_looks_at_the_valid_region_alone(model):
    inputs = {"images": _images(count=2), "sizes_hw": np.array([[64, 96], [40, 50]])}
    found = ops.convert_to_numpy(model.complete_inputs(inputs)["proposals"])
    assert found[0, 0].tolist() == [0, 0, 96, 64] and found[1, 0].tolist() == [0, 0, 50, 40]
    assert found[1][found[1, :, 0] >= 0].max() == 50


def test_complete_inputs_in_a_graph_says_what_to_do(model, monkeypatch):
    monkeypatch.setattr("kerasvision.models.external_proposals.known_value", lambda value: None)
    with pytest.raises(ValueError, match=r"lack 'proposals'.*data\.pipeline\(\.\.\., proposals=model\.proposer\)"):
        model(_images())


def test_proposer_default_and_what_is_refused():
    assert _model(proposer=None).proposer == SelectiveSearch()
    with pytest.raises(ValueError, match="`proposer` 3 must be a function of an image"):
        _model(proposer=3)


def test_predictor_proposes_on_the_image_itself(model):
    image = _images((32, 32))[0]
    inputs, _ = Predictor(model).preprocess([image])
    # From 32 x 32 to 64 x 96: x times 3, y times 2.
    expected = model.proposer(image) * [3, 2, 3, 2]
    np.testing.assert_allclose(ops.convert_to_numpy(inputs["proposals"])[0, : len(expected)], expected, rtol=1e-6)
    for freeze in (False, True):
        (result,) = Predictor(model, freeze=freeze)(image)
        assert (result.boxes <= 32).all()


def test_predict_of_images_equals_that_of_a_pipeline(model, eager):
    from kerasvision.data import load

    scenes = load("streets", split="test", task="detection")
    batches = pipeline(
        _First(scenes), task="detection", resize=ResizeRule("none"), batch_size=1, proposals=model.proposer
    )
    expected = model.predict(batches, verbose=0)
    found = model.predict(scenes[0].image[None].astype(np.float32), verbose=0)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-4)


def _First(scenes):
    """Return the first scene as a data set."""
    first = type("First", (type(scenes),), {"__len__": lambda _: 1})
    import copy

    scenes = copy.copy(scenes)
    scenes.__class__ = first
    return scenes


def test_train_works_proposals_out_and_keeps_them(tmp_path, monkeypatch, eager):
    from kerasvision.data import load

    monkeypatch.setenv("KERASVISION_HOME", str(tmp_path / "home"))
    scenes = _First(load("streets", split="test", task="detection"))
    history = train(
        _model(), scenes, scenes, epochs=1, batch_size=1, run_dir=tmp_path / "run", verbose=0, augment=False
    )
    assert np.isfinite(history["loss"]).all() and "val_AP" in history
    assert len(list((tmp_path / "home").rglob("*.npy"))) == 1
