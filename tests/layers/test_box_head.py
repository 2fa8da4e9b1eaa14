"""The second stage of region-based detectors, by hand."""

import numpy as np
import pytest
from keras import ops

from kerasvision.layers import BoxHead, BoxPredictor


def _numpy(tensor):
    return ops.convert_to_numpy(tensor)


def test_box_head_of_ones_by_hand():
    head = BoxHead((3, 2))
    head.build((None, None, 2, 2, 2))
    # 8 ones into 3 units of 1 each and bias 1: 9; three of those into 2 units, less 20: 7.
    for variable, value in zip(head.weights, (1.0, 1.0, 1.0, -20.0), strict=True):
        variable.assign(np.full(variable.shape, value, np.float32))
    np.testing.assert_array_equal(_numpy(head(np.ones((1, 4, 2, 2, 2), np.float32))), np.full((1, 4, 2), 7))
    # A box without features: 1 each, three of them less 20 is below 0.
    np.testing.assert_array_equal(_numpy(head(np.zeros((1, 1, 2, 2, 2), np.float32))), np.zeros((1, 1, 2)))


def test_box_head_sees_every_box_by_itself():
    head = BoxHead((4,), convolutions=1, filters=3)
    pooled = np.random.default_rng(0).normal(size=(2, 3, 5, 5, 2)).astype(np.float32)
    together = _numpy(head(pooled))
    assert together.shape == (2, 3, 4)
    alone = _numpy(head(pooled[1:, 2:]))
    np.testing.assert_allclose(together[1:, 2:], alone, rtol=1e-5, atol=1e-6)


def test_box_head_drops_in_training_only():
    head = BoxHead((1000,), dropout=0.5)
    pooled = np.ones((1, 1, 1, 1, 4), np.float32)
    kept, dropped = _numpy(head(pooled)), _numpy(head(pooled, training=True))
    active = kept > 0
    assert 0.4 < np.mean(dropped[active] == 0) < 0.6
    np.testing.assert_allclose(dropped[dropped > 0], 2 * kept[dropped > 0], rtol=1e-6)


def test_box_head_without_dense_layers_is_refused():
    with pytest.raises(ValueError, match=r"`units` \(\) must name one dense layer or more"):
        BoxHead(())


def test_box_predictor_by_hand():
    predictor = BoxPredictor(2)
    predictor.build((None, None, 1))
    predictor.classifier.kernel.assign([[1.0, 2.0, 3.0]])
    predictor.regressor.kernel.assign([[10.0, 11.0, 12.0, 13.0, 20.0, 21.0, 22.0, 23.0]])
    logits, deltas = predictor(np.array([[[1.0], [2.0]]], np.float32))
    np.testing.assert_array_equal(_numpy(logits), [[[1, 2, 3], [2, 4, 6]]])
    first = [[10, 11, 12, 13], [20, 21, 22, 23]]
    np.testing.assert_array_equal(_numpy(deltas)[0], [first, 2 * np.array(first)])
