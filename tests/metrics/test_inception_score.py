"""Inception Score of predictions with known answers, and against its definition."""

import numpy as np
import pytest

from thermo_ebm.metrics.inception_score import inception_score


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


def test_logits_of_another_rank_are_refused():
    with pytest.raises(ValueError, match="logits"):
        inception_score(np.zeros(5))
