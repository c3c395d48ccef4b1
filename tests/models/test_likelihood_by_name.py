"""Likelihoods by name in a model: what the generator makes, losses, pictures and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from scipy import stats

from thermo_ebm.config import checks
from thermo_ebm.data import to_unit
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.losses import LossSettings, thermodynamic_loss
from thermo_ebm.models.latent_ebm import log_likelihood, make_model, mean_images
from thermo_ebm.models.likelihoods import LIKELIHOODS, learned_gaussian
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.sampling.samples import sample_images
from thermo_ebm.train.loop import Outcome
from thermo_ebm.types import make_batch

SMALL = {
    "channels": 1,
    "latent_dim": 3,
    "prior_features": 6,
    "generator_features": 2,
    "generator_widths": (),
    "generator_strides": (1,),
}
CHAIN = ChainSettings(0.02, 3)
SAMPLER = SamplerSettings(CHAIN, CHAIN, chains_per_image=2, exchange_every=1)


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


OTHERS = tuple(name for name in LIKELIHOODS if name != "gaussian")


@functools.cache
def model_of(name):
    return make_model(**SMALL, likelihood_name=name)


def images(name, num=6):
    x = np.random.default_rng(0).integers(0, 256, (num, 4, 4, 1))
    if name == "bernoulli":
        x = 255 * (x > 127)
    return jnp.float32(x / 127.5 - 1)


def test_learned_gaussian_is_a_gaussian_that_begins_at_sigma():
    model = model_of("learned_gaussian")
    params, x = model.init(jax.random.key(0)), images("")
    z = jax.random.normal(jax.random.key(1), (6, 3))
    outputs = model.generator(params["generator"], z)
    assert outputs.shape == (6, 4, 4, 2)
    fixed = model_of("gaussian")
    beta = {name: leaf for name, leaf in params["generator"].items() if name != "~"}
    np.testing.assert_array_equal(outputs[..., :1], fixed.generator(beta, z))
    np.testing.assert_allclose(
        log_likelihood(model, params["generator"], x, z),
        log_likelihood(fixed, beta, x, z),
        rtol=1e-5,
    )
    np.testing.assert_array_equal(
        model.likelihood.mean(outputs), mean_images(model, params["generator"], z)
    )
    np.testing.assert_allclose(model.likelihood.variance(outputs), 0.3**2, rtol=1e-5)


def test_learned_gaussian_has_the_fisher_information_of_its_draws():
    likelihood = learned_gaussian()
    outputs = jnp.array([0.2, -1.1]).reshape(1, 1, 1, 2)
    repeated = jnp.repeat(outputs, 20_000, axis=0)
    x = likelihood.sample(jax.random.split(jax.random.key(2), len(repeated)), repeated)
    sigma = np.sqrt(np.exp(-2.2) + 1e-4)
    assert stats.kstest(np.asarray(x).ravel(), stats.norm(0.2, sigma).cdf).pvalue > 0.01
    scores = jax.grad(lambda g: likelihood.log_density(x, g).sum())(repeated)
    measured = (np.asarray(scores, float) ** 2).mean(axis=0).ravel()
    np.testing.assert_allclose(measured, likelihood.information(outputs).ravel(), rtol=0.05)


@pytest.mark.parametrize("name", ["bernoulli", *slow("learned_gaussian", "discretized_logistic")])
def test_loss_from_the_linear_reference_and_samples(name):
    model = model_of(name)
    params, batch = model.init(jax.random.key(0)), make_batch(images(name))
    settings = LossSettings(num_temperatures=2, reference="linear", correction="none")

    @jax.jit
    def value(params):
        key = jax.random.key(3)
        return thermodynamic_loss(model, params, batch, key, SAMPLER, settings)[0]

    total, grads = jax.value_and_grad(value)(params)
    assert np.isfinite(total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["generator"]))
    samples = sample_images(model, params, jax.random.key(4), 5, CHAIN)
    assert samples.shape == (5, 4, 4, 1)
    assert np.abs(samples).max() <= 1


def test_only_black_and_white_images_have_a_bernoulli_likelihood():
    config = tiny.config(model__likelihood__name="bernoulli")
    with pytest.raises(UserError, match=r"model.likelihood.name=bernoulli: .* data.binarize=True"):
        checks.check(config)
    checks.check(tiny.config(model__likelihood__name="bernoulli", data__binarize=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_run_trains_resumes_draws_and_reconstructs(name, tmp_path):
    changes = {"model__likelihood__name": name, "num_epochs": 2, "data__num_train": 60}
    changes |= {"data__binarize": name == "bernoulli", "steps_per_dispatch": 3}
    config = tiny.config(**changes)
    assert tiny.train(config, tmp_path / "straight") is Outcome.DONE
    assert tiny.train(config, tmp_path / "stopped", dispatches=1) is Outcome.INTERRUPTED
    assert tiny.train(config, tmp_path / "stopped") is Outcome.DONE
    tiny.assert_equal_runs(tmp_path / "straight", tmp_path / "stopped", **changes)
    run = load_run(tmp_path / "straight")
    x = to_unit(run.validation_images()[:3])
    assert ({*np.unique(x)} == {-1.0, 1.0}) == (name == "bernoulli")
    for made in (run.sample(3, jax.random.key(0)), run.reconstruct(x, jax.random.key(0))):
        assert made.shape == x.shape
        assert np.abs(made).max() <= 1
