"""Memorization-informed FID (Bai et al. 2021, "On Training Sample Memorization").

FID divided by the mean distance of generated images to the nearest real image, where this distance
is so small that the images must be copies: MIFID = FID / d with d = s if s < threshold and 1
otherwise, s the mean over generated images of the smallest cosine distance 1 - |cos| to a real
image.
"""

from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import arrays, fid
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.subsets import Draw

THRESHOLD = 0.1  # the competition's, for InceptionV3's features
_NUM_SORTED = 32  # sorted neighbours: a subset of 2/9 of the images lacks all at 3 in 10,000
# MIFID is not defined below: copies of all images, whose distance is rounding.
MIN_DISTANCE = 1e-8
_FLOOR = 1e-14  # exact copies: a very large value rather than an infinite one


class Neighbours(NamedTuple):
    """The nearest real images of each generated image, for subsets of both sets."""

    distances: np.ndarray  # [num_generated, num_real], cosine
    nearest: np.ndarray  # int [num_generated, 33 at most], the nearest real images in order


def memorization_informed_distance(
    real_features: Array,
    generated_features: Array,
    threshold: float = THRESHOLD,
) -> float:
    """Returns the MIFID of two sets of features.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].
      threshold: mean cosine distance below which images count as memorized.

    Raises:
      ValueError: for another rank, different widths, fewer than two images, values not finite.
    """
    features = arrays.feature_pair(real_features, generated_features)
    distance = cosine_distances(features).min(axis=1).mean()
    return fid.frechet_distance(*features) / float(memorization_penalty(distance, threshold))


def cosine_distances(features: FeaturePair) -> np.ndarray:
    """Returns 1 - |cos| [num_generated, num_real]; 1 where one of the two vectors is zero."""
    return 1.0 - np.abs(arrays.unit_rows(features.generated) @ arrays.unit_rows(features.real).T)


def nearest_neighbours(features: FeaturePair) -> Neighbours:
    """Computes and sorts the cosine distances once for all subsets."""
    distances = cosine_distances(features)
    count = min(_NUM_SORTED, distances.shape[1] - 1)
    nearest = np.argpartition(distances, count, axis=1)[:, : count + 1]
    order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
    return Neighbours(distances, np.take_along_axis(nearest, order, axis=1))


def nearest_distances(neighbours: Neighbours, draw: Draw) -> np.ndarray:
    """Returns the distance of each drawn generated image to the nearest drawn real image.

    Args:
      neighbours: from `nearest_neighbours`.
      draw: the subsets of both sets.

    Returns:
      [num of the drawn generated images].
    """
    is_drawn = np.zeros(neighbours.distances.shape[1], bool)
    is_drawn[draw.real] = True
    candidates = neighbours.nearest[draw.generated]
    is_present = is_drawn[candidates]
    nearest = candidates[np.arange(len(candidates)), is_present.argmax(axis=1)]
    distances = neighbours.distances[draw.generated, nearest]
    for row in np.flatnonzero(~is_present.any(axis=1)):  # none of the sorted ones was drawn
        distances[row] = neighbours.distances[draw.generated[row], draw.real].min()
    return distances


def memorization_penalty(distance: float | np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Returns the divisor d from the mean distance s to the nearest real image; any shape."""
    return np.where(distance < threshold, np.maximum(distance, _FLOOR), 1.0)
