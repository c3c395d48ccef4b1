"""All metrics of one set of images against another: extrapolated, plain, and the lines' points."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import checks, jackknife, lines, manifold
from thermo_ebm.metrics.extrapolate import extrapolate
from thermo_ebm.metrics.networks.network import Outputs
from thermo_ebm.metrics.subsets import Draw

_NUM_NEIGHBOURS = 5
MIN_IMAGES = _NUM_NEIGHBOURS + 2  # more than that many neighbours when one image is left out


class Point(NamedTuple):
    """One point of an extrapolation: the mean over the draws of a size."""

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
    features = checks.feature_pair(real.features, generated.features, MIN_IMAGES)
    numbers = len(features[0]), len(features[1])
    design_key, jackknife_key = jax.random.split(key)
    design = lines.make_design(design_key, sizes, *numbers)
    fids = lines.fid_curves(*features, design)
    mifids, distance = lines.mifid_curves(*features, design, fids)
    fid, kids = lines.half_sample_line(fids, sizes), lines.kid_lines(*features, design)
    found = {"fid": fid, **kids, "mifid": lines.half_sample_line(mifids, sizes)}
    if generated.logits.shape[1]:
        scores = lines.score_curves(generated.logits, design)
        found["is"] = lines.half_sample_line(scores, sizes)
    values = _extrapolated(sizes, found)
    for metric in ("fid", "kid"):
        values |= {metric: found[metric].full, f"{metric}_stderr": found[metric].full_stderr}
    values |= _manifold(*features, jackknife.leave_groups_out(jackknife_key, *numbers))
    values["memorization_distance"] = distance
    points = [
        Point(metric, size, float(value))
        for metric, line in found.items()
        for size, value in zip(sizes, line.values, strict=True)
    ]
    return Summary(values, points)


def _extrapolated(sizes: Sequence[int], found: Mapping[str, lines.Line]) -> dict[str, float]:
    values = {}
    for metric, line in found.items():
        fit = extrapolate(sizes, line.values)
        values[f"{metric}_inf"] = fit.intercept
        values[f"{metric}_inf_stderr"] = line.stderr
        values[f"{metric}_inf_r_squared"] = fit.r_squared
    return values


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
