"""Chains of the model: their laws, what each chain depends on, their traces, their chunks."""

import functools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
import smooth_network as tiny
from sample_moments import standard_errors_off

from configs import digits_paper
from thermo_ebm.models.latent_ebm import log_power_posterior, log_prior
from thermo_ebm.models.latent_ebm import make_model as make_network
from thermo_ebm.randomness import chain_keys
from thermo_ebm.sampling import exchange
from thermo_ebm.sampling.chains import (
    ChainSettings,
    SamplerSettings,
    posterior_chains,
    prior_chains,
    tempered_chains,
)
from thermo_ebm.sampling.chunks import bind_in_chunks, map_in_chunks
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Batch, make_batch

KEY = jax.random.key(7)
TEMPERATURES = np.array([0.0, 0.1, 0.4, 0.7, 0.9, 1.0])


@partial(jax.jit, static_argnums=(4,))
def _tempered(x, positions, temperatures, key, sampler):
    model, params = tiny.make_model(), tiny.parameters()
    batch, ladder = Batch(x, positions, jnp.ones(len(x))), Ladder(Schedule(temperatures))
    return tempered_chains(model, params, batch, ladder, key, sampler)


def tempered(positions=None, x=None, temperatures=TEMPERATURES, key=KEY, **settings):
    """Latents [T, num, latent_dim] of the first chain of each image."""
    return all_chains(positions, x, temperatures, key, **settings).latents[:, 0]


def all_chains(positions=None, x=None, temperatures=TEMPERATURES, key=KEY, **settings):
    batch = tiny.make_batch()
    return _tempered(
        batch.images if x is None else x,
        batch.position if positions is None else positions,
        jnp.asarray(temperatures),
        key,
        tiny.SAMPLER._replace(**settings),
    )


# Laws.


def test_every_temperature_has_the_law_of_its_own_chain():
    params, x, num = lg.parameters(), lg.observation(), 10_000
    sampler = SamplerSettings(
        prior=ChainSettings(0.3, 12), posterior=ChainSettings(0.1, 9), chains_per_image=1
    )
    images = jnp.broadcast_to(jnp.float32(x), (num, lg.DATA_DIM))
    z = jax.jit(partial(tempered_chains, lg.make_model(), settings=sampler))(
        params, make_batch(images), Ladder(Schedule(jnp.float32(TEMPERATURES))), key=KEY
    ).latents[:, 0]
    for i, temperature in enumerate(TEMPERATURES):
        settings = sampler.prior if i == 0 else sampler.posterior
        law = lg.chain_law(*lg.natural(params, x, temperature), *settings[:2])
        assert standard_errors_off(np.asarray(z[i], np.float64), law) < 4
    # Temperatures share no noise: uncorrelated, |r| < 4.5 / sqrt(num) for 135 pairs.
    correlation = np.corrcoef(np.asarray(z).transpose(0, 2, 1).reshape(-1, num))
    blocks = correlation.reshape(6, 3, 6, 3)
    assert max(np.abs(blocks[i, :, j]).max() for i in range(6) for j in range(i)) < 0.045


def test_first_state_and_first_step_share_no_noise():
    model = lg.make_model()._replace(
        tilt=lambda alpha, z: (z**2).sum(-1) / (2 * lg.PRIOR_SIGMA**2)  # cancels p0: no drift
    )
    keys = chain_keys(KEY, 0, jnp.arange(20_000))
    z = np.asarray(prior_chains(model, {}, keys, ChainSettings(0.2, 1)).latents, np.float64)
    law = lg.Gaussian(np.zeros(3), (lg.PRIOR_SIGMA**2 + 0.4) * np.eye(3))
    assert standard_errors_off(z, law) < 4


