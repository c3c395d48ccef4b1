"""Kernel distance: the unbiased estimate of the squared maximum mean discrepancy (MMD^2).

  MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Gretton et al. 2012, eq. 3; Binkowski et al. 2018 for the polynomial kernel, "KID".) Unbiased, so
negative for good generators as often as not; it is never clamped. Everything is computed from sums
v^T K w over blocks of the kernel matrices, with several vectors v and w at once: indicators of
subsets or a bootstrap's counts share one evaluation of the kernels.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from thermo_ebm.metrics import checks
from thermo_ebm.metrics.parallel import map_over_cores

Kernel = Literal["polynomial", "rbf"]
_BLOCK = 512  # rows and columns of the kernel matrices at once: 2 MB a block


class Estimate(NamedTuple):
    """A kernel distance and its standard error."""

    value: float
    stderr: float


def kernel_distance(
    real_features: checks.Array, generated_features: checks.Array, kernel: Kernel = "polynomial"
) -> float:
    """Returns the unbiased MMD^2 between two sets of features, in float64.

    >>> zeros, ones = np.zeros((4, 2)), np.ones((4, 2))
    >>> kernel_distance(zeros, ones)  # 1 + (1 + 1)^3 - 2
    7.0

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features]; the numbers may differ.
      kernel: "polynomial" is (x.y / num_features + 1)^3, KID's, the one to quote; "rbf" is
        exp(-|x - y|^2 / num_features).

    Raises:
      ValueError: for an unknown kernel, another rank, different widths, fewer than two images,
        values not finite.
    """
    real, generated = checks.feature_pair(real_features, generated_features)
    ones = np.ones((len(real), 1)), np.ones((len(generated), 1))
    return float(weighted_distances(real, generated, *ones, (kernel,))[kernel][0])


def weighted_distances(
    real: checks.Array,
    generated: checks.Array,
    real_weights: np.ndarray,
    generated_weights: np.ndarray,
    kernels: tuple[Kernel, ...] = ("polynomial", "rbf"),
) -> dict[str, np.ndarray]:
    """Returns the unbiased MMD^2 of many weightings of the same features at once.

    With weights a_i and b_j the means above are sum_{i != j} a_i a_j k / sum_{i != j} a_i a_j and
    likewise. A subset is a column of zeros and ones; a bootstrap draw one of counts, and a pair of
    copies of the same image is left out, for k(x, x) would be its value.

    Args:
      real: [num_real, num_features].
      generated: [num_generated, num_features].
      real_weights: [num_real, num_weightings], not negative.
      generated_weights: [num_generated, num_weightings].
      kernels: which kernels.

    Returns:
      For each kernel the distances, [num_weightings].

    Raises:
      ValueError: as `kernel_distance`, and if weights and features do not belong together or a
        weighting has fewer than two images.
    """
    real, generated = checks.feature_pair(real, generated)
    _check_kernels(kernels)
    for features, weights in ((real, real_weights), (generated, generated_weights)):
        if weights.ndim != 2 or len(weights) != len(features):
            raise ValueError(f"weights {weights.shape} for features {features.shape}")
        if ((weights > 0).sum(axis=0) < 2).any():
            raise ValueError("every weighting must have at least two images")
    if real_weights.shape[1] != generated_weights.shape[1]:
        raise ValueError("both sides must have the same number of weightings")
    within_real = _within(real, real_weights, kernels)
    within_generated = _within(generated, generated_weights, kernels)
    between = _sums(real, generated, real_weights, generated_weights, kernels)
    pairs = real_weights.sum(axis=0) * generated_weights.sum(axis=0)
    return {
        name: within_real[name] + within_generated[name] - 2 * between[name] / pairs
        for name in kernels
    }


def _check_kernels(kernels: tuple[Kernel, ...]) -> None:
    for name in kernels:
        if name not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {get_args(Kernel)}, not {name!r}")


def _within(
    features: np.ndarray, weights: np.ndarray, kernels: tuple[Kernel, ...]
) -> dict[str, np.ndarray]:
    """Returns sum_{i != j} w_i w_j k(x_i, x_j) / sum_{i != j} w_i w_j for each kernel."""
    sums = _sums(features, features, weights, weights, kernels)
    norms = np.sum(features**2, axis=1)
    squares = weights**2
    pairs = weights.sum(axis=0) ** 2 - squares.sum(axis=0)
    return {
        name: (sums[name] - _DIAGONALS[name](norms, features.shape[1]) @ squares) / pairs
        for name in kernels
    }


def _sums(
    x: np.ndarray,
    y: np.ndarray,
    x_weights: np.ndarray,
    y_weights: np.ndarray,
    kernels: tuple[Kernel, ...],
) -> dict[str, np.ndarray]:
    """Returns the sums over all pairs a_i b_j k(x_i, y_j), [num_weightings] for each kernel."""
    x_norms, y_norms = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    symmetric = x is y and x_weights is y_weights

    def block_sums(block: tuple[slice, slice]) -> np.ndarray:
        rows, columns = block
        products = x[rows] @ y[columns].T
        factor = 2.0 if symmetric and rows != columns else 1.0
        sums = np.empty((len(kernels), x_weights.shape[1]))
        for index, name in enumerate(kernels):
            values = _KERNELS[name](products, x_norms[rows], y_norms[columns], x.shape[1])
            weighted = values @ y_weights[columns]
            sums[index] = factor * np.einsum("iw,iw->w", x_weights[rows], weighted)
        return sums

    totals = sum(map_over_cores(block_sums, _blocks(len(x), len(y), symmetric)))
    return dict(zip(kernels, np.asarray(totals), strict=True))


def _blocks(num_rows: int, num_columns: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Yields the blocks of a matrix, of a symmetric one those on and above the diagonal."""
    for row in range(0, num_rows, _BLOCK):
        for column in range(row if symmetric else 0, num_columns, _BLOCK):
            yield (
                slice(row, min(row + _BLOCK, num_rows)),
                slice(column, min(column + _BLOCK, num_columns)),
            )


def _polynomial(
    products: np.ndarray, x_norms: np.ndarray, y_norms: np.ndarray, num_features: int
) -> np.ndarray:
    base = products / num_features
    base += 1.0
    return base * base * base


def _rbf(
    products: np.ndarray, x_norms: np.ndarray, y_norms: np.ndarray, num_features: int
) -> np.ndarray:
    exponent = products * 2.0
    exponent -= x_norms[:, None]
    exponent -= y_norms
    exponent /= num_features
    np.minimum(exponent, 0.0, out=exponent)  # rounding could make a distance of 0 negative
    return np.exp(exponent, out=exponent)


_KERNELS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "polynomial": _polynomial,
    "rbf": _rbf,
}
# k(x, x) from |x|^2.
_DIAGONALS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "polynomial": lambda norms, num_features: (norms / num_features + 1.0) ** 3,
    "rbf": lambda norms, num_features: np.ones_like(norms),
}
