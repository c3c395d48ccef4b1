"""How metrics of subsets respond to weights on groups of images: what their errors come from.

The FID is followed in the leading directions of both sets' features. They hold most of what varies
between samples, and a replicate costs a thousandth of the FID of all features. The same small FIDs
average the FID over several draws of a size: the difference between one draw and several is taken
from them, and added to the exact FID of the one (a control variate, so nothing is biased).
"""

from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import fid, halves, inception_score
from thermo_ebm.metrics.subsets import Draw

_NUM_DIRECTIONS = 96
_POWER_ITERATIONS = 2


class Groups(NamedTuple):
    """The group of each image; see `halves`."""

    real: np.ndarray  # int [num_real]
    generated: np.ndarray  # int [num_generated]


def leading_directions(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides in the directions of largest second moment about the real mean.

    By subspace iteration from a fixed random start (Halko et al. 2011, algorithm 4.4).

    Args:
      real: float64 [num_real, num_features].
      generated: float64 [num_generated, num_features].

    Returns:
      [num_real, num] and [num_generated, num] with num = min(num_features, 96).
    """
    centre, num_features = real.mean(axis=0), real.shape[1]
    sides = real - centre, generated - centre
    if num_features <= _NUM_DIRECTIONS:
        return sides
    basis = np.random.default_rng(0).standard_normal((num_features, _NUM_DIRECTIONS))
    for _ in range(_POWER_ITERATIONS):
        image = sum(side.T @ (side @ basis) / len(side) for side in sides)
        basis = np.linalg.qr(image)[0]
    return sides[0] @ basis, sides[1] @ basis


def fid_responses(
    real: np.ndarray, generated: np.ndarray, groups: Groups, draw: Draw
) -> np.ndarray:
    """Returns the FID of one draw under each of `halves.WEIGHTS`, [63].

    Args:
      real: [num_real, num], from `leading_directions`.
      generated: [num_generated, num].
      groups: of the images.
      draw: the subset of either side.
    """
    moments = zip(
        *_weighted_moments(real[draw.real], groups.real[draw.real]),
        *_weighted_moments(generated[draw.generated], groups.generated[draw.generated]),
        strict=True,
    )
    return np.array([fid.moments_distance(*each) for each in moments])


def _weighted_moments(features: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns means [63, num] and covariances [63, num, num] under each of `halves.WEIGHTS`."""
    counts = _counts(groups)
    parts = [features[groups == group] for group in range(halves.NUM_GROUPS)]
    sums = np.stack([part.sum(axis=0) for part in parts])
    squares = np.stack([part.T @ part for part in parts])
    total = halves.WEIGHTS @ counts
    mean = halves.WEIGHTS @ sums / total[:, None]
    second = np.tensordot(halves.WEIGHTS, squares, 1) / total[:, None, None]
    lost = halves.WEIGHTS**2 @ counts / total**2  # 1 / n for equal weights
    covariance = (second - mean[:, :, None] * mean[:, None, :]) / (1 - lost)[:, None, None]
    return mean, covariance


def mean_responses(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the mean of values [num] under each of `halves.WEIGHTS`, [63]."""
    sums = np.bincount(groups, values, minlength=halves.NUM_GROUPS)
    return (halves.WEIGHTS @ sums) / (halves.WEIGHTS @ _counts(groups))


def score_responses(terms: inception_score.Terms, groups: np.ndarray) -> np.ndarray:
    """Returns the Inception Score of images in groups [num] under each of the weights, [63]."""
    parts = [terms.probabilities[groups == group].sum(axis=0) for group in range(halves.NUM_GROUPS)]
    marginal = halves.WEIGHTS @ np.stack(parts) / (halves.WEIGHTS @ _counts(groups))[:, None]
    mean = mean_responses(terms.negative_entropies, groups)
    return np.exp(mean - inception_score.marginal_negative_entropy(marginal))


def _counts(groups: np.ndarray) -> np.ndarray:
    return np.bincount(groups, minlength=halves.NUM_GROUPS)
