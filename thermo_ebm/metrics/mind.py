"""Monge inception distance (Berthet et al. 2026, "MIND", arXiv 2605.06797).

  MIND = 3 D  mean over directions u of W(u.x, u.y)^2

with D features, directions u drawn evenly from the unit sphere, and W the 2-Wasserstein distance of
the projections, which pairs them in the order of their values. Equal numbers of images are paired
one by one; different numbers by their quantiles, exactly.

The error comes from half-samples as that of the FID does (`extrapolate.fid_curves`): the response
to a weighting is measured on a few of the directions, at a grid of quantiles, and its size
corrected by the derivative with respect to each image's weight in all directions. That derivative
is the dual (Kantorovich) potential of the transport, whose slope at x is 2 (x - T(x)) for the map T
(del Barrio, Gonzalez-Sanz & Loubes 2024). It is conservative: MIND is of higher order than the
second in the samples, most of all between equal distributions.
"""

import numpy as np

from thermo_ebm.metrics import arrays, standard_errors
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.estimates import HalfSamples
from thermo_ebm.metrics.standard_errors import WEIGHTS, ImageGroups

NUM_DIRECTIONS = 1000  # the authors'
_NUM_MEASURED = 32  # directions on which replicates are computed
_NUM_QUANTILES = 256
_BLOCK = 100  # directions at once


def random_directions(num_features: int, num: int = NUM_DIRECTIONS) -> np.ndarray:
    """Returns the same unit vectors at each call, [num_directions, num_features]."""
    vectors = np.random.default_rng(0).standard_normal((num, num_features))
    return arrays.unit_rows(vectors)


def monge_distance(
    real_features: Array, generated_features: Array, directions: Array | None = None
) -> float:
    """Returns the MIND of two sets of features; 5,000 images of each are the authors' number.

    Args:
      real_features: [num_real, num_features].
      generated_features: [num_generated, num_features].
      directions: unit vectors, [num_directions, num_features]; by default `random_directions`, the
        same at each call.

    Raises:
      ValueError: for another rank, different numbers of features, fewer than two images, or values
        that are not finite.
    """
    features = arrays.feature_pair(real_features, generated_features)
    if directions is None:
        directions = random_directions(features.real.shape[1])
    return _distance_and_influences(features, np.asarray(directions, np.float64))[0]


def estimate(
    features: FeaturePair, groups: ImageGroups, num_directions: int = NUM_DIRECTIONS
) -> HalfSamples:
    """Returns the MIND of all images with what its error is computed from."""
    directions = random_directions(features.real.shape[1], num_directions)
    value, influences = _distance_and_influences(features, directions)
    replicates = _weighted_distances(features, groups, directions[:_NUM_MEASURED])
    return HalfSamples(
        replicates - replicates[0] + value,
        measured=standard_errors.odd_responses(replicates),
        complete=standard_errors.linear_responses(influences, groups),
    )


def _distance_and_influences(
    features: FeaturePair, directions: np.ndarray
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The distance, and its derivative with respect to each image's weight times their number."""
    scale = 3.0 * features.real.shape[1] / len(directions)
    numbers = [len(matrix) for matrix in features]
    first, second, widths = _pairing(*numbers)

    def block(start: int) -> tuple[float, list[np.ndarray]]:
        projections = [directions[start : start + _BLOCK] @ matrix.T for matrix in features]
        orders = [np.argsort(matrix, axis=1) for matrix in projections]
        ordered = [
            np.take_along_axis(matrix, order, axis=1)
            for matrix, order in zip(projections, orders, strict=True)
        ]
        gaps = ordered[0][:, first] - ordered[1][:, second]
        potentials = []
        for side in (0, 1):
            potential = _potential(ordered[side], ordered[1 - side])
            by_image = np.empty_like(potential)
            np.put_along_axis(by_image, orders[side], potential, axis=1)
            potentials.append(by_image.sum(axis=0))
        return float(np.sum(gaps**2 @ widths)), potentials

    results = arrays.map_over_cores(block, range(0, len(directions), _BLOCK))
    real, generated = (scale * np.sum([parts[side] for _, parts in results], 0) for side in (0, 1))
    return scale * sum(value for value, _ in results), (real, generated)


def _pairing(num_first: int, num_second: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ranks that are paired, from 0, and the share of each pair; [num_pairs] each."""
    ends = np.union1d(
        np.arange(1, num_first + 1) * num_second, np.arange(1, num_second + 1) * num_first
    )
    widths = np.diff(ends, prepend=0) / (num_first * num_second)
    return (ends - 1) // num_second, (ends - 1) // num_first, widths


def _potential(ordered: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The dual potential of the transport at each of the ordered values, centred; the same shape.

    Two neighbours x_i < x_k share the value y that is transported to both, or lie between two:
    their potentials differ by (x_k - y)^2 - (x_i - y)^2.
    """
    num, num_others = ordered.shape[1], others.shape[1]
    ranks = np.arange(1, num) * num_others  # where neighbours meet, in units of 1 / num
    shared = (others[:, (ranks - 1) // num] + others[:, ranks // num]) / 2
    steps = np.diff(ordered, axis=1) * (ordered[:, 1:] + ordered[:, :-1] - 2 * shared)
    potential = np.concatenate([np.zeros((len(ordered), 1)), np.cumsum(steps, axis=1)], axis=1)
    return np.asarray(potential - potential.mean(axis=1, keepdims=True))


def _weighted_distances(
    features: FeaturePair, groups: ImageGroups, directions: np.ndarray
) -> np.ndarray:
    """The distance under each weighting of the half-samples, [63], on a grid of quantiles."""
    levels = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    weights = [WEIGHTS[:, members] for members in groups]  # [63, num_images] each

    def squares(direction: np.ndarray) -> np.ndarray:
        quantiles = []
        for matrix, weight in zip(features, weights, strict=True):
            projection = matrix @ direction
            order = np.argsort(projection)
            reached = np.cumsum(weight[:, order], axis=1)
            reached /= reached[:, -1:]
            # One search in all rows, which are made to follow each other.
            rows = np.arange(len(WEIGHTS))[:, None]
            places = np.searchsorted((reached + rows).ravel(), levels + rows)
            quantiles.append(projection[order][places - rows * len(order)])
        return np.asarray(np.mean((quantiles[0] - quantiles[1]) ** 2, axis=1))

    return np.asarray(
        3.0 * directions.shape[1] * np.mean(arrays.map_over_cores(squares, directions), axis=0)
    )
