"""All metrics of one set of images against another: extrapolated, plain, and the lines' points."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import (
    checks,
    halves,
    inception_score,
    jackknife,
    manifold,
    mifid,
    responses,
    subsets,
)
from thermo_ebm.metrics.extrapolate import extrapolate, intercept_weights
from thermo_ebm.metrics.networks.network import Outputs
from thermo_ebm.metrics.parallel import map_over_cores
from thermo_ebm.metrics.responses import Groups
from thermo_ebm.metrics.subsets import Draw

_NUM_NEIGHBOURS = 5


class Point(NamedTuple):
    """One point of an extrapolation: the mean over the draws of a size."""

    metric: str  # fid, kid, kid_rbf, mifid, is
    size: int
    value: float


class Summary(NamedTuple):
    """What an evaluation writes, without the network's prefix."""

    values: dict[str, float]  # column -> value
    points: list[Point]


class _Line(NamedTuple):
    """A metric at each size, and the standard error of its line's intercept."""

    values: np.ndarray  # [num_sizes]
    stderr: float


def summarize(key: jax.Array, real: Outputs, generated: Outputs, sizes: Sequence[int]) -> Summary:
    """Returns every metric of generated images against real ones.

    Args:
      key: consumed here: for the subsets, the groups of the half-samples and the jackknife.
      real: a network's outputs for held-out real images; without logits as well.
      generated: its outputs for generated images; without logits there is no Inception Score.
      sizes: the sample sizes of the extrapolation, at least three.

    Returns:
      `fid_inf`, `kid_inf`, `kid_rbf_inf`, `mifid_inf`, `is_inf`, each with the `_stderr` of the
      whole procedure and the `_r_squared` of its line; at the full numbers of images `fid`, `kid`,
      `precision`, `recall`, `density` and `coverage`, each with `_stderr`; and
      `memorization_distance`, the mean cosine distance to the nearest real image. Errors are of
      the sampling of images: by `halves` for FID, MIFID and Inception Score, by the variance of a
      U-statistic for the KIDs (`kid`), by `jackknife` for the rest. The points give each line.

    Raises:
      ValueError: if shapes do not belong together, images are too few, values are not finite.
    """
    features = checks.feature_pair(real.features, generated.features)
    subset_key, *group_keys, jackknife_key = jax.random.split(key, 4)
    numbers = len(features[0]), len(features[1])
    draws = subsets.draw_subsets(subset_key, sizes, *numbers)
    if numbers != (sizes[-1], sizes[-1]):
        draws.append([Draw(np.arange(numbers[0]), np.arange(numbers[1]))])
    groups = Groups(*(halves.assign_groups(*one) for one in zip(group_keys, numbers, strict=True)))
    lines, values = _frechet(*features, groups, draws, sizes)
    kid_lines, kid_values = _kids(*features, draws, sizes)
    lines |= kid_lines
    if generated.logits.shape[1]:
        lines["is"] = _inception_score(
            generated.logits, groups.generated, draws[: len(sizes)], sizes
        )
    left_out = jackknife.leave_groups_out(jackknife_key, *numbers)
    values |= kid_values | _manifold(*features, left_out)
    points = [
        Point(metric, size, float(value))
        for metric, line in lines.items()
        for size, value in zip(sizes, line.values, strict=True)
    ]
    return Summary({**_extrapolated(sizes, lines), **values}, points)


def _extrapolated(sizes: Sequence[int], lines: dict[str, _Line]) -> dict[str, float]:
    values = {}
    for metric, line in lines.items():
        fit = extrapolate(sizes, line.values)
        values[f"{metric}_inf"] = fit.intercept
        values[f"{metric}_inf_stderr"] = line.stderr
        values[f"{metric}_inf_r_squared"] = fit.r_squared
    return values


