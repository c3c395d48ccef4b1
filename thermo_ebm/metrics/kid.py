"""Kernel distance: the unbiased estimate of the squared maximum mean discrepancy (MMD^2).

  MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Gretton et al. 2012, eq. 3; Binkowski et al. 2018 for the polynomial kernel, "KID".) The estimate
is unbiased and therefore often negative for good generators; it is never clamped. Everything is
computed from sums v^T K w over blocks of the kernel matrices, with the indicators of all subsets at
once.

MMD^2 is a two-sample U-statistic, so its variance is known in terms of three moments of the kernel
(Hoeffding 1948; for MMD^2 Sutherland 2019, "Unbiased estimators for the variance of MMD
estimators"). With g(x) = E k(x, x') - E k(x, y) and k centred in both arguments:

  Cov(a, b) = 4 Var g(x) sum_i a_i b_i + 2 Var k(x, x') sum_{i != j} A_ij B_ij
              + 4 Var k(x, y) sum_ij a_i b_i a_j b_j + the same for y

for two subsets with the weights a_i = 1/n and A_ij = 1/(n (n - 1)). The moments are estimated from
all images without bias. For equal distributions only the second line remains: g vanishes, and its
estimated variance is noise that is correlated with the distance itself. If this estimate is below
0, a third of it is kept. (With a cut-off at 0 the errors are too large; without one, too small.)
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from thermo_ebm.metrics import checks
from thermo_ebm.metrics.parallel import map_over_cores

Kernel = Literal["polynomial", "rbf"]
_BLOCK = 512  # rows and columns of the kernel matrices at once: 2 MB a block


class Estimates(NamedTuple):
    """Kernel distances of several subsets of the same images."""

    values: np.ndarray  # [num_subsets]
    covariance: np.ndarray  # [num_subsets, num_subsets], of the sampling of images


class _Sums(NamedTuple):
    """Sums over a kernel matrix [num_rows, num_columns]."""

    subsets: np.ndarray  # [num_subsets], over the pairs of each subset
    rows: np.ndarray  # [num_rows]
    columns: np.ndarray  # [num_columns]
    squares: float  # over all pairs


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
      kernel: "polynomial" is (x.y / num_features + 1)^3, the kernel of KID, to be quoted; "rbf" is
        exp(-|x - y|^2 / num_features).

    Raises:
      ValueError: for an unknown kernel, another rank, different numbers of features, fewer than two
        images, or values that are not finite.
    """
    real, generated = checks.feature_pair(real_features, generated_features)
    ones = np.ones((len(real), 1)), np.ones((len(generated), 1))
    return float(subset_distances(real, generated, *ones, (kernel,))[kernel].values[0])


def subset_distances(
    real: checks.Array,
    generated: checks.Array,
    real_indicators: np.ndarray,
    generated_indicators: np.ndarray,
    kernels: tuple[Kernel, ...] = ("polynomial", "rbf"),
) -> dict[str, Estimates]:
    """Returns the unbiased MMD^2 of many subsets of the same features at once.

    Args:
      real: [num_real, num_features].
      generated: [num_generated, num_features].
      real_indicators: [num_real, num_subsets], 1 for the images of a subset and 0 for the others.
      generated_indicators: [num_generated, num_subsets].
      kernels: which kernels.

    Returns:
      The distances and their covariance, for each kernel.

    Raises:
      ValueError: as for `kernel_distance`, and if indicators and features do not fit together or a
        subset has fewer than two images.
    """
    real, generated = checks.feature_pair(real, generated)
    _check_kernels(kernels)
    for features, chosen in ((real, real_indicators), (generated, generated_indicators)):
        if chosen.ndim != 2 or len(chosen) != len(features):
            raise ValueError(f"indicators {chosen.shape} for features {features.shape}")
        if ((chosen > 0).sum(axis=0) < 2).any():
            raise ValueError("every subset must have at least two images")
    if real_indicators.shape[1] != generated_indicators.shape[1]:
        raise ValueError("both sides must have the same number of subsets")
    within_real = _within(real, real_indicators, kernels)
    within_generated = _within(generated, generated_indicators, kernels)
    between = _sums(real, generated, real_indicators, generated_indicators, kernels)
    return {
        name: _estimates(
            (within_real[name], within_generated[name], between[name]),
            real_indicators,
            generated_indicators,
        )
        for name in kernels
    }


