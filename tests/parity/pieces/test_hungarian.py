"""Linear assignment against SciPy's: the same total cost, image by image."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.optimize import linear_sum_assignment

from kerasvision.ops.hungarian import assign
from tests.parity.pieces.compare import check


def _totals(cost, rows):
    """Sum each image's chosen costs in float64, so that only the choice counts."""
    chosen = np.take_along_axis(np.asarray(cost, np.float64), np.maximum(rows, 0)[:, None], axis=1)[:, 0]
    return np.where(rows >= 0, chosen, 0).sum(axis=1)


def _scipy_totals(cost, valid):
    pairs = [(one[:, kept], linear_sum_assignment(one[:, kept])) for one, kept in zip(cost, valid, strict=True)]
    return np.array([one.astype(np.float64)[chosen].sum() for one, chosen in pairs])


@pytest.mark.parametrize("solver", ["host", "graph"])
@pytest.mark.parametrize("kind", ["normal", "whole", "far"])
@pytest.mark.parametrize("shape", [(2, 40, 20), (2, 10, 14), (1, 300, 100)])
def test_assign_costs_as_little_as_scipy(shape, kind, solver):
    if solver == "graph" and shape == (1, 300, 100) and kind != "normal" and keras.backend.backend() != "jax":
        pytest.skip("seconds each, run eagerly")
    rng = np.random.default_rng(0)
    cost = {
        "normal": rng.normal(size=shape),
        "whole": rng.integers(0, 5, shape),  # ties everywhere
        "far": 1e4 + rng.random(shape),  # few digits left in float32
    }[kind].astype(np.float32)
    valid = rng.random((shape[0], shape[2])) < 0.8

    def ours(cost, valid):
        rows = ops.convert_to_numpy(assign(cost, valid, solver=solver))
        assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in rows)
        return ops.convert_to_tensor(_totals(ops.convert_to_numpy(cost), rows))

    check(
        f"ops.hungarian.assign ({solver})",
        "scipy.optimize.linear_sum_assignment, total cost",
        ours,
        _scipy_totals,
        [cost, valid],
        numpy_reference=True,
    )
