"""Frechet inception distance (Heusel et al. 2017, eq. 6) between Gaussians fitted to features.

  FID = |mu_r - mu_g|^2 + tr(S_r) + tr(S_g) - 2 tr((S_r^(1/2) S_g S_r^(1/2))^(1/2))

With any factors S_r = F^T F and S_g = G^T G the last trace is the sum of the singular values of
F G^T: the eigenvalues of S_r S_g are those of (F G^T)(F G^T)^T. Therefore no matrix square root is
computed, nothing is inverted, and neither N < D nor a singular covariance is a special case.
"""

import numpy as np
import scipy.linalg

from thermo_ebm.metrics import checks


def frechet_distance(real_features: checks.Array, generated_features: checks.Array) -> float:
    """Returns the FID of two sets of features; covariances divide by N - 1.

    >>> features = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> round(frechet_distance(features, features + 3.0), 6)  # means 3 apart in both features
    18.0

    Computed in float64 from the features themselves, without squaring their condition number: the
    factors are the centred features, or the factor R of their QR decomposition if there are more
    images than features. `moments_distance` is faster and suited to many sizes in a row.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].

    Raises:
      ValueError: for another rank, different numbers of features, fewer than two images, or values
        that are not finite.
    """
    real, generated = checks.feature_pair(real_features, generated_features)
    factors, means, traces = [], [], []
    for features in (real, generated):
        means.append(features.mean(axis=0))
        centred = (features - means[-1]) / np.sqrt(len(features) - 1)
        traces.append(np.sum(centred**2))
        factors.append(_small_factor(centred))
    root_trace = scipy.linalg.svdvals(factors[0] @ factors[1].T, check_finite=False).sum()
    return float(np.sum((means[0] - means[1]) ** 2) + sum(traces) - 2 * root_trace)


def _small_factor(matrix: np.ndarray) -> np.ndarray:
    """Returns F with F^T F = matrix^T matrix and no more rows than columns."""
    if matrix.shape[0] <= matrix.shape[1]:
        return matrix
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def moments_distance(
    real_mean: np.ndarray,
    real_covariance: np.ndarray,
    generated_mean: np.ndarray,
    generated_covariance: np.ndarray,
) -> float:
    """Returns the FID of two Gaussians given by their moments, in float64.

    The trace comes from the symmetric eigenvalues of F S_g F^T with S_r = F^T F by Cholesky with
    pivoting, which ends early for a singular covariance (dead channels, N < D). An eigenvalue of
    zero has an error of about 1e-16 of the largest eigenvalue, and its root therefore of 1e-8.

    Args:
      real_mean: [num_features].
      real_covariance: [num_features, num_features], symmetric.
      generated_mean: [num_features].
      generated_covariance: [num_features, num_features], symmetric.

    Raises:
      ValueError: if the shapes do not fit together.
    """
    size = real_mean.shape[0]
    if not (
        real_mean.shape == generated_mean.shape == (size,)
        and real_covariance.shape == generated_covariance.shape == (size, size)
    ):
        raise ValueError(
            "moments must be [num_features] and [num_features, num_features], not"
            f" {real_mean.shape}, {real_covariance.shape},"
            f" {generated_mean.shape}, {generated_covariance.shape}"
        )
    root_trace = root_eigenvalue_sum(_congruence(real_covariance, generated_covariance))
    traces = np.trace(real_covariance) + np.trace(generated_covariance)
    return float(np.sum((real_mean - generated_mean) ** 2) + traces - 2 * root_trace)


def _congruence(real_covariance: np.ndarray, generated_covariance: np.ndarray) -> np.ndarray:
    """Returns the upper triangle of F S_g F^T [n, n] with F^T F = S_r, up to a permutation."""
    # Transposing a symmetric matrix is free and gives LAPACK the order it wants.
    upper, pivots, rank, _ = scipy.linalg.lapack.dpstrf(real_covariance.T, lower=0)
    upper[rank:] = 0.0  # the remainder after pivoting is rounding
    order = pivots - 1
    permuted = generated_covariance[np.ix_(order, order)].T
    product, _ = scipy.linalg.lapack.dsygst(permuted, upper, itype=2, lower=0)
    return product


def root_eigenvalue_sum(matrix: np.ndarray) -> float:
    """Returns tr(matrix^(1/2)) of a positive semi-definite matrix [n, n], from its upper triangle.

    Eigenvalues that rounding made negative count as zero.
    """
    values = np.linalg.eigvalsh(matrix, UPLO="U")
    return float(np.sqrt(np.clip(values, 0.0, None)).sum())