def _estimates(
    sums: tuple[_Sums, _Sums, _Sums], real: np.ndarray, generated: np.ndarray
) -> Estimates:
    """Combines the sums of the three matrices to the distances and their covariance.

    Args:
      sums: within the real images and within the generated ones, without the diagonals, and
        between the two.
      real: [num_real, num_subsets], indicators.
      generated: [num_generated, num_subsets].
    """
    sizes = real.sum(axis=0), generated.sum(axis=0)
    values = -2 * sums[2].subsets / (sizes[0] * sizes[1])
    for within, size in zip(sums, sizes, strict=False):
        values = values + within.subsets / (size * (size - 1))
    shared = [chosen.T @ chosen for chosen in (real, generated)]  # images in both of two subsets
    singles = [both / np.outer(size, size) for both, size in zip(shared, sizes, strict=True)]
    between = _variance_between(sums[2])
    covariance = 4 * between * singles[0] * singles[1]
    across = sums[2].rows / len(generated), sums[2].columns / len(real)
    for within, mean_across, both, single, size, other in (
        (sums[0], across[0], shared[0], singles[0], sizes[0], len(generated)),
        (sums[1], across[1], shared[1], singles[1], sizes[1], len(real)),
    ):
        num = len(mean_across)
        variance_within = _variance_within(within)
        witness = within.rows / (num - 1) - mean_across
        linear = witness.var(ddof=1) - variance_within / (num - 1) - between / other
        # The unbiased estimate is negative by chance where the distance is too low. A third of a
        # negative value is kept: with all of it, errors are too small just there.
        linear = max(linear, linear / 3)
        pairs = both * (both - 1) / np.outer(size * (size - 1), size * (size - 1))
        covariance = covariance + 4 * linear * single + 2 * variance_within * pairs
    return Estimates(values, covariance)


def _variance_within(sums: _Sums) -> float:
    """Returns the variance of k(x, x') centred in both (Szekely & Rizzo 2014, prop. 1); not < 0."""
    num = len(sums.rows)
    if num < 4:
        return 0.0
    centred = (
        sums.squares
        - 2 / (num - 2) * np.sum(sums.rows**2)
        + np.sum(sums.rows) ** 2 / ((num - 1) * (num - 2))
    )
    return max(float(centred) / (num * (num - 3)), 0.0)


def _variance_between(sums: _Sums) -> float:
    """Returns the variance of k(x, y) centred in both arguments; unbiased, and not below 0."""
    num_rows, num_columns = len(sums.rows), len(sums.columns)
    centred = (
        sums.squares
        - np.sum(sums.rows**2) / num_columns
        - np.sum(sums.columns**2) / num_rows
        + np.sum(sums.rows) ** 2 / (num_rows * num_columns)
    )
    return max(float(centred) / ((num_rows - 1) * (num_columns - 1)), 0.0)


def _check_kernels(kernels: tuple[Kernel, ...]) -> None:
    for name in kernels:
        if name not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {get_args(Kernel)}, not {name!r}")


def _within(
    features: np.ndarray, indicators: np.ndarray, kernels: tuple[Kernel, ...]
) -> dict[str, _Sums]:
    """Returns the sums over the kernel matrix of one side without its diagonal."""
    sums = _sums(features, features, indicators, indicators, kernels)
    norms = np.sum(features**2, axis=1)
    without = {}
    for name, whole in sums.items():
        diagonal = _DIAGONALS[name](norms, features.shape[1])
        rows = whole.rows - diagonal
        squares = whole.squares - float(diagonal @ diagonal)
        without[name] = _Sums(whole.subsets - diagonal @ indicators, rows, rows, squares)
    return without


def _sums(
    x: np.ndarray,
    y: np.ndarray,
    x_indicators: np.ndarray,
    y_indicators: np.ndarray,
    kernels: tuple[Kernel, ...],
) -> dict[str, _Sums]:
    """Returns the sums over the kernel matrices of all pairs of x and y, for each kernel."""
    x_norms, y_norms = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    symmetric = x is y

    def block_sums(block: tuple[slice, slice]) -> list[_Sums]:
        rows, columns = block
        products = x[rows] @ y[columns].T
        sums = []
        for name in kernels:
            values = _KERNELS[name](products, x_norms[rows], y_norms[columns], x.shape[1])
            chosen = values @ y_indicators[columns]
            subsets = np.einsum("iw,iw->w", x_indicators[rows], chosen)
            squares = float(np.vdot(values, values))
            sums.append(_Sums(subsets, values.sum(axis=1), values.sum(axis=0), squares))
        return sums

    blocks = list(_blocks(len(x), len(y), symmetric))
    totals: dict[str, _Sums] = {
        name: _Sums(np.zeros(x_indicators.shape[1]), np.zeros(len(x)), np.zeros(len(y)), 0.0)
        for name in kernels
    }
    for (rows, columns), parts in zip(blocks, map_over_cores(block_sums, blocks), strict=True):
        mirrored = symmetric and rows != columns
        for name, part in zip(kernels, parts, strict=True):
            total, factor = totals[name], 2.0 if mirrored else 1.0
            total.rows[rows] += part.rows
            total.columns[columns] += part.columns
            if mirrored:
                total.rows[columns] += part.columns
                total.columns[rows] += part.rows
            totals[name] = total._replace(
                subsets=total.subsets + factor * part.subsets,
                squares=total.squares + factor * part.squares,
            )
    return totals


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
