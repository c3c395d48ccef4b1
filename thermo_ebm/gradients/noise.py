"""Noise of the gradient: its variance over repeated draws of batch and chains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, Params, PRNGKey


class GradientNoise(NamedTuple):
    """Variance over *repeated draws* of the gradient at fixed parameters, each a scalar."""

    total: Array  # new batch and new chains each draw, averaged over parameters
    batch: Array  # new batch, the chains' random numbers kept
    mcmc: Array  # new chains, the batch kept
    relative: Array  # total, summed over parameters, over the mean's squared norm; inf: unresolved


def gradient_noise(
    gradient: Callable[[PRNGKey, PRNGKey], Params], key: PRNGKey, num_draws: int
) -> GradientNoise:
    """Variance of the stochastic gradient over repeated draws, and where it comes from.

    Args:
      gradient: (batch key, chain key) -> gradient with respect to (alpha, beta).
      key: consumed.
      num_draws: draws for each of the three figures, at least 2.

    Returns:
      The noise; variances are unbiased (num_draws - 1 in the denominator).

    Raises:
      ValueError: if num_draws < 2.
    """
    if num_draws < 2:
        raise ValueError(f"grad_noise_draws must be at least 2, not {num_draws}.")
    key_both, key_batch, key_chain, key_fixed = jax.random.split(key, 4)
    fixed_batch, fixed_chain = jax.random.split(key_fixed)
    mean, total = _moments_over_draws(lambda k: gradient(*jax.random.split(k)), key_both, num_draws)
    _, batch = _moments_over_draws(lambda k: gradient(k, fixed_chain), key_batch, num_draws)
    _, mcmc = _moments_over_draws(lambda k: gradient(fixed_batch, k), key_chain, num_draws)
    size = sum(leaf.size for leaf in jax.tree.leaves(mean))
    norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(mean))
    # The squared norm of a mean over draws holds the draws' own variance, by total / num_draws.
    unbiased = norm - total / num_draws
    relative = jnp.where(unbiased > 0, total / jnp.where(unbiased > 0, unbiased, 1.0), jnp.inf)
    return GradientNoise(total / size, batch / size, mcmc / size, relative)


def _moments_over_draws(
    draw: Callable[[PRNGKey], Params], key: PRNGKey, num_draws: int
) -> tuple[Params, Array]:
    """Mean over draws, and the variance summed over parameters, in one pass (Welford 1962)."""

    def body(i: Array, carry: tuple[Params, Array]) -> tuple[Params, Array]:
        mean, squares = carry
        sample = draw(jax.random.fold_in(key, i))
        new_mean = jax.tree.map(lambda m, s: m + (s - m) / (i + 1), mean, sample)
        increments = jax.tree.map(
            lambda m, n, s: jnp.sum((s - m) * (s - n)), mean, new_mean, sample
        )
        return new_mean, squares + sum(jax.tree.leaves(increments))

    shapes = jax.eval_shape(draw, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    mean, squares = jax.lax.fori_loop(0, num_draws, body, (zeros, jnp.zeros(())))
    return mean, squares / (num_draws - 1)
