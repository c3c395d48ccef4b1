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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.halves import size, square
from thermo_ebm.types import Array, Params, PRNGKey

DRAWS_PER_BLOCK = 4
RELATIVE_ERROR = 0.1  # relative error of the total at which a measurement ends


class GradientNoise(NamedTuple):
    """Variance over *repeated draws* of the gradient at fixed parameters, per parameter."""

    total: Array  # new batch and new chains: the sum of the next three fields, a scalar
    batch: Array  # V_batch, a scalar
    chains: Array  # V_chains, a scalar
    interaction: Array  # a scalar
    stderr: Array  # standard errors of total, batch, chains and interaction, [4]
    relative: Array  # total / squared norm of the mean, inf if that norm is not resolved
    draws: Array  # number of gradients drawn, int32


class _Sums(NamedTuple):
    """Over the blocks so far."""

    blocks: Array  # int32
    values: Array  # V_total, V_batch, V_chains, V_interaction and |mean|^2, [5]
    squares: Array  # [5]


def gradient_noise(
    gradient: Callable[[PRNGKey, PRNGKey], Params], key: PRNGKey, max_draws: int
) -> GradientNoise:
    """Variance of the stochastic gradient over repeated draws, and its sources.

    Draws blocks of four gradients until the standard error of the total is below a tenth of it.

    Args:
      gradient: (batch key, chain key) -> gradient with respect to (alpha, beta).
      key: consumed.
      max_draws: largest number of gradients, at least 8; rounded down to complete blocks.

    Returns:
      The noise. Small parts can have negative estimates.

    Raises:
      ValueError: if max_draws < 8.
    """
    if max_draws < 2 * DRAWS_PER_BLOCK:
        raise ValueError(f"max_draws must be at least 8, not {max_draws}.")
    most = max_draws // DRAWS_PER_BLOCK
    shapes = jax.eval_shape(gradient, key, key)

    def unresolved(sums: _Sums) -> Array:
        error = _standard_errors(sums)[0]
        resolved = error < RELATIVE_ERROR * jnp.abs(sums.values[0]) / sums.blocks
        return (sums.blocks < 3) | ((sums.blocks < most) & ~resolved)

    def add(sums: _Sums) -> _Sums:
        values = _block(gradient, jax.random.fold_in(key, sums.blocks))
        return _Sums(sums.blocks + 1, sums.values + values, sums.squares + values**2)

    zero = _Sums(jnp.zeros((), jnp.int32), jnp.zeros(5), jnp.zeros(5))
    sums = jax.lax.while_loop(lambda s: unresolved(s) & (s.blocks < most), add, zero)
    means, errors, num = sums.values / sums.blocks, _standard_errors(sums), size(shapes)
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


def _standard_errors(sums: _Sums) -> Array:
    """Standard errors of the means over blocks, [5]."""
    num = sums.blocks
    mean = sums.values / num
    variance = (sums.squares / num - mean**2) * num / jnp.maximum(num - 1, 1)
    return jnp.sqrt(jnp.maximum(variance, 0.0) / num)


def _block(gradient: Callable[[PRNGKey, PRNGKey], Params], key: PRNGKey) -> Array:
    """V_total, V_batch, V_chains, V_interaction and |mean|^2 from one block, summed over entries.

    The contrasts are accumulated one gradient after another, which needs memory for five
    gradients.
    """
    keys = jax.random.split(key, 4)
    signs = jnp.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2

    def add(contrasts: Params, draw: Array) -> tuple[Params, None]:
        grads = gradient(keys[draw // 2], keys[2 + draw % 2])
        added = jax.tree.map(
            lambda c, g: c + signs[:, draw].reshape(-1, *[1] * g.ndim) * g, contrasts, grads
        )
        return added, None

    shapes = jax.eval_shape(gradient, key, key)
    start = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape), leaf.dtype), shapes)
    contrasts, _ = jax.lax.scan(add, start, jnp.arange(DRAWS_PER_BLOCK))
    total, c, b, e = (square(jax.tree.map(lambda leaf, i=i: leaf[i], contrasts)) for i in range(4))
    chains, batch = (c - e) / 2, (b - e) / 2
    # (g_11 + g_12 + g_21 + g_22) / 2 is twice the mean: E |.|^2 = 4 |mean|^2 + 2 V_b + 2 V_c + V_i.
    norm = (total - 2 * batch - 2 * chains - e) / 4
    return jnp.stack([batch + chains + e, batch, chains, e, norm])