@pytest.mark.usefixtures("x64")
def test_the_posterior_at_zero_is_the_prior():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    z = jax.random.normal(KEY, (5, 3))
    np.testing.assert_array_equal(
        log_power_posterior(model, params, batch.images, z, 0.0),
        log_prior(model, params["prior"], z),
    )
    keys, settings = chain_keys(KEY, 0, batch.position), tiny.SAMPLER.prior
    at_zero = partial(posterior_chains, temperatures=jnp.zeros(5), settings=settings)
    posterior = jax.jit(partial(at_zero, model))(params, batch.images, keys=keys).latents
    prior = jax.jit(partial(prior_chains, model, settings=settings))(params["prior"], keys).latents
    np.testing.assert_allclose(posterior, prior, rtol=1e-12)
    # And the first temperature of the schedule is it, with the prior's own settings.
    np.testing.assert_allclose(tempered()[0], prior, rtol=1e-12)


def test_prior_chains_cost_no_generator_evaluation():
    def never(beta, z):
        raise AssertionError("the generator was called")

    model = tiny.make_model()._replace(generator=never)
    keys = chain_keys(KEY, 0, jnp.arange(2))
    prior_chains(model, tiny.parameters()["prior"], keys, ChainSettings(0.1, 2))


# What a chain depends on.


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("settings", "all_chunks"),
    [
        ({}, [{"image_chunk": 2, "chain_chunk": 3}]),
        (
            {
                "posterior": ChainSettings(0.05, 3, "mala"),
                "chains_per_image": 2,
                "exchange_every": 1,
            },
            [{"image_chunk": 2}, {"chain_chunk": 7}],
        ),
    ],
)
def test_chunks_change_nothing(settings, all_chunks):
    unchunked = all_chains(**settings)
    for chunks in all_chunks:
        chex.assert_trees_all_close(all_chains(**chunks, **settings), unchunked, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_chain_is_the_same_however_the_batch_is_split():
    batch = tiny.make_batch(10)
    complete = tempered(batch.position, batch.images)
    parts = [tempered(batch.position[i : i + 5], batch.images[i : i + 5]) for i in (0, 5)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), complete, rtol=1e-12)
    order = np.array([3, 0, 9, 7, 4, 1, 2, 8, 6, 5])
    shuffled = tempered(batch.position[order], batch.images[order])
    np.testing.assert_allclose(shuffled, complete[:, order], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_chain_depends_on_its_own_image_key_and_temperature_alone():
    batch, complete = tiny.make_batch(), tempered()
    image = tempered(x=batch.images.at[2].set(0.9))
    position = tempered(positions=batch.position.at[2].set(77))
    rest = np.array([0, 1, 3, 4])
    for changed in (image, position):
        np.testing.assert_allclose(changed[:, rest], complete[:, rest], rtol=1e-12)
    np.testing.assert_allclose(image[0], complete[0], rtol=1e-12)  # the prior sees no image
    assert np.all(np.abs(image[1:, 2] - complete[1:, 2]).max(-1) > 1e-4)
    assert np.all(np.abs(position[:, 2] - complete[:, 2]).max(-1) > 1e-4)
    warmer = tempered(temperatures=np.array([0.0, 0.1, 0.5, 0.7, 0.9, 1.0]))
    same = np.array([0, 1, 3, 4, 5])
    np.testing.assert_allclose(warmer[same], complete[same], rtol=1e-12)
    assert np.abs(warmer[2] - complete[2]).min() > 0


def test_no_two_chains_are_alike():
    z = np.asarray(tempered(x=jnp.zeros((5, *tiny.IMAGE_SHAPE)), temperatures=np.zeros(6)))
    z = z[1:].reshape(-1, 3)  # one law, 25 chains
    distance = np.abs(z[:, None] - z[None]).max(-1)
    assert distance[~np.eye(25, dtype=bool)].min() > 1e-3
    assert np.abs(np.asarray(tempered(key=jax.random.key(8))) - np.asarray(tempered())).min() > 0


# Chains of an image.


def first_versions_chains(model, params, x, temperatures, key, sampler):
    """The chains that the first version ran, one per image and temperature, written out."""

    def chain(log_density, index, settings):
        of_temperature = jax.random.fold_in(key, index)
        positions = jnp.arange(x.shape[0])
        keys = jax.vmap(lambda position: jax.random.fold_in(of_temperature, position))(positions)

        def normal(k):
            folded = jax.vmap(lambda key: jax.random.fold_in(key, k))(keys)
            return jax.vmap(lambda key: jax.random.normal(key, (model.latent_dim,)))(folded)

        z, s = model.prior_sigma * normal(0), settings.step_size
        for k in range(1, settings.num_steps + 1):
            z = z + s * jax.grad(lambda z: log_density(z).sum())(z) + jnp.sqrt(2 * s) * normal(k)
        return z

    ends = [chain(lambda z: log_prior(model, params["prior"], z), 0, sampler.prior)]
    for index in range(1, len(temperatures)):
        density = partial(log_power_posterior, model, params, x, temperature=temperatures[index])
        ends.append(chain(lambda z, density=density: density(z=z), index, sampler.posterior))
    return jnp.stack(ends)


@pytest.mark.parametrize("steps", [0, 3])
def test_one_chain_per_image_is_the_first_versions(steps):
    sampler = SamplerSettings(
        ChainSettings(0.1, steps), ChainSettings(0.05, steps), chains_per_image=1
    )
    model, params = tiny.make_model(), jax.tree.map(jnp.float32, tiny.parameters())
    batch, temperatures = tiny.make_batch(), jnp.float32(TEMPERATURES[:3])
    x = jnp.float32(batch.images)
    before = jax.jit(partial(first_versions_chains, model, sampler=sampler))
    today = jax.jit(partial(tempered_chains, model, settings=sampler))
    expected = np.asarray(before(params, x, temperatures, KEY))
    batch, ladder = (
        Batch(x, batch.position, jnp.float32(batch.mask)),
        Ladder(Schedule(temperatures)),
    )
    latents = np.asarray(today(params, batch, ladder, key=KEY).latents[:, 0])
    if steps == 0:  # keys and first states, bit for bit
        np.testing.assert_array_equal(latents, expected)
    # Where networks are evaluated, sums may be in another order: a few units of the last place.
    np.testing.assert_allclose(latents, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_further_chains_leave_the_first_as_it_is_and_are_others():
    single, three = all_chains().latents, all_chains(chains_per_image=3).latents
    assert three.shape == (6, 3, 5, 3)
    np.testing.assert_allclose(three[:, 0], single[:, 0], rtol=1e-12)
    two = all_chains(chains_per_image=2).latents
    np.testing.assert_allclose(three[:, :2], two, rtol=1e-12)
    flat = np.asarray(three).reshape(-1, 3)
    distance = np.abs(flat[:, None] - flat[None]).max(-1)
    assert distance[~np.eye(len(flat), dtype=bool)].min() > 1e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", ["ula", "mala"])
def test_exchange_moves_whole_states_between_temperatures_of_a_chain(kernel):
    """One exchange, of the pairs (t_2, t_3) and (t_4, t_5), before the last of three steps."""
    posterior = ChainSettings(0.05, 3, kernel)
    settings = {"posterior": posterior, "chains_per_image": 2, "exchange_every": 2}
    exchanged, alone = all_chains(**settings), all_chains(**(settings | {"exchange_every": 0}))
    np.testing.assert_allclose(exchanged.latents[0], alone.latents[0], rtol=1e-12)  # the prior
    assert exchanged.swap_probability.shape == (4, 5)
    assert np.all((exchanged.swap_probability > 0) & (exchanged.swap_probability <= 1))
    assert not np.any(alone.swap_probability)
    moved = np.abs(exchanged.latents - alone.latents).max(-1) > 1e-6
    assert not moved[1].any()
    assert 0.05 < moved[2:].mean() < 1


def test_bfloat16_chains_are_close_to_float32():
    config = digits_paper.get_config()
    config.model.generator.update(features=16, widths=(2,), strides=(1, 2))
    model = make_network(config.model, config.data.channels)
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1), minval=-1, maxval=1)
    sampler = SamplerSettings(
        prior=ChainSettings(0.16, 40), posterior=ChainSettings(0.05, 10), chains_per_image=1
    )

    @jax.jit
    def both(params):
        return [
            tempered_chains(
                model,
                params,
                make_batch(x),
                Ladder(make_schedule("power", 2, 1.0)),
                KEY,
                sampler._replace(precision=precision),
            ).latents[:, 0]
            for precision in ("float32", "bfloat16")
        ]

    full, half = both(params)
    assert half.dtype == np.float32
    # bfloat16 keeps 8 bits (0.4 %), and every step adds its share of them: within 8 % of the
    # latents' size at t = 1, root mean square, and a quarter of that at the prior.
    size = np.sqrt(np.mean(full**2, axis=(1, 2)))
    error = np.sqrt(np.mean((half - full) ** 2, axis=(1, 2))) / size
    assert np.all(error > 1e-5)
    assert np.all(error < [0.02, 0.04, 0.08])


