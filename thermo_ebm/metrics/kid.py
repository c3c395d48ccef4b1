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

The difference of the distances of two sets y and z from the same real images x has no term
k(x, x'): what remains of x is the linear term 2 (E k(x, z) - E k(x, y)), which vanishes for equal
y and z, and k(x, y) and k(x, z) as above (`difference`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from thermo_ebm.metrics import arrays, subsets
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.subsets import Draw

KernelName = Literal["polynomial", "rbf", "gaussian"]
GAUSSIAN_BANDWIDTH = 10.0  # CMMD's, for features of length 1
_BLOCK = 512  # rows and columns of the kernel matrices at once: 2 MB a block


class KernelDistances(NamedTuple):
    """Kernel distances of several subsets of the same images, or differences of such distances.

    The covariances are those of the sampling of images; linear is the part that falls as 1/N.
    """

    values: np.ndarray  # [num_subsets]
    linear: np.ndarray  # [num_subsets, num_subsets]
    quadratic: np.ndarray  # [num_subsets, num_subsets], the part that falls as 1/N^2

    @property
    def covariance(self) -> np.ndarray:
        """Both parts together, [num_subsets, num_subsets]."""
        return np.asarray(self.linear + self.quadratic)


class KernelSums(NamedTuple):
    """Sums over a kernel matrix [num_rows, num_columns]."""

    subsets: np.ndarray  # [num_subsets], over the pairs of each subset
    rows: np.ndarray  # [num_rows]
    columns: np.ndarray  # [num_columns]
    squares: float  # over all pairs


class PairKernels(NamedTuple):
    """The three kernel matrices of a pair of sets; those of one set are without the diagonal."""

    real: KernelSums
    generated: KernelSums
    between: KernelSums  # [num_real, num_generated]
    real_indicators: np.ndarray  # [num_real, num_subsets], 1 for the images of a subset
    generated_indicators: np.ndarray  # [num_generated, num_subsets]


def kernel_distance(
    real_features: Array, generated_features: Array, kernel: KernelName = "polynomial"
) -> float:
    """Returns the unbiased MMD^2 between two sets of features, in float64.

    >>> zeros, ones = np.zeros((4, 2)), np.ones((4, 2))
    >>> kernel_distance(zeros, ones)  # 1 + (1 + 1)^3 - 2
    7.0

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features]; the numbers may differ.
      kernel: "polynomial" is (x.y / num_features + 1)^3, the kernel of KID, to be quoted; "rbf" is
        exp(-|x - y|^2 / num_features); "gaussian" is exp(-|x - y|^2 / 200) - 1, where the constant
        changes no distance and saves digits.

    Raises:
      ValueError: for an unknown kernel, another rank, different numbers of features, fewer than two
        images, or values that are not finite.
    """
    features = arrays.feature_pair(real_features, generated_features)
    draw = subsets.all_images(len(features.real), len(features.generated))
    return float(subset_distances(features, [draw], (kernel,))[kernel].values[0])


def subset_distances(
    features: FeaturePair,
    draws: Sequence[Draw],
    kernels: tuple[KernelName, ...] = ("polynomial", "rbf"),
) -> dict[KernelName, KernelDistances]:
    """Returns the unbiased MMD^2 of each draw and their covariance, for each kernel.

    The kernels are evaluated once for all draws.

    Raises:
      ValueError: for an unknown kernel, or a subset with fewer than two images.
    """
    return {name: distances(sums) for name, sums in pair_sums(features, draws, kernels).items()}


def pair_sums(
    features: FeaturePair, draws: Sequence[Draw], kernels: tuple[KernelName, ...]
) -> dict[KernelName, PairKernels]:
    """Returns what `distances` and `difference` need, for each kernel; errors as above."""
    for name in kernels:
        if name not in get_args(KernelName):
            raise ValueError(f"kernel must be one of {get_args(KernelName)}, not {name!r}")
    if any(len(subset) < 2 for draw in draws for subset in draw):
        raise ValueError("every subset must have at least two images")
    real, generated = features
    real_indicators = _indicators([draw.real for draw in draws], len(real))
    generated_indicators = _indicators([draw.generated for draw in draws], len(generated))
    within_real = _sums_off_diagonal(real, real_indicators, kernels)
    within_generated = _sums_off_diagonal(generated, generated_indicators, kernels)
    between = _sums(real, generated, real_indicators, generated_indicators, kernels)
    return {
        name: PairKernels(
            within_real[name],
            within_generated[name],
            between[name],
            real_indicators,
            generated_indicators,
        )
        for name in kernels
    }


def _indicators(image_subsets: Sequence[np.ndarray], num_images: int) -> np.ndarray:
    """Returns a column of zeros and ones for each subset, [num_images, num_subsets]."""
    indicators = np.zeros((num_images, len(image_subsets)))
    for column, subset in enumerate(image_subsets):
        indicators[subset, column] = 1.0
    return indicators


def distances(sums: PairKernels) -> KernelDistances:
    """Returns the unbiased MMD^2 of each subset and their covariance."""
    num_generated = len(sums.generated_indicators)
    of_real, of_generated = _overlaps(sums.real_indicators), _overlaps(sums.generated_indicators)
    between, within = _variance_between(sums.between), _variance_within(sums.real)
    witness = sums.real.rows / (len(sums.real.rows) - 1) - sums.between.rows / num_generated
    noise = within / (len(witness) - 1) + between / num_generated
    linear, quadratic = _generated_terms(sums, of_generated)
    return KernelDistances(
        _unbiased(sums),
        linear + 4 * _linear_variance(witness, noise) * of_real.images,
        quadratic + 2 * within * of_real.pairs + 4 * between * of_real.images * of_generated.images,
    )


def difference(first: PairKernels, second: PairKernels) -> KernelDistances:
    """Returns the first MMD^2 minus the second of each subset, and the covariance of these.

    Args:
      first: of the real images and one set; independent of the other set.
      second: of the same real images, in the same subsets, and the other set.
    """
    of_real = _overlaps(first.real_indicators)
    witness, noise = np.zeros(len(first.real_indicators)), 0.0
    linear, quadratic = np.zeros((2, *of_real.images.shape))
    for sums, sign in ((first, 1.0), (second, -1.0)):
        num_generated = len(sums.generated_indicators)
        between, of_generated = (
            _variance_between(sums.between),
            _overlaps(sums.generated_indicators),
        )
        witness = witness - sign * sums.between.rows / num_generated
        noise += between / num_generated
        terms = _generated_terms(sums, of_generated)
        linear = linear + terms[0]
        quadratic = quadratic + terms[1] + 4 * between * of_real.images * of_generated.images
    linear = linear + 4 * _linear_variance(witness, noise) * of_real.images
    return KernelDistances(_unbiased(first) - _unbiased(second), linear, quadratic)


def biased(sums: PairKernels) -> np.ndarray:
    """MMD^2 with the pairs of each image and itself, of a kernel with k(x, x) = 0, [num_subsets].

    (Gretton et al. 2012, eq. 5; a constant that is added to the kernel changes nothing.)
    """
    sizes = [
        indicators.sum(axis=0) for indicators in (sums.real_indicators, sums.generated_indicators)
    ]
    within = sums.real.subsets / sizes[0] ** 2 + sums.generated.subsets / sizes[1] ** 2
    return np.asarray(within - 2 * sums.between.subsets / (sizes[0] * sizes[1]))


class _Overlaps(NamedTuple):
    """What two subsets share, over the product of what they have, [num_subsets, num_subsets]."""

    images: np.ndarray
    pairs: np.ndarray


def _overlaps(indicators: np.ndarray) -> _Overlaps:
    size, common = indicators.sum(axis=0), indicators.T @ indicators
    pairs = size * (size - 1)
    return _Overlaps(common / np.outer(size, size), common * (common - 1) / np.outer(pairs, pairs))


def _unbiased(sums: PairKernels) -> np.ndarray:
    """The unbiased MMD^2 of each subset, [num_subsets]."""
    sizes = [
        indicators.sum(axis=0) for indicators in (sums.real_indicators, sums.generated_indicators)
    ]
    values = -2 * sums.between.subsets / (sizes[0] * sizes[1])
    for within, size in zip((sums.real, sums.generated), sizes, strict=True):
        values = values + within.subsets / (size * (size - 1))
    return np.asarray(values)


def _generated_terms(sums: PairKernels, overlaps: _Overlaps) -> tuple[np.ndarray, np.ndarray]:
    """The covariance from the generated images alone: its linear and its quadratic part."""
    num_real, within = len(sums.real_indicators), _variance_within(sums.generated)
    rows = sums.generated.rows
    witness = rows / (len(rows) - 1) - sums.between.columns / num_real
    noise = within / (len(rows) - 1) + _variance_between(sums.between) / num_real
    linear = 4 * _linear_variance(witness, noise) * overlaps.images
    return linear, 2 * within * overlaps.pairs


def _linear_variance(witness: np.ndarray, noise: float) -> float:
    """The variance of the linear term from its estimates for each image.

    Args:
      witness: the estimates, [num_images].
      noise: what the other images add to their variance.
    """
    variance = float(witness.var(ddof=1)) - noise
    # The unbiased estimate is negative by chance where the distance is too low. A third of a
    # negative value is used: with all of it, errors are too small just there.
    return max(variance, variance / 3)


def _variance_within(sums: KernelSums) -> float:
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


def _variance_between(sums: KernelSums) -> float:
    """Returns the variance of k(x, y) centred in both arguments; unbiased, and not below 0."""
    num_rows, num_columns = len(sums.rows), len(sums.columns)
    centred = (
        sums.squares
        - np.sum(sums.rows**2) / num_columns
        - np.sum(sums.columns**2) / num_rows
        + np.sum(sums.rows) ** 2 / (num_rows * num_columns)
    )
    return max(float(centred) / ((num_rows - 1) * (num_columns - 1)), 0.0)


def _sums_off_diagonal(
    features: np.ndarray, indicators: np.ndarray, kernels: tuple[KernelName, ...]
) -> dict[KernelName, KernelSums]:
    """Returns the sums over the kernel matrix of one set without its diagonal."""
    all_sums = _sums(features, features, indicators, indicators, kernels)
    norms = np.sum(features**2, axis=1)
    off_diagonal = {}
    for name, sums in all_sums.items():
        diagonal = _DIAGONALS[name](norms, features.shape[1])
        rows = sums.rows - diagonal
        squares = sums.squares - float(diagonal @ diagonal)
        off_diagonal[name] = KernelSums(sums.subsets - diagonal @ indicators, rows, rows, squares)
    return off_diagonal


def _sums(
    x: np.ndarray,
    y: np.ndarray,
    x_indicators: np.ndarray,
    y_indicators: np.ndarray,
    kernels: tuple[KernelName, ...],
) -> dict[KernelName, KernelSums]:
    """Returns the sums over the kernel matrices of all pairs of x and y, for each kernel."""
    x_norms, y_norms = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    symmetric = x is y

    def block_sums(block: tuple[slice, slice]) -> list[KernelSums]:
        rows, columns = block
        products = x[rows] @ y[columns].T
        sums = []
        for name in kernels:
            values = _KERNELS[name](products, x_norms[rows], y_norms[columns], x.shape[1])
            column_sums = values @ y_indicators[columns]  # [rows, num_subsets]
            subset_sums = np.einsum("iw,iw->w", x_indicators[rows], column_sums)
            squares = float(np.vdot(values, values))
            sums.append(KernelSums(subset_sums, values.sum(axis=1), values.sum(axis=0), squares))
        return sums

    blocks = list(_blocks(len(x), len(y), symmetric))
    totals: dict[KernelName, KernelSums] = {
        name: KernelSums(np.zeros(x_indicators.shape[1]), np.zeros(len(x)), np.zeros(len(y)), 0.0)
        for name in kernels
    }
    for (rows, columns), parts in zip(
        blocks, arrays.map_over_cores(block_sums, blocks), strict=True
    ):
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
    """Yields the blocks of a matrix; of a symmetric matrix, those on and above the diagonal."""
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


def _gaussian(
    products: np.ndarray, x_norms: np.ndarray, y_norms: np.ndarray, num_features: int
) -> np.ndarray:
    squares = np.maximum(x_norms[:, None] + y_norms - 2.0 * products, 0.0)
    return np.expm1(squares / (-2 * GAUSSIAN_BANDWIDTH**2))


_KERNELS: Mapping[KernelName, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "polynomial": _polynomial,
    "rbf": _rbf,
    "gaussian": _gaussian,
}
# k(x, x) from |x|^2.
_DIAGONALS: Mapping[KernelName, Callable[[np.ndarray, int], np.ndarray]] = {
    "polynomial": lambda norms, num_features: (norms / num_features + 1.0) ** 3,
    "rbf": lambda norms, num_features: np.ones_like(norms),
    "gaussian": lambda norms, num_features: np.zeros_like(norms),
}
