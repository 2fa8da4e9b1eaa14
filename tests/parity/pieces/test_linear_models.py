"""R-CNN's machines and regressors against scikit-learn's."""

import numpy as np
import pytest

from kerasvision.ops.linear_models import fit_linear_svm, fit_ridge

pytest.importorskip("sklearn", reason="scikit-learn is part of the parity extra")


def _examples(count=300, width=20):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(count, width))
    return features, features[:, 0] + 0.5 * generator.normal(size=count) > 0.5


@pytest.mark.parametrize("cost", [1e-3, 0.1, 1.0])
def test_svm_equals_liblinear(cost):
    from sklearn.svm import LinearSVC

    features, positive = _examples()
    theirs = LinearSVC(
        C=cost,
        loss="squared_hinge",
        dual=False,
        intercept_scaling=10.0,
        class_weight={1: 2.0},
        tol=1e-9,
        max_iter=10_000,
    ).fit(features, positive.astype(int))
    weights, bias = fit_linear_svm(features, positive, cost=cost)
    np.testing.assert_allclose(weights, theirs.coef_[0], atol=1e-4)
    np.testing.assert_allclose(bias, theirs.intercept_[0], atol=1e-4)


@pytest.mark.parametrize("count", [10, 300])
def test_ridge_equals_scikit_learn(count):
    from sklearn.linear_model import Ridge

    features, _ = _examples(count)
    targets = np.random.default_rng(1).normal(size=(count, 4))
    theirs = Ridge(alpha=1000.0).fit(features, targets)
    weights, bias = fit_ridge(features, targets, penalty=1000.0)
    np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-6)
    np.testing.assert_allclose(bias, theirs.intercept_, atol=1e-6)
