"""Metrics at infinitely many images (Chong & Forsyth 2020): a straight line in 1/N, at 1/N = 0.

All metrics are computed from the same draws. The values at one size are averaged over the draws of
this size; the line's intercept is a fixed weighted sum of these averages (`intercept_weights`), so
its standard error follows from how each value responds to other images: by half-samples for FID,
MIFID and Inception Score (`standard_errors`), by the covariance of U-statistics for the kernel
distances (`kid`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import arrays, fid, inception_score, kid, mifid, standard_errors, subsets
from thermo_ebm.metrics.arrays import FeaturePair, map_over_cores
from thermo_ebm.metrics.estimates import Estimate, HalfSamples, KernelMean
from thermo_ebm.metrics.standard_errors import ImageGroups
from thermo_ebm.metrics.subsets import Draw


class Extrapolation(NamedTuple):
    """The line value = intercept + slope / N."""

    intercept: float  # the metric at infinitely many images
    stderr: float  # standard error of the intercept
    slope: float  # bias times N
    r_squared: float  # share of the values' variance that the line explains; nan if they have none


def extrapolate(
    sizes: Sequence[int] | arrays.Array, values: Sequence[float] | arrays.Array
) -> Extrapolation:
    """Fits value = intercept + slope / N by least squares.

    The standard error supposes independent errors of equal size. The errors of a metric shrink
    with N and its subsets share images: this error describes the fit, not the sampling of images;
    `summary.summarize` gives the error of the complete procedure.

    Args:
      sizes: [num_sizes], the N, positive; at least three points and two different N.
      values: [num_sizes], the metric at each size.

    Raises:
      ValueError: if these conditions do not hold, or a value is not finite.
    """
    n, y = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if n.ndim != 1 or n.shape != y.shape or len(n) < 3:
        raise ValueError(
            f"sizes and values must be two lists of at least three, not {n.shape} and {y.shape}"
        )
    if not (np.isfinite(n).all() and np.isfinite(y).all() and (n > 0).all()):
        raise ValueError("sizes must be positive and sizes and values finite")
    if (n == n[0]).all():
        raise ValueError("sizes must not all be the same")
    x = 1.0 / n
    deviation = x - x.mean()
    spread = np.sum(deviation**2)
    slope = np.sum(deviation * (y - y.mean())) / spread
    intercept = y.mean() - slope * x.mean()
    residual = np.sum((y - intercept - slope * x) ** 2)
    total = np.sum((y - y.mean()) ** 2)
    variance = residual / (len(n) - 2) * (1.0 / len(n) + x.mean() ** 2 / spread)
    r_squared = 1.0 - residual / total if total > 0 else np.nan
    return Extrapolation(float(intercept), float(np.sqrt(variance)), float(slope), float(r_squared))


def intercept_weights(sizes: Sequence[int]) -> np.ndarray:
    """Returns w [num_sizes], of sum 1, such that `extrapolate`'s intercept is w . values."""
    x = 1.0 / np.asarray(sizes, np.float64)
    deviation = x - x.mean()
    return 1.0 / len(x) - x.mean() * deviation / np.sum(deviation**2)


class Design(NamedTuple):
    """The images from which every metric is computed."""

    sizes: tuple[int, ...]
    draws: list[Draw]  # those of each size in order; the last draw is all images
    averages: np.ndarray  # [num_means, num_draws]: means over each size's draws, then all images
    groups: ImageGroups  # of the half-samples


class Line(NamedTuple):
    """A metric at each size, and its estimates."""

    values: np.ndarray  # [num_sizes], means over a size's draws; empty without sizes
    intercept: Estimate | None  # at infinitely many images; None without sizes
    full: Estimate  # at all images


class Curves(NamedTuple):
    """A metric of every draw under the half-samples' weights."""

    values: np.ndarray  # [num_draws, 63]
    # The linear responses of the last draw, see `estimates.HalfSamples`.
    measured: np.ndarray | None = None
    complete: np.ndarray | None = None

    def corrected(self) -> np.ndarray:
        """The values with responses of the size of the complete ones, [num_draws, 63]."""
        factor = HalfSamples(*self._replace(values=self.values[-1])).missed_response()
        unweighted = self.values[:, :1]
        return np.asarray(unweighted + factor * (self.values - unweighted))


