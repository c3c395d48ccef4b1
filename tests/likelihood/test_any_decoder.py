"""log p(x) of decoders, likelihoods and priors of any kind, against sums over images and grids."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import thermo_ebm as te
from thermo_ebm.likelihood import LikelihoodSettings, bits_per_dim
from thermo_ebm.models.likelihoods import bernoulli, discretized_logistic, gaussian

SETTINGS = LikelihoodSettings(
    error=0.1, batch_size=16, num_pairs=2048, num_probes=512, prior_chains=1024
)
AXIS = np.linspace(-6, 6, 601)


def decoder(weights, z):
    return jnp.tanh(z @ weights["first"]) @ weights["second"] + weights["bias"]


def weights(dim, latent_dim=2, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"first": (latent_dim, 5), "second": (5, dim), "bias": (dim,)}
    return {name: jnp.float32(scale * rng.normal(size=shape)) for name, shape in shapes.items()}


def two_wells(alpha, z):
    """A log-density that is not normalised."""
    squares = [jnp.sum((z - center) ** 2, axis=-1) / 0.5 for center in (-alpha, alpha)]
    return 3.0 + jnp.logaddexp(*(-square for square in squares))


def truth(likelihood, params, x, log_prior=None):
    """By a sum over a grid of both latents, in float64."""
    z = jnp.float32(np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2))
    density = -jnp.sum(z**2, axis=1) / 2 if log_prior is None else log_prior(params["prior"], z)
    log_p = np.asarray(density, np.float64)
    log_p -= special.logsumexp(log_p)
    outputs = decoder(params["generator"], z)
    log_density = jax.jit(likelihood.log_density)
    values = [log_density(jnp.broadcast_to(image, outputs.shape), outputs) for image in x]
    return special.logsumexp(np.asarray(values, np.float64) + log_p, axis=1)


CASES = {
    "gaussian": (gaussian(0.3), None),
    "bernoulli": (bernoulli(), None),
    "discretized_logistic": (discretized_logistic(0.05), None),
    "any_prior": (bernoulli(), two_wells),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_against_a_grid(name):
    likelihood, log_prior = CASES[name]
    scale = {"bernoulli": 1.5, "any_prior": 1.5}.get(name, 0.2)
    params = {"prior": jnp.float32(0.7), "generator": weights(12, scale=scale)}
    rng = np.random.default_rng(1)
    outputs = decoder(params["generator"], jnp.float32(rng.normal(size=(16, 2))))
    x = likelihood.sample(jax.random.split(jax.random.key(2), 16), outputs)
    model = te.from_decoder(decoder, 2, likelihood, log_prior)
    result = te.log_marginal_likelihood(model, params, x, jax.random.key(0), SETTINGS)
    error = result.log_marginal_likelihood - truth(likelihood, params, x, log_prior)
    assert result.verdict.reliable, result.verdict.sentence()
    assert np.abs(error).max() < 0.5
    assert abs(error.mean()) < 4 * result.mean_stderr + 0.01


@pytest.mark.slow
def test_probabilities_of_all_images_add_up_to_one():
    """Of a decoder of five binary values with one latent: no quadrature, no normal constant."""
    model = te.from_decoder(decoder, 1, bernoulli())
    params = {"prior": (), "generator": weights(5, latent_dim=1, scale=1.5)}
    x = np.float32(list(itertools.product([-1, 1], repeat=5)))
    result = te.log_marginal_likelihood(model, params, x, jax.random.key(0), SETTINGS)
    total = special.logsumexp(result.log_marginal_likelihood)
    share = np.exp(result.log_marginal_likelihood - total)
    assert abs(total) < 4 * np.sqrt(np.sum((share * result.stderr) ** 2)) + 1e-3


def test_bits_of_probabilities_and_of_densities():
    assert bits_per_dim(-10 * np.log(2), 5, levels=256) == pytest.approx(2.0)
    assert bits_per_dim(10 * np.log(127.5), 10) == pytest.approx(0.0)


def test_values_between_the_levels_are_refused():
    model = te.from_decoder(decoder, 2, discretized_logistic(0.05))
    params = {"prior": (), "generator": weights(3)}
    x = np.full((2, 3), 0.5, np.float32)
    with pytest.raises(ValueError, match=r"the value 0.5; .* 256 levels, evenly spaced from -1 to"):
        te.log_marginal_likelihood(model, params, x, jax.random.key(0))
