"""Standard errors of metrics by resampling the images: balanced half-samples and a jackknife.

Balanced half-samples (Fay's method; Judkins 1990), with the second order included, serve FID,
MIFID and Inception Score. Both sets of images are cut into G groups at random, paired across the
sets. A row h of a Hadamard matrix gives half of the groups +1 and the rest -1, and the metric is
computed with the groups weighted by 1 + d h and by 1 - d h:

    odd_r  = (T(1 + d h_r) - T(1 - d h_r)) / (2 d)            the metric's linear response
    even_r = (T(1 + d h_r) + T(1 - d h_r)) / (2 d^2)          its quadratic response
    stderr^2 = mean_r odd_r^2 - 1/2 variance_r even_r

The first term alone is what a jackknife measures. It counts the variance of a quadratic statistic
twice (Efron & Stein 1981), and the distance of two equal distributions is quadratic in the samples:
a jackknife's error is then sqrt(2) times too large. The variance of `even` is that surplus. Only
half of the surplus is subtracted: the estimate rises and falls with the metric itself, so that an
unbiased estimate is too small just where the metric is too low. As the true variance is between
half of the first term and all of it, the estimate is kept in this range.

The delete-a-group jackknife (Kott 2001) serves metrics of nearest neighbours. Each replicate leaves
out one group of both sets:

    stderr^2 = (G - 1) / G sum_g (metric_g - mean of the replicates)^2

No image is ever repeated, as in a bootstrap, where copies are each other's nearest neighbours. The
jackknife is conservative: it overestimates the variance of quadratic statistics and of metrics of
nearest neighbours, least for distributions that are well apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from thermo_ebm.metrics.subsets import Draw

NUM_GROUPS = 32  # of half-samples
NUM_JACKKNIFE_GROUPS = 10
_STEP = 0.5  # d: small enough to keep every weight positive
_SIGNS = scipy.linalg.hadamard(NUM_GROUPS)[1:].astype(float)  # [31, 32]; the first row is constant
# [63, 32]: the metric itself, then the rows with + and the rows with -.
WEIGHTS = np.concatenate([np.ones((1, NUM_GROUPS)), 1 + _STEP * _SIGNS, 1 - _STEP * _SIGNS])


class ImageGroups(NamedTuple):
    """The half-sample group of each image, from `assign_groups`."""

    real: np.ndarray  # int [num_real]
    generated: np.ndarray  # int [num_generated]


def assign_groups(key: jax.Array, num_images: int) -> np.ndarray:
    """Returns each image's group, int [num_images], drawn at random with nearly equal sizes.

    Args:
      key: consumed here.
      num_images: of one set; with fewer than 32 images, some groups stay empty.
    """
    return np.asarray(jax.random.permutation(key, num_images)) % NUM_GROUPS


def group_sizes(groups: np.ndarray) -> np.ndarray:
    """Returns the number of images in each group, int [32], from each image's group [num]."""
    return np.bincount(groups, minlength=NUM_GROUPS)


def weighted_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the mean of values [num] of images in groups [num] under each of `WEIGHTS`, [63]."""
    sums = np.bincount(groups, values, minlength=NUM_GROUPS)
    return (WEIGHTS @ sums) / (WEIGHTS @ group_sizes(groups))


def linear_responses(influences: Sequence[np.ndarray], groups: ImageGroups) -> np.ndarray:
    """The derivative of a metric with respect to d along each half-sample h, at d = 0, [31].

    Args:
      influences: of the real and of the generated images, [num] each: the derivative of the metric
        with respect to the weight of each image, times the number of images in its set.
      groups: of all these images.
    """
    parts = [
        _SIGNS @ np.bincount(members, values, minlength=NUM_GROUPS) / len(values)
        for members, values in zip(groups, influences, strict=True)
    ]
    return np.sum(parts, axis=0)


def odd_responses(replicates: np.ndarray) -> np.ndarray:
    """A metric's response to each half-sample, [31], from its values under `WEIGHTS`, [63]."""
    return (replicates[1:NUM_GROUPS] - replicates[NUM_GROUPS:]) / (2 * _STEP)


class Variance(NamedTuple):
    """The variance of an estimate, in the parts that fall as 1/N and as 1/N^2."""

    linear: float
    quadratic: float

    @property
    def stderr(self) -> float:
        """The standard error."""
        return float(np.sqrt(max(self.linear + self.quadratic, 0.0)))


def half_sample_variance(replicates: np.ndarray) -> Variance:
    """Returns the variance of a metric from its values under `WEIGHTS`, [63].

    The linear part is what is left of it beside one and a half times the surplus, as only half of
    the surplus is subtracted.

    Raises:
      ValueError: if there are more or fewer values.
    """
    values = np.asarray(replicates, np.float64)
    if values.shape != (len(WEIGHTS),):
        raise ValueError(f"replicates must be {(len(WEIGHTS),)}, not {values.shape}")
    plus, minus = values[1:NUM_GROUPS], values[NUM_GROUPS:]
    odd = float(np.mean(odd_responses(values) ** 2))
    even = float(np.var((plus + minus) / (2 * _STEP**2), ddof=1))
    total = max(odd - even / 2, odd / 2)
    quadratic = min(1.5 * even, total)
    return Variance(total - quadratic, quadratic)


def jackknife_draws(
    key: jax.Array, num_real: int, num_generated: int, num_groups: int = NUM_JACKKNIFE_GROUPS
) -> list[Draw]:
    """Returns the images that each jackknife replicate retains.

    Args:
      key: consumed here.
      num_real: number of real images.
      num_generated: number of generated images.
      num_groups: G; reduced to the number of images in the smaller set if that is smaller.

    Raises:
      ValueError: if there are fewer than two groups.
    """
    count = min(num_groups, num_real, num_generated)
    if count < 2:
        raise ValueError(f"no {num_groups} groups of {num_real} and {num_generated} images")
    real, generated = (
        [
            np.setdiff1d(np.arange(num_images), group)
            for group in np.array_split(
                np.asarray(jax.random.permutation(set_key, num_images)), count
            )
        ]
        for set_key, num_images in zip(
            jax.random.split(key), (num_real, num_generated), strict=True
        )
    )
    return [Draw(*pair) for pair in zip(real, generated, strict=True)]


def jackknife_stderr(replicates: Sequence[float] | np.ndarray) -> float:
    """Returns the standard error from the metric of each replicate, [num_groups].

    Raises:
      ValueError: if there are fewer than two replicates.
    """
    values = np.asarray(replicates, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"replicates must be a list of at least two, not {values.shape}")
    return float(np.sqrt((len(values) - 1) * values.var()))
