"""The values of both losses, recomputed from their chains in numpy; masks and chunks."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
import smooth_network as tiny
from scipy import stats
from sklearn import covariance

from thermo_ebm.losses import LossSettings, check_settings, thermodynamic_loss, vanilla_loss
from thermo_ebm.randomness import chain_keys
from thermo_ebm.sampling.chains import (
    ChainSettings,
    SamplerSettings,
    posterior_chains,
    prior_chains,
    tempered_chains,
)
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.moments import VARIANCE_FLOOR
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Batch

pytestmark = pytest.mark.usefixtures("x64")

NUM = 6
# The paper's form: its quadrature, and divergences of latents pooled over the batch.
PAPER = LossSettings(4, quadrature="trapezium", correction="pooled_gaussian")
SAMPLER = SamplerSettings(
    prior=ChainSettings(0.2, 5), posterior=ChainSettings(0.05, 4), chains_per_image=1
)


def linear_batch(num=NUM, padding=0, seed=0):
    images = np.random.default_rng(seed).normal(size=(num + padding, lg.DATA_DIM))
    mask = (np.arange(num + padding) < num).astype(float)
    return Batch(jnp.asarray(images), jnp.arange(num + padding), jnp.asarray(mask))


@partial(jax.jit, static_argnums=(2, 3))
def thermodynamic(batch, key, settings, sampler=SAMPLER):
    return thermodynamic_loss(lg.make_model(), lg.parameters(), batch, key, sampler, settings)


@partial(jax.jit, static_argnums=(2,))
def vanilla(batch, key, sampler=SAMPLER):
    return vanilla_loss(lg.make_model(), lg.parameters(), batch, key, sampler)


def normal_logpdf(images, z):
    beta = lg.parameters()["generator"]
    mean = z @ beta["weights"].T + beta["bias"]
    return stats.norm.logpdf(images, mean, lg.LIKELIHOOD_SIGMA).sum(-1)


# Values.

CASES = {
    "default": (
        PAPER._replace(power=3.0),
        lambda t, e, f, b: np.trapezoid(e, t) + (f.sum() - b.sum()) / 2,
    ),
    "weighted": (
        PAPER._replace(power=0.3, kl_weight=2.0),
        lambda t, e, f, b: np.trapezoid(e, t) + f.sum() - b.sum(),
    ),
    "sum": (
        PAPER._replace(power=3.0, kl_form="sum"),
        lambda t, e, f, b: np.trapezoid(e, t) + (f.sum() + b.sum()) / 2,
    ),
    "none": (
        PAPER._replace(power=0.3, correction="none"),
        lambda t, e, f, b: np.trapezoid(e, t),
    ),
    "left": (
        PAPER._replace(power=3.0, quadrature="left"),
        lambda t, e, f, b: np.dot(np.diff(t), e[:-1]) + f.sum(),
    ),
    "right": (
        PAPER._replace(power=3.0, quadrature="right"),
        lambda t, e, f, b: np.dot(np.diff(t), e[1:]) - b.sum(),
    ),
}


@cache
def losses_of_all_cases():
    """Compiled together: most of them share their chains."""

    @jax.jit
    def run(batch, key):
        args = lg.make_model(), lg.parameters(), batch, key, SAMPLER
        return {name: thermodynamic_loss(*args, settings) for name, (settings, _) in CASES.items()}

    return run(linear_batch(), jax.random.key(0))


@jax.jit
def chains_at(temperatures, key):
    args = lg.parameters(), linear_batch(), Ladder(Schedule(temperatures)), key, SAMPLER
    return tempered_chains(lg.make_model(), *args).latents[:, 0]


@pytest.mark.parametrize("case", CASES)
def test_thermodynamic_loss_from_its_chains(case):
    settings, estimate = CASES[case]
    temperatures = (np.arange(5) / 4) ** settings.power
    z = np.asarray(chains_at(temperatures, jax.random.key(0)))
    expected = np.array([normal_logpdf(linear_batch().images, rows).mean() for rows in z])
    floor = VARIANCE_FLOOR * np.eye(3)
    laws = [lg.Gaussian(rows.mean(0), covariance.oas(rows)[0] + floor) for rows in z]
    forward = np.array([lg.kl(laws[i], laws[i + 1]) for i in range(4)])
    backward = np.array([lg.kl(laws[i + 1], laws[i]) for i in range(4)])

    loss, aux = losses_of_all_cases()[case]
    np.testing.assert_allclose(aux.temperatures, temperatures, rtol=1e-12)
    np.testing.assert_allclose(aux.expected_log_likelihood, expected, rtol=1e-9)
    if settings.correction == "none":
        forward, backward = np.full((2, 4), np.nan)
    np.testing.assert_allclose(aux.kl_forward, forward, rtol=1e-8)
    np.testing.assert_allclose(aux.kl_backward, backward, rtol=1e-8)
    np.testing.assert_allclose(
        loss, -estimate(temperatures, expected, forward, backward), rtol=1e-8
    )


def test_vanilla_loss_from_its_chains():
    batch, key, model, params = linear_batch(), jax.random.key(0), lg.make_model(), lg.parameters()
    # The prior's chains are set 0 and the posterior's set 1, each at every example's position.
    keys = [chain_keys(key, i, batch.position) for i in range(2)]
    run_prior = jax.jit(partial(prior_chains, model, settings=SAMPLER.prior))
    z_prior = np.asarray(run_prior(params["prior"], keys[0]).latents)
    at_one = partial(posterior_chains, temperatures=jnp.ones(NUM), settings=SAMPLER.posterior)
    run_posterior = jax.jit(partial(at_one, model))
    z_posterior = np.asarray(run_posterior(params, batch.images, keys=keys[1]).latents)

    def tilt(z):
        alpha = params["prior"]
        return (z @ alpha["linear"] - np.einsum("ni,ij,nj->n", z, alpha["quadratic"], z) / 2).mean()

    expected = normal_logpdf(batch.images, z_posterior).mean()
    loss, aux = vanilla(batch, key)
    np.testing.assert_allclose(aux.expected_log_likelihood, [np.nan, expected], rtol=1e-10)
    np.testing.assert_allclose(aux.tilt_posterior, tilt(z_posterior), rtol=1e-10)
    np.testing.assert_allclose(aux.tilt_prior, tilt(z_prior), rtol=1e-10)
    np.testing.assert_allclose(loss, -(expected + tilt(z_posterior) - tilt(z_prior)), rtol=1e-10)


# Masks, chunks, keys.


@pytest.mark.parametrize("loss", ["vanilla", "thermodynamic"])
def test_padding_changes_nothing(loss):
    complete, padded = linear_batch(), linear_batch(padding=2)
    wild = padded.images.at[NUM:].set(50.0).at[:NUM].set(complete.images)
    padded = padded._replace(images=wild, position=padded.position.at[NUM:].set(0))
    key = jax.random.key(0)
    if loss == "vanilla":
        results = [vanilla(batch, key) for batch in (complete, padded)]
    else:
        settings = PAPER._replace(power=0.3, kl_weight=2.0)
        results = [thermodynamic(batch, key, settings) for batch in (complete, padded)]
    for expected, value in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.slow
def test_chunks_of_images_change_neither_value_nor_gradient():
    batch, params, key = tiny.make_batch(), tiny.parameters(), jax.random.key(0)
    settings = PAPER._replace(prior_gradient="langevin", generator_gradient="langevin")

    @jax.jit
    def run(params):
        def loss(params, chunk):
            sampler = tiny.SAMPLER._replace(image_chunk=chunk)
            return thermodynamic_loss(tiny.make_model(), params, batch, key, sampler, settings)

        step = jax.value_and_grad(loss, has_aux=True)
        return step(params, 0), step(params, 2)

    for expected, value in zip(*map(jax.tree.leaves, run(params)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_chunks_bound_the_memory_of_the_gradient():
    width = 4096

    def wide(beta, z):
        return jnp.tanh(jnp.tanh(z @ beta["in"]) @ beta["out"]).reshape(-1, *tiny.IMAGE_SHAPE)

    model = tiny.make_model()._replace(generator=wide)
    beta = {"in": jnp.ones((3, width)), "out": jnp.ones((width, 4))}
    sampler = tiny.SAMPLER._replace(image_chunk=2)

    def memory(num):
        settings = PAPER._replace(prior_gradient="langevin", generator_gradient="langevin")

        def loss(params):
            args = model, params, tiny.make_batch(num), jax.random.key(0), sampler, settings
            return thermodynamic_loss(*args)[0]

        compiled = jax.jit(jax.grad(loss)).lower(tiny.parameters() | {"generator": beta}).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Eight images more: their latents, and not the hidden layer's activations.
    activations = 5 * width * 8
    assert (memory(12) - memory(4)) / 8 < activations / 20


@pytest.mark.parametrize("loss", ["vanilla", "thermodynamic"])
def test_precision_is_of_the_chains_alone(loss):
    dtypes = {"tilt": [], "generator": []}

    def recorded(name, fn):
        def wrapped(params, z):
            dtypes[name].append(str(z.dtype))
            return fn(params, z)

        return wrapped

    model = tiny.make_model()._replace(
        tilt=recorded("tilt", tiny.tilt), generator=recorded("generator", tiny.generator)
    )
    sampler = tiny.SAMPLER._replace(precision="bfloat16")
    args = tiny.make_batch(), jax.random.key(0), sampler
    if loss == "vanilla":
        loss_fn = partial(vanilla_loss, model)
        in_tilt = {"bfloat16", "float64"}
    else:
        args = *args, LossSettings(3, prior_gradient="none", correction="none")
        loss_fn = partial(thermodynamic_loss, model)
        in_tilt = {"bfloat16"}
    value, _ = jax.eval_shape(lambda params: loss_fn(params, *args), tiny.parameters())
    # Chains in bfloat16, the loss over them in the parameters' own type.
    assert set(dtypes["tilt"]) == in_tilt
    assert set(dtypes["generator"]) == {"bfloat16", "float64"}
    assert value.dtype == jnp.float64


def test_losses_are_means_over_the_batch_and_follow_the_key():
    single = vanilla(linear_batch(), jax.random.key(0))[0]
    assert vanilla(linear_batch(), jax.random.key(0))[0] == single
    assert vanilla(linear_batch(), jax.random.key(1))[0] != single
    # The same images and positions twice over: the mean, and not the sum.
    batch = linear_batch()
    twice = Batch(*(jnp.concatenate([leaf, leaf]) for leaf in batch))
    np.testing.assert_allclose(vanilla(twice, jax.random.key(0))[0], single, rtol=1e-12)


# Refusals.

UNCORRECTED = partial(LossSettings, correction="none")
UNADJUSTED, ADJUSTED = ChainSettings(0.1, 1), ChainSettings(0.1, 1, "mala")
LANGEVIN = UNCORRECTED(4, prior_gradient="langevin")
CHAINS = SamplerSettings(UNADJUSTED, UNADJUSTED, chains_per_image=1)


@pytest.mark.parametrize(
    ("settings", "sampler", "message"),
    [
        (UNCORRECTED(prior_gradient="exact"), CHAINS, "prior_gradient must be one of langevin, c"),
        (UNCORRECTED(generator_gradient="none"), CHAINS, "generator_gradient must be one of lang"),
        (LossSettings(correction="all"), CHAINS, "correction must be one of none, ratio"),
        (UNCORRECTED(quadrature="simpson"), CHAINS, "quadrature must be one of trapezium, left"),
        (UNCORRECTED(schedule="linear"), CHAINS, "schedule must be one of power, annealed_power"),
        (UNCORRECTED(kl_form="plus"), CHAINS, "kl_form must be one of difference, sum"),
        (UNCORRECTED(value="loss"), CHAINS, "value must be one of integral, surrogate"),
        (UNCORRECTED(), CHAINS._replace(prior=ChainSettings(1.0, 1, "nuts")), "kernel must be one"),
        (UNCORRECTED(), CHAINS._replace(chains_per_image=0), "chains_per_image must be at least"),
        (UNCORRECTED(3, quadrature="warped_simpson"), CHAINS, "needs an even num_temperatures"),
        (UNCORRECTED(kl_form="sum"), CHAINS, "kl_form 'sum' needs quadrature 'trapezium'"),
        (LossSettings(correction="ratio"), CHAINS, "needs chains_per_image of at least 2"),
        (UNCORRECTED(1), CHAINS._replace(exchange_every=1), "needs num_temperatures of at least"),
        (LANGEVIN, CHAINS._replace(exchange_every=2), "needs unadjusted chains without exchange"),
        (LANGEVIN, CHAINS._replace(prior=ADJUSTED), "needs unadjusted chains without exchange"),
        (LANGEVIN, CHAINS._replace(posterior=ADJUSTED), "needs unadjusted chains without exchange"),
        (
            UNCORRECTED(generator_gradient="langevin"),
            CHAINS._replace(exchange_every=2),
            "needs unadjusted chains without exchange",
        ),
        (LANGEVIN._replace(value="surrogate"), CHAINS, "'langevin' needs value 'integral'"),
    ],
)
def test_refuses_settings_that_do_not_fit_together(settings, sampler, message):
    check_settings(LANGEVIN, CHAINS)
    check_settings(
        UNCORRECTED(2),
        SamplerSettings(ADJUSTED, ADJUSTED, exchange_every=1, chains_per_image=1),
    )
    with pytest.raises(ValueError, match=message):
        check_settings(settings, sampler)
    with pytest.raises(ValueError, match=message):
        thermodynamic(linear_batch(), jax.random.key(0), settings, sampler)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": jnp.ones(NUM - 1)},
        {"position": jnp.arange(NUM + 1)},
        {"images": jnp.ones((NUM, lg.DATA_DIM), jnp.uint8)},
        {"mask": jnp.ones(NUM, bool)},
        {"images": jnp.ones((NUM, lg.DATA_DIM + 1))},
    ],
)
def test_refuses_batches_that_do_not_fit(change):
    batch = linear_batch()._replace(**change)
    for loss in (
        lambda: vanilla(batch, jax.random.key(0)),
        lambda: thermodynamic(batch, jax.random.key(0), UNCORRECTED(2)),
    ):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            loss()
