"""Metrics at many sizes: the lines to be extrapolated, and errors of the complete procedure.

Every metric is computed of the same draws. Its values at one size are averaged over that size's
draws; the line's intercept is a fixed weighted sum of those averages (`intercept_weights`), so its
standard error follows from how each value responds to other images: by half-samples (`halves`) for
FID, MIFID and Inception Score, by the covariance of U-statistics (`kid`) for the kernel distances.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import checks, halves, inception_score, mifid, responses, subsets
from thermo_ebm.metrics.extrapolate import intercept_weights
from thermo_ebm.metrics.parallel import map_over_cores
from thermo_ebm.metrics.responses import Groups
from thermo_ebm.metrics.subsets import Draw


class Design(NamedTuple):
    """The images from which every metric is computed."""

    sizes: tuple[int, ...]
    draws: list[list[Draw]]  # of each size; the last list is one draw of everything
    groups: Groups  # of the half-samples


class Line(NamedTuple):
    """A metric at each size and at all images."""

    values: np.ndarray  # [num_sizes], means over a size's draws
    stderr: float  # of the intercept
    full: float  # at all images
    full_stderr: float


def make_design(key: jax.Array, sizes: Sequence[int], num_real: int, num_generated: int) -> Design:
    """Draws the subsets and groups.

    Raises:
      ValueError: as `subsets.draw_subsets`.
    """
    subset_key, real_key, generated_key = jax.random.split(key, 3)
    draws = subsets.draw_subsets(subset_key, sizes, num_real, num_generated)
    if not num_real == num_generated == sizes[-1]:
        draws.append([Draw(np.arange(num_real), np.arange(num_generated))])
    groups = Groups(
        halves.assign_groups(real_key, num_real),
        halves.assign_groups(generated_key, num_generated),
    )
    return Design(tuple(sizes), draws, groups)


def fid_curves(real: checks.Array, generated: checks.Array, design: Design) -> list[np.ndarray]:
    """Returns the FID of every draw under the half-samples' weights.

    Args:
      real: [num_real, num_features].
      generated: [num_generated, num_features].
      design: the draws.

    Returns:
      For each list of draws [num_draws, 63]. The first draw's own value is the exact FID; how the
      others and the weighted ones differ from it is followed in the leading directions.

    Raises:
      ValueError: as `fid.frechet_distance`.
    """
    real, generated = checks.feature_pair(real, generated)
    exact = subsets.fid_values(real, generated, [of_size[0] for of_size in design.draws])
    small = responses.leading_directions(real, generated)

    def follow(draw: Draw) -> np.ndarray:
        return responses.fid_responses(*small, design.groups, draw)

    followed = _by_size(map_over_cores(follow, _flat(design.draws)), design.draws)
    return [value + curve - curve[0, 0] for value, curve in zip(exact, followed, strict=True)]


def mifid_curves(
    real: checks.Array, generated: checks.Array, design: Design, fids: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], float]:
    """Returns the MIFID like `fid_curves`, and the mean nearest cosine distance of all images.

    Args:
      real: [num_real, num_features].
      generated: [num_generated, num_features].
      design: the draws.
      fids: from `fid_curves`.
    """
    real, generated = checks.feature_pair(real, generated)
    known = mifid.neighbours(real, generated)

    def follow(draw: Draw) -> np.ndarray:
        nearest = mifid.subset_distances(known, draw.real, draw.generated)
        return responses.mean_responses(nearest, design.groups.generated[draw.generated])

    distances = _by_size(map_over_cores(follow, _flat(design.draws)), design.draws)
    curves = [
        fid / mifid.memorization_penalty(distance)
        for fid, distance in zip(fids, distances, strict=True)
    ]
    return curves, float(distances[-1][0, 0])


def score_curves(logits: checks.Array, design: Design) -> list[np.ndarray]:
    """Returns the Inception Score like `fid_curves`, from logits [num_generated, num_classes].

    Raises:
      ValueError: as `inception_score.inception_score`.
    """
    terms = inception_score.terms(logits)

    def follow(draw: Draw) -> np.ndarray:
        chosen = inception_score.Terms(*(term[draw.generated] for term in terms))
        return responses.score_responses(chosen, design.groups.generated[draw.generated])

    return _by_size(map_over_cores(follow, _flat(design.draws)), design.draws)


def half_sample_line(curves: Sequence[np.ndarray], sizes: Sequence[int]) -> Line:
    """Averages over draws and takes both errors from the half-samples."""
    means = np.stack([curve.mean(axis=0) for curve in curves])
    at_sizes, full = means[: len(sizes)], means[-1]
    return Line(
        values=at_sizes[:, 0],
        stderr=halves.stderr(intercept_weights(sizes) @ at_sizes),
        full=float(full[0]),
        full_stderr=halves.stderr(full),
    )


def kid_lines(real: checks.Array, generated: checks.Array, design: Design) -> dict[str, Line]:
    """Returns the lines of `kid` (polynomial) and `kid_rbf`.

    Raises:
      ValueError: as `kid.kernel_distance`.
    """
    estimates = subsets.kid_values(real, generated, _flat(design.draws))
    # Row s of `mean` averages the draws of size s.
    counts = [len(of_size) for of_size in design.draws]
    mean = np.repeat(np.eye(len(counts)) / np.array(counts)[:, None], counts, axis=1)
    at_sizes = mean[: len(design.sizes)]
    intercept = intercept_weights(design.sizes) @ at_sizes
    lines = {}
    for metric, kernel in (("kid", "polynomial"), ("kid_rbf", "rbf")):
        values, covariance = estimates[kernel]
        lines[metric] = Line(
            values=at_sizes @ values,
            stderr=float(np.sqrt(max(intercept @ covariance @ intercept, 0.0))),
            full=float(values[-1]),
            full_stderr=float(np.sqrt(max(covariance[-1, -1], 0.0))),
        )
    return lines


def _flat(draws: Sequence[Sequence[Draw]]) -> list[Draw]:
    return [draw for of_size in draws for draw in of_size]


def _by_size(rows: Sequence[np.ndarray], draws: Sequence[Sequence[Draw]]) -> list[np.ndarray]:
    """Undoes `_flat` for a row [63] of each draw."""
    ends = np.cumsum([len(of_size) for of_size in draws])
    return np.split(np.stack(rows), ends[:-1])
