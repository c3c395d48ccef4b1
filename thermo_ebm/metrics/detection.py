"""How well a score tells two sets of images apart, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Detection(NamedTuple):
    """Areas under curves, each with the ends of its interval."""

    auroc: float  # probability that an outlier scores higher than an inlier; 1/2 is chance
    auroc_low: float
    auroc_high: float
    auprc: float  # average precision with outliers as positives; `share` is chance
    auprc_low: float
    auprc_high: float
    share: float  # of outliers among all images


def detection(
    inliers: np.ndarray,
    outliers: np.ndarray,
    seed: int = 0,
    num_resamples: int = 500,
    level: float = 0.95,
) -> Detection:
    """AUROC and AUPRC of a score that is higher for outliers (scikit-learn's).

    The intervals are percentiles of a bootstrap that draws the images of each set anew. Where the
    sets are told apart without fault every resample is too, and an interval has no width.

    Args:
      inliers: scores, [num_inliers], at least 2.
      outliers: scores, [num_outliers], at least 2.
      seed: of the bootstrap.
      num_resamples: of the bootstrap.
      level: of the intervals.

    Raises:
      ValueError: fewer than 2 scores on a side, or scores that are not finite numbers.

    >>> detection(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0])).auroc.__round__(3)
    0.833
    """
    from sklearn import metrics  # a second of imports, for this function alone

    for name, scores in (("inliers", inliers), ("outliers", outliers)):
        if scores.ndim != 1 or len(scores) < 2 or not np.isfinite(scores).all():
            raise ValueError(f"{name} must be at least 2 finite scores, not {scores.shape}")

    def area(curve: str, first: np.ndarray, second: np.ndarray) -> float:
        labels = np.repeat([0, 1], [len(first), len(second)])
        return float(getattr(metrics, curve)(labels, np.concatenate([first, second])))

    def with_interval(curve: str) -> tuple[float, float, float]:
        found = stats.bootstrap(
            (inliers, outliers),
            lambda first, second: area(curve, first, second),
            n_resamples=num_resamples,
            vectorized=False,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = found.confidence_interval
        return area(curve, inliers, outliers), float(low), float(high)

    share = len(outliers) / (len(inliers) + len(outliers))
    return Detection(
        *with_interval("roc_auc_score"), *with_interval("average_precision_score"), share
    )
