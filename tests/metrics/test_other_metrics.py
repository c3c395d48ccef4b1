"""MIFID, Inception Score, precision, recall, density and coverage on sets with known answers."""

import numpy as np
import pytest

from thermo_ebm.metrics import fid, manifold, mifid
from thermo_ebm.metrics.inception_score import inception_score


def test_mifid_is_fid_unless_images_are_copies():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 40, 64))
    assert mifid.memorization_informed_distance(x, y) == fid.frechet_distance(x, y)
    near = x + 0.05 * rng.standard_normal(x.shape)
    cosines = near @ x.T / np.outer(np.linalg.norm(near, axis=1), np.linalg.norm(x, axis=1))
    distance = np.mean((1 - np.abs(cosines)).min(axis=1))
    assert distance < mifid.THRESHOLD
    expected = fid.frechet_distance(x, near) / distance
    assert mifid.memorization_informed_distance(x, near) == pytest.approx(expected, rel=1e-9)
    assert mifid.memorization_informed_distance(x, near, threshold=1e-6) < expected


def test_exact_copies_have_a_finite_mifid_and_zeros_no_cosine():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 8))
    assert np.isfinite(mifid.memorization_informed_distance(x, x))
    zeros = np.zeros((2, 8))
    np.testing.assert_array_equal(mifid.cosine_distances(x, zeros), np.ones((2, 30)))


def test_inception_score_of_certain_and_of_uniform_predictions():
    classes = 7
    certain = 1e3 * np.eye(classes)[np.arange(70) % classes]
    assert inception_score(certain) == pytest.approx(classes)
    assert inception_score(np.zeros((10, classes))) == pytest.approx(1.0)
    assert inception_score(certain[::classes]) == pytest.approx(1.0)  # one class alone


def test_inception_score_is_the_definition():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (50, 9)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)))
    assert inception_score(logits) == pytest.approx(expected, rel=1e-10)
    assert inception_score(logits + 100) == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.parametrize("k", [1, 3, 5])
def test_manifold_metrics_are_the_definitions(k):
    rng = np.random.default_rng(3)
    real, generated = rng.standard_normal((40, 3)), 0.7 * rng.standard_normal((35, 3)) + 0.4
    actual = manifold.manifold_metrics(real, generated, k)
    assert actual == pytest.approx(loop_manifold(real, generated, k))


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
    others = np.arange(1, k + 1)
    expected = 1 - np.prod((num - others) / (2 * num - others))
    assert abs(np.mean(coverages) - expected) < 3.5 * np.std(coverages, ddof=1) / 10


def test_too_few_images_are_refused():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="at least 6"):
        manifold.manifold_metrics(x, x)
    with pytest.raises(ValueError, match="num_neighbours"):
        manifold.manifold_metrics(x, x, 0)
    with pytest.raises(ValueError, match="logits"):
        inception_score(np.zeros(5))
