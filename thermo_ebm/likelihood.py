"""Held-out log-likelihood: annealed importance sampling and MBAR, with Metropolis-adjusted moves.

Chains start from the prior p_alpha, which is normalised at t = 0 whatever its energy, and are taken
to the posterior along a schedule of their own (Neal 2001). With t_0 = 0 < ... < t_N = 1 and a
chain's states z_0, z_1, ... between the temperatures,

    log w = sum_k (t_k - t_(k-1)) l(z_(k-1)),        E w = p(x),

so that log mean w is a stochastic lower bound on log p(x), and tight where chains follow. MBAR
(`thermo/ratios.py`) uses the same chains' log-likelihoods at all temperatures at once and has the
smaller error; its standard error is a jackknife over the chains, which are independent.

On data simulated from the model a chain can be run the other way, from the latent that made the
image: it gives an upper bound (bidirectional Monte Carlo, Grosse et al. 2015).
"""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.sampling import kernels
from thermo_ebm.sampling.chains import all_chain_keys, evaluate_point, tile
from thermo_ebm.sampling.kernels import Point
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.schedule import Schedule, equalised, make_schedule
from thermo_ebm.types import Array, Params, PRNGKey

TARGET_ACCEPTANCE = 0.574  # optimal for Langevin proposals (Roberts & Rosenthal 1998)
_GAIN = 1.0  # of the adaptation of log s, per step
_STEP_SIZE = 0.1  # at first, in units of sigma_0^2
_MBAR_ITERATIONS = 12


class LikelihoodSettings(NamedTuple):
    """How the log-likelihood is estimated."""

    num_temperatures: int = 30  # N
    chains_per_image: int = 16  # M, at least 2
    steps_per_temperature: int = 10  # the first half of which adapt the step size
    prior_steps: int = 200  # of the chains that start it, towards p_alpha
    power: float = 3.0  # of the schedule before it is adapted
    pilots: int = 2  # runs with a quarter of the chains that adapt the schedule


class Likelihood(NamedTuple):
    """Of each image, in nats."""

    log_likelihood: Array  # log p(x) by MBAR, [num]
    stderr: Array  # its standard error, [num]
    annealed: Array  # log mean w, a stochastic lower bound, [num]
    annealed_stderr: Array  # [num]
    effective_sample_size: Array  # of the M weights, [num]
    rejection: Array  # of an exchange between neighbours, mean over images, [num_temperatures]
    acceptance: Array  # of the moves at t_1 .. t_N, [num_temperatures]


class Annealed(NamedTuple):
    """What chains saw on their way, in the order of the temperatures they went through."""

    log_likelihood: Array  # l at each temperature, [num_temperatures + 1, M, num]
    acceptance: Array  # [num_temperatures]


def log_likelihood(
    model: LatentEBM,
    params: Params,
    images: Array,
    key: PRNGKey,
    settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
) -> Likelihood:
    """log p(x) of each image, its schedule adapted to equal barriers.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape], in [-1, 1].
      key: consumed.
      settings: the estimator.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures.
    """
    chex.assert_rank(images, {2, 4})
    key, pilot_key = jax.random.split(key)
    schedule = adapted_schedule(model, params, images, pilot_key, settings)
    positions = jnp.arange(images.shape[0])
    run = jax.jit(partial(estimate, model, settings=settings))
    return run(params, images, positions, schedule.temperatures, key)


