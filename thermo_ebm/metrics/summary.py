"""All metrics of one set of generated images: extrapolated, plain, and the points of the lines."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import jackknife, kid, manifold, subsets
from thermo_ebm.metrics.extrapolate import extrapolate
from thermo_ebm.metrics.networks.network import Outputs

_BOOTSTRAP_DRAWS = 100
_NUM_NEIGHBOURS = 5


class Point(NamedTuple):
    """One point of an extrapolation."""

    metric: str  # fid, kid, kid_rbf, mifid, is
    size: int
    value: float


class Summary(NamedTuple):
    """What an evaluation writes, without the network's prefix."""

    values: dict[str, float]  # column -> value
    points: list[Point]


def summarize(key: jax.Array, real: Outputs, generated: Outputs, sizes: Sequence[int]) -> Summary:
    """Returns every metric of generated images against real ones.

    Args:
      key: consumed here: for the subsets, the bootstrap and the jackknife.
      real: a network's outputs for held-out real images.
      generated: its outputs for generated images.
      sizes: the sample sizes of the extrapolation, at least three.

    Returns:
      `fid_inf`, `kid_inf`, `kid_rbf_inf`, `mifid_inf`, `is_inf`, each with `_stderr` and
      `_r_squared` of its line; at the full numbers of images `fid`, `kid`, `precision`, `recall`,
      `density` and `coverage`, each with `_stderr`: by bootstrap for `kid`, by jackknife for the
      others. The points give each line.

    Raises:
      ValueError: if shapes do not belong together, images are too few, values are not finite.
    """
    subset_key, bootstrap_key, jackknife_key = jax.random.split(key, 3)
    numbers = len(real.features), len(generated.features)
    draws = subsets.draw_subsets(subset_key, sizes, *numbers)
    left_out = jackknife.leave_groups_out(jackknife_key, *numbers)
    everything = subsets.Draw(np.arange(numbers[0]), np.arange(numbers[1]))
    fids = subsets.fid_values(real.features, generated.features, [*draws, everything, *left_out])
    kids = _kids(bootstrap_key, real.features, generated.features, draws)
    penalties = subsets.memorization_penalties(real.features, generated.features, draws)
    line, full = fids[: len(draws)], len(draws)
    lines = {
        "fid": line,
        "kid": kids.polynomial,
        "kid_rbf": kids.rbf,
        "mifid": line / penalties,
        "is": subsets.inception_scores(generated.logits, draws),
    }
    values = {
        **_extrapolated(sizes, lines),
        "fid": float(fids[full]),
        "fid_stderr": jackknife.stderr(fids[full + 1 :]),
        "kid": kids.full.value,
        "kid_stderr": kids.full.stderr,
        **_manifold(real.features, generated.features, left_out),
    }
    points = [
        Point(metric, size, float(value))
        for metric, line in lines.items()
        for size, value in zip(sizes, line, strict=True)
    ]
    return Summary(values, points)


def _manifold(
    real: np.ndarray, generated: np.ndarray, left_out: Sequence[subsets.Draw]
) -> dict[str, float]:
    whole, *replicates = manifold.manifold_values(
        real, generated, [None, *left_out], _NUM_NEIGHBOURS
    )
    values = {}
    for name, value in whole._asdict().items():
        values[name] = value
        values[f"{name}_stderr"] = jackknife.stderr([getattr(one, name) for one in replicates])
    return values


class _Kids(NamedTuple):
    polynomial: np.ndarray  # [num_sizes]
    rbf: np.ndarray  # [num_sizes]
    full: kid.Estimate  # polynomial, all images


def _kids(
    key: jax.Array, real: np.ndarray, generated: np.ndarray, draws: Sequence[subsets.Draw]
) -> _Kids:
    """Computes every KID in one pass over the kernel matrices."""
    weights = []
    for side_key, features, chosen in zip(
        jax.random.split(key),
        (real, generated),
        ([draw.real for draw in draws], [draw.generated for draw in draws]),
        strict=True,
    ):
        indicators = subsets.indicators([*chosen, np.arange(len(features))], len(features))
        counts = subsets.bootstrap_counts(side_key, len(features), _BOOTSTRAP_DRAWS)
        weights.append(np.concatenate([indicators, counts], axis=1))
    distances = kid.weighted_distances(real, generated, weights[0], weights[1])
    polynomial, num_sizes = distances["polynomial"], len(draws)
    stderr = float(polynomial[num_sizes + 1 :].std(ddof=1))
    full = kid.Estimate(float(polynomial[num_sizes]), stderr)
    return _Kids(polynomial[:num_sizes], distances["rbf"][:num_sizes], full)


def _extrapolated(sizes: Sequence[int], lines: Mapping[str, np.ndarray]) -> dict[str, float]:
    values = {}
    for metric, line in lines.items():
        fit = extrapolate(sizes, line)
        values[f"{metric}_inf"] = fit.intercept
        values[f"{metric}_inf_stderr"] = fit.stderr
        values[f"{metric}_inf_r_squared"] = fit.r_squared
    return values
