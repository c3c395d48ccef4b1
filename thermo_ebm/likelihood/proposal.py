"""What the estimates of all images of a model share: proposal, metric, and the prior's constant.

q(z | x) = N(m(x), C) is the linear estimate of z from x (`sampling/linear_reference.py`), of pairs
that are simulated from the model under a fixed key: W from half of them, C from the errors of the
other half. G = E[J' F J], J the generator's Jacobian and F the Fisher information of its outputs,
is the mean curvature of the log-likelihood at draws of the prior, which are exact posterior states
of their own images.
log Z_alpha, with p_alpha = exp(f) p_0 / Z_alpha, is estimated by annealed SMC from p_0.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.likelihood import particles
from thermo_ebm.likelihood.particles import Effort, Problem
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.models.latent_ebm import LatentEBM, observed_only
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling import path as paths
from thermo_ebm.sampling.chunks import map_in_chunks
from thermo_ebm.sampling.kernels import Point, Target
from thermo_ebm.sampling.linear_reference import LinearReference, Pairs
from thermo_ebm.types import Array, Params, PRNGKey

# The least variance of q in any direction, as a fraction of sigma_0^2.
LEAST_VARIANCE = 1e-6
PRIOR_ISLANDS = 16
_PRIOR_PILOT_CHAINS = 256
_CHUNK = 512  # pairs whose images exist at once
_STORED_NUMBERS = 2**24  # of images of prior draws that are stored


class PriorConstant(NamedTuple):
    """log Z_alpha in nats, and how well the prior's chains mix; scalars."""

    log_z: Array
    stderr: Array
    effective_sample_size: Array  # of all `prior_chains`
    r_hat: Array  # of chains of p_alpha, in the worst direction; 1 where exact draws are known


class Preparation(NamedTuple):
    """What the estimates of all images of a model share."""

    model: LatentEBM
    params: Params
    reference: LinearReference  # q
    axes: Array  # T with T' C^-1 T = I and T' (G + I / sigma_0^2) T = diag(curvatures), [D, D]
    curvatures: Array  # [D]
    prior: PriorConstant
    latents: Array  # draws of the prior, [num_pairs, D]
    outputs: Array  # of the generator at the first of these draws, [at most num_pairs, ...]
    observed: Array | None = None  # which data values are observed, bool [*image_shape]; None: all

    @property
    def observed_model(self) -> LatentEBM:
        """The model of the observed data values alone."""
        return observed_only(self.model, self.observed)

    def hide(self, images: Array) -> Array:
        """The images with 0 in place of the values that are not observed."""
        return images if self.observed is None else jnp.where(self.observed, images, 0.0)


def prepare(
    model: LatentEBM,
    params: Params,
    image_shape: tuple[int, ...],
    settings: LikelihoodSettings,
    observed: Array | None = None,
) -> Preparation:
    """Proposal, metric and log Z_alpha of a model, under a fixed key; compiled once.

    Args:
      model: the model.
      params: alpha and beta.
      image_shape: of an image.
      settings: the estimator.
      observed: which data values of every image are observed, bool [*image_shape]; None: all.
    """
    # The key is an argument: of a constant, XLA would draw all random numbers when it compiles.
    key = jax.random.key(0)
    return prepare_from(model, params, key, image_shape, settings.compiled(), observed)


