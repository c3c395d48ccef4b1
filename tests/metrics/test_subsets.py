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


def test_draws_are_without_replacement_and_fresh():
    draws = subsets.draw_subsets(jax.random.key(0), (10, 10, 40), 40, 50)
    chosen = [side for draw in draws for side in draw]
    assert [len(side) for side in chosen] == [10, 10, 10, 10, 40, 40]
    assert all(len(set(side.tolist())) == len(side) for side in chosen)
    assert len({tuple(sorted(side.tolist())) for side in chosen}) == 6
    again = subsets.draw_subsets(jax.random.key(0), (10, 10, 40), 40, 50)
    other = subsets.draw_subsets(jax.random.key(1), (10, 10, 40), 40, 50)
    assert all((a.real == b.real).all() for a, b in zip(draws, again, strict=True))
    assert not (draws[0].real == other[0].real).all()
    for sizes in ((), (1, 10), (10, 41)):
        with pytest.raises(ValueError, match="cannot draw"):
            subsets.draw_subsets(jax.random.key(0), sizes, 40, 50)


def test_every_image_is_drawn_as_often():
    """Over 100 draws of 5 of 20 each image comes 25 times, within 4 standard errors."""
    draws = subsets.draw_subsets(jax.random.key(2), (5,) * 100, 20, 20)
    for side in zip(*draws, strict=True):
        counts = np.bincount(np.concatenate(side), minlength=20)
        assert np.abs(counts - 25).max() < 4 * np.sqrt(100 * 0.25 * 0.75)


def test_shared_fids_are_each_ones_own():
    """Sizes below and above the number of features, and below and above half of the images."""
    real, generated = features(150, 40, 0), features(170, 40, 1, shift=0.3)
    draws = subsets.draw_subsets(jax.random.key(3), (20, 40, 41, 60, 90, 150), 150, 170)
    values = subsets.fid_values(real, generated, draws)
    for draw, value in zip(draws, values, strict=True):
        expected = fid.frechet_distance(real[draw.real], generated[draw.generated])
        assert value == pytest.approx(expected, rel=1e-6)


def test_shared_fids_with_dead_channels_and_copies():
    real, generated = features(150, 40, 0), features(170, 40, 1, shift=0.3)
    for side in (real, generated):
        side[:, 3] = 0.0
        side[:, 4] = side[:, 5]
    draws = subsets.draw_subsets(jax.random.key(4), (30, 60, 150), 150, 170)
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
    assert set(summary.values) == extrapolated | full
    assert all(summary.values[f"{metric}_stderr"] > 0 for metric in plain)
    assert all(np.isfinite(value) for value in summary.values.values())
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
