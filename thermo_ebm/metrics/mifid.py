"""Memorization-informed FID (Bai et al. 2021, "On Training Sample Memorization").

The FID divided by how far generated images stay from the nearest real one, where they are so near
that they must be copies: MIFID = FID / d with d = s if s < threshold and 1 otherwise, s the mean
over generated images of the smallest cosine distance 1 - |cos| to a real one.
"""

from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import checks, fid

THRESHOLD = 0.1  # the competition's, for InceptionV3's features
_SORTED = 32  # nearest neighbours kept in order: a subset of 2/9 lacks all of them at 3 in 10,000
_FLOOR = 1e-14  # exact copies: a very large value rather than an infinite one


def memorization_informed_distance(
    real_features: checks.Array,
    generated_features: checks.Array,
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
    real, generated = checks.feature_pair(real_features, generated_features)
    distance = cosine_distances(real, generated).min(axis=1).mean()
    return fid.frechet_distance(real, generated) / float(memorization_penalty(distance, threshold))


def cosine_distances(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Returns 1 - |cos| [num_generated, num_real]; 1 where one of the two is zero."""
    return 1.0 - np.abs(_unit_rows(generated) @ _unit_rows(real).T)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(norms > 0, norms, 1.0)


class Neighbours(NamedTuple):
    """The nearest real images of each generated one, for the subsets of both."""

    distances: np.ndarray  # [num_generated, num_real], cosine
    nearest: np.ndarray  # int [num_generated, some], the nearest real images in order


def neighbours(real: np.ndarray, generated: np.ndarray) -> Neighbours:
    """Computes and sorts the cosine distances once for all subsets.

    Args:
      real: float64 [num_real, num_features].
      generated: float64 [num_generated, num_features].
    """
    distances = cosine_distances(real, generated)
    some = min(_SORTED, distances.shape[1] - 1)
    found = np.argpartition(distances, some, axis=1)[:, : some + 1]
    order = np.take_along_axis(distances, found, axis=1).argsort(axis=1)
    return Neighbours(distances, np.take_along_axis(found, order, axis=1))


def subset_distances(known: Neighbours, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Returns the distance of each chosen generated image to the nearest chosen real one.

    Args:
      known: from `neighbours`.
      real: int [num], the chosen real images.
      generated: int [num], the chosen generated images.
    """
    chosen = np.zeros(known.distances.shape[1], bool)
    chosen[real] = True
    candidates = known.nearest[generated]
    present = chosen[candidates]
    first = candidates[np.arange(len(generated)), present.argmax(axis=1)]
    values = known.distances[generated, first]
    for row in np.flatnonzero(~present.any(axis=1)):  # all of its nearest ones were left out
        values[row] = known.distances[generated[row], real].min()
    return values


def memorization_penalty(distance: float | np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Returns the divisor d from the mean distance s to the nearest real image; any shape."""
    return np.where(distance < threshold, np.maximum(distance, _FLOOR), 1.0)
