"""AUROC and AUPRC by hand, and intervals that cover."""

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn import metrics

from thermo_ebm.metrics.detection import (
    detection,
    weighted_auroc,
    weighted_average_precision,
)


def test_areas_of_five_scores_by_hand():
    areas = detection(np.array([0.0, 1.0, 2.0]), np.array([1.5, 3.0]), num_resamples=50)
    assert areas.auroc == pytest.approx(5 / 6)  # five of the six pairs are in order
    # Precision 1 at the first outlier, 2/3 at the second, each worth half of the recall.
    assert areas.auprc == pytest.approx((1 + 2 / 3) / 2)
    assert areas.share == pytest.approx(0.4)


def test_perfect_and_inverted_detection_have_areas_one_and_zero():
    low, high = np.arange(5.0), np.arange(10.0, 15.0)
    areas = detection(low, high, num_resamples=20)
    assert (areas.auroc, areas.auroc_low, areas.auroc_high) == (1.0, 1.0, 1.0)
    assert (areas.auprc, areas.auprc_low, areas.auprc_high) == (1.0, 1.0, 1.0)
    assert detection(high, low, num_resamples=20).auroc == 0.0


def test_weighted_areas_equal_areas_of_repeated_images():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 9])
    scores = rng.integers(0, 8, 21).astype(float) + labels  # with many ties
    weights = rng.integers(0, 3, (5, 21))
    for ours, reference in (
        (weighted_auroc, metrics.roc_auc_score),
        (weighted_average_precision, metrics.average_precision_score),
    ):
        repeated = [reference(labels.repeat(row), scores.repeat(row)) for row in weights]
        np.testing.assert_allclose(ours(labels, scores, weights), repeated, rtol=1e-12)


def test_bootstrap_intervals_cover_the_true_areas():
    # Two normal distributions a standard deviation apart: AUROC is Phi(1 / sqrt 2) = 0.7602, and
    # AUPRC, the integral of the precision over the recall, 0.7534 for sets of equal size.
    threshold = np.linspace(-8.0, 9.0, 20_001)
    recall, false_positives = ndtr(1.0 - threshold), ndtr(-threshold)
    auprc = -np.trapezoid(recall / (recall + false_positives), recall)
    assert auprc == pytest.approx(0.7534, abs=2e-3)
    inside, num = np.zeros(2), 200
    for seed in range(num):
        rng = np.random.default_rng(seed)
        areas = detection(
            rng.normal(size=60), rng.normal(1.0, size=60), seed=seed, num_resamples=200
        )
        inside[0] += areas.auroc_low <= 0.76025 <= areas.auroc_high
        inside[1] += areas.auprc_low <= auprc <= areas.auprc_high
        assert areas.auroc_low < areas.auroc < areas.auroc_high
        assert areas.auprc_low < areas.auprc < areas.auprc_high
    # 0.95 is expected with a standard error of 0.015; percentile intervals err a little low.
    assert np.all((inside / num >= 0.9) & (inside / num < 1)), inside / num


def test_interval_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=20), rng.normal(1.0, size=20)
    first, again, third = (detection(*scores, seed, 50) for seed in (0, 0, 1))
    assert first == again
    assert first.auroc == third.auroc
    assert first.auroc_low != third.auroc_low


def test_malformed_scores_are_refused():
    for scores in (np.zeros(1), np.zeros((2, 2)), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="outliers must be at least 2 finite scores"):
            detection(np.arange(3.0), scores)
