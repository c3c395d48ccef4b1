"""Short-run chains of the model: from the prior, and from the power posterior at all temperatures.

Random numbers are folded from (key, temperature, the example's position in the whole batch, step),
so that a chain is the same however the batch is spread over devices and temperatures over chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.latent_ebm import (
    LatentEBM,
    log_power_posterior,
    log_prior,
    with_compute_dtype,
)
from thermo_ebm.sampling import kernels
from thermo_ebm.types import Array, Params, PRNGKey


class ChainSettings(NamedTuple):
    """How long a chain runs."""

    step_size: float  # s of eq. 9
    num_steps: int  # K


class SamplerSettings(NamedTuple):
    """The chains of prior and posterior."""

    prior: ChainSettings  # K_z steps
    posterior: ChainSettings  # K_{z|x,t} steps
    temperature_chunk: int = 0  # temperatures sampled at once; 0 is all of them
    precision: str = "float32"  # of the networks inside the chains


def chain_keys(key: PRNGKey, temperature_index: Array, positions: Array) -> PRNGKey:
    """A key for each chain of one temperature: scalar index and [num] -> [num]."""
    key = jax.random.fold_in(key, temperature_index)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def prior_chains(
    model: LatentEBM, alpha: chex.ArrayTree, keys: PRNGKey, settings: ChainSettings
) -> Array:
    """Chains from p0 towards p_alpha(z) (eq. 10-12), a key each: [num] -> [num, latent_dim]."""
    score = jax.grad(lambda z: log_prior(model, alpha, z).sum())
    return kernels.chain(score, _initial(model, keys), keys, *settings)


def posterior_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    temperatures: Array,
    keys: PRNGKey,
    settings: ChainSettings,
) -> Array:
    """Chains from p0 towards the power posterior (eq. 22).

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape].
      temperatures: t of each chain [num].
      keys: a key for each chain [num].
      settings: step size and number of steps.

    Returns:
      [num, latent_dim].
    """
    chex.assert_shape([temperatures, keys], (x.shape[0],))
    score = jax.grad(lambda z: log_power_posterior(model, params, x, z, temperatures).sum())
    return kernels.chain(score, _initial(model, keys), keys, *settings)


def _initial(model: LatentEBM, keys: PRNGKey) -> Array:
    """z_0 ~ p0(z), [num] -> [num, latent_dim]."""
    return model.prior_sigma * kernels.normal(keys, 0, model.latent_dim)


def tempered_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: SamplerSettings,
) -> Array:
    """Latents at every temperature of a schedule.

    The chains of t_0 = 0 target the prior and use the prior's sampler. All others run as one
    batch, or in chunks of `settings.temperature_chunk` temperatures, which bounds the memory.

    Args:
      model: the model.
      params: alpha and beta. Chains are differentiable with respect to both; stop the gradient of
        either to detach them from it.
      x: images [num, *image_shape].
      positions: [num], place of each image in the whole batch.
      temperatures: t_0 = 0 .. t_N, [num_temperatures + 1].
      key: consumed.
      settings: the samplers.

    Returns:
      [num_temperatures + 1, num, latent_dim].
    """
    chex.assert_rank([temperatures, positions], 1)
    model = with_compute_dtype(model, jnp.dtype(settings.precision))
    num = x.shape[0]

    def chunk(arrays: tuple[Array, Array]) -> Array:
        index, temperature = arrays
        keys = jax.vmap(partial(chain_keys, key), in_axes=(0, None))(index, positions)
        z = posterior_chains(
            model,
            params,
            tile(x, index.shape[0]),
            jnp.repeat(temperature, num),
            keys.reshape(-1),
            settings.posterior,
        )
        return z.reshape(index.shape[0], num, -1)

    indices = jnp.arange(temperatures.shape[0])
    z_prior = prior_chains(
        model, params.alpha, chain_keys(key, indices[0], positions), settings.prior
    )
    z_posterior = map_in_chunks(chunk, (indices[1:], temperatures[1:]), settings.temperature_chunk)
    return jnp.concatenate([z_prior[None], z_posterior])


def tile(x: Array, times: int) -> Array:
    """[num, ...] -> [times * num, ...], the whole batch once for each temperature."""
    return jnp.broadcast_to(x, (times, *x.shape)).reshape(-1, *x.shape[1:])


def map_in_chunks(
    fn: Callable[[chex.ArrayTree], Array], arrays: chex.ArrayTree, chunk: int
) -> Array:
    """fn over the leading axis, `chunk` entries at a time, one chunk after another.

    Args:
      fn: takes arrays [m, ...] of any m and returns [m, ...], entries independent.
      arrays: a tree of arrays [num, ...].
      chunk: how many at once; 0 is all.

    Returns:
      [num, ...], what fn(arrays) would give.
    """
    num = jax.tree.leaves(arrays)[0].shape[0]
    if chunk == 0 or chunk >= num:
        return fn(arrays)
    whole = num // chunk * chunk
    head = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), arrays)
    out = jax.lax.map(fn, head)
    out = out.reshape(whole, *out.shape[2:])
    if whole == num:
        return out
    return jnp.concatenate([out, fn(jax.tree.map(lambda a: a[whole:], arrays))])
