"""Trajectories: the chains of training step by step, and what Metropolis would say of each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smooth_network as tiny

from thermo_ebm.sampling import exchange
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.traces import tempered_traces

KEY, TEMPERATURES = jax.random.key(3), jnp.array([0.0, 0.2, 0.6, 1.0])
NUM_STEPS = 7


def run(function, kernel, exchange_every, steps_of_chain=0, **more):
    one = ChainSettings(0.08, steps_of_chain, kernel)
    settings = SamplerSettings(one, one, chains_per_image=2, exchange_every=exchange_every)
    batch = tiny.make_batch()
    fn = partial(function, tiny.make_model(), settings=settings, **more)
    return jax.jit(fn)(
        tiny.parameters(),
        x=batch.images,
        positions=batch.position,
        temperatures=TEMPERATURES,
        key=KEY,
    )


@pytest.mark.parametrize(("kernel", "exchange_every"), [("ula", 0), ("ula", 2), ("mala", 1)])
def test_traces_end_where_chains_of_that_length_end(kernel, exchange_every):
    traces = run(tempered_traces, kernel, exchange_every, num_steps=NUM_STEPS)
    for num_steps in (3, NUM_STEPS):
        ends = run(tempered_chains, kernel, exchange_every, num_steps)
        np.testing.assert_allclose(traces.latents[num_steps - 1], ends.latents, atol=2e-5)
        source = traces.source[:num_steps] - 1
        trips = exchange.round_trips(source.reshape(num_steps, 3, -1)).reshape(2, -1).sum(axis=0)
        np.testing.assert_array_equal(trips, ends.round_trips)
    if kernel == "mala":
        acceptance = traces.acceptance.mean(axis=(0, 2))
        np.testing.assert_allclose(acceptance, ends.acceptance, rtol=1e-4)
    moved = (traces.source != jnp.arange(1, 4)[:, None, None]).any()
    assert bool(moved) == (exchange_every > 0)


def test_unadjusted_steps_have_the_acceptance_of_a_proposal_by_hand():
    """Each step's own ratio in float64, from the states before and after it."""
    traces = run(tempered_traces, "ula", 0, num_steps=NUM_STEPS)
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    t, step_size = TEMPERATURES[2], 0.08

    def log_density(z, x):
        likelihood = -((x - model.generator(params["generator"], z[None])[0]) ** 2).sum() / (
            2 * 0.4**2
        )
        prior = model.tilt(params["prior"], z[None])[0] - (z**2).sum() / (2 * 1.1**2)
        return t * likelihood + prior

    density = jax.vmap(jax.value_and_grad(log_density))
    before, after = traces.latents[3, 2, 1], traces.latents[4, 2, 1]
    (value, grad), (new_value, new_grad) = (density(z, batch.images) for z in (before, after))

    def proposal(start, gradient, end):
        return -((end - start - step_size * gradient) ** 2).sum(axis=-1) / (4 * step_size)

    ratio = new_value - value + proposal(after, new_grad, before) - proposal(before, grad, after)
    expected = np.exp(np.minimum(ratio, 0))
    np.testing.assert_allclose(traces.acceptance[4, 2, 1], expected, rtol=1e-3)
    assert expected.min() < 0.95