def _frechet(
    real: np.ndarray,
    generated: np.ndarray,
    groups: Groups,
    draws: Sequence[Sequence[Draw]],
    sizes: Sequence[int],
) -> tuple[dict[str, _Line], dict[str, float]]:
    """The lines of FID and MIFID, and both at all images; the last draw is everything."""
    small = responses.leading_directions(real, generated)
    exact = subsets.fid_values(real, generated, [of_size[0] for of_size in draws])
    known = mifid.neighbours(real, generated)

    def one(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """FID and mean nearest distance of a draw under the half-samples' weights, [31] each."""
        nearest = mifid.subset_distances(known, draw.real, draw.generated)
        distance = responses.mean_responses(nearest, groups.generated[draw.generated])
        return responses.fid_responses(*small, groups, draw), distance

    followed = iter(map_over_cores(one, [draw for of_size in draws for draw in of_size]))
    fids, mifids, distance = [], [], np.zeros(1)
    for value, of_size in zip(exact, draws, strict=True):
        responded = [next(followed) for _ in of_size]
        # The first draw's FID is exact; how the others differ from it is taken from the small ones.
        followed_fids = [value + fid - responded[0][0][0] for fid, _ in responded]
        distance = responded[-1][1]
        fids.append(np.mean(followed_fids, axis=0))
        penalised = [
            fid / mifid.memorization_penalty(each)
            for fid, (_, each) in zip(followed_fids, responded, strict=True)
        ]
        mifids.append(np.mean(penalised, axis=0))
    lines = {
        "fid": _half_sample_line(fids[: len(sizes)], sizes),
        "mifid": _half_sample_line(mifids[: len(sizes)], sizes),
    }
    values = {
        "fid": float(fids[-1][0]),
        "fid_stderr": halves.stderr(fids[-1]),
        "memorization_distance": float(distance[0]),
    }
    return lines, values


def _half_sample_line(curves: Sequence[np.ndarray], sizes: Sequence[int]) -> _Line:
    """A line and its error from a metric under the half-samples' weights, [num_sizes, 31]."""
    values = np.stack(curves)
    return _Line(values[:, 0], halves.stderr(intercept_weights(sizes) @ values))


def _inception_score(
    logits: np.ndarray,
    groups: np.ndarray,
    draws: Sequence[Sequence[Draw]],
    sizes: Sequence[int],
) -> _Line:
    terms = inception_score.terms(logits)
    curves = []
    for of_size in draws:
        responded = [
            responses.score_responses(
                inception_score.Terms(*(term[draw.generated] for term in terms)),
                groups[draw.generated],
            )
            for draw in of_size
        ]
        curves.append(np.mean(responded, axis=0))
    return _half_sample_line(curves, sizes)


def _kids(
    real: np.ndarray,
    generated: np.ndarray,
    draws: Sequence[Sequence[Draw]],
    sizes: Sequence[int],
) -> tuple[dict[str, _Line], dict[str, float]]:
    """The lines of both KIDs, and the KID at all images; the last draw is everything."""
    estimates = subsets.kid_values(real, generated, [draw for one in draws for draw in one])
    # Row s of `mean` averages the draws of size s.
    counts = [len(of_size) for of_size in draws]
    mean = np.repeat(np.eye(len(draws)) / np.array(counts), counts, axis=1)
    intercept = intercept_weights(sizes) @ mean[: len(sizes)]
    lines = {}
    for metric, kernel in (("kid", "polynomial"), ("kid_rbf", "rbf")):
        one = estimates[kernel]
        stderr = float(np.sqrt(max(intercept @ one.covariance @ intercept, 0.0)))
        lines[metric] = _Line((mean @ one.values)[: len(sizes)], stderr)
    full = estimates["polynomial"]
    return lines, {
        "kid": float(full.values[-1]),
        "kid_stderr": float(np.sqrt(full.covariance[-1, -1])),
    }


def _manifold(
    real: np.ndarray, generated: np.ndarray, left_out: Sequence[Draw]
) -> dict[str, float]:
    whole, *replicates = manifold.manifold_values(
        real, generated, [None, *left_out], _NUM_NEIGHBOURS
    )
    values = {}
    for name, value in whole._asdict().items():
        values[name] = value
        values[f"{name}_stderr"] = jackknife.stderr([getattr(one, name) for one in replicates])
    return values