@partial(jax.jit, static_argnames=("model", "image_shape", "settings"))
def prepare_from(
    model: LatentEBM,
    params: Params,
    key: PRNGKey,
    image_shape: tuple[int, ...],
    settings: LikelihoodSettings,
    observed: Array | None = None,
) -> Preparation:
    """The same under another key, for programs that are compiled as a whole."""
    prior_key, pair_key, probe_key = jax.random.split(key, 3)
    latents, constant = draw_prior(model, params["prior"], prior_key, settings)
    outputs = map_in_chunks(lambda z: model.generator(params["generator"], z), latents, _CHUNK)
    keys = jax.random.split(pair_key, len(latents))
    part = observed_only(model, observed)
    num_observed = None if observed is None else jnp.maximum(observed.sum(), 1)
    pairs = paths.simulate_pairs(part.likelihood, latents, outputs, keys)
    reference = _fit(model, pairs, num_observed)
    curvature = _curvature(part, params, latents[-settings.num_probes :], probe_key)
    cold = curvature + jnp.eye(model.latent_dim) / model.prior_sigma**2
    values, vectors = jnp.linalg.eigh(reference.root @ cold @ reference.root)
    axes, curvatures = reference.root @ vectors, jnp.maximum(values, 1e-6)
    stored = outputs[: max(_STORED_NUMBERS // math.prod(outputs.shape[1:]), 1)]
    return Preparation(
        model, params, reference, axes, curvatures, constant, latents, stored, observed
    )


def prior_problem(model: LatentEBM, alpha: Any) -> Problem:
    """The path from p_0 to exp(f) p_0, whose constant is Z_alpha."""
    prior, sigma, dim = model.prior, model.prior_sigma, model.latent_dim
    constant = prior.log_constant - dim / 2 * math.log(2 * math.pi * sigma**2)

    def evaluate(z: Array) -> Point:
        log_base = -jnp.sum(z**2, axis=-1) / (2 * sigma**2)

        def total(z: Array) -> tuple[Array, Array]:
            density = prior.log_density(alpha, z)
            return density.sum(), density

        (_, density), gradient = jax.value_and_grad(total, has_aux=True)(z)
        log_ratio = density - log_base - constant
        return Point(z, log_ratio, gradient + z / sigma**2, log_base, -z / sigma**2)

    def target(temperature: Array, chains: int) -> Target:
        factors = sigma * jnp.eye(dim)[None]
        return Target(evaluate, jnp.zeros_like, jnp.repeat(temperature, chains), factors)

    return Problem(target, lambda noise: sigma * noise, jnp.zeros(1, jnp.int32), dim)


def draw_prior(
    model: LatentEBM, alpha: Any, key: PRNGKey, settings: LikelihoodSettings
) -> tuple[Array, PriorConstant]:
    """Draws of p_alpha [num_pairs, D], and log Z_alpha; to be compiled."""
    prior, num, chains = model.prior, settings.num_pairs, settings.prior_chains
    problem = prior_problem(model, alpha)
    keys = jax.random.split(key, 4)
    if prior.exact_sample is None or prior.log_normalizer is None:
        effort = Effort(chains, PRIOR_ISLANDS, kernel=settings.moves())
        few = effort._replace(
            chains=_PRIOR_PILOT_CHAINS, most_temperatures=settings.pilot_temperatures
        )
        schedule = particles.pilot(problem, keys[0], few)
        temperatures = jnp.full(1, settings.prior_temperatures)
        schedule = schedule._replace(num_temperatures=temperatures)
        annealed = particles.anneal(problem, schedule, keys[1], effort)
    zero, unit, all_chains = jnp.zeros(()), jnp.ones(()), jnp.full((), float(chains))
    if prior.log_normalizer is not None:
        constant = PriorConstant(
            prior.log_normalizer(alpha) - prior.log_constant, zero, all_chains, unit
        )
    else:
        size = annealed.effective_sample_size[0]
        constant = PriorConstant(annealed.log_z[0], annealed.stderr[0], size, unit)
    if prior.exact_sample is not None:
        return prior.exact_sample(alpha, jax.random.split(keys[2], num)), constant
    rows = jax.random.categorical(keys[2], annealed.log_weight[0], shape=(chains,))
    start, settled = annealed.z[rows], settings.prior_trajectories
    length = -(-num // chains) * settled
    moves = effort._replace(trajectories=length)
    path = particles.continued(problem, schedule, keys[3], start, moves)
    latents = path[settled - 1 :: settled].reshape(-1, model.latent_dim)[:num]
    return latents, constant._replace(r_hat=worst_r_hat(path))


def worst_r_hat(states: Array) -> Array:
    """The potential scale reduction of chains in their worst direction (Gelman & Rubin 1992).

    Args:
      states: [num, chains, latent_dim].
    """
    num, chains, dim = states.shape
    means = states.mean(axis=0)
    within = jnp.einsum("tci,tcj->ij", states - means, states - means) / (num - 1) / chains
    centred = means - means.mean(axis=0)
    between = centred.T @ centred / (chains - 1)
    inverse = jnp.linalg.inv(jnp.linalg.cholesky(within + 1e-6 * jnp.eye(dim)))
    largest = jnp.linalg.eigvalsh(inverse @ between @ inverse.T)[-1]
    return jnp.sqrt((num - 1) / num + largest)


def _fit(model: LatentEBM, pairs: Pairs, num_observed: Array | None) -> LinearReference:
    """q of simulated pairs: W from half of them, C from the errors of the other half."""
    half = len(pairs.z) // 2
    before = linear_reference.prior_moments(
        model.latent_dim, pairs.mean.shape[1], model.prior_sigma
    )

    def fit(moments: linear_reference.PairMoments) -> LinearReference:
        least = model.likelihood.least_variance
        return linear_reference.fit(moments, model.prior_sigma, least, num_observed)

    def sums(reference: LinearReference, part: slice) -> linear_reference.PairSums:
        some = jax.tree.map(lambda leaf: leaf[part], pairs)
        return linear_reference.pair_sums(reference, some, jnp.ones(half))

    first = sums(fit(before), slice(0, half))
    averages = [leaf / half for leaf in first[1:]]
    reference = fit(linear_reference.PairMoments(jnp.ones((), jnp.int32), *averages))
    errors = sums(reference, slice(half, 2 * half)).error_products / half
    values, vectors = jnp.linalg.eigh(errors)
    values = jnp.maximum(values, LEAST_VARIANCE * model.prior_sigma**2)
    return reference._replace(
        root=(vectors * jnp.sqrt(values)) @ vectors.T,
        precision=(vectors / values) @ vectors.T,
        log_det=jnp.sum(jnp.log(values)),
    )


def _curvature(model: LatentEBM, params: Params, latents: Array, key: PRNGKey) -> Array:
    """G from one random probe at each of the latents, [D, D]."""
    num = len(latents)
    chunk = math.gcd(num, _CHUNK)

    def products(arrays: tuple[Array, PRNGKey]) -> Array:
        z, keys = arrays
        return paths.curvature_products(model, params, z, keys, jnp.full(chunk, 1 / num))

    keys = jax.random.split(key, num).reshape(-1, chunk)
    return jax.lax.map(products, (latents.reshape(-1, chunk, latents.shape[1]), keys)).sum(axis=0)
