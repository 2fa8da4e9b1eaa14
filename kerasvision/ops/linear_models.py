"""Linear models that are solved rather than trained by gradient steps: support vector machines, ridge regression.

NumPy in and out; scipy is imported when one is solved.
"""

import numpy as np


def fit_linear_svm(features, positive, *, cost=1e-3, positive_weight=2.0, bias_scale=10.0, start=None):
    """Return the linear support vector machine that tells positives from negatives.

    Minimises |w|^2 / 2 + cost * sum_i c_i max(0, 1 - y_i (w x_i + b))^2, the bias being the weight of a further feature
    of value `bias_scale`, by L-BFGS: the squared hinge is smooth and the problem convex.

    Args:
        features: (N, F) float.
        positive: (N,) bool.
        cost: C, the weight of the examples against the norm of the weights, above 0.
        positive_weight: c_i of positives; negatives' is 1.
        bias_scale: See above.
        start: Weights (F,) and bias to start from; default: zeros.

    Returns:
        Weights (F,) float32 and the bias, a float.

    Source: Fan et al. 2008, LIBLINEAR (L2-loss). Differs from R-CNN's code, which takes the plain hinge.
    """
    from scipy.optimize import minimize

    features = np.asarray(features, np.float64)
    signs = np.where(positive, 1.0, -1.0)
    costs = cost * np.where(positive, positive_weight, 1.0)

    def objective(weights):
        slack = np.maximum(0, 1 - signs * (features @ weights[:-1] + bias_scale * weights[-1]))  # (N,)
        slopes = -2 * costs * slack * signs
        gradient = weights + np.append(slopes @ features, bias_scale * slopes.sum())
        return 0.5 * weights @ weights + costs @ slack**2, gradient

    first = np.zeros(features.shape[1] + 1)
    if start is not None:
        first[:-1], first[-1] = start[0], start[1] / bias_scale
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10}).x
    return found[:-1].astype(np.float32), float(bias_scale * found[-1])


def fit_ridge(features, targets, *, penalty):
    """Return the linear map that minimises the squared errors plus `penalty` times its squared weights.

    Args:
        features: (N, F), N at least 1.
        targets: (N, K).
        penalty: Above 0; the intercept is not penalised.

    Returns:
        Weights (F, K) and intercepts (K,), float32. The smaller of two systems is solved: N x N or F x F.
    """
    from scipy.linalg import solve

    features, targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    centred, wanted = features - mean, targets - target_mean
    count, width = centred.shape
    if count < width:
        weights = centred.T @ solve(centred @ centred.T + penalty * np.eye(count), wanted, assume_a="pos")
    else:
        weights = solve(centred.T @ centred + penalty * np.eye(width), centred.T @ wanted, assume_a="pos")
    return weights.astype(np.float32), (target_mean - mean @ weights).astype(np.float32)
