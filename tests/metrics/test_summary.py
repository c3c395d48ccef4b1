"""The summary of an evaluation against the metrics' plain functions."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import cmmd, fid, mifid, mind, subsets
from thermo_ebm.metrics.arrays import feature_pair
from thermo_ebm.metrics.inception_score import inception_score
from thermo_ebm.metrics.kid import kernel_distance
from thermo_ebm.metrics.networks import Outputs
from thermo_ebm.metrics.summary import summarize


def features(num, width, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((width, width)) / np.sqrt(width)
    return np.abs(rng.standard_normal((num, width)) @ mixing + shift).astype(np.float32)


def test_summary_has_every_metric_and_its_points():
    rng = np.random.default_rng(5)
    real = Outputs(features(120, 16, 2), rng.standard_normal((120, 6)))
    generated = Outputs(features(120, 16, 3, shift=0.2), rng.standard_normal((120, 6)))
    sizes = subsets.extrapolation_sizes(120, 5)
    summary = summarize(jax.random.key(6), real, generated, sizes)
    lines = ("fid", "kid", "kid_rbf", "mifid", "is")
    extrapolated = {f"{m}_inf{suffix}" for m in lines for suffix in ("", "_stderr", "_r_squared")}
    plain = ("fid", "kid", "cmmd", "cmmd_published", "mind", "mifid")
    plain += ("precision", "recall", "density", "coverage")
    full = {f"{metric}{suffix}" for metric in plain for suffix in ("", "_stderr")}
    assert set(summary.values) == extrapolated | full | {"memorization_distance"}
    assert all(summary.values[f"{metric}_stderr"] > 0 for metric in plain)
    assert all(np.isfinite(value) for value in summary.values.values())
    pair = feature_pair(real.features, generated.features)
    nearest = mifid.cosine_distances(pair).min(axis=1)
    assert summary.values["memorization_distance"] == pytest.approx(nearest.mean())
    assert [(p.metric, p.size) for p in summary.points] == [(m, n) for m in lines for n in sizes]
    full_fid = fid.frechet_distance(real.features, generated.features)
    assert summary.values["fid"] == pytest.approx(full_fid, rel=1e-6)
    full_kid = kernel_distance(real.features, generated.features)
    assert summary.values["kid"] == pytest.approx(full_kid, rel=1e-9)
    distances = real.features, generated.features
    assert summary.values["cmmd"] == pytest.approx(cmmd.clip_mmd(*distances))
    assert summary.values["mind"] == pytest.approx(mind.monge_distance(*distances))
    # At the largest size a draw is all images.
    last = {p.metric: p.value for p in summary.points if p.size == 120}
    assert last["fid"] == pytest.approx(full_fid, rel=1e-6)
    assert last["kid"] == pytest.approx(full_kid, rel=1e-9)
    assert last["is"] == pytest.approx(inception_score(generated.logits))
    expected = mifid.memorization_informed_distance(real.features, generated.features)
    assert last["mifid"] == pytest.approx(expected, rel=1e-6)
    assert summarize(jax.random.key(6), real, generated, sizes) == summary


def test_summary_without_logits_has_no_inception_score():
    real = Outputs(features(60, 8, 2), np.zeros((60, 0)))
    generated = Outputs(features(50, 8, 3), np.zeros((50, 0)))
    summary = summarize(jax.random.key(0), real, generated, subsets.extrapolation_sizes(50, 4))
    assert not [name for name in summary.values if name.startswith("is_")]
    # With unequal numbers the plain metrics are of all images of both sets.
    expected = fid.frechet_distance(real.features, generated.features)
    assert summary.values["fid"] == pytest.approx(expected, rel=1e-6)
    assert max(point.size for point in summary.points) == 50
