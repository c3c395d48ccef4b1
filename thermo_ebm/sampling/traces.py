"""Complete trajectories of chains at all temperatures, for diagnostics.

The first K steps are those of `chains.tempered_chains` with the same key and K steps, since the
random numbers are the same. The probability that a Metropolis test would accept a step is also
recorded for unadjusted chains: it shows how far their step size is from harmless.
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling import exchange as exchanges
from thermo_ebm.sampling import kernels
from thermo_ebm.sampling.chains import (
    ChainSettings,
    SamplerSettings,
    all_chain_keys,
    evaluate_point,
    initial_latents,
    tile,
)
from thermo_ebm.types import Array, Params, PRNGKey


class Traces(NamedTuple):
    """States after 1 .. K steps; T = num_temperatures + 1, M chains per image."""

    latents: Array  # [K, T, M, num, latent_dim]
    log_likelihood: Array  # l, in nats, [K, T, M, num]
    acceptance: Array  # Metropolis acceptance probability of each step, [K, T, M, num]
    # The index in t_1 .. t_N from which each state came before each step, [K, T - 1, M, num].
    source: Array


class _Step(NamedTuple):
    """The record of one step of a group of chains, [num_chains, ...] each."""

    z: Array
    log_likelihood: Array
    acceptance: Array
    source: Array  # [temperatures of the group, chains of each]


def tempered_traces(
    model: LatentEBM,
    params: Params,
    x: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: SamplerSettings,
    num_steps: int,
) -> Traces:
    """Runs the chains of `tempered_chains` for `num_steps` steps at every temperature.

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape].
      positions: [num], place of each image in the whole batch.
      temperatures: t_0 = 0 .. t_N, [num_temperatures + 1].
      key: consumed.
      settings: the samplers; their numbers of steps, chunks and precision are ignored.
      num_steps: K.
    """
    chex.assert_rank([temperatures, positions], 1)
    per_image, num = settings.chains_per_image, x.shape[0]
    keys = all_chain_keys(key, jnp.arange(temperatures.shape[0]), positions, per_image)

    def of(group: slice, chain: ChainSettings, exchange_every: int) -> _Step:
        t, own = temperatures[group], keys[group].reshape(-1)
        evaluate = partial(evaluate_point, model, params, tile(x, t.shape[0] * per_image))
        exchange = exchanges.make_exchange(t, own, exchange_every) if exchange_every else None
        z = initial_latents(model, own)
        of_chain = jnp.repeat(t, per_image * num)
        return _trace(evaluate, z, of_chain, own, chain, num_steps, t.shape[0], exchange)

    prior = of(slice(0, 1), settings.prior, 0)
    hot = of(slice(1, None), settings.posterior, settings.exchange_every)

    def whole(leaf: Array) -> Array:
        return leaf.reshape(num_steps, -1, per_image, num, *leaf.shape[2:])

    def both(first: Array, second: Array) -> Array:
        return jnp.concatenate([whole(first), whole(second)], axis=1)

    return Traces(
        latents=both(prior.z, hot.z),
        log_likelihood=both(prior.log_likelihood, hot.log_likelihood),
        acceptance=both(prior.acceptance, hot.acceptance),
        source=1 + hot.source.reshape(num_steps, -1, per_image, num),
    )


def _trace(
    evaluate: kernels.Evaluate,
    z: Array,
    temperature: Array,
    keys: PRNGKey,
    settings: ChainSettings,
    num_steps: int,
    num_temperatures: int,
    exchange: kernels.Exchange | None,
) -> _Step:
    """Every step of the chains of some temperatures: [num_steps, ...] each."""
    step_size = jnp.full(z.shape[0], settings.step_size, z.dtype)
    stay = jnp.arange(num_temperatures, dtype=jnp.int32)[:, None]
    stay = jnp.broadcast_to(stay, (num_temperatures, z.shape[0] // num_temperatures))

    def body(point: kernels.Point, k: Array) -> tuple[kernels.Point, _Step]:
        source = stay
        if exchange is not None:
            point, swapped = exchange(point, k - 1)
            source = swapped.source
        noise = kernels.normal(keys, k, z.shape[1])
        # A log uniform that is below every log ratio accepts all proposals: an unadjusted step.
        uniform = jnp.full(z.shape[0], -jnp.inf)
        if settings.kernel == "mala":
            uniform = kernels.log_uniform(keys, kernels.ACCEPT + k)
        point, acceptance = kernels.mala_step(
            evaluate, point, temperature, step_size, noise, uniform
        )
        return point, _Step(point.z, point.log_likelihood, acceptance, source)

    return jax.lax.scan(body, evaluate(z), jnp.arange(1, num_steps + 1))[1]
