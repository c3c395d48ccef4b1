"""Draws without replacement, and the shared work of all sizes against one evaluation of each."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import fid, mifid, subsets
from thermo_ebm.metrics.inception_score import inception_score
from thermo_ebm.metrics.kid import kernel_distance
from thermo_ebm.metrics.networks import Outputs
from thermo_ebm.metrics.summary import summarize


def features(num, width, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((width, width)) / np.sqrt(width)
    return np.abs(rng.standard_normal((num, width)) @ mixing + shift).astype(np.float32)


def test_the_papers_sizes():
    expected = (1000, 1389, 1778, 2167, 2556, 2944, 3333, 3722, 4111, 4500)
    assert subsets.extrapolation_sizes() == expected
    assert subsets.extrapolation_sizes(297, 5) == (66, 124, 182, 239, 297)
    with pytest.raises(ValueError, match="sizes"):
        subsets.extrapolation_sizes(8, 10)


def flat(of_sizes):
    return [draw for of_size in of_sizes for draw in of_size]


def test_draws_are_without_replacement_and_fresh():
    of_sizes = subsets.draw_subsets(jax.random.key(0), (10, 10, 40), 40, 50, draws_per_size=2)
    chosen = [side for draw in flat(of_sizes) for side in draw]
    assert [len(side) for side in chosen] == [10] * 8 + [40] * 4
    assert all(len(set(side.tolist())) == len(side) for side in chosen)
    # All differ, but the draws of the size that is the whole real side.
    assert len({tuple(sorted(side.tolist())) for side in chosen}) == 11
    again = flat(subsets.draw_subsets(jax.random.key(0), (10, 10, 40), 40, 50, 2))
    other = flat(subsets.draw_subsets(jax.random.key(1), (10, 10, 40), 40, 50, 2))
    draws = flat(of_sizes)
    assert all((a.real == b.real).all() for a, b in zip(draws, again, strict=True))
    assert not (draws[0].real == other[0].real).all()
    for sizes in ((), (1, 10), (10, 41)):
        with pytest.raises(ValueError, match="cannot draw"):
            subsets.draw_subsets(jax.random.key(0), sizes, 40, 50)
    with pytest.raises(ValueError, match="draws_per_size"):
        subsets.draw_subsets(jax.random.key(0), (10,), 40, 50, 0)


def test_the_draws_of_a_size_use_every_image_about_equally():
    (draws,) = subsets.draw_subsets(jax.random.key(2), (13,), 40, 52, draws_per_size=4)
    for number, side in ((40, 0), (52, 1)):
        counts = np.bincount(np.concatenate([draw[side] for draw in draws]), minlength=number)
        assert counts.max() - counts.min() <= 1
    # Everything on both sides is there only once.
    assert len(subsets.draw_subsets(jax.random.key(2), (40,), 40, 40)[0]) == 1


def test_every_image_is_drawn_as_often():
    """Over 100 draws of 5 of 20 each image comes 25 times, within 4 standard errors."""
    draws = flat(subsets.draw_subsets(jax.random.key(2), (5,) * 100, 20, 20, 1))
    for side in zip(*draws, strict=True):
        counts = np.bincount(np.concatenate(side), minlength=20)
        assert np.abs(counts - 25).max() < 4 * np.sqrt(100 * 0.25 * 0.75)


def test_shared_fids_are_each_ones_own():
    """Sizes below and above the number of features, and below and above half of the images."""
    real, generated = features(150, 40, 0), features(170, 40, 1, shift=0.3)
    draws = flat(subsets.draw_subsets(jax.random.key(3), (20, 40, 41, 60, 90, 150), 150, 170, 1))
    values = subsets.fid_values(real, generated, draws)
    for draw, value in zip(draws, values, strict=True):
        expected = fid.frechet_distance(real[draw.real], generated[draw.generated])
        assert value == pytest.approx(expected, rel=1e-6)


def test_shared_fids_with_dead_channels_and_copies():
    real, generated = features(150, 40, 0), features(170, 40, 1, shift=0.3)
    for side in (real, generated):
        side[:, 3] = 0.0
        side[:, 4] = side[:, 5]
    draws = flat(subsets.draw_subsets(jax.random.key(4), (30, 60, 150), 150, 170, 1))
    values = subsets.fid_values(real, generated, draws)
    for draw, value in zip(draws, values, strict=True):
        expected = fid.frechet_distance(real[draw.real], generated[draw.generated])
        assert value == pytest.approx(expected, rel=1e-6)
    equal = [draw._replace(generated=draw.real) for draw in draws]
    assert np.abs(subsets.fid_values(real, real, equal)).max() < 1e-3


def test_a_summary_holds_every_metric_and_its_points():
    rng = np.random.default_rng(5)
    real = Outputs(features(120, 16, 2), rng.standard_normal((120, 6)))
    generated = Outputs(features(120, 16, 3, shift=0.2), rng.standard_normal((120, 6)))
    sizes = subsets.extrapolation_sizes(120, 5)
    summary = summarize(jax.random.key(6), real, generated, sizes)
    lines = ("fid", "kid", "kid_rbf", "mifid", "is")
    extrapolated = {f"{m}_inf{suffix}" for m in lines for suffix in ("", "_stderr", "_r_squared")}
    plain = ("fid", "kid", "precision", "recall", "density", "coverage")
    full = {f"{metric}{suffix}" for metric in plain for suffix in ("", "_stderr")}
    assert set(summary.values) == extrapolated | full | {"memorization_distance"}
    assert all(summary.values[f"{metric}_stderr"] > 0 for metric in plain)
    assert all(np.isfinite(value) for value in summary.values.values())
    nearest = mifid.cosine_distances(real.features, generated.features).min(axis=1)
    assert summary.values["memorization_distance"] == pytest.approx(nearest.mean())
    assert [(p.metric, p.size) for p in summary.points] == [(m, n) for m in lines for n in sizes]
    full_fid = fid.frechet_distance(real.features, generated.features)
    assert summary.values["fid"] == pytest.approx(full_fid, rel=1e-6)
    full_kid = kernel_distance(real.features, generated.features)
    assert summary.values["kid"] == pytest.approx(full_kid, rel=1e-9)
    # At the largest size a draw is everything.
    last = {p.metric: p.value for p in summary.points if p.size == 120}
    assert last["fid"] == pytest.approx(full_fid, rel=1e-6)
    assert last["kid"] == pytest.approx(full_kid, rel=1e-9)
    assert last["is"] == pytest.approx(inception_score(generated.logits))
    expected = mifid.memorization_informed_distance(real.features, generated.features)
    assert last["mifid"] == pytest.approx(expected, rel=1e-6)
    assert summarize(jax.random.key(6), real, generated, sizes) == summary


def test_without_logits_there_is_no_inception_score():
    one = Outputs(features(60, 8, 2), np.zeros((60, 0)))
    other = Outputs(features(50, 8, 3), np.zeros((50, 0)))
    summary = summarize(jax.random.key(0), one, other, subsets.extrapolation_sizes(50, 4))
    assert not [name for name in summary.values if name.startswith("is_")]
    # At unequal numbers the plain metrics are of all images of both.
    expected = fid.frechet_distance(one.features, other.features)
    assert summary.values["fid"] == pytest.approx(expected, rel=1e-6)
    assert max(point.size for point in summary.points) == 50