def test_map_in_chunks_over_a_tree():
    arrays = {"a": jnp.arange(7.0), "b": jnp.arange(14.0).reshape(7, 2)}

    def fn(tree):
        return tree["a"][:, None] * tree["b"]

    for chunk in (0, 1, 3, 7, 8):
        np.testing.assert_array_equal(map_in_chunks(fn, arrays, chunk), fn(arrays))


@pytest.mark.parametrize("chunk", [0, 1, 3, 4, 7, 8])
def test_a_function_bound_in_chunks_is_the_function(chunk):
    """With its derivatives, and mapped over several repetitions."""
    fixed = jax.random.normal(KEY, (2, 7, 3)), jnp.arange(14.0).reshape(2, 7)
    z = jax.random.normal(jax.random.key(1), (2, 7, 3))

    def fn(x, t, z):
        return t[:, None] * jnp.sin(x * z), z.sum(axis=1)

    def total(fixed, z, chunk):
        return sum(out.sum() for out in bind_in_chunks(fixed, chunk)(fn)(z))

    def values_and_gradients(chunk):
        values = jax.vmap(lambda fixed, z: bind_in_chunks(fixed, chunk)(fn)(z))(fixed, z)
        return values, jax.vmap(jax.grad(partial(total, chunk=chunk), argnums=(0, 1)))(fixed, z)

    chex.assert_trees_all_close(values_and_gradients(chunk), values_and_gradients(0), rtol=1e-6)
    values = bind_in_chunks((fixed[0][0], fixed[1][0]), chunk)(fn)(z[0])
    chex.assert_trees_all_close(values, fn(fixed[0][0], fixed[1][0], z[0]), rtol=1e-6)


