"""The held-out log p(x) of a run: the same estimator for every loss, with its reliability."""

import math

import jax
import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.evaluation.run import load_run
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.validation import HELD_OUT_SETTINGS


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_readings_agree_with_the_estimate_of_the_library(tmp_path):
    settings = {"evaluation__likelihood__every_epochs": 1, "num_epochs": 1}
    assert tiny.train(tiny.config(**settings), tmp_path) is Outcome.DONE
    row = tiny.rows(tmp_path)[0]
    value, stderr = (row[f"val_log_marginal_likelihood{suffix}"] for suffix in ("", "_stderr"))
    assert 0 < stderr < 0.2
    assert 0.2 < row["val_log_marginal_likelihood_reliable"] <= 1
    assert row["val_bits_per_dim"] == pytest.approx(-value / 64 / math.log(2) + math.log2(127.5))
    run = load_run(tmp_path)
    images = np.float32(run.validation_images()) / 127.5 - 1
    more = HELD_OUT_SETTINGS._replace(num_temperatures=72)
    checked = run.log_marginal_likelihood(images[:16], jax.random.key(0), settings=more)
    assert checked.reliable.mean() > 0.8
    # Of the first of the images: their mean differs by the spread over images too.
    values = checked.log_marginal_likelihood
    spread = np.std(values) * math.sqrt(1 / len(values) - 1 / len(images))
    assert abs(value - values.mean()) < 4 * math.hypot(stderr, checked.mean_stderr, spread)
