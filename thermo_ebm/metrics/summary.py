"""All metrics of one set of images against another: extrapolated, plain, and the lines' points."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from thermo_ebm.metrics import arrays, extrapolate, manifold, mifid, standard_errors, subsets
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
        "adds a bias that the error does not contain"
    )


def summarize(key: jax.Array, real: Outputs, generated: Outputs, sizes: Sequence[int]) -> Summary:
    """Returns every metric of generated images against real ones.

    Args:
      key: consumed here: for the subsets, the groups of the half-samples and the jackknife.
      real: a network's outputs for held-out real images; the logits are not used.
      generated: its outputs for generated images; without logits there is no Inception Score.
      sizes: the sample sizes of the extrapolation, at least three.

    Returns:
      `fid_inf`, `kid_inf`, `kid_rbf_inf`, `mifid_inf`, `is_inf`, each with the `_stderr` of the
      complete procedure and the `_r_squared` of its line; at the full numbers of images `fid`,
      `kid`, `precision`, `recall`, `density` and `coverage`, each with `_stderr`; and
      `memorization_distance`, the mean cosine distance to the nearest real image. MIFID is left out
      where this distance is 0, up to rounding. Errors are of
      the sampling of images: by half-samples for FID, MIFID and Inception Score, by the variance of
      a U-statistic for the KIDs (`kid`), by a jackknife for the rest (`standard_errors`). The
      points give each line.

    Raises:
      ValueError: if shapes do not belong together, images are too few, values are not finite.
    """
    features = arrays.feature_pair(real.features, generated.features, MIN_IMAGES)
    numbers = len(features.real), len(features.generated)
    design_key, jackknife_key = jax.random.split(key)
    design = extrapolate.make_design(design_key, sizes, *numbers)
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
    values = {}
    for metric, line in lines.items():
        fit = extrapolate.extrapolate(sizes, line.values)
        values[f"{metric}_inf"] = fit.intercept
        values[f"{metric}_inf_stderr"] = line.stderr
        values[f"{metric}_inf_r_squared"] = fit.r_squared
    for metric in ("fid", "kid"):
        values |= {metric: lines[metric].full, f"{metric}_stderr": lines[metric].full_stderr}
    replicates = standard_errors.jackknife_draws(jackknife_key, *numbers)
    values |= _manifold_values(features, replicates)
    values["memorization_distance"] = memorization_distance
    points = [
        LinePoint(metric, size, float(value))
        for metric, line in lines.items()
        for size, value in zip(sizes, line.values, strict=True)
    ]
    return Summary(values, points)


def _manifold_values(
    features: arrays.FeaturePair, replicate_draws: list[subsets.Draw]
) -> dict[str, float]:
    """Returns precision, recall, density and coverage with their jackknife errors."""
    full = subsets.all_images(len(features.real), len(features.generated))
    metrics, *replicates = manifold.subset_metrics(features, [full, *replicate_draws])
    values = {}
    for name, value in metrics._asdict().items():
        values[name] = value
        values[f"{name}_stderr"] = standard_errors.jackknife_stderr(
            [getattr(replicate, name) for replicate in replicates]
        )
    return values
