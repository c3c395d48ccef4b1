"""log p(x) of a batch of images by annealed SMC from a linear proposal that knows the image.

    log pi_s(z) = (1 - s) log q(z | x) + s [f(z) + log p_0(z) + log p(x | z)],    0 <= s <= 1
    log p(x) = log Z_x - log Z_alpha

On a linear-Gaussian model q is the posterior, and no chain need move. Chains move by `hmc` in the
metric (1 - s) C^-1 + s (G + I / sigma_0^2), along the schedule and with the step sizes of each
image (`particles.py`); `proposal.py` has q, G and Z_alpha.

An image x ~ p(x | z) that the model made comes with an exact sample z of its
posterior. Conditional SMC through this z estimates 1 / Z_x without bias, so that the log of its
estimate of Z_x is a stochastic upper bound where that of the estimate is a lower one (Grosse et al.
2015).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.likelihood import particles
from thermo_ebm.likelihood.particles import Effort, Normaliser, PathSchedule, Problem
from thermo_ebm.likelihood.proposal import Preparation
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling.chains import posterior_target
from thermo_ebm.sampling.kernels import Target
from thermo_ebm.sampling.path import Path
from thermo_ebm.types import Array, Params, PRNGKey

Values = Any  # an array [num] of JAX, or of numpy once it is fetched


class Scores(NamedTuple):
    """Means over an image's posterior, from the weighted chains at s = 1; [num] each."""

    reconstruction: Values  # |x - g(z)|^2 / (2 sigma_l^2); of others, -log p(x | z) + constant
    tilt: Values  # f_alpha(z)
    norm: Values  # |z|^2 / (2 sigma_0^2)


class Estimates(NamedTuple):
    """Estimates for each image, in nats; [num] each."""

    log_marginal_likelihood: Values  # log p(x)
    stderr: Values  # without the error of log Z_alpha, which all images share
    island_spread: Values  # largest less smallest log p(x) of an island
    effective_sample_size: Values  # of the M weights, the least over temperatures
    acceptance: Values  # of the moves
    prior_sampling: Values  # from draws of the prior alone, see `_prior_sampling`
    scores: Scores


# One key for each use, all independent: the estimate is unbiased given its schedule.
_PILOT, _RUN, _DESCENT, _CONDITIONAL = range(4)
_SETTLING = 10  # trajectories of draws at s = 1, which part the copies of a chain


@partial(jax.jit, static_argnames="settings")
def pilot(
    preparation: Preparation, images: Array, key: PRNGKey, settings: LikelihoodSettings
) -> PathSchedule:
    """The schedule and step sizes of each of the images [num, *image_shape]."""
    problem = posterior_problem(preparation, images)
    few = _effort(settings)._replace(
        chains=settings.pilot_chains, most_temperatures=settings.pilot_temperatures
    )
    return particles.pilot(problem, _key(key, _PILOT), few)


@partial(jax.jit, static_argnames="settings")
def estimate(
    preparation: Preparation,
    images: Array,
    schedule: PathSchedule,
    key: PRNGKey,
    settings: LikelihoodSettings,
) -> Estimates:
    """log p(x) of one batch of images; compiled once for every number of temperatures.

    An image's random numbers come from the key and the image's values, so that its estimate does
    not depend on the images beside it.

    Args:
      preparation: from `prepare`.
      images: [num, *image_shape].
      schedule: from `pilot` with the same key, and N of each image.
      key: consumed.
      settings: the estimator.
    """
    problem = posterior_problem(preparation, images)
    annealed = particles.anneal(problem, schedule, _key(key, _RUN), _effort(settings))
    return Estimates(
        log_marginal_likelihood=annealed.log_z - preparation.prior.log_z,
        stderr=annealed.stderr,
        island_spread=annealed.spread,
        effective_sample_size=annealed.effective_sample_size,
        acceptance=annealed.acceptance,
        prior_sampling=_prior_sampling(preparation, images),
        scores=_scores(preparation, images, annealed),
    )


@partial(jax.jit, static_argnames=("settings", "num"))
def draws(
    preparation: Preparation,
    images: Array,
    schedule: PathSchedule,
    key: PRNGKey,
    settings: LikelihoodSettings,
    num: int,
) -> Array:
    """Draws from the posterior of each image: weighted chains, resampled, then moved on.

    Args:
      preparation: from `prepare`.
      images: [num_images, *image_shape].
      schedule: from `pilot` with another key, and N of each image.
      key: consumed.
      settings: the estimator, with at least `num` chains per image.
      num: draws of each image.

    Returns:
      Latents [num_images, num, D].
    """
    problem, num_images = posterior_problem(preparation, images), len(images)
    run_key, row_key, order_key, move_key = jax.random.split(key, 4)
    annealed = particles.anneal(problem, schedule, run_key, _effort(settings))
    # Systematic: with equal weights, each chain is drawn at most once. The permutation keeps the
    # first draws from being those of the first island.
    share = jnp.cumsum(jax.nn.softmax(annealed.log_weight, axis=-1), axis=-1)
    uniforms = jax.random.uniform(row_key, (num_images, 1))
    points = (jnp.arange(num) + uniforms) / num * share[:, -1:]
    rows = jax.vmap(jnp.searchsorted)(share, points)
    rows = jnp.minimum(rows, share.shape[1] - 1)
    rows = jax.random.permutation(order_key, rows, axis=1)
    z = annealed.z.reshape(num_images, -1, problem.latent_dim)
    start = jnp.take_along_axis(z, rows[:, :, None], axis=1).reshape(num_images * num, -1)
    moves = _effort(settings)._replace(trajectories=_SETTLING)
    path = particles.continued(problem, schedule, move_key, start, moves)
    return path[-1].reshape(num_images, num, -1)


