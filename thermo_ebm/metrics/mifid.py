"""Memorization-informed FID (Bai et al. 2021, "On Training Sample Memorization").

The FID divided by how far generated images stay from the nearest real one, where they are so near
that they must be copies: MIFID = FID / d with d = s if s < threshold and 1 otherwise, s the mean
over generated images of the smallest cosine distance 1 - |cos| to a real one.
"""

import numpy as np

from thermo_ebm.metrics import checks, fid

THRESHOLD = 0.1  # the competition's, for InceptionV3's features
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
    nearest = cosine_distances(real, generated).min(axis=1)
    return fid.frechet_distance(real, generated) / memorization_penalty(nearest, threshold)


def cosine_distances(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Returns 1 - |cos| [num_generated, num_real]; 1 where one of the two is zero."""
    return 1.0 - np.abs(_unit_rows(generated) @ _unit_rows(real).T)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(norms > 0, norms, 1.0)


def memorization_penalty(nearest: np.ndarray, threshold: float = THRESHOLD) -> float:
    """Returns the divisor d from each generated image's distance to the nearest real one."""
    distance = float(np.mean(nearest))
    return max(distance, _FLOOR) if distance < threshold else 1.0
