"""Precision, recall, density and coverage against their definitions, for all images and subsets."""

import numpy as np
import pytest

from thermo_ebm.metrics import manifold, subsets
from thermo_ebm.metrics.arrays import FeaturePair
from thermo_ebm.metrics.subsets import Draw


def loop_manifold(real, generated, k):
    """The definitions, point by point."""

    def radius(points, i):
        return np.sort(np.linalg.norm(points - points[i], axis=1))[k]

    def inside(balls, point):
        distances = np.linalg.norm(balls - point, axis=1)
        return [d <= radius(balls, i) for i, d in enumerate(distances)]

    holds = np.array([inside(real, y) for y in generated])  # [generated, real]
    recall = np.mean([any(inside(generated, x)) for x in real])
    return (holds.any(1).mean(), recall, holds.sum() / k / len(generated), holds.any(0).mean())


def test_manifold_metrics_agree_with_the_definitions():
    rng = np.random.default_rng(3)
    real, generated = rng.standard_normal((40, 3)), 0.7 * rng.standard_normal((35, 3)) + 0.4
    for k in (1, 3, 5):
        actual = manifold.manifold_metrics(real, generated, k)
        assert actual == pytest.approx(loop_manifold(real, generated, k)), k


def test_mode_collapse_keeps_precision_and_loses_coverage():
    rng = np.random.default_rng(4)
    real = rng.standard_normal((500, 8))
    equal = manifold.manifold_metrics(real, rng.standard_normal((500, 8)))
    collapsed = manifold.manifold_metrics(real, 0.05 * rng.standard_normal((500, 8)))
    apart = manifold.manifold_metrics(real, rng.standard_normal((500, 8)) + 20)
    assert equal.coverage > 0.9
    assert equal.density == pytest.approx(1.0, abs=0.15)
    assert collapsed.precision > 0.99
    assert collapsed.recall < 0.05
    assert collapsed.coverage < 0.5 * equal.coverage
    assert apart == (0.0, 0.0, 0.0, 0.0)


def test_coverage_of_equal_distributions_has_its_expected_value():
    """Naeem et al., eq. 9, exact for any N, M and k: within 3.5 standard errors over 100 pairs."""
    rng = np.random.default_rng(5)
    num, k = 300, 3
    coverages = [
        manifold.manifold_metrics(*rng.standard_normal((2, num, 4)), num_neighbours=k).coverage
        for _ in range(100)
    ]
    steps = np.arange(1, k + 1)
    expected = 1 - np.prod((num - steps) / (2 * num - steps))
    assert abs(np.mean(coverages) - expected) < 3.5 * np.std(coverages, ddof=1) / 10


def test_metrics_of_subsets_from_shared_distances():
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=(40, 5)), rng.normal(size=(50, 5)) + 0.5
    real[7] = real[8]  # copies
    features = FeaturePair(real, generated)
    draws = [subsets.all_images(40, 50), Draw(np.arange(3, 33), np.arange(20, 50))]
    full, part = manifold.subset_metrics(features, draws)
    assert full == manifold.manifold_metrics(real, generated)
    assert part == manifold.manifold_metrics(real[3:33], generated[20:])
    with pytest.raises(ValueError, match="more than 5 images of both sets"):
        manifold.subset_metrics(features, [Draw(np.arange(5), np.arange(20))])


def test_too_few_images_or_neighbours_are_refused():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="at least 6"):
        manifold.manifold_metrics(x, x)
    with pytest.raises(ValueError, match="num_neighbours"):
        manifold.manifold_metrics(x, x, 0)
