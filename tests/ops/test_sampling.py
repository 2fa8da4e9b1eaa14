"""Samplers: counts, priorities and seeds; hard negatives by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.ops.rows import mark_rows
from kerasvision.ops.sampling import mine_hard_negatives, sample_balanced


def _sample(labels, **options):
    labels = np.asarray(labels)
    chosen = sample_balanced(labels == 1, labels == 0, **options)
    return [ops.convert_to_numpy(mask) for mask in chosen]


def test_sample_balanced_by_priorities():
    labels = [[1, 1, 1, 0, 0, 0, -1], [0, 0, 1, 0, 0, 0, 0]]
    priorities = [[0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 1.0], [0.5, 0.4, 0.3, 0.6, 0.2, 0.1, 0.0]]
    positives, negatives = _sample(labels, size=4, positive_fraction=0.5, priorities=np.array(priorities, np.float32))
    # Image 0: the best 2 of 3 positives, then 2 negatives; never the one that is neither. Image 1: 1 and 3.
    np.testing.assert_array_equal(positives, [[0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(negatives, [[0, 0, 0, 0, 1, 1, 0], [1, 1, 0, 1, 0, 0, 0]])


def test_sample_balanced_takes_the_first_of_equal_priorities_and_counts_exactly():
    positives, negatives = _sample(np.zeros((1, 6)), size=2, positive_fraction=0.5, priorities=np.zeros((1, 6)))
    assert positives.sum() == 0 and negatives.sum() == 2


@pytest.mark.parametrize(
    ("counts", "size", "fraction", "expected"),
    [
        ((50, 50), 20, 0.25, (5, 15)),
        ((2, 50), 20, 0.25, (2, 18)),  # negatives fill up
        ((50, 3), 20, 0.25, (5, 3)),  # positives do not
        ((0, 50), 20, 0.25, (0, 20)),
        ((50, 50), 7, 0.5, (3, 4)),  # int(3.5)
        ((50, 50), 20, 0.0, (0, 20)),
        ((50, 50), 20, 1.0, (20, 0)),
        ((50, 50), 500, 0.5, (50, 50)),  # all there are
        ((0, 0), 20, 0.5, (0, 0)),
    ],
)
def test_sample_balanced_counts(counts, size, fraction, expected):
    labels = np.full((2, 110), -1)
    labels[:, : counts[0]] = 1
    labels[:, counts[0] : sum(counts)] = 0
    positives, negatives = _sample(labels, size=size, positive_fraction=fraction, seed=3)
    assert (positives <= (labels == 1)).all() and (negatives <= (labels == 0)).all()
    np.testing.assert_array_equal(positives.sum(1), [expected[0]] * 2)
    np.testing.assert_array_equal(negatives.sum(1), [expected[1]] * 2)


def test_sample_balanced_repeats_with_a_seed_and_varies_with_a_generator():
    labels = np.zeros((2, 300))
    options = {"size": 20, "positive_fraction": 0.5}
    first, second = (_sample(labels, seed=1, **options)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first[0] != first[1]).any()  # images are drawn apart
    generator = keras.random.SeedGenerator(1)
    first, second = (_sample(labels, seed=generator, **options)[1] for _ in range(2))
    assert (first != second).any()


def test_sample_balanced_chooses_all_alike():
    drawn = sum(_sample(np.zeros((50, 10)), size=5, positive_fraction=0.5, seed=seed)[1].sum(0) for seed in range(8))
    # 400 draws of 5 in 10: 200 of each, with a spread of 10.
    assert np.abs(drawn - 200).max() < 50


def test_sample_balanced_takes_sizes_of_numpy():
    options = {"positive_fraction": 0.5, "seed": 1}
    for found, expected in zip(
        _sample(np.zeros((2, 9)), size=np.int64(2), **options),
        _sample(np.zeros((2, 9)), size=2, **options),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX's traces")
def test_sample_balanced_without_a_seed_is_refused_in_a_trace():
    import jax

    labels = np.zeros((1, 5), bool)
    with pytest.raises(ValueError, match="only use seeded random ops"):
        jax.jit(lambda x: sample_balanced(x, ~x, size=2, positive_fraction=0.5))(labels)


def test_sample_balanced_of_no_anchors_is_empty():
    positives, negatives = _sample(np.zeros((2, 0)), size=5, positive_fraction=0.5, seed=0)
    assert positives.shape == negatives.shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0, "positive_fraction": 0.5}, r"`size` 0 must be a whole number of at least 1"),
        ({"size": 2.0, "positive_fraction": 0.5}, r"`size` 2.0 must be a whole number of at least 1"),
        ({"size": 5, "positive_fraction": 1.5}, r"`positive_fraction` 1.5 must be in \[0, 1\]"),
    ],
)
def test_sample_balanced_of_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        _sample(np.zeros((1, 5)), **options)


def _mine(losses, positives, candidates=None, **options):
    candidates = None if candidates is None else np.asarray(candidates, bool)
    losses, positives = np.asarray(losses, np.float32), np.asarray(positives, bool)
    return ops.convert_to_numpy(mine_hard_negatives(losses, positives, candidates, **options)).astype(int)


def test_mine_hard_negatives_by_hand():
    losses = [[9, 1, 5, 3, 8, 4], [9, 1, 5, 3, 8, 4], [9, 1, 5, 3, 8, 4]]
    positives = [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    # 3 of the 5 negatives; 6 of 4: all; none.
    np.testing.assert_array_equal(_mine(losses, positives), [[0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1], [0] * 6])
    np.testing.assert_array_equal(_mine(losses, positives, ratio=1.5)[0], [0, 0, 0, 0, 1, 0])  # 1.5: 1
    np.testing.assert_array_equal(_mine(losses, positives, at_least=2)[2], [1, 0, 0, 0, 1, 0])


def test_mine_hard_negatives_among_candidates_only():
    found = _mine([[9, 1, 5, 3, 8, 4]], [[1, 0, 0, 0, 0, 0]], [[1, 1, 0, 1, 0, 0]])
    np.testing.assert_array_equal(found, [[0, 1, 0, 1, 0, 0]])


def test_mine_hard_negatives_of_equal_losses_counts_exactly_and_takes_the_first():
    np.testing.assert_array_equal(_mine(np.zeros((1, 6)), [[0, 0, 1, 0, 0, 0]]), [[1, 1, 0, 1, 0, 0]])


def test_mine_hard_negatives_of_extreme_losses():
    inf, nan = np.inf, np.nan
    found = _mine([[0, -inf, inf, nan, 5, 6]], [[1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(found, [[0, 0, 1, 1, 0, 1]])
    assert _mine(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)


def test_mark_rows_by_hand():
    indices, chosen = np.array([[3, 0, 3], [1, 2, 0]], np.int32), np.array([[1, 1, 0], [1, 0, 0]], bool)
    found = ops.convert_to_numpy(mark_rows(indices, chosen, 4))
    np.testing.assert_array_equal(found, [[True, False, False, True], [False, True, False, False]])


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_samplers_in_compiled_code():
    labels = np.array([[1, 1, 1, 0, 0, 0, -1]], np.int32)
    priorities = np.array([[0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 1.0]], np.float32)

    def both(labels, priorities):
        chosen = sample_balanced(labels == 1, labels == 0, size=4, positive_fraction=0.5, priorities=priorities)
        return *chosen, mine_hard_negatives(priorities, labels == 1, labels == 0, ratio=0.5)

    expected = [ops.convert_to_numpy(mask) for mask in both(ops.convert_to_tensor(labels), priorities)]
    if keras.backend.backend() == "jax":
        import jax

        compiled = [jax.jit(both)]
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None))]
        compiled = [tf.function(both, input_signature=signature), tf.function(both, jit_compile=True)]
    for function in compiled:
        for found, wanted in zip(function(labels, priorities), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(found), wanted)


def test_sample_balanced_chooses_candidates_only_whatever_their_priorities():
    positives = np.array([[True, True, False, False, False, True]])
    negatives = np.array([[False, False, True, True, False, False]])
    priorities = np.array([[-5.0, -np.inf, -2.0, np.nan, 9.0, -3.0]], np.float32)
    chosen = sample_balanced(positives, negatives, size=4, positive_fraction=0.5, priorities=priorities)
    # The two positives of highest priority, -3 and -5; both negatives.
    np.testing.assert_array_equal(ops.convert_to_numpy(chosen[0]), [[True, False, False, False, False, True]])
    np.testing.assert_array_equal(ops.convert_to_numpy(chosen[1]), negatives)
