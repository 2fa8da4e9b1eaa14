import numpy as np
import pytest

from kerasvision.ops.linear_models import fit_linear_svm, fit_ridge


def test_svm_of_two_points_by_hand():
    # w = (a, 0), b = 0 by symmetry. a^2 / 2 + 2 C (1 - a)^2 is least at a = 4 C / (1 + 4 C): 2 / 3 for C = 1 / 2.
    weights, bias = fit_linear_svm([[1, 0], [-1, 0]], np.array([True, False]), cost=0.5, positive_weight=1.0)
    np.testing.assert_allclose(weights, [2 / 3, 0], atol=1e-5)
    assert bias == pytest.approx(0, abs=1e-5)


def test_svm_start_changes_nothing_but_the_way():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(40, 5))
    positive = features[:, 0] > 0.3
    cold = fit_linear_svm(features, positive, cost=0.1)
    warm = fit_linear_svm(features, positive, cost=0.1, start=(np.ones(5), 3.0))
    np.testing.assert_allclose(warm[0], cold[0], atol=1e-4)


@pytest.mark.parametrize("count", [5, 30])  # fewer and more examples than features: both systems
def test_ridge_satisfies_the_normal_equations(count):
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(count, 8)) + 3, generator.normal(size=(count, 2))
    weights, bias = fit_ridge(features, targets, penalty=2.0)
    # The slope of the objective is zero: X^T (X w + b - y) + penalty w, and the errors' sum.
    errors = features @ weights + bias - targets
    np.testing.assert_allclose(features.T @ errors + 2 * weights, 0, atol=1e-4)
    np.testing.assert_allclose(errors.sum(axis=0), 0, atol=1e-4)
