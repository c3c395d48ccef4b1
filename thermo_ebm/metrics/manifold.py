"""Precision, recall, density and coverage: fidelity and variety told apart.

Each set's manifold is the union of balls around its points, out to the k-th nearest neighbour.

- precision: share of generated points inside the real manifold; recall: share of real points inside
  the generated one (Kynkaanniemi et al. 2019, eq. 1 and 2);
- density: mean number of real balls that hold a generated point, over k; coverage: share of real
  balls that hold any (Naeem et al. 2020, eq. 4 and 5).

A generator that has collapsed onto a few good modes keeps its precision and loses its coverage.
"""

from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import checks


class Manifold(NamedTuple):
    """All but the density lie in [0, 1]; the density's expectation is 1 for equal distributions."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_metrics(
    real_features: checks.Array, generated_features: checks.Array, num_neighbours: int = 5
) -> Manifold:
    """Returns precision, recall, density and coverage of two sets of features.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].
      num_neighbours: k; 5 is Naeem et al.'s choice. Both sets must have more points than that.

    Raises:
      ValueError: for another rank, different widths, too few images, values not finite.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours must be positive, not {num_neighbours}")
    real, generated = checks.feature_pair(
        real_features, generated_features, min_images=num_neighbours + 1
    )
    # Distances stay as they are and their rounding shrinks.
    centre = real.mean(axis=0)
    real, generated = real - centre, generated - centre
    real_radii = _neighbour_distances(real, num_neighbours)
    generated_radii = _neighbour_distances(generated, num_neighbours)
    distances = _squared_distances(real, generated)
    in_real_ball = distances <= real_radii[:, None]
    return Manifold(
        precision=float(in_real_ball.any(axis=0).mean()),
        recall=float((distances <= generated_radii).any(axis=1).mean()),
        density=float(in_real_ball.sum(axis=0).mean() / num_neighbours),
        coverage=float((distances.min(axis=1) <= real_radii).mean()),
    )


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2.0 * (x @ y.T)
    return np.maximum(squares, 0.0)


def _neighbour_distances(features: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Returns the squared distance of each point to its k-th neighbour, itself left out."""
    distances = _squared_distances(features, features)
    np.fill_diagonal(distances, np.inf)
    return np.partition(distances, num_neighbours - 1, axis=1)[:, num_neighbours - 1]
