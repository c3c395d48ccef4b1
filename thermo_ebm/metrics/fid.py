"""Frechet inception distance (Heusel et al. 2017, eq. 6) between Gaussians fitted to features.

  FID = |mu_r - mu_g|^2 + tr(S_r) + tr(S_g) - 2 tr((S_r^(1/2) S_g S_r^(1/2))^(1/2))

With any factors S_r = F^T F and S_g = G^T G the last trace is the sum of the singular values of
F G^T: the eigenvalues of S_r S_g are those of (F G^T)(F G^T)^T. Therefore no matrix square root is
computed, nothing is inverted, and neither N < D nor a singular covariance is a special case.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from thermo_ebm.metrics import arrays
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.standard_errors import NUM_GROUPS, WEIGHTS, ImageGroups, group_sizes
from thermo_ebm.metrics.subsets import Draw

_NUM_DIRECTIONS = 96
_POWER_ITERATIONS = 2


def frechet_distance(real_features: Array, generated_features: Array) -> float:
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
    pair = arrays.feature_pair(real_features, generated_features)
    factors, means, traces = [], [], []
    for features in pair:
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
    root_trace = _root_trace(_congruence(real_covariance, generated_covariance))
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


def _root_trace(matrix: np.ndarray) -> float:
    """Returns tr(matrix^(1/2)) of a positive semi-definite matrix [n, n], from its upper triangle.

    Eigenvalues that rounding made negative count as zero.
    """
    values = np.linalg.eigvalsh(matrix, UPLO="U")
    return float(np.sqrt(np.clip(values, 0.0, None)).sum())


def subset_distances(features: FeaturePair, draws: Sequence[Draw]) -> np.ndarray:
    """Returns the FID of each draw, [num_draws], to about 1e-7 of the traces.

    The draws share work: the second moment of a subset with more than half of the images is the
    second moment of all images minus that of the remaining images.
    """
    centre = features.real.mean(axis=0)  # the FID is the same, and fewer digits cancel
    real, generated = features.real - centre, features.generated - centre
    real_second = _shared_second_moment(real, [draw.real for draw in draws])
    generated_second = _shared_second_moment(generated, [draw.generated for draw in draws])

    def distance(draw: Draw) -> float:
        if max(len(draw.real), len(draw.generated)) <= real.shape[1]:
            return _few_images_distance(real[draw.real], generated[draw.generated])
        return moments_distance(
            *_subset_moments(real, draw.real, real_second),
            *_subset_moments(generated, draw.generated, generated_second),
        )

    return np.array(arrays.map_over_cores(distance, draws))


def _shared_second_moment(features: np.ndarray, subsets: Sequence[np.ndarray]) -> np.ndarray | None:
    """Returns features^T features if `_subset_moments` uses it for any of the subsets."""
    num_images, num_features = features.shape
    shares = any(len(subset) > num_features and 2 * len(subset) > num_images for subset in subsets)
    return features.T @ features if shares else None


def _few_images_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """FID through the small matrix F G^T [num_real, num_generated]; see the top of this file."""
    real_mean, generated_mean = real.mean(axis=0), generated.mean(axis=0)
    real_factor = (real - real_mean) / np.sqrt(len(real) - 1)
    generated_factor = (generated - generated_mean) / np.sqrt(len(generated) - 1)
    traces = np.sum(real_factor**2) + np.sum(generated_factor**2)
    cross = real_factor @ generated_factor.T
    root_trace = _root_trace(cross @ cross.T)
    return float(np.sum((real_mean - generated_mean) ** 2) + traces - 2 * root_trace)


def _subset_moments(
    features: np.ndarray, subset: np.ndarray, second_moment_of_all: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [num_features] and covariance [num_features, num_features] of a subset."""
    size, members = len(subset), features[subset]
    mean = members.mean(axis=0)
    if second_moment_of_all is not None and 2 * size > len(features):
        remaining = np.delete(features, subset, axis=0)
        second_moment = second_moment_of_all - remaining.T @ remaining
    else:
        second_moment = members.T @ members
    return mean, (second_moment - size * np.outer(mean, mean)) / (size - 1)


