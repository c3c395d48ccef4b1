"""Precision, recall, density and coverage: separate measures of fidelity and variety.

Each set's manifold is the union of balls around its points, with the distance to the k-th nearest
neighbour as radius.

- precision: share of generated points inside the real manifold; recall: share of real points inside
  the generated one (Kynkaanniemi et al. 2019, eq. 1 and 2);
- density: mean number of real balls that contain a generated point, divided by k; coverage: share
  of real balls that contain any generated point (Naeem et al. 2020, eq. 4 and 5).

A generator that has collapsed onto a few good modes keeps its precision and loses its coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import arrays, subsets
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.subsets import Draw

NUM_NEIGHBOURS = 5  # Naeem et al.'s choice


class Manifold(NamedTuple):
    """All but the density lie in [0, 1]; the density's expectation is 1 for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_metrics(
    real_features: Array, generated_features: Array, num_neighbours: int = NUM_NEIGHBOURS
) -> Manifold:
    """Returns precision, recall, density and coverage of two sets of features.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].
      num_neighbours: k. Both sets must have more points than that.

    Raises:
      ValueError: for another rank, different widths, too few images, values not finite.
    """
    features = arrays.feature_pair(real_features, generated_features, num_neighbours + 1)
    draw = subsets.all_images(len(features.real), len(features.generated))
    return subset_metrics(features, [draw], num_neighbours)[0]


def subset_metrics(
    features: FeaturePair, draws: Sequence[Draw], num_neighbours: int = NUM_NEIGHBOURS
) -> list[Manifold]:
    """Returns `manifold_metrics` of each draw; all distances are computed once.

    Raises:
      ValueError: if k is not positive, or a draw has no more than k images of a set.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours must be positive, not {num_neighbours}")
    if any(len(subset) <= num_neighbours for draw in draws for subset in draw):
        raise ValueError(f"every draw must have more than {num_neighbours} images of both sets")
    # Centring leaves the distances as they are and reduces their rounding errors.
    centre = features.real.mean(axis=0)
    real, generated = features.real - centre, features.generated - centre
    within_real = _squared_distances(real, real)
    within_generated = _squared_distances(generated, generated)
    between = _squared_distances(real, generated)
    return [
        _metrics_from_distances(
            within_real[np.ix_(draw.real, draw.real)],
            within_generated[np.ix_(draw.generated, draw.generated)],
            between[np.ix_(draw.real, draw.generated)],
            num_neighbours,
        )
        for draw in draws
    ]


def _metrics_from_distances(
    within_real: np.ndarray, within_generated: np.ndarray, between: np.ndarray, num_neighbours: int
) -> Manifold:
    """Returns the metrics from squared distances within each set and between the two."""
    real_radii = _neighbour_distances(within_real, num_neighbours)
    generated_radii = _neighbour_distances(within_generated, num_neighbours)
    in_real_ball = between <= real_radii[:, None]
    return Manifold(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float((between <= generated_radii).any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / num_neighbours),
        coverage=float((between.min(axis=1) <= real_radii).mean()),
    )


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2.0 * (x @ y.T)
    squares = np.maximum(squares, 0.0)
    if x is y:
        np.fill_diagonal(squares, 0.0)
    return squares


def _neighbour_distances(distances: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Returns the distance of each point to its k-th neighbour, from those of all pairs.

    The nearest neighbour, number 0, is the point itself: its distance to itself is set to 0.
    """
    return np.partition(distances, num_neighbours, axis=1)[:, num_neighbours]
