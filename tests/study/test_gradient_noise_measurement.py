"""The statistics of the noise measurement, on gradients whose noise and bias are known."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from patience import PATIENCE

from study.measurements import gradient_draws as measure
from thermo_ebm import data
from thermo_ebm.train import feed, programs
from thermo_ebm.train.task import make_task

ROOT = Path(__file__).resolve().parents[2]
NUM_PARAMS = 40


def draws(mean, scale, num, seed):
    """Gradients of a known mean whose noise is no sphere."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(NUM_PARAMS, NUM_PARAMS)) / np.sqrt(NUM_PARAMS)
    gradients = mean + scale * rng.normal(size=(num, NUM_PARAMS)) @ root
    return gradients, scale**2 * (root**2).sum()


def test_bias_is_measured_below_the_noise_of_the_means():
    mean = np.random.default_rng(0).normal(size=NUM_PARAMS)
    norm = np.linalg.norm(mean)
    for bias in (0.0, 0.3):
        shifted = mean + bias * norm * np.eye(NUM_PARAMS)[0]
        moments = []
        for seed in range(40):
            reference, _ = draws(mean, 1.0, 20, 100 + seed)
            means, covariance = draws(shifted, 4.0, 200, seed)
            moments.append(measure.moments(means, covariance, reference))
        noise = np.sqrt(covariance / 200 + (norm * 0.2) ** 2) / norm  # what a plain distance has
        biases = np.array([measured.bias for measured in moments])
        assert noise > 0.25
        if bias:
            assert abs(np.sqrt((biases**2).mean()) - bias) < 0.1
        else:
            assert np.median(biases) < 0.12
        assert all(measured.least_bias <= measured.bias for measured in moments)
        # Taken off, the standard error leaves less than there is five times out of six.
        assert np.mean([measured.least_bias <= bias + 1e-9 for measured in moments]) > 0.6


def test_amplified_draws_have_the_mean_and_so_many_times_the_noise():
    mean = np.random.default_rng(1).normal(size=NUM_PARAMS)
    both, covariance = draws(mean, 1.0, 8000, 2)
    first, second = both[:4000], both[4000:]  # the halves of each batch
    g, d = (first + second) / 2, (first - second) / 2
    for c in (1.0, 5.0):
        means, trace = measure.amplified(g, d, c, jax.random.key(0), 4)
        np.testing.assert_allclose(trace, c * covariance / 2, rtol=0.06)
        np.testing.assert_allclose(np.mean(means, axis=0), mean, atol=4 * np.sqrt(c / 4000))
    np.testing.assert_allclose(measure.amplified(g, d, 1.0, jax.random.key(0), 2)[0], g, rtol=1e-6)


@pytest.mark.slow
def test_the_step_without_halves_is_the_same_step():
    task = make_task(measure.make_config(quick=True))
    images = data.load(task.config.data).train
    batches = feed.in_memory(images, task).take(np.arange(task.config.batch_size)[None])
    ends = []
    for variant in (task, measure.without_halves(task)):
        state = programs.map_step(variant)(measure.initial_state(variant, 0), batches)
        ends.append(jax.device_get(programs.local(state)))
    start = jax.device_get(programs.local(measure.initial_state(task, 0)))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0].params, start.params)
    assert max(jax.tree.leaves(moved)) > 1e-5
    for a, b in zip(*(jax.tree.leaves(end.optimiser) for end in ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    noise = [end.sums.readings["train_grad_noise"] for end in ends]
    assert np.isfinite(noise[0])
    assert np.isnan(noise[1])


@pytest.mark.slow
def test_the_program_ends_in_its_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "study.measurements.gradient_noise",
        "--quick",
        f"--csv={tmp_path}/noise.csv",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    names = [word.partition("=")[0] for word in done.stdout.splitlines()[-1].split()]
    assert names == ["mean_bias", "target_error", "range", "overhead"]
    assert len((tmp_path / "noise.csv").read_text().splitlines()) == 1 + 2 + 2 + 1 + 1 + 1 + 1