def leading_directions(features: FeaturePair) -> FeaturePair:
    """Returns both sets in the directions of largest second moment about the real mean.

    They hold most of what varies between samples where the spectrum falls, and FID under another
    weighting of the images costs a thousandth of the FID of all features. By subspace iteration
    from a fixed random start (Halko et al. 2011, algorithm 4.4).

    Returns:
      [num_real, num] and [num_generated, num] with num = min(num_features, 96).
    """
    centre, num_features = features.real.mean(axis=0), features.real.shape[1]
    centred = FeaturePair(features.real - centre, features.generated - centre)
    if num_features <= _NUM_DIRECTIONS:
        return centred
    basis = np.random.default_rng(0).standard_normal((num_features, _NUM_DIRECTIONS))
    for _ in range(_POWER_ITERATIONS):
        image = sum(matrix.T @ (matrix @ basis) / len(matrix) for matrix in centred)
        basis = np.linalg.qr(image)[0]
    return FeaturePair(centred.real @ basis, centred.generated @ basis)


def influences(features: FeaturePair) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the FID with respect to each image's weight, times the size of its set.

    With the factors of the top of this file, F G^T = U diag(s) V^T, the last trace of the FID is
    sum_k s_k, and its derivative with respect to the weight of image i is sum_k s_k U_ik^2 / 2:
    nothing is inverted here either.

    Returns:
      [num_real] and [num_generated]; each adds up to zero, as common factors of weights cancel.
    """
    gap = features.real.mean(axis=0) - features.generated.mean(axis=0)
    centred = [matrix - matrix.mean(axis=0) for matrix in features]
    # centred = basis @ factor, where a basis of None stands for the identity.
    factored = [
        (None, matrix) if matrix.shape[0] <= matrix.shape[1] else np.linalg.qr(matrix)
        for matrix in centred
    ]
    scale = np.sqrt(np.prod([len(matrix) - 1.0 for matrix in centred]))
    left, roots, right = scipy.linalg.svd(
        factored[0][1] @ factored[1][1].T / scale, full_matrices=False, check_finite=False
    )

    def of_set(side: int, vectors: np.ndarray, sign: float) -> np.ndarray:
        matrix, basis = centred[side], factored[side][0]
        num = len(matrix)
        vectors = vectors if basis is None else basis @ vectors
        squares = np.sum(matrix**2, axis=1) / (num - 1) - vectors**2 @ roots
        return 2 * sign * (matrix @ gap) + num * (squares - squares.mean())

    return of_set(0, left, 1.0), of_set(1, right.T, -1.0)


def weighted_distances(features: FeaturePair, groups: ImageGroups, draw: Draw) -> np.ndarray:
    """Returns the FID of one draw under each weighting of the half-samples, [63].

    Args:
      features: from `leading_directions`.
      groups: the half-sample groups of both sets.
      draw: the subset of both sets.
    """
    means, covariances = [], []
    for matrix, members, subset in zip(features, groups, draw, strict=True):
        mean, covariance = weighted_moments(matrix[subset], members[subset])
        means.append(mean)
        covariances.append(covariance)
    try:  # all weightings at once
        lower = np.linalg.cholesky(covariances[0])
    except np.linalg.LinAlgError:  # a singular covariance
        moments = zip(means[0], covariances[0], means[1], covariances[1], strict=True)
        return np.array([moments_distance(*weighted) for weighted in moments])
    values = np.linalg.eigvalsh(lower.transpose(0, 2, 1) @ covariances[1] @ lower)
    root_traces = np.sqrt(np.clip(values, 0.0, None)).sum(axis=1)
    traces = sum(np.trace(matrices, axis1=1, axis2=2) for matrices in covariances)
    return np.asarray(np.sum((means[0] - means[1]) ** 2, axis=1) + traces - 2 * root_traces)


def weighted_moments(features: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns means [63, num_features] and covariances [63, num_features, num_features].

    Args:
      features: [num_images, num_features].
      groups: the half-sample group of each image, int [num_images].
    """
    sizes = group_sizes(groups)
    parts = [features[groups == group] for group in range(NUM_GROUPS)]
    sums = np.stack([part.sum(axis=0) for part in parts])
    squares = np.stack([part.T @ part for part in parts])
    total = WEIGHTS @ sizes
    mean = WEIGHTS @ sums / total[:, None]
    second = np.tensordot(WEIGHTS, squares, 1) / total[:, None, None]
    # The degrees of freedom that the mean takes, as a share: 1 / n for equal weights.
    lost_share = WEIGHTS**2 @ sizes / total**2
    covariance = (second - mean[:, :, None] * mean[:, None, :]) / (1 - lost_share)[:, None, None]
    return mean, covariance
