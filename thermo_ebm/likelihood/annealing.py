"""Annealing of chains from prior to posterior, or back, by Metropolis-adjusted Langevin steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.sampling import kernels
from thermo_ebm.sampling.chains import all_chain_keys, evaluate_point, tile
from thermo_ebm.sampling.kernels import Point
from thermo_ebm.types import Array, Params, PRNGKey

TARGET_ACCEPTANCE = 0.574  # optimal for Langevin proposals (Roberts & Rosenthal 1998)
_GAIN = 1.0  # of the adaptation of log s, per step
_STEP_SIZE = 0.1  # at first, in units of sigma_0^2


class LikelihoodSettings(NamedTuple):
    """Settings of the estimator of the log-likelihood."""

    num_temperatures: int = 30  # N
    chains_per_image: int = 16  # M, at least 2
    steps_per_temperature: int = 10  # steps; the first half of them adapt the step size
    prior_steps: int = 200  # steps of the initial chains towards p_alpha
    power: float = 3.0  # p of the schedule before its adaptation
    pilots: int = 2  # pilot runs, with a quarter of the chains, that adapt the schedule
    simulation_steps: int = 2000  # steps of the prior chains that give latents of simulated images


class Annealed(NamedTuple):
    """Record of annealed chains, in the order of the temperatures that they passed."""

    log_likelihood: Array  # l at each temperature, [num_temperatures + 1, M, num]
    acceptance: Array  # [num_temperatures]
    last: Point  # final states of the chains, [M * num]
    log_step: Array  # log of the final step size, a scalar


def prior_latents(
    model: LatentEBM,
    params: Params,
    positions: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    mask: Array,
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """Ends of long adjusted chains towards p_alpha, [M, num, latent_dim], and log step size."""
    keys = _keys(key, 0, positions, settings)
    z = model.prior_sigma * kernels.normal(keys, kernels.NOISE, model.latent_dim)

    def evaluate(z: Array) -> Point:
        values, pullback = jax.vjp(partial(log_prior, model, params["prior"]), z)
        (grad,) = pullback(jnp.ones_like(values))
        return Point(z, jnp.zeros_like(values), jnp.zeros_like(z), values, grad)

    log_step = jnp.log(jnp.float32(_STEP_SIZE * model.prior_sigma**2))
    weights = jnp.tile(mask, settings.chains_per_image)
    point, log_step, _ = _moves(
        evaluate,
        evaluate(z),
        jnp.zeros(()),
        keys,
        log_step,
        settings.prior_steps,
        weights,
        axis_name,
    )
    return point.z.reshape(settings.chains_per_image, -1, model.latent_dim), log_step


def anneal(
    model: LatentEBM,
    params: Params,
    images: Array,
    positions: Array,
    z: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    log_step: Array,
    mask: Array,
    axis_name: str | None = None,
) -> Annealed:
    """Takes chains from the first temperature through all others, in the given order.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape].
      positions: [num].
      z: states at the first temperature, [M, num, latent_dim].
      temperatures: increasing from the prior's, or decreasing from the posterior's.
      key: consumed.
      settings: the estimator.
      log_step: log of the initial step size, a scalar.
      mask: [num].
      axis_name: the pmapped axis the images are spread over, if any.
    """
    evaluate = partial(evaluate_point, model, params, tile(images, settings.chains_per_image))
    weights = jnp.tile(mask, settings.chains_per_image)
    start = evaluate(z.reshape(-1, z.shape[-1]))

    def at_next(carry: tuple[Point, Array], one: tuple[Array, Array]) -> tuple[Any, Any]:
        point, log_step = carry
        index, temperature = one
        keys = _keys(key, index, positions, settings)
        point, log_step, acceptance = _moves(
            evaluate,
            point,
            temperature,
            keys,
            log_step,
            settings.steps_per_temperature,
            weights,
            axis_name,
        )
        return (point, log_step), (point.log_likelihood, acceptance)

    indices = jnp.arange(1, temperatures.shape[0])
    (last, log_step), (seen, acceptance) = jax.lax.scan(
        at_next, (start, log_step), (indices, temperatures[1:])
    )
    likelihood = jnp.concatenate([start.log_likelihood[None], seen])
    likelihood = likelihood.reshape(-1, settings.chains_per_image, images.shape[0])
    return Annealed(likelihood, acceptance, last, log_step)


def _moves(
    evaluate: kernels.Evaluate,
    point: Point,
    temperature: Array,
    keys: PRNGKey,
    log_step: Array,
    num_steps: int,
    weights: Array,
    axis_name: str | None,
) -> tuple[Point, Array, Array]:
    """Adjusted steps at one temperature; the first half adapts the step size that all chains share.

    Returns the new states, the log of the step size, and the acceptance rate in the second half, a
    mean over all chains.
    """
    num, adapting = point.z.shape[0], -(-num_steps // 2)
    total = all_sum(weights.sum(), axis_name)

    def body(carry: tuple[Point, Array], k: Array) -> tuple[tuple[Point, Array], Array]:
        point, log_step = carry
        noise = kernels.normal(keys, k, point.z.shape[1])
        uniform = kernels.log_uniform(keys, kernels.ACCEPT + k)
        t, s = jnp.full(num, temperature), jnp.full(num, jnp.exp(log_step))
        point, probability = kernels.mala_step(evaluate, point, t, s, noise, uniform)
        mean = all_sum(jnp.sum(weights * probability), axis_name) / total
        moved = log_step + jnp.where(k <= adapting, _GAIN * (mean - TARGET_ACCEPTANCE), 0.0)
        return (point, moved), mean

    (point, log_step), means = jax.lax.scan(body, (point, log_step), jnp.arange(1, num_steps + 1))
    return point, log_step, means[adapting:].mean() if num_steps > 1 else means.mean()


def _keys(key: PRNGKey, index: Array | int, positions: Array, settings: LikelihoodSettings) -> Any:
    """A key for each chain at one temperature, [M * num]."""
    indices = jnp.asarray(index)[None]
    return all_chain_keys(key, indices, positions, settings.chains_per_image).reshape(-1)
