"""Short-run chains of the model: from the prior, and from the power posterior at all temperatures.

Random numbers are derived from (key, chain of the image, temperature, position of the example in
the complete batch, step), so that a chain does not depend on how the batch is divided into devices
and chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm import scopes
from thermo_ebm.models.latent_ebm import (
    LatentEBM,
    log_likelihood,
    log_power_posterior,
    log_prior,
    with_compute_dtype,
)
from thermo_ebm.sampling import exchange as exchanges
from thermo_ebm.sampling import kernels
from thermo_ebm.types import Array, Params, PRNGKey

_CHAIN_SALT = 2**31 - 2**16  # folded into the keys of the second and later chains of an image


class ChainSettings(NamedTuple):
    """How a chain runs."""

    step_size: float  # s of eq. 9
    num_steps: int  # K
    kernel: str = "ula"  # one of kernels.KERNELS


class SamplerSettings(NamedTuple):
    """The chains of prior and posterior."""

    prior: ChainSettings  # K_z steps
    posterior: ChainSettings  # K_{z|x,t} steps
    image_chunk: int = 0  # images sampled at once, with all their temperatures; 0 is all of them
    chain_chunk: int = 0  # of these images' chains, evaluated at once; 0 is all of them
    precision: str = "float32"  # of the networks inside the chains
    chains_per_image: int = 1  # M, at every temperature
    exchange_every: int = 0  # steps between exchanges of neighbouring temperatures; 0: none


class Chains(NamedTuple):
    """Where chains ended."""

    latents: Array  # [num, latent_dim]
    acceptance: Array  # mean acceptance probability of the steps, [num]; 1 without rejection


class TemperedChains(NamedTuple):
    """Where the chains of all temperatures ended; T = num_temperatures + 1, M chains per image."""

    latents: Array  # [T, M, num, latent_dim]
    acceptance: Array  # mean over an image's chains, [T, num]
    swap_probability: Array  # of neighbours in t_1 .. t_N, [T - 2, num]; 0 without exchange
    round_trips: Array  # of states between t_1 and t_N, summed over an image's chains, [num]


def chain_keys(key: PRNGKey, temperature_index: Array, positions: Array) -> PRNGKey:
    """A key for each chain of one temperature: scalar index and [num] -> [num]."""
    key = jax.random.fold_in(key, temperature_index)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def all_chain_keys(
    key: PRNGKey, temperature_indices: Array, positions: Array, chains_per_image: int
) -> PRNGKey:
    """A key for every chain: [num_temperatures], [num] -> [num_temperatures, M, num].

    The first chain of an image has the same key whatever M is.
    """
    further = [jax.random.fold_in(key, _CHAIN_SALT + m) for m in range(1, chains_per_image)]
    of_chains = jnp.stack([key, *further])
    of_temperature = jax.vmap(chain_keys, in_axes=(0, None, None))  # over the image's chains
    over_temperatures = jax.vmap(of_temperature, in_axes=(None, 0, None))
    return over_temperatures(of_chains, temperature_indices, positions)


def prior_chains(
    model: LatentEBM, alpha: chex.ArrayTree, keys: PRNGKey, settings: ChainSettings
) -> Chains:
    """Chains from p0 towards p_alpha(z) (eq. 10-12), one for each key [num]."""
    z = initial_latents(model, keys)
    if settings.kernel == "ula":
        score = jax.grad(lambda z: log_prior(model, alpha, z).sum())
        return _unrefused(kernels.chain(score, z, keys, settings.step_size, settings.num_steps))

    def evaluate(z: Array) -> kernels.Point:
        value, grad = _value_and_grad(partial(log_prior, model, alpha), z)
        return kernels.Point(z, jnp.zeros_like(value), jnp.zeros_like(z), value, grad)

    cold = jnp.zeros(z.shape[0], z.dtype)
    point, acceptance, _ = kernels.adjusted_chain(
        evaluate, z, cold, keys, settings.step_size, settings.num_steps
    )
    return Chains(point.z, acceptance)


def posterior_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    temperatures: Array,
    keys: PRNGKey,
    settings: ChainSettings,
    chunk: int = 0,
) -> Chains:
    """Chains from p0 towards the power posterior (eq. 22).

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape].
      temperatures: t of each chain [num].
      keys: a key for each chain [num].
      settings: step size, number of steps and kernel.
      chunk: chains whose density is evaluated at once; 0 is all of them.
    """
    chex.assert_shape([temperatures, keys], (x.shape[0],))
    z = initial_latents(model, keys)
    if settings.kernel == "ula":

        def score(x: Array, t: Array, z: Array) -> Array:
            return jax.grad(lambda z: log_power_posterior(model, params, x, z, t).sum())(z)

        fn = of_last_in_chunks(score, (x, temperatures), chunk)
        return _unrefused(kernels.chain(fn, z, keys, settings.step_size, settings.num_steps))
    point, acceptance, _ = kernels.adjusted_chain(
        of_last_in_chunks(partial(evaluate_point, model, params), (x,), chunk),
        z,
        temperatures,
        keys,
        settings.step_size,
        settings.num_steps,
    )
    return Chains(point.z, acceptance)


def evaluate_point(model: LatentEBM, params: Params, x: Array, z: Array) -> kernels.Point:
    """Log-likelihood and log-prior of latents [num, latent_dim], with their gradients."""
    likelihood = _value_and_grad(partial(log_likelihood, model, params["generator"], x), z)
    return kernels.Point(
        z, *likelihood, *_value_and_grad(partial(log_prior, model, params["prior"]), z)
    )


def _value_and_grad(fn: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    """Value of `fn` for each row, [num], and its gradient with respect to the row."""

    def total(z: Array) -> tuple[Array, Array]:
        values = fn(z)
        return values.sum(), values

    (_, values), grad = jax.value_and_grad(total, has_aux=True)(z)
    return values, grad


def _unrefused(latents: Array) -> Chains:
    return Chains(latents, jnp.ones(latents.shape[0], latents.dtype))


def initial_latents(model: LatentEBM, keys: PRNGKey) -> Array:
    """z_0 ~ p0(z), [num] -> [num, latent_dim]."""
    return model.prior_sigma * kernels.normal(keys, kernels.NOISE, model.latent_dim)


def tempered_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: SamplerSettings,
) -> TemperedChains:
    """Chains at every temperature of a schedule, M per image.

    The chains of t_0 = 0 target the prior and use the prior's sampler. All others run as one
    batch, or in chunks of at most `settings.image_chunk` images with all their temperatures. Of
    their chains, every step evaluates at most `settings.chain_chunk` at once.

    Args:
      model: the model.
      params: alpha and beta. Unadjusted chains without exchange are differentiable with respect to
        both; to detach the chains from alpha or beta, stop its gradient.
      x: images [num, *image_shape].
      positions: [num], position of each image in the complete batch.
      temperatures: t_0 = 0 .. t_N, [num_temperatures + 1].
      key: consumed.
      settings: the samplers.
    """
    chex.assert_rank([temperatures, positions], 1)
    model = with_compute_dtype(model, jnp.dtype(settings.precision))
    per_image, num = settings.chains_per_image, x.shape[0]
    zero = jnp.zeros(1, jnp.int32)
    with jax.named_scope(scopes.PRIOR_CHAINS):
        keys = all_chain_keys(key, zero, positions, per_image)
        prior = prior_chains(model, params["prior"], keys.reshape(-1), settings.prior)

    def chunk(arrays: tuple[Array, Array]) -> TemperedChains:
        return _images_first(_hot_chains(model, params, *arrays, temperatures, key, settings))

    with jax.named_scope(scopes.POSTERIOR_CHAINS):
        hot = _images_first(map_in_chunks(chunk, (x, positions), settings.image_chunk))
    latents = prior.latents.reshape(1, per_image, num, -1)
    acceptance = prior.acceptance.reshape(per_image, num).mean(axis=0, keepdims=True)
    return hot._replace(
        latents=jnp.concatenate([latents, hot.latents]),
        acceptance=jnp.concatenate([acceptance, hot.acceptance]),
    )


def _hot_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: SamplerSettings,
) -> TemperedChains:
    """The chains at t_1 .. t_N, for some of the images."""
    indices, hot = jnp.arange(1, temperatures.shape[0]), temperatures[1:]
    per_image, num = settings.chains_per_image, x.shape[0]
    keys = all_chain_keys(key, indices, positions, per_image)
    repeated, t = tile(x, hot.shape[0] * per_image), jnp.repeat(hot, per_image * num)
    flat, posterior = keys.reshape(-1), settings.posterior
    if settings.exchange_every:
        ends, seen = _exchanging_chains(model, params, repeated, hot, t, flat, settings)
        found = exchanges.statistics(seen)
        probability = found.probability.reshape(-1, per_image, num).mean(axis=1)
        trips = found.round_trips.reshape(per_image, num).sum(axis=0)
    else:
        ends = posterior_chains(model, params, repeated, t, flat, posterior, settings.chain_chunk)
        probability = jnp.zeros((hot.shape[0] - 1, num), repeated.dtype)
        trips = jnp.zeros(num, jnp.int32)
    return TemperedChains(
        ends.latents.reshape(hot.shape[0], per_image, num, -1),
        ends.acceptance.reshape(hot.shape[0], per_image, num).mean(axis=1),
        probability,
        trips,
    )


def _exchanging_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    temperatures: Array,
    of_chain: Array,
    keys: PRNGKey,
    settings: SamplerSettings,
) -> tuple[Chains, exchanges.Swaps]:
    """Chains at all temperatures with exchange of states; `of_chain` is t of each chain."""
    exchange = exchanges.make_exchange(temperatures, keys, settings.exchange_every)
    evaluate = of_last_in_chunks(partial(evaluate_point, model, params), (x,), settings.chain_chunk)
    z = initial_latents(model, keys)
    step_size, num_steps, kernel = settings.posterior
    if kernel == "ula":
        latents, seen = kernels.unadjusted_chain(
            evaluate, z, of_chain, keys, step_size, num_steps, exchange
        )
        return _unrefused(latents), seen
    point, acceptance, seen = kernels.adjusted_chain(
        evaluate, z, of_chain, keys, step_size, num_steps, exchange
    )
    return Chains(point.z, acceptance), seen


def _images_first(chains: TemperedChains) -> TemperedChains:
    """Swaps the axis of images with the first axis; applied twice, the identity."""
    return TemperedChains(
        latents=jnp.swapaxes(chains.latents, 0, 2),
        acceptance=jnp.swapaxes(chains.acceptance, 0, 1),
        swap_probability=jnp.swapaxes(chains.swap_probability, 0, 1),
        round_trips=chains.round_trips,
    )


def tile(x: Array, times: int) -> Array:
    """[num, ...] -> [times * num, ...], the complete batch repeated for each temperature."""
    return jnp.broadcast_to(x, (times, *x.shape)).reshape(-1, *x.shape[1:])


def map_in_chunks(
    fn: Callable[[chex.ArrayTree], chex.ArrayTree], arrays: chex.ArrayTree, chunk: int
) -> chex.ArrayTree:
    """fn over the leading axis, `chunk` entries at a time, one chunk after another.

    Args:
      fn: maps arrays [m, ...] of any m to arrays [m, ...] with independent entries.
      arrays: a tree of arrays [num, ...].
      chunk: number of entries at once; 0 is all.

    Returns:
      Arrays [num, ...], equal to fn(arrays).
    """
    num = jax.tree.leaves(arrays)[0].shape[0]
    if chunk == 0 or chunk >= num:
        return fn(arrays)
    whole = num // chunk * chunk
    head = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), arrays)
    out = jax.lax.map(fn, head)
    out = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), out)
    if whole == num:
        return out
    rest = fn(jax.tree.map(lambda a: a[whole:], arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)


def of_last_in_chunks(
    fn: Callable[..., chex.ArrayTree], fixed: tuple[Array, ...], chunk: int
) -> Callable[[Array], chex.ArrayTree]:
    """z -> fn(*fixed, z), at most `chunk` rows at a time, in chunks of one size.

    Rows are repeated where the last chunk would be smaller: unlike that of `map_in_chunks`, a rest
    would cost as much here. `fixed` is divided once, and not in every step of a loop over z.

    Args:
      fn: maps arrays [m, ...] of any m to arrays [m, ...] with independent entries.
      fixed: its arguments but the last, [num, ...].
      chunk: number of rows at once; 0 is all.
    """
    num = fixed[0].shape[0]
    if chunk == 0 or chunk >= num:
        return partial(fn, *fixed)
    count = -(-num // chunk)
    rest = -num % count

    def divide(array: Array) -> Array:
        full = jnp.pad(array, [(0, rest), *[(0, 0)] * (array.ndim - 1)], mode="edge")
        return full.reshape(count, -1, *array.shape[1:])

    # Without the barrier XLA repeats and rearranges images in every step of a loop over z.
    divided = jax.lax.optimization_barrier(tuple(map(divide, fixed)))

    def of_last(z: Array) -> chex.ArrayTree:
        out = jax.lax.map(lambda arrays: fn(*arrays), (*divided, divide(z)))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], out)

    return of_last
