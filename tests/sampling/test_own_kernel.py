"""A kernel that is only registered runs wherever chains do: no code knows the kernels by name."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smooth_network as tiny

from thermo_ebm.evaluation.chains import convergence
from thermo_ebm.losses import LossSettings, check_settings, make_objective
from thermo_ebm.sampling import kernels
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.kernels import Info, Kernel
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule

SHIFT, ACCEPTANCE = 0.25, 0.75
KEY = jax.random.key(2)


@pytest.fixture(autouse=True)
def shift_kernel(monkeypatch):
    """ "shift" adds SHIFT to every latent at every step and says that it accepts 3 of 4."""

    def step(keys, state, target, step_size):
        moved = target.evaluate(state.z + SHIFT)
        return moved, Info(jnp.full(len(state.z), ACCEPTANCE))

    kernel = Kernel(lambda target, z: target.evaluate(z), step, adjusted=True)
    monkeypatch.setitem(kernels.KERNELS, "shift", kernel)


def chains(exchange_every=0, record=False, num_steps=4):
    chain = ChainSettings(0.1, num_steps, "shift")
    sampler = SamplerSettings(chain, chain, chains_per_image=2, exchange_every=exchange_every)
    batch = tiny.make_batch()
    run = partial(tempered_chains, tiny.make_model(), settings=sampler, record=record)
    ladder = Ladder(make_schedule("power", 3, 1.0))
    return jax.jit(run)(tiny.parameters(), batch, ladder, key=KEY)


def test_own_kernel_moves_training_chains():
    first, last = chains(num_steps=0), chains()
    np.testing.assert_allclose(last.latents, first.latents + 4 * SHIFT, rtol=1e-5)
    np.testing.assert_allclose(last.acceptance, ACCEPTANCE)


def test_own_kernel_moves_exchanging_and_traced_chains():
    first, moved = chains(num_steps=0), chains(exchange_every=1, record=True)
    trace = moved.trace
    np.testing.assert_allclose(trace.latents[0], first.latents + SHIFT, rtol=1e-5)
    np.testing.assert_allclose(trace.latents[-1], moved.latents, rtol=1e-6)
    np.testing.assert_allclose(trace.acceptance, ACCEPTANCE)
    # States are exchanged, and otherwise only shifted: the same values at other temperatures.
    assert (trace.source != jnp.arange(1, 4)[:, None, None]).any()
    before, after = (np.sort(z[1:], axis=0) for z in (first.latents, moved.latents))
    np.testing.assert_allclose(after, before + 4 * SHIFT, rtol=1e-5)


def test_own_kernel_has_convergence_diagnostics():
    chain = ChainSettings(0.1, 1, "shift")
    sampler = SamplerSettings(chain, chain, chains_per_image=2)
    batch = tiny.make_batch()
    ladder = Ladder(make_schedule("power", 2, 1.0))
    params = jax.tree.map(jnp.float32, tiny.parameters())
    traces = convergence.long_traces(
        tiny.make_model(), params, batch.images, ladder, KEY, sampler, 8
    )
    rows = convergence.convergence_table(traces, ladder.temperatures, (8,))
    assert [row.acceptance for row in rows] == pytest.approx([ACCEPTANCE] * 3)


def test_own_kernel_trains_an_objective():
    chain = ChainSettings(0.1, 2, "shift")
    sampler = SamplerSettings(chain, chain, chains_per_image=1)
    objective = make_objective(tiny.make_model(), sampler, LossSettings(3, correction="none"))
    loss = jax.jit(lambda params, batch: objective.loss(params, batch, KEY, None))
    _, terms = loss(tiny.parameters(), tiny.make_batch())
    np.testing.assert_allclose(terms.acceptance, ACCEPTANCE, rtol=1e-6)
    # It decides on its moves, so that nothing is differentiated through it.
    with pytest.raises(ValueError, match="'langevin' needs unadjusted chains"):
        check_settings(LossSettings(3, prior_gradient="langevin", correction="none"), sampler)
