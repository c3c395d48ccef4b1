"""Metrics at many sample sizes at once, sharing the work.

An extrapolation needs each metric on ten subsets. Drawn without replacement from both sides with a
fresh key each: subsampling the generated side alone leaves a bias that no line in 1/N removes, and
drawing with replacement gives back the metric at the full size.

What is shared: one evaluation of the kernels serves every subset of the KID (as a weighting); the
FID's second moments of a subset larger than half come from the whole set's less the others'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import checks, fid, kid
from thermo_ebm.metrics.parallel import map_over_cores


class Draw(NamedTuple):
    """One subset of each side."""

    real: np.ndarray  # [size], indices without repetition
    generated: np.ndarray  # [size]


def extrapolation_sizes(largest: int = 4500, count: int = 10) -> tuple[int, ...]:
    """Returns `count` sizes evenly spaced from 2/9 of the largest to the largest.

    For 4,500 images: 1000, 1389, 1778, 2167, 2556, 2944, 3333, 3722, 4111, 4500.

    Raises:
      ValueError: for fewer than three sizes, or so few images that two sizes are the same.
    """
    sizes = tuple(int(size) for size in np.linspace(largest * 2 / 9, largest, count).round())
    if count < 3 or len(set(sizes)) < count or sizes[0] < 2:
        raise ValueError(f"no {count} sizes of at least 2 up to {largest} for an extrapolation")
    return sizes


def draw_subsets(
    key: jax.Array,
    sizes: Sequence[int],
    num_real: int,
    num_generated: int,
    draws_per_size: int = 4,
) -> list[list[Draw]]:
    """Draws subsets of each side for each size, without replacement, with fresh keys.

    The draws of one size are windows of one random order of the images, evenly spaced, so that
    together they use every image about equally often: their mean varies less than that of draws
    made apart.

    Args:
      key: consumed here.
      sizes: images in each subset, at most the number on either side.
      num_real: images to draw from.
      num_generated: images to draw from.
      draws_per_size: subsets of each size; a size that is everything on both sides has one.

    Returns:
      The draws of each size.

    Raises:
      ValueError: if a size is larger than that or smaller than 2, or no draws are asked for.
    """
    if not sizes or min(sizes) < 2 or max(sizes) > min(num_real, num_generated):
        raise ValueError(
            f"cannot draw subsets of {tuple(sizes)} from {num_real} real and {num_generated}"
            " generated images"
        )
    if draws_per_size < 1:
        raise ValueError(f"draws_per_size must be positive, not {draws_per_size}")
    draws = []
    for size, size_key in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
        real_key, generated_key = jax.random.split(size_key)
        count = 1 if size == num_real == num_generated else draws_per_size
        real = _windows(real_key, num_real, size, count)
        generated = _windows(generated_key, num_generated, size, count)
        draws.append([Draw(*pair) for pair in zip(real, generated, strict=True)])
    return draws


def _windows(key: jax.Array, num_images: int, size: int, count: int) -> list[np.ndarray]:
    # Whole permutations have one shape, so one compilation serves every size.
    order = np.asarray(jax.random.permutation(key, num_images))
    starts = [index * num_images // count for index in range(count)]
    return [np.take(order, np.arange(start, start + size), mode="wrap") for start in starts]


class _Side(NamedTuple):
    """One side's features and what its subsets share."""

    features: np.ndarray  # [num_images, num_features], centred as a whole
    second_moment: np.ndarray | None  # features^T features, where a subset will use it


def fid_values(real: checks.Array, generated: checks.Array, draws: Sequence[Draw]) -> np.ndarray:
    """Returns the FID of each draw, [num_draws], to about 1e-7 of the traces.

    Args:
      real: [num_real, num_features].
      generated: [num_generated, num_features].
      draws: from `draw_subsets`.

    Raises:
      ValueError: as `fid.frechet_distance`.
    """
    real, generated = checks.feature_pair(real, generated)
    centre = real.mean(axis=0)  # the FID is the same and cancels fewer digits
    sides = [
        _side(real - centre, [draw.real for draw in draws]),
        _side(generated - centre, [draw.generated for draw in draws]),
    ]
    return np.array(map_over_cores(lambda draw: _draw_fid(sides[0], sides[1], draw), draws))


def _side(features: np.ndarray, subsets: Sequence[np.ndarray]) -> _Side:
    num_images, num_features = features.shape
    shares = any(len(subset) > num_features and 2 * len(subset) > num_images for subset in subsets)
    return _Side(features, features.T @ features if shares else None)


def _draw_fid(real: _Side, generated: _Side, draw: Draw) -> float:
    if max(len(draw.real), len(draw.generated)) <= real.features.shape[1]:
        return _few_images_fid(real.features[draw.real], generated.features[draw.generated])
    real_moments = _subset_moments(real, draw.real)
    generated_moments = _subset_moments(generated, draw.generated)
    return fid.moments_distance(*real_moments, *generated_moments)


def _few_images_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """FID through the small matrix M = F G^T [num_real, num_generated]; see `fid`."""
    real_mean, generated_mean = real.mean(axis=0), generated.mean(axis=0)
    real_factor = (real - real_mean) / np.sqrt(len(real) - 1)
    generated_factor = (generated - generated_mean) / np.sqrt(len(generated) - 1)
    traces = np.sum(real_factor**2) + np.sum(generated_factor**2)
    cross = real_factor @ generated_factor.T
    root_trace = fid.root_eigenvalue_sum(cross @ cross.T)
    return float(np.sum((real_mean - generated_mean) ** 2) + traces - 2 * root_trace)


def _subset_moments(side: _Side, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean [num_features] and covariance [num_features, num_features] of a subset."""
    features, size = side.features, len(subset)
    chosen = features[subset]
    mean = chosen.mean(axis=0)
    if side.second_moment is not None and 2 * size > len(features):
        others = np.delete(features, subset, axis=0)
        second_moment = side.second_moment - others.T @ others
    else:
        second_moment = chosen.T @ chosen
    return mean, (second_moment - size * np.outer(mean, mean)) / (size - 1)


def indicators(subsets: Sequence[np.ndarray], num_images: int) -> np.ndarray:
    """Returns a column of zeros and ones for each subset, [num_images, num_subsets]."""
    columns = np.zeros((num_images, len(subsets)))
    for column, subset in enumerate(subsets):
        columns[subset, column] = 1.0
    return columns


def kid_values(
    real: checks.Array,
    generated: checks.Array,
    draws: Sequence[Draw],
    kernels: tuple[kid.Kernel, ...] = ("polynomial", "rbf"),
) -> dict[str, kid.Estimates]:
    """Returns the unbiased KID of each draw and their covariance, for each kernel.

    Raises:
      ValueError: as `kid.kernel_distance`.
    """
    real_indicators = indicators([draw.real for draw in draws], len(real))
    generated_indicators = indicators([draw.generated for draw in draws], len(generated))
    return kid.subset_distances(real, generated, real_indicators, generated_indicators, kernels)
