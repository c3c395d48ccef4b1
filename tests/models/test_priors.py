"""Priors by name: exact constants and draws; in losses, log p(x) and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from scipy import integrate, stats

from thermo_ebm.evaluation.run import load_run
from thermo_ebm.likelihood import LikelihoodSettings, log_marginal_likelihood
from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.models.prior import PRIORS
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.sampling.samples import sample_latents
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.train.loop import Outcome
from thermo_ebm.types import make_batch

SIGMA = 0.7
SMALL = {
    "channels": 1,
    "latent_dim": 3,
    "prior_features": 6,
    "prior_sigma": SIGMA,
    "generator_features": 2,
    "generator_widths": (),
    "generator_strides": (1,),
}
EXACT = tuple(name for name in PRIORS if name != "mlp")
SETTINGS = LossSettings(num_temperatures=2, correction="none")
CHAIN = ChainSettings(0.1, 3)
SAMPLER = SamplerSettings(CHAIN, CHAIN, chains_per_image=2)


def model_of(name, **changes):
    return make_model(**SMALL | {"prior_name": name, "prior_activation": "gelu"} | changes)


def parameters(model, scale=2.0):
    """Tilts that are far from zero."""
    params = model.init(jax.random.key(1))
    return params | {"prior": jax.tree.map(lambda leaf: scale * leaf, params["prior"])}


def images(num=4):
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (num, 4, 4, 1))
    return jnp.float32(x)


def first_marginal(model, alpha, axis):
    """The normalised weights of z_0 on an axis, in double precision; dimensions are independent."""
    z = jnp.zeros((len(axis), 3)).at[:, 0].set(jnp.float32(axis))
    values = np.float64(jax.jit(model.prior.log_density)(alpha, z))
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def test_factorised_constant_is_that_of_the_density_over_all_dimensions():
    model = model_of("factorized")
    alpha = parameters(model)["prior"]
    axis = np.linspace(-5, 5, 101)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    values = np.float64(jax.jit(model.prior.log_density)(alpha, jnp.float32(cube)))
    expected = np.log(np.exp(values).sum()) + 3 * np.log(axis[1] - axis[0])
    assert abs(expected - model.prior.log_constant) > 0.1  # the tilt has a constant
    np.testing.assert_allclose(model.prior.log_normalizer(alpha), expected, atol=2e-5)


def test_factorised_draws_have_the_marginals_of_the_density():
    model = model_of("factorized")
    alpha, num = parameters(model)["prior"], 20_000
    keys = jax.random.split(jax.random.key(2), num)
    z = np.asarray(jax.jit(model.prior.exact_sample)(alpha, keys), np.float64)
    axis = np.linspace(-8 * SIGMA, 8 * SIGMA, 4001)
    share = first_marginal(model, alpha, axis)
    cumulative = integrate.cumulative_trapezoid(share, initial=0)
    cumulative /= cumulative[-1]
    test = stats.kstest(z[:, 0], lambda at: np.interp(at, axis, cumulative))
    assert test.pvalue > 0.01
    # The same test refuses the prior without its tilt.
    assert stats.kstest(z[:, 0], stats.norm(scale=SIGMA).cdf).pvalue < 1e-6
    mean = share @ axis
    variance = share @ (axis - mean) ** 2
    assert abs(z[:, 0].mean() - mean) < 4 * np.sqrt(variance / num)
    assert abs(z[:, 0].var() - variance) < 6 * variance / np.sqrt(num)
    # Dimensions are independent.
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 4 / np.sqrt(num)


def test_factorised_draws_are_differentiable():
    model = model_of("factorized")
    params = parameters(model)
    keys = jax.random.split(jax.random.key(3), 4096)

    @jax.jit
    def mean(scale):
        ((name, tilts),) = params["prior"].items()
        alpha = {name: tilts | {"height": scale * tilts["height"]}}
        return model.prior.exact_sample(alpha, keys)[:, 0].mean()

    step = 0.05
    numerical = (mean(1 + step) - mean(1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(mean)(1.0), numerical, rtol=0.02)
    assert abs(numerical) > 0.01


@pytest.mark.parametrize("name", EXACT)
def test_no_chain_runs_at_the_prior(name):
    model = model_of(name)
    params, x = parameters(model), images()
    chains = ladder(model, params, x, SAMPLER)
    assert (chains.acceptance[0] == 1).all()
    again = ladder(model, params, x, SAMPLER._replace(prior=ChainSettings(0.3, 9)))
    np.testing.assert_array_equal(chains.latents, again.latents)

    def latents(settings):
        return sample_latents(model, params, jax.random.key(5), 6, settings)

    settings = CHAIN._replace(persistent=True, adapt=True)
    np.testing.assert_array_equal(latents(settings), latents(ChainSettings(0.1, 0)))


def ladder(model, params, x, sampler):
    """Chains at t = 0, 1/2 and 1."""
    schedule = make_schedule("power", 2, 1.0)
    run = jax.jit(functools.partial(tempered_chains, model, settings=sampler))
    return run(params, make_batch(x), Ladder(schedule), key=jax.random.key(4))


def test_gaussian_is_a_tilt_of_zero():
    """Densities and starts to the bit; chains above t = 0 up to the order of rounding."""
    gaussian, mlp = model_of("gaussian"), model_of("mlp")
    params = mlp.init(jax.random.key(1))
    zero = params | {"prior": jax.tree.map(jnp.zeros_like, params["prior"])}
    none = params | {"prior": {}}
    keys = jax.random.split(jax.random.key(6), 8)
    z = gaussian.prior.exact_sample({}, keys)
    np.testing.assert_array_equal(z, mlp.prior.sample_reference(keys))
    np.testing.assert_array_equal(
        gaussian.prior.log_density({}, z), mlp.prior.log_density(zero["prior"], z)
    )
    assert gaussian.prior.log_constant == mlp.prior.log_constant
    chains, expected = (
        ladder(model, params, images(), SAMPLER)
        for model, params in ((gaussian, none), (mlp, zero))
    )
    np.testing.assert_allclose(chains.latents[1:], expected.latents[1:], rtol=1e-4, atol=1e-6)
    assert not np.allclose(chains.latents[0], expected.latents[0])


LOSSES = {
    "vanilla": None,
    "reweighted": SETTINGS,
    "linear": SETTINGS._replace(reference="linear"),
    "langevin": SETTINGS._replace(prior_gradient="langevin", generator_gradient="langevin"),
}


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        pytest.param(name, loss, marks=() if quick else pytest.mark.slow)
        for name in EXACT
        for loss in LOSSES
        for quick in [name == "factorized" and loss == "linear"]
    ],
)
def test_every_loss_and_reference(name, loss):
    model = model_of(name)
    params, batch = parameters(model), make_batch(images())
    sampler = SAMPLER
    if loss in ("reweighted", "linear"):
        sampler = SAMPLER._replace(exchange_every=1)

    def value(params):
        if LOSSES[loss] is None:
            return vanilla_loss(model, params, batch, jax.random.key(8), sampler)[0]
        key = jax.random.key(8)
        return thermodynamic_loss(model, params, batch, key, sampler, LOSSES[loss])[0]

    total, grads = jax.jit(jax.value_and_grad(value))(params)
    assert np.isfinite(total)
    for group in grads.values():
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(group))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["prior"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_log_p_of_an_exact_prior_is_that_of_its_quadrature(name):
    """In one latent dimension, with log Z exact on both sides."""
    model = model_of(name, latent_dim=1, likelihood_sigma=0.5)
    params, x = parameters(model), images(2)
    axis = jnp.linspace(-6 * SIGMA, 6 * SIGMA, 4001)[:, None]
    log_prior = model.prior.log_density(params["prior"], axis)
    log_z = jax.nn.logsumexp(log_prior) + jnp.log(axis[1, 0] - axis[0, 0])
    np.testing.assert_allclose(model.prior.log_normalizer(params["prior"]), log_z, atol=1e-4)
    outputs = model.generator(params["generator"], axis)
    for image in x:
        log_likelihood = model.likelihood.log_density(
            jnp.broadcast_to(image, outputs.shape), outputs
        )
        expected = jax.nn.logsumexp(log_likelihood + log_prior) + jnp.log(axis[1, 0] - axis[0, 0])
        result = log_marginal_likelihood(
            model, params, image[None], jax.random.key(9), LikelihoodSettings(error=0.02)
        )
        assert result.prior.stderr == 0
        np.testing.assert_allclose(result.log_marginal_likelihood[0], expected - log_z, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_a_run_trains_resumes_and_draws(name, tmp_path):
    changes = {
        "model__prior__name": name,
        "num_epochs": 2,
        "data__num_train": 60,
        "steps_per_dispatch": 3,
    }
    config = tiny.config(**changes)
    assert tiny.train(config, tmp_path / "straight") is Outcome.DONE
    assert tiny.train(config, tmp_path / "stopped", dispatches=1) is Outcome.INTERRUPTED
    assert tiny.train(config, tmp_path / "stopped") is Outcome.DONE
    tiny.assert_equal_runs(tmp_path / "straight", tmp_path / "stopped", **changes)
    assert all(np.isfinite(row["train_loss"]) for row in tiny.rows(tmp_path / "straight"))
    run = load_run(tmp_path / "straight")
    assert np.isfinite(run.sample(3, jax.random.key(0))).all()


def test_an_unknown_prior_is_one_line():
    with pytest.raises(ValueError, match="prior_name must be one of mlp, gaussian, factorized"):
        make_model(prior_name="normal")