def test_a_function_bound_in_chunks_never_takes_more_than_a_chunk():
    calls = []

    def fn(x, z):
        calls.append((x.shape[0], z.shape[0]))
        return x + z

    jax.make_jaxpr(bind_in_chunks((jnp.arange(380.0),), 128)(fn))(jnp.arange(380.0))
    assert set(calls) == {(127, 127)}


def test_chunks_run_one_after_another():
    calls = []

    def fn(a):
        calls.append(a.shape[0])
        return a

    jax.make_jaxpr(lambda a: map_in_chunks(fn, a, 3))(jnp.arange(7.0))
    assert max(calls) == 3


# Traces, and starts.


@functools.cache
def traced(kernel, exchange_every, num_steps):
    """The chains of `num_steps` steps with their trace, under ChainSettings(0.08, K, kernel)."""
    chain = ChainSettings(0.08, num_steps, kernel)
    sampler = SamplerSettings(chain, chain, chains_per_image=2, exchange_every=exchange_every)
    ladder = Ladder(Schedule(jnp.array([0.0, 0.2, 0.6, 1.0])))
    run = jax.jit(partial(tempered_chains, tiny.make_model(), settings=sampler, record=True))
    return run(tiny.parameters(), tiny.make_batch(), ladder, key=KEY)