@partial(jax.jit, static_argnames=("model",))
def simulate(
    model: LatentEBM, params: Params, latents: Array, numbers: Array, key: PRNGKey
) -> Array:
    """Images x ~ p(x | z) [num, *image_shape]; those of a Gaussian are not clipped to [-1, 1].

    Args:
      model: the model.
      params: alpha and beta.
      latents: draws of the prior, [num, D].
      numbers: of the images, from which their noise comes, [num].
      key: consumed.
    """
    outputs = model.generator(params["generator"], latents)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
    return model.likelihood.sample(keys, outputs)


@partial(jax.jit, static_argnames=("settings", "capacity"))
def upper_bound(
    preparation: Preparation,
    images: Array,
    latents: Array,
    schedule: PathSchedule,
    key: PRNGKey,
    settings: LikelihoodSettings,
    capacity: int,
) -> tuple[Array, Array]:
    """Upper bounds on log p(x) of simulated images, [num], and their standard errors.

    Args:
      preparation: from `prepare`.
      images: from `simulate`.
      latents: the latents that made the images, [num, D].
      schedule: that of the estimate, with its N of each image.
      key: that of the estimate.
      settings: the estimator.
      capacity: at least the largest N.
    """
    problem = posterior_problem(preparation, images)
    effort = _effort(settings)._replace(most_temperatures=capacity)
    retained = particles.descend(problem, schedule, _key(key, _DESCENT), effort, latents)
    annealed = particles.anneal(problem, schedule, _key(key, _CONDITIONAL), effort, retained)
    return annealed.log_z - preparation.prior.log_z, annealed.stderr


def _key(key: PRNGKey, use: int) -> PRNGKey:
    return jax.random.split(key, 4)[use]


def _effort(settings: LikelihoodSettings) -> Effort:
    return Effort(
        settings.chains_per_image,
        settings.num_islands,
        settings.num_trajectories,
        settings.moves(),
    )


def posterior_problem(preparation: Preparation, images: Array) -> Problem:
    """The paths from q(z | x) to Z_alpha p(x, z) of images [num, *image_shape]."""
    model, params = preparation.observed_model, preparation.params
    reference, images = preparation.reference, preparation.hide(images)
    center = linear_reference.mean(reference, images)

    def target(temperature: Array, chains: int) -> Target:
        scale = (1 - temperature)[:, None] + temperature[:, None] * preparation.curvatures
        factors = preparation.axes.T / jnp.sqrt(scale)[:, :, None]
        repeated, t = jnp.repeat(images, chains, axis=0), jnp.repeat(temperature, chains)
        return posterior_target(model, params, repeated, t, path=Path(reference, factors))

    def draw(noise: Array) -> Array:
        repeated = jnp.repeat(center, len(noise) // len(center), axis=0)
        return linear_reference.draw(reference, repeated, noise)

    return Problem(target, draw, image_numbers(images), model.latent_dim)


def image_numbers(images: Array) -> Array:
    """A number for each image that depends on its values alone, uint32 [num]."""
    flat = images.reshape(images.shape[0], -1).astype(jnp.float32)
    words = jax.lax.bitcast_convert_type(flat, jnp.uint32)
    multipliers = jax.random.bits(jax.random.key(0), (flat.shape[1],)) | 1
    return jnp.sum((words ^ (words >> 15)) * multipliers, axis=1, dtype=jnp.uint32)


def _prior_sampling(preparation: Preparation, images: Array) -> Array:
    """An estimate of log p(x) without a chain and without its two largest terms, [num].

    It is far too low as a rule, but where it is higher than that of the chains they miss a mode:
    several draws of the prior explain the image better. A single one may by chance.
    """
    outputs = preparation.outputs

    def of_image(image: Array) -> Array:
        x = jnp.broadcast_to(image, (len(outputs), *image.shape))
        return jnp.sort(preparation.observed_model.likelihood.log_density(x, outputs))

    ordered = jax.lax.map(of_image, preparation.hide(images))
    return jax.nn.logsumexp(ordered[:, :-2], axis=1) - math.log(len(outputs))


def _scores(preparation: Preparation, images: Array, annealed: Normaliser) -> Scores:
    model, params, z = preparation.observed_model, preparation.params, annealed.z
    share = jax.nn.softmax(annealed.log_weight, axis=-1)

    def mean(values: Array) -> Array:
        return jnp.sum(share * values.reshape(share.shape), axis=1)

    repeated = jnp.repeat(preparation.hide(images), share.shape[1], axis=0)
    log_p = log_likelihood(model, params["generator"], repeated, z)
    num_values: int | Array = math.prod(images.shape[1:])
    if preparation.observed is not None:
        num_values = preparation.observed.sum()
    constant = num_values * model.likelihood.log_constant
    return Scores(
        reconstruction=constant - mean(log_p),
        tilt=mean(model.tilt(params["prior"], z)),
        norm=mean(jnp.sum(z**2, axis=-1)) / (2 * model.prior_sigma**2),
    )