def adapted_schedule(
    model: LatentEBM, params: Params, images: Array, key: PRNGKey, settings: LikelihoodSettings
) -> Schedule:
    """The power schedule after `settings.pilots` adaptations to equal rejection rates."""
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    few = settings._replace(chains_per_image=max(settings.chains_per_image // 4, 2))
    run = jax.jit(partial(estimate, model, settings=few))
    positions = jnp.arange(images.shape[0])
    for number in range(settings.pilots):
        pilot_key = jax.random.fold_in(key, number)
        found = run(params, images, positions, schedule.temperatures, pilot_key)
        schedule = equalised(schedule, jax.device_get(found.rejection))
    return Schedule(*map(jnp.asarray, schedule))


def estimate(
    model: LatentEBM,
    params: Params,
    images: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    mask: Array | None = None,
    axis_name: str | None = None,
) -> Likelihood:
    """log p(x) of each image along a given schedule; to be jitted.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape].
      positions: [num], from which each image's random numbers come.
      temperatures: t_0 = 0 .. t_N = 1, [num_temperatures + 1].
      key: consumed.
      settings: the estimator.
      mask: [num], 0 for images that only fill up; by default all count.
      axis_name: the pmapped axis the images are spread over, if any.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures.
    """
    if settings.chains_per_image < 2 or temperatures.shape[0] < 3:
        raise ValueError("a likelihood needs at least 2 chains_per_image and 2 num_temperatures.")
    mask = jnp.ones(images.shape[0]) if mask is None else mask
    z, log_step = prior_latents(model, params, positions, key, settings, mask, axis_name)
    seen = anneal(
        model, params, images, positions, z, temperatures, key, settings, log_step, mask, axis_name
    )
    return _summary(temperatures, seen, mask, axis_name)


def prior_latents(
    model: LatentEBM,
    params: Params,
    positions: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    mask: Array,
    axis_name: str | None = None,
) -> tuple[Array, Array]:
    """Long adjusted chains towards p_alpha, [M, num, latent_dim], and their step size's log."""
    keys = _keys(key, 0, positions, settings)
    z = model.prior_sigma * kernels.normal(keys, kernels.NOISE, model.latent_dim)

    def evaluate(z: Array) -> Point:
        values, pullback = jax.vjp(partial(log_prior, model, params.alpha), z)
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
    """Takes chains from the first temperature through all others, in the order given.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape].
      positions: [num].
      z: states at the first temperature, [M, num, latent_dim].
      temperatures: rising from the prior's, or falling from the posterior's.
      key: consumed.
      settings: the estimator.
      log_step: log of the step size to begin with, a scalar.
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
    _, (seen, acceptance) = jax.lax.scan(at_next, (start, log_step), (indices, temperatures[1:]))
    likelihood = jnp.concatenate([start.log_likelihood[None], seen])
    return Annealed(likelihood.reshape(-1, settings.chains_per_image, images.shape[0]), acceptance)


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
    """Adjusted steps at one temperature; the first half adapt the step size that all chains share.

    Returns where the chains are then, the log of the step size, and the acceptance of the second
    half, a mean over all chains.
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


def _summary(temperatures: Array, seen: Annealed, mask: Array, axis_name: str | None) -> Likelihood:
    by_image = jnp.moveaxis(seen.log_likelihood, 2, 0)  # [num, num_temperatures + 1, M]
    value, stderr = mbar_with_error(temperatures, by_image)
    log_weights = forward_log_weights(temperatures, seen.log_likelihood)
    annealed, annealed_stderr, size = log_mean_exp(log_weights)
    log_ratio = -jnp.diff(temperatures)[:, None, None] * jnp.diff(seen.log_likelihood, axis=0)
    rejection = -jnp.expm1(jnp.minimum(log_ratio, 0.0)).mean(axis=1)
    sums, count = all_sum(((rejection * mask).sum(axis=1), mask.sum()), axis_name)
    return Likelihood(value, stderr, annealed, annealed_stderr, size, sums / count, seen.acceptance)


def mbar_with_error(temperatures: Array, log_likelihoods: Array) -> tuple[Array, Array]:
    """log Z_1 / Z_0 and its standard error by a jackknife over the chains.

    Args:
      temperatures: t_0 = 0 .. t_N = 1.
      log_likelihoods: [num, num_temperatures + 1, M], a chain in the same place throughout.

    Returns:
      [num] each.
    """
    per_image = log_likelihoods.shape[-1]
    value = ratios.mbar(temperatures, log_likelihoods, _MBAR_ITERATIONS)[..., -1]

    def without(m: Array) -> Array:
        kept = (m + 1 + jnp.arange(per_image - 1)) % per_image
        return ratios.mbar(temperatures, log_likelihoods[..., kept], _MBAR_ITERATIONS)[..., -1]

    left_out = jax.lax.map(without, jnp.arange(per_image))
    spread = jnp.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0)
    variance = (per_image - 1) / per_image * spread
    # Of few chains the variance is itself uncertain: that of Student's t in the place of a normal.
    return value, jnp.sqrt(variance * (per_image - 1) / max(per_image - 3, 1))


def forward_log_weights(temperatures: Array, log_likelihood: Array) -> Array:
    """log w of each chain, [num_temperatures + 1, M, num] -> [M, num]: see the module's text."""
    return jnp.einsum("t,tmn->mn", jnp.diff(temperatures), log_likelihood[:-1])


def log_mean_exp(log_weights: Array) -> tuple[Array, Array, Array]:
    """log of the mean weight, its standard error (delta method) and the effective sample size.

    Args:
      log_weights: [M, num].

    Returns:
      [num] each.
    """
    per_image = log_weights.shape[0]
    value = jax.nn.logsumexp(log_weights, axis=0) - jnp.log(per_image)
    relative = jnp.exp(log_weights - value)
    variance = jnp.sum((relative - 1) ** 2, axis=0) / (per_image - 1) / per_image
    size = jnp.sum(relative, axis=0) ** 2 / jnp.sum(relative**2, axis=0)
    return value, jnp.sqrt(variance), size
