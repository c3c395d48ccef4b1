"""The table of chain lengths: against closed forms, and for chains with known laws."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest

from thermo_ebm.evaluation.chains import convergence
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, Trace
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule

TEMPERATURES = np.array([0.0, 0.3, 1.0])
STEP_SIZE, NUM_IMAGES, PER_IMAGE = 0.05, 24, 8


@pytest.fixture(scope="module")
def traces():
    """Of one image many times over, with a Gaussian posterior: the law of every step is known."""
    images = jnp.broadcast_to(jnp.float32(lg.observation()), (NUM_IMAGES, lg.DATA_DIM))
    chain = ChainSettings(STEP_SIZE, 1)
    settings = SamplerSettings(chain, chain, chains_per_image=PER_IMAGE)
    return convergence.long_traces(
        lg.make_model(),
        lg.parameters(),
        images,
        Ladder(Schedule(jnp.float32(TEMPERATURES))),
        jax.random.key(0),
        settings,
        400,
    )


@pytest.mark.parametrize("index", [0, 2])
def test_ends_have_the_expectation_of_their_law(traces, index):
    params, x = lg.parameters(), lg.observation()
    natural = lg.natural(params, x, TEMPERATURES[index])

    def exact(num_steps):
        law = lg.chain_law(*natural, STEP_SIZE, num_steps)
        return lg.expected_log_likelihood(params, x, law)

    rows = convergence.convergence_table(traces, TEMPERATURES, (4, 400))
    short, long = rows[index], rows[3 + index]
    assert (short.num_steps, short.temperature_index, long.num_steps) == (4, index, 400)
    for row in (short, long):
        assert abs(row.expected_log_likelihood - exact(row.num_steps)) < 4 * row.stderr
    assert abs(short.offset - (exact(4) - exact(400))) < 4 * short.offset_stderr
    if index == 2:  # which is an offset that the table shows
        assert abs(short.offset) > 3 * short.offset_stderr


def test_longer_chains_have_smaller_r_hat_and_larger_ess(traces):
    rows = convergence.convergence_table(traces, TEMPERATURES, (8, 50, 400, 1000))
    assert [row.num_steps for row in rows] == [8] * 3 + [50] * 3 + [400] * 3
    short, _, long = rows[2::3]
    assert short.r_hat > 1.1 > 1.02 > long.r_hat
    assert short.r_hat_latents > long.r_hat_latents
    assert long.r_hat_worst >= max(long.r_hat, long.r_hat_latents)
    assert long.ess > short.ess
    # Of a Gaussian's coordinate, chains of 400 steps: 1 - s / variance is what a step keeps.
    assert 4 < long.ess_latents < 100


def test_sufficient_steps_need_agreement_from_there_on(traces):
    rows = convergence.convergence_table(traces, TEMPERATURES, (8, 50, 400))
    assert convergence.sufficient_steps(rows[:6]) is None
    agreed = [row._replace(r_hat_worst=1.0, offset=0.0) for row in rows]
    assert convergence.sufficient_steps(agreed) == 8
    # A length above which another one does not agree is not enough.
    stuck = agreed[3]._replace(r_hat_worst=1.2)
    assert convergence.sufficient_steps([*agreed[:3], stuck, *agreed[4:]]) == 400
    undefined = agreed[-1]._replace(r_hat_worst=float("nan"))
    assert convergence.sufficient_steps([*agreed[:-1], undefined]) is None
    off = agreed[0]._replace(offset=-5.0, offset_stderr=1.0)
    assert convergence.sufficient_steps([off, *agreed[1:]]) == 50


def test_the_worst_image_decides_whether_chains_agree():
    """Chains of independent draws, those of two of five images stuck in different places."""
    rng = np.random.default_rng(0)
    num_steps, per_image, num = 400, 4, 5
    likelihood = rng.normal(size=(num_steps, 2, per_image, num))
    latents = rng.normal(size=(num_steps, 2, per_image, num, 2))
    source = np.ones((num_steps, 1, per_image, num), int)
    acceptance = np.ones_like(likelihood)
    temperatures = np.array([0.0, 1.0])

    def printed(latents):
        traces = Trace(latents, likelihood, acceptance, source)
        rows = convergence.convergence_table(traces, temperatures, (num_steps,))
        return rows, convergence.as_text(rows, (num_steps, num_steps), "mala")

    agreeing, text = printed(latents)
    assert [row.share_agreeing for row in agreeing] == [1.0, 1.0]
    assert f"chains agree from K = {num_steps} on: R-hat of every image" in text
    latents[:, 1, :, :2] += 10 * np.arange(per_image)[:, None, None]
    rows, text = printed(latents)
    assert rows[1].r_hat_latents < convergence.AGREEMENT < 2 < rows[1].r_hat_worst
    assert [row.share_agreeing for row in rows] == [1.0, 0.6]
    assert f"at no K up to {num_steps} do chains agree" in text
    assert f"at every t; at K = {num_steps} the chains of 60% of the images agree at t = 1" in text
    latents[:, 1, :, 2] = 0.0  # chains that never move
    rows, _ = printed(latents)
    assert rows[1].share_agreeing == pytest.approx(0.4)
    assert np.isnan(rows[1].r_hat_worst)


def test_swap_rates_by_hand():
    likelihood = np.array([[[[-3.0]], [[-1.0]], [[-2.0]]], [[[-1.0]], [[-1.0]], [[-1.0]]]])
    likelihood = np.repeat(np.repeat(likelihood, 4, axis=0), 2, axis=2)  # [8, 3, 2, 1]
    z = np.random.default_rng(0).normal(size=(8, 3, 2, 1, 2))
    source = np.tile(np.array([1, 2])[:, None, None], (8, 1, 2, 1))
    traces = Trace(z, likelihood, np.full(likelihood.shape, 0.25), source)
    rows = convergence.convergence_table(traces, np.array([0.0, 0.4, 1.0]), (8,))
    # exp((0 - 0.4) (-1 + 3)) and exp((0.4 - 1) (-2 + 1)) > 1; states of equal l always swap.
    assert rows[0].swap_rate == pytest.approx((np.exp(-0.8) + 1) / 2)
    assert rows[1].swap_rate == 1.0
    assert np.isnan(rows[2].swap_rate)
    assert rows[0].acceptance == 0.25


def test_the_file_has_a_row_for_each_temperature(traces, tmp_path):
    rows = convergence.convergence_table(traces, TEMPERATURES, (8,))
    convergence.write_table(tmp_path / "diagnostics.csv", rows, kernel="ula")
    header, *lines = (tmp_path / "diagnostics.csv").read_text().splitlines()
    assert header.split(",") == [*convergence.Convergence._fields, "kernel"]
    assert len(lines) == 3
    first, last = (
        dict(zip(header.split(","), line.split(","), strict=True)) for line in lines[::2]
    )
    assert float(first["r_hat"]) == rows[0].r_hat
    assert last["swap_rate"] == ""
    assert last["kernel"] == "ula"


def test_single_chains_and_too_few_steps_are_refused():
    model, params, x = lg.make_model(), lg.parameters(), np.zeros((1, lg.DATA_DIM))
    chain = ChainSettings(0.1, 1)
    for per_image, num_steps, field in ((1, 100, "chains_per_image"), (2, 5, "8 steps")):
        settings = SamplerSettings(chain, chain, chains_per_image=per_image)
        with pytest.raises(ValueError, match=field):
            convergence.long_traces(model, params, x, None, None, settings, num_steps)
