"""Unadjusted Langevin dynamics for any density: one step, and a chain of them (eq. 9)."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PRNGKey

GradLogDensity = Callable[[Array], Array]  # [num, latent_dim] -> [num, latent_dim]


def step(grad_log_density: GradLogDensity, z: Array, step_size: float, noise: Array) -> Array:
    """One step: z' = z + s grad log q(z) + sqrt(2 s) epsilon (eq. 9).

    Args:
      grad_log_density: z -> grad log q(z).
      z: [num, latent_dim].
      step_size: s.
      noise: epsilon, standard normal, [num, latent_dim].

    Returns:
      z', [num, latent_dim].
    """
    chex.assert_equal_shape([z, noise])
    return z + step_size * grad_log_density(z) + jnp.sqrt(2.0 * step_size).astype(z.dtype) * noise


def chain(
    grad_log_density: GradLogDensity,
    z: Array,
    keys: PRNGKey,
    step_size: float,
    num_steps: int,
) -> Array:
    """The state after `num_steps` steps from z, one chain a row.

    Differentiable with respect to everything `grad_log_density` closes over; a step's
    activations are recomputed on the way back, so only the states are stored.

    Args:
      grad_log_density: [num, latent_dim] -> [num, latent_dim].
      z: initial states [num, latent_dim].
      keys: a key for each chain [num]; step k = 1 .. K uses the key folded with k (0 is z_0's).
      step_size: s.
      num_steps: K.

    Returns:
      [num, latent_dim].
    """
    chex.assert_rank(z, 2)
    chex.assert_shape(keys, (z.shape[0],))

    @jax.checkpoint
    def body(z: Array, k: Array) -> tuple[Array, None]:
        return step(grad_log_density, z, step_size, normal(keys, k, z.shape[1])), None

    return jax.lax.scan(body, z, jnp.arange(1, num_steps + 1))[0]


def normal(keys: PRNGKey, salt: int | Array, dim: int) -> Array:
    """Standard normals, a row [dim] from each key [num] folded with `salt`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, salt), (dim,)))(keys)