@pytest.mark.parametrize(
    ("kernel", "exchange_every", "lengths"), [("ula", 0, (7,)), ("ula", 2, (3,)), ("mala", 1, (7,))]
)
def test_a_trace_ends_where_chains_of_its_length_end(kernel, exchange_every, lengths):
    trace = traced(kernel, exchange_every, 7).trace
    for num_steps in lengths:
        chain = ChainSettings(0.08, num_steps, kernel)
        ends = all_chains(
            temperatures=np.array([0.0, 0.2, 0.6, 1.0]),
            prior=chain,
            posterior=chain,
            chains_per_image=2,
            exchange_every=exchange_every,
        )
        np.testing.assert_allclose(trace.latents[num_steps - 1], ends.latents, atol=2e-5)
        source = trace.source[:num_steps] - 1
        trips = exchange.round_trips(source.reshape(num_steps, 3, -1)).reshape(2, -1).sum(axis=0)
        np.testing.assert_array_equal(trips, ends.round_trips)
    if kernel == "mala":
        acceptance = trace.acceptance.mean(axis=(0, 2))
        np.testing.assert_allclose(acceptance, ends.acceptance, rtol=1e-4)
    moved = (trace.source != jnp.arange(1, 4)[:, None, None]).any()
    assert bool(moved) == (exchange_every > 0)


def test_unadjusted_steps_have_the_acceptance_of_a_proposal_by_hand():
    """The log-ratio of each step from the states before and after it."""
    trace = traced("ula", 0, 7).trace
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    t, step_size = 0.6, 0.08

    def log_density(z, x):
        error = x - model.generator(params["generator"], z[None])[0]
        prior = model.tilt(params["prior"], z[None])[0] - (z**2).sum() / (2 * 1.1**2)
        return -t * (error**2).sum() / (2 * 0.4**2) + prior

    density = jax.jit(jax.vmap(jax.value_and_grad(log_density)))
    before, after = trace.latents[3, 2, 1], trace.latents[4, 2, 1]
    (value, gradient), (new_value, new_gradient) = (
        density(z, batch.images) for z in (before, after)
    )

    def proposal(start, gradient, end):
        return -((end - start - step_size * gradient) ** 2).sum(axis=-1) / (4 * step_size)

    ratio = new_value - value + proposal(after, new_gradient, before)
    ratio -= proposal(before, gradient, after)
    expected = np.exp(np.minimum(ratio, 0))
    np.testing.assert_allclose(trace.acceptance[4, 2, 1], expected, rtol=1e-3)
    assert expected.min() < 0.95


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("image_chunk", [0, 2])
def test_chains_start_where_they_are_told(image_chunk):
    batch, sampler = tiny.make_batch(), tiny.SAMPLER._replace(chains_per_image=2)
    start = jax.random.normal(jax.random.key(1), (6, 2, 5, 3))
    args = tiny.parameters(), batch, Ladder(Schedule(jnp.asarray(TEMPERATURES))), KEY

    def ends(steps, **more):
        settings = sampler._replace(
            prior=ChainSettings(0.05, steps),
            posterior=ChainSettings(0.05, steps),
            image_chunk=image_chunk,
        )
        run = partial(tempered_chains, tiny.make_model(), settings=settings, **more)
        return jax.jit(run)(*args).latents

    np.testing.assert_array_equal(ends(0, start=start), start)
    # By default from the reference prior, by step 0 of each chain's key.
    np.testing.assert_allclose(ends(2, start=ends(0)), ends(2), rtol=1e-12)


def test_chains_refuse_other_shapes():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    keys = chain_keys(KEY, 0, batch.position)
    with pytest.raises(AssertionError):
        posterior_chains(model, params, batch.images, jnp.ones(4), keys, ChainSettings(0.1, 1))
    with pytest.raises(AssertionError):
        tempered(temperatures=np.array(1.0))
