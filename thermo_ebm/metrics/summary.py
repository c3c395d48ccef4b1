"""All metrics of one set of images against another: extrapolated, plain, and the lines' points."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import (
    arrays,
    cmmd,
    extrapolate,
    manifold,
    mifid,
    mind,
    standard_errors,
    subsets,
)
from thermo_ebm.metrics.estimates import Estimate, Jackknife, KernelMean
from thermo_ebm.metrics.networks.network import Outputs

MIN_IMAGES = manifold.NUM_NEIGHBOURS + 2  # more than k remain where the jackknife leaves one out
# Below, the FID of subsets is no straight line in 1/N, and `fid_inf` is off by several errors.
MIN_IMAGES_PER_FEATURE = 3.5


class LinePoint(NamedTuple):
    """One point of an extrapolation: the mean over the draws of a size."""

    metric: str  # fid, kid, kid_rbf, mifid, is
    size: int
    value: float


class Summary(NamedTuple):
    """What an evaluation writes, without the network's prefix."""

    values: dict[str, float]  # column -> value
    points: list[LinePoint]


def bias_note(num_images: int, num_features: int) -> str | None:
    """A note that `fid_inf` is biased if the smaller set has too few images; None otherwise."""
    if num_images >= MIN_IMAGES_PER_FEATURE * num_features:
        return None
    return (
        f"fid_inf: {num_images} images are few for {num_features} features (fewer than "
        f"{MIN_IMAGES_PER_FEATURE} per feature): the FID is then no straight line in 1/N, which "
        "adds a bias that the error does not contain: differences of it get no verdict"
    )


class Measurement(NamedTuple):
    """The metrics of generated images, and the estimates from which differences are computed."""

    summary: Summary
    estimates: dict[str, Estimate]  # by column


class Draws(NamedTuple):
    """The subsets and groups that metrics are computed with; the same for sets to be compared."""

    design: extrapolate.Design
    jackknife: list[subsets.Draw]


def make_draws(key: jax.Array, sizes: Sequence[int], num_real: int, num_generated: int) -> Draws:
    """Draws all subsets and groups.

    Args:
      key: consumed here.
      sizes: the sample sizes of the extrapolation, at least three; none for no extrapolation.
      num_real: number of real images.
      num_generated: number of generated images.
    """
    design_key, jackknife_key = jax.random.split(key)
    return Draws(
        extrapolate.make_design(design_key, sizes, num_real, num_generated),
        standard_errors.jackknife_draws(jackknife_key, num_real, num_generated),
    )


def summarize(key: jax.Array, real: Outputs, generated: Outputs, sizes: Sequence[int]) -> Summary:
    """Returns every metric of generated images against real ones.

    Args:
      key: consumed here: for the subsets, the groups of the half-samples and the jackknife.
      real: a network's outputs for held-out real images; the logits are not used.
      generated: its outputs for generated images; without logits there is no Inception Score.
      sizes: the sample sizes of the extrapolation, at least three; none for no extrapolation.

    Returns:
      `fid_inf`, `kid_inf`, `kid_rbf_inf`, `mifid_inf`, `is_inf`, each with the `_stderr` of the
      complete procedure and the `_r_squared` of its line; at the full numbers of images `fid`,
      `kid`, `cmmd`, `cmmd_published`, `mind`, `mifid`, `precision`, `recall`, `density` and
      `coverage`, each with `_stderr`; and `memorization_distance`, the mean cosine distance to the
      nearest real image. MIFID is left out where this distance is 0, up to rounding. Errors are of
      the sampling of images: by half-samples for FID, MIFID, MIND and Inception Score, by the
      variance of a U-statistic for the kernel distances (`kid`), by a jackknife for the rest
      (`standard_errors`). The points give each line.

    Raises:
      ValueError: if shapes do not belong together, images are too few, values are not finite.
    """
    numbers = len(real.features), len(generated.features)
    arrays.feature_pair(real.features, generated.features, MIN_IMAGES)
    return measure(real, generated, make_draws(key, sizes, *numbers)).summary


def measure(real: Outputs, generated: Outputs, draws: Draws) -> Measurement:
    """Returns every metric, as `summarize`, and what their differences are computed from."""
    features = arrays.feature_pair(real.features, generated.features, MIN_IMAGES)
    design = draws.design
    fids = extrapolate.fid_curves(features, design)
    mifids, memorization_distance = extrapolate.mifid_curves(features, design, fids)
    lines = {
        "fid": extrapolate.half_sample_line(fids, design),
        **extrapolate.kid_lines(features, design),
    }
    if memorization_distance > mifid.MIN_DISTANCE:
        lines["mifid"] = extrapolate.half_sample_line(mifids, design)
    if generated.logits.shape[1]:
        scores = extrapolate.score_curves(generated.logits, design)
        lines["is"] = extrapolate.half_sample_line(scores, design)
    estimates: dict[str, Estimate] = {
        f"{metric}_inf": line.intercept for metric, line in lines.items() if line.intercept
    }
    estimates |= {
        metric: lines[metric].full for metric in ("fid", "kid", "mifid") if metric in lines
    }
    estimates |= _cmmd_estimates(features, design)
    estimates["mind"] = mind.estimate(features, design.groups)
    estimates |= _manifold_estimates(features, draws.jackknife)
    values: dict[str, float] = {}
    for metric, estimate in estimates.items():
        values |= {metric: estimate.value, f"{metric}_stderr": estimate.variance().stderr}
        if metric.endswith("_inf"):
            line = lines[metric.removesuffix("_inf")]
            fit = extrapolate.extrapolate(design.sizes, line.values)
            values[f"{metric}_r_squared"] = fit.r_squared
    values["memorization_distance"] = memorization_distance
    points = [
        LinePoint(metric, size, float(value))
        for metric, line in lines.items()
        for size, value in zip(design.sizes, line.values, strict=True)
    ]
    return Measurement(Summary(values, points), estimates)


def measure_fid(real: Outputs, generated: Outputs, draws: Draws) -> Measurement:
    """Returns the FID alone, of sets too large for metrics of all pairs of images."""
    features = arrays.feature_pair(real.features, generated.features, MIN_IMAGES)
    design = draws.design._replace(
        sizes=(), draws=draws.design.draws[-1:], averages=draws.design.averages[-1:, -1:]
    )
    line = extrapolate.half_sample_line(extrapolate.fid_curves(features, design), design)
    values = {"fid": line.full.value, "fid_stderr": line.full.variance().stderr}
    return Measurement(Summary(values, []), {"fid": line.full})


def _cmmd_estimates(
    features: arrays.FeaturePair, design: extrapolate.Design
) -> dict[str, Estimate]:
    """Returns CMMD in both forms, of all images."""
    unbiased = KernelMean(np.ones(1), cmmd.pair_sums(features, design.draws[-1:]), None, cmmd.SCALE)
    return {"cmmd": unbiased, "cmmd_published": unbiased._replace(is_biased=True)}


def _manifold_estimates(
    features: arrays.FeaturePair, replicate_draws: list[subsets.Draw]
) -> dict[str, Estimate]:
    """Returns precision, recall, density and coverage with their jackknife replicates."""
    full = subsets.all_images(len(features.real), len(features.generated))
    metrics, *replicates = manifold.subset_metrics(features, [full, *replicate_draws])
    return {
        name: Jackknife(value, np.array([getattr(replicate, name) for replicate in replicates]))
        for name, value in metrics._asdict().items()
    }