def make_design(key: jax.Array, sizes: Sequence[int], num_real: int, num_generated: int) -> Design:
    """Draws the subsets and groups.

    Sets of equal numbers of images get the same subsets and groups from the same key.

    Args:
      key: consumed here.
      sizes: of the subsets; without any, the only draw is all images.
      num_real: number of real images.
      num_generated: number of generated images.

    Raises:
      ValueError: as `subsets.draw_subsets`.
    """
    subset_key, real_key, generated_key = jax.random.split(key, 3)
    draws = subsets.draw_subsets(subset_key, sizes, num_real, num_generated) if sizes else []
    if not (sizes and num_real == num_generated == sizes[-1]):
        draws.append([subsets.all_images(num_real, num_generated)])
    counts = [len(draws_of_size) for draws_of_size in draws]
    return Design(
        sizes=tuple(sizes),
        draws=[draw for draws_of_size in draws for draw in draws_of_size],
        averages=np.repeat(np.eye(len(counts)) / np.array(counts)[:, None], counts, axis=1),
        groups=ImageGroups(
            standard_errors.assign_groups(real_key, num_real),
            standard_errors.assign_groups(generated_key, num_generated),
        ),
    )


def fid_curves(features: FeaturePair, design: Design) -> Curves:
    """Returns the FID of every draw under the half-samples' weights.

    The unweighted FID of the first draw of each size is exact. The differences of the other draws
    and of the weighted values from this FID are computed in the leading directions of the features
    (a control variate, so the average over a size's draws has no bias). Where the spectrum is flat,
    most of the response to weights is in other directions: the error is multiplied by the ratio of
    the derivative of the FID of all images in all directions to that in the leading ones.
    """
    first = design.averages.argmax(axis=1)  # the first draw of each size
    exact = fid.subset_distances(features, [design.draws[index] for index in first])
    directions = fid.leading_directions(features)
    values = np.stack(
        map_over_cores(
            lambda draw: fid.weighted_distances(directions, design.groups, draw), design.draws
        )
    )
    offsets = (exact - values[first, 0]) @ (design.averages > 0)  # [num_draws]
    if directions.real.shape[1] == features.real.shape[1]:
        return Curves(values + offsets[:, None])
    return Curves(
        values + offsets[:, None],
        measured=standard_errors.odd_responses(values[-1]),
        complete=standard_errors.linear_responses(fid.influences(features), design.groups),
    )


def mifid_curves(features: FeaturePair, design: Design, fids: Curves) -> tuple[Curves, float]:
    """Returns the MIFID like `fid_curves`, and the mean nearest cosine distance of all images.

    Args:
      features: of both sets.
      design: the draws.
      fids: from `fid_curves`.
    """
    neighbours = mifid.nearest_neighbours(features)

    def mean_distances(draw: Draw) -> np.ndarray:
        nearest = mifid.nearest_distances(neighbours, draw)
        return standard_errors.weighted_means(nearest, design.groups.generated[draw.generated])

    distances = np.stack(map_over_cores(mean_distances, design.draws))
    values = fids.corrected() / mifid.memorization_penalty(distances)
    return Curves(values), float(distances[-1, 0])


def score_curves(logits: arrays.Array, design: Design) -> Curves:
    """Returns the Inception Score like `fid_curves`, from logits [num_generated, num_classes].

    Raises:
      ValueError: as `inception_score.inception_score`.
    """
    terms = inception_score.score_terms(logits)

    def scores(draw: Draw) -> np.ndarray:
        return inception_score.weighted_scores(terms, design.groups.generated, draw.generated)

    return Curves(np.stack(map_over_cores(scores, design.draws)))


def half_sample_line(curves: Curves, design: Design) -> Line:
    """Averages curves over draws; both errors are those of the half-samples."""
    means = design.averages @ curves.values
    at_sizes = means[: len(design.sizes)]
    responses = curves.measured, curves.complete
    return Line(
        values=at_sizes[:, 0],
        intercept=HalfSamples(intercept_weights(design.sizes) @ at_sizes, *responses)
        if design.sizes
        else None,
        full=HalfSamples(means[-1], *responses),
    )


def kid_lines(features: FeaturePair, design: Design) -> dict[str, Line]:
    """Returns the lines of `kid` (polynomial) and `kid_rbf`."""
    sums = kid.pair_sums(features, design.draws, ("polynomial", "rbf"))
    at_sizes = design.averages[: len(design.sizes)]

    def line(pair: kid.PairKernels) -> Line:
        return Line(
            values=at_sizes @ kid.distances(pair).values,
            intercept=KernelMean(intercept_weights(design.sizes) @ at_sizes, pair)
            if design.sizes
            else None,
            full=KernelMean(design.averages[-1], pair),
        )

    return {"kid": line(sums["polynomial"]), "kid_rbf": line(sums["rbf"])}
