"""All metrics of one set of generated images: extrapolated, plain, and the points of the lines."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import kid, manifold, subsets
from thermo_ebm.metrics.extrapolate import extrapolate
from thermo_ebm.metrics.networks import Outputs

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
      key: consumed here: for the subsets and for the bootstrap.
      real: a network's outputs for held-out real images.
      generated: its outputs for generated images.
      sizes: the sample sizes of the extrapolation, at least three.

    Returns:
      `fid_inf`, `kid_inf`, `kid_rbf_inf`, `mifid_inf`, `is_inf`, each with `_stderr` and
      `_r_squared` of its line; `fid` and `kid` at the full numbers of images, `kid_stderr` by
      bootstrap; `precision`, `recall`, `density`, `coverage`. The points give each line.

    Raises:
      ValueError: if shapes do not belong together, images are too few, values are not finite.
    """
    subset_key, bootstrap_key = jax.random.split(key)
    draws = subsets.draw_subsets(subset_key, sizes, len(real.features), len(generated.features))
    everything = subsets.Draw(np.arange(len(real.features)), np.arange(len(generated.features)))
    fids = subsets.fid_values(real.features, generated.features, [*draws, everything])
    kids = _kids(bootstrap_key, real.features, generated.features, draws)
    penalties = subsets.memorization_penalties(real.features, generated.features, draws)
    lines = {
        "fid": fids[:-1],
        "kid": kids.polynomial,
        "kid_rbf": kids.rbf,
        "mifid": fids[:-1] / penalties,
        "is": subsets.inception_scores(generated.logits, draws),
    }
    shape = manifold.manifold_metrics(real.features, generated.features, _NUM_NEIGHBOURS)
    values = {
        **_extrapolated(sizes, lines),
        "fid": float(fids[-1]),
        "kid": kids.full.value,
        "kid_stderr": kids.full.stderr,
        **shape._asdict(),
    }
    points = [
        Point(metric, size, float(value))
        for metric, line in lines.items()
        for size, value in zip(sizes, line, strict=True)
    ]
    return Summary(values, points)


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
