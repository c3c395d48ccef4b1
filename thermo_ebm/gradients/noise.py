"""Sources of a gradient's noise: a crossed design of batches and chains.

g_ij is the gradient of batch i with the chains' random numbers j. Its variance over repeated draws
is the sum of three parts: V_batch from the batch, V_chains from the chains, and V_interaction. Each
block crosses two batches with two sets of random numbers:

    e = (g_11 - g_12 - g_21 + g_22) / 2                    E |e|^2 = V_interaction
    b = (g_11 + g_12 - g_21 - g_22) / 2                    E |b|^2 = 2 V_batch + V_interaction
    c = (g_11 - g_12 + g_21 - g_22) / 2                    E |c|^2 = 2 V_chains + V_interaction

Blocks are independent, so that their spread gives valid standard errors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.halves import size, square
from thermo_ebm.types import Array, Params, PRNGKey

DRAWS_PER_BLOCK = 4
RELATIVE_ERROR = 0.1  # relative error of the total at which a measurement ends
# Intervals of 1.96 standard errors cover the total in 0.89 to 0.92 of simulated measurements. From
# 3 blocks they cover in 0.82: errors from few blocks are uncertain, and the rule ends where the
# errors are small.
LEAST_BLOCKS = 8


class GradientNoise(NamedTuple):
    """Variance over *repeated draws* of the gradient at fixed parameters, per parameter."""

    total: Array  # new batch and new chains: the sum of the next three fields, a scalar
    batch: Array  # V_batch, a scalar
    chains: Array  # V_chains, a scalar
    interaction: Array  # a scalar
    stderr: Array  # standard errors of total, batch, chains and interaction, [4]
    relative: Array  # total / squared norm of the mean, inf if that norm is not resolved
    draws: Array  # number of gradients drawn, int32


class NoiseSums(NamedTuple):
    """Sums over the blocks so far."""

    blocks: Array  # int32
    values: Array  # V_total, V_batch, V_chains, V_interaction and |mean|^2, [5]
    squares: Array  # [5]


def zero_sums() -> NoiseSums:
    """The sums before the first block."""
    return NoiseSums(jnp.zeros((), jnp.int32), jnp.zeros(5), jnp.zeros(5))


def block_keys(key: PRNGKey, block: Array) -> PRNGKey:
    """The keys of one block, [4]: two of batches and two of chains."""
    return jax.random.split(jax.random.fold_in(key, block), 4)


def gradient_noise(
    gradient: Callable[[PRNGKey, PRNGKey], Params], key: PRNGKey, max_draws: int
) -> GradientNoise:
    """Variance of the stochastic gradient over repeated draws, and its sources.

    Draws blocks of four gradients, at least 8 of them if `max_draws` allows it, until the standard
    error of the total is below a tenth of it.

    Args:
      gradient: (batch key, chain key) -> gradient with respect to (alpha, beta).
      key: consumed.
      max_draws: largest number of gradients, at least 8; rounded down to complete blocks.

    Returns:
      The noise. Small parts can have negative estimates.

    Raises:
      ValueError: if max_draws < 8.
    """

    def add(sums: NoiseSums) -> NoiseSums:
        keys = block_keys(key, sums.blocks)
        return add_block(gradient, sums, keys[:2], keys[2:])

    sums = jax.lax.while_loop(lambda sums: ~is_resolved(sums, max_draws), add, zero_sums())
    return noise_of(sums, size(jax.eval_shape(gradient, key, key)))


def is_resolved(sums: NoiseSums, max_draws: int) -> Array:
    """Whether the total is known to a tenth, or as many gradients were drawn as are allowed.

    Raises:
      ValueError: if max_draws < 8.
    """
    if max_draws < 2 * DRAWS_PER_BLOCK:
        raise ValueError(f"max_draws must be at least 8, not {max_draws}.")
    error = _standard_errors(sums)[0]
    is_known = error < RELATIVE_ERROR * jnp.abs(sums.values[0]) / sums.blocks
    return (sums.blocks >= max_draws // DRAWS_PER_BLOCK) | (
        (sums.blocks >= LEAST_BLOCKS) & is_known
    )


def noise_of(sums: NoiseSums, num_parameters: int) -> GradientNoise:
    """The noise per parameter from the sums over at least two blocks."""
    means, errors, num = sums.values / sums.blocks, _standard_errors(sums), num_parameters
    total, batch, chains, interaction, norm = means
    relative = jnp.where(norm > 0, total / jnp.where(norm > 0, norm, 1.0), jnp.inf)
    return GradientNoise(
        total / num,
        batch / num,
        chains / num,
        interaction / num,
        errors[:4] / num,
        relative,
        DRAWS_PER_BLOCK * sums.blocks,
    )


def _standard_errors(sums: NoiseSums) -> Array:
    """Standard errors of the means over blocks, [5]."""
    num = sums.blocks
    mean = sums.values / num
    variance = (sums.squares / num - mean**2) * num / jnp.maximum(num - 1, 1)
    return jnp.sqrt(jnp.maximum(variance, 0.0) / num)


def add_block(
    gradient: Callable[[Any, PRNGKey], Params], sums: NoiseSums, batches: Any, chain_keys: PRNGKey
) -> NoiseSums:
    """Adds one block.

    The contrasts are accumulated one gradient after another, which needs memory for five
    gradients.

    Args:
      gradient: (batch, chain key) -> gradient.
      sums: over the blocks before.
      batches: what `gradient` takes as its batch, with two of them along the first axis.
      chain_keys: keys of the chains, [2].

    Returns:
      The sums with V_total, V_batch, V_chains, V_interaction and |mean|^2 of the block, each summed
      over the entries of the gradient.
    """
    signs = jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2

    def draw(number: Array | int) -> Params:
        batch = jax.tree.map(lambda leaf: leaf[number // 2], batches)
        return gradient(batch, chain_keys[number % 2])

    def add(contrasts: Params, number: Array) -> tuple[Params, None]:
        added = jax.tree.map(
            lambda c, g: c + signs[:, number].reshape(-1, *[1] * g.ndim) * g,
            contrasts,
            draw(number),
        )
        return added, None

    shapes = jax.eval_shape(draw, 0)
    start = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), shapes)
    contrasts, _ = jax.lax.scan(add, start, jnp.arange(DRAWS_PER_BLOCK))
    total, c, b, e = (square(jax.tree.map(lambda leaf, i=i: leaf[i], contrasts)) for i in range(4))
    chains, batch = (c - e) / 2, (b - e) / 2
    # (g_11 + g_12 + g_21 + g_22) / 2 is twice the mean: E |.|^2 = 4 |mean|^2 + 2 V_b + 2 V_c + V_i.
    norm = (total - 2 * batch - 2 * chains - e) / 4
    values = jnp.stack([batch + chains + e, batch, chains, e, norm])
    return NoiseSums(sums.blocks + 1, sums.values + values, sums.squares + values**2)
