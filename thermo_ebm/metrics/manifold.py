"""Precision, recall, density and coverage: separate measures of fidelity and variety.

Each set's manifold is the union of balls around its points, out to the k-th nearest neighbour.

- precision: share of generated points inside the real manifold; recall: share of real points inside
  the generated one (Kynkaanniemi et al. 2019, eq. 1 and 2);
- density: mean number of real balls that hold a generated point, over k; coverage: share of real
  balls that hold any (Naeem et al. 2020, eq. 4 and 5).

A generator that has collapsed onto a few good modes keeps its precision and loses its coverage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import checks
from thermo_ebm.metrics.subsets import Draw


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
    return manifold_values(real_features, generated_features, [None], num_neighbours)[0]


def manifold_values(
    real_features: checks.Array,
    generated_features: checks.Array,
    draws: Sequence[Draw | None],
    num_neighbours: int = 5,
) -> list[Manifold]:
    """Returns `manifold_metrics` of each draw of both sets; all distances are computed once.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].
      draws: subsets of either set, each of more points than `num_neighbours`; None is everything.
      num_neighbours: k.

    Raises:
      ValueError: as `manifold_metrics`.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours must be positive, not {num_neighbours}")
    real, generated = checks.feature_pair(
        real_features, generated_features, min_images=num_neighbours + 1
    )
    if any(one and min(map(len, one)) <= num_neighbours for one in draws):
        raise ValueError(f"every draw must have more than {num_neighbours} of either set")
    # Distances stay as they are and their rounding shrinks.
    centre = real.mean(axis=0)
    real, generated = real - centre, generated - centre
    within_real = _squared_distances(real, real)
    within_generated = _squared_distances(generated, generated)
    between = _squared_distances(real, generated)

    def of_draw(draw: Draw | None) -> Manifold:
        if draw is None:
            return _from_distances(within_real, within_generated, between, num_neighbours)
        return _from_distances(
            within_real[np.ix_(draw.real, draw.real)],
            within_generated[np.ix_(draw.generated, draw.generated)],
            between[np.ix_(draw.real, draw.generated)],
            num_neighbours,
        )

    return [of_draw(draw) for draw in draws]


def _from_distances(
    within_real: np.ndarray, within_generated: np.ndarray, between: np.ndarray, num_neighbours: int
) -> Manifold:
    """The metrics from squared distances within either set and between the two."""
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

    The point itself is nearest, but for rounding and for copies, which are as near.
    """
    return np.partition(distances, num_neighbours, axis=1)[:, num_neighbours]
