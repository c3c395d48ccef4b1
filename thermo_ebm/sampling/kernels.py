"""Langevin kernels for any density: unadjusted (eq. 9), and adjusted by Metropolis.

The random numbers of a chain come from its own key, folded with the number of the step: `NOISE` for
Gaussian increments (step 0 for the initial state), `ACCEPT` and `EXCHANGE` for uniform numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PRNGKey

KERNELS = ("ula", "mala")
NOISE, ACCEPT, EXCHANGE = 0, 2**30, 2**30 + 2**29  # first of the numbers that are folded into keys

GradLogDensity = Callable[[Array], Array]  # [num, latent_dim] -> [num, latent_dim]


class Point(NamedTuple):
    """States of chains, with the log-density and its gradient there, in two parts.

    The density at temperature t is t times the first part plus the second.
    """

    z: Array  # [num, latent_dim]
    log_likelihood: Array  # l, [num]
    grad_log_likelihood: Array  # [num, latent_dim]
    log_prior: Array  # up to a constant, [num]
    grad_log_prior: Array  # [num, latent_dim]


Evaluate = Callable[[Array], Point]  # z [num, latent_dim] -> Point
# (Point, number of steps done) -> (Point with some states exchanged, a record of the exchange)
Exchange = Callable[[Point, Array], tuple[Point, chex.ArrayTree]]


def step(
    grad_log_density: GradLogDensity, z: Array, step_size: float | Array, noise: Array
) -> Array:
    """One unadjusted step: z' = z + s grad log q(z) + sqrt(2 s) epsilon (eq. 9).

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
    """The state after `num_steps` unadjusted steps from z, one chain per row.

    Differentiable with respect to everything that `grad_log_density` closes over; activations of a
    step are recomputed in the backward pass, so that only the states are stored.

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


def score(point: Point, temperature: Array) -> Array:
    """Gradient of the log-density at temperature t [num]: [num, latent_dim]."""
    return temperature[:, None] * point.grad_log_likelihood + point.grad_log_prior


def log_density(point: Point, temperature: Array) -> Array:
    """Log-density at temperature t [num], up to a constant: [num]."""
    return temperature * point.log_likelihood + point.log_prior


def mala_step(
    evaluate: Evaluate,
    point: Point,
    temperature: Array,
    step_size: Array,
    noise: Array,
    log_uniform: Array,
) -> tuple[Point, Array]:
    """One Metropolis-adjusted step (Roberts & Tweedie 1996) of each chain.

    The proposal is the unadjusted step; it is accepted with min(1, exp r),

        r = log q(z') - log q(z) + log N(z; z' + s score(z'), 2 s) - log N(z'; z + s score(z), 2 s).

    A proposal where the density is not finite is rejected.

    Args:
      evaluate: z -> Point, called once, at the proposals.
      point: the current states.
      temperature: t of each chain [num].
      step_size: s of each chain [num].
      noise: standard normal, [num, latent_dim].
      log_uniform: log of a uniform number for each chain [num].

    Returns:
      The new states, and the acceptance probability of each chain [num].
    """
    chex.assert_equal_shape([point.z, noise])
    s = step_size[:, None]
    forward = point.z + s * score(point, temperature)
    proposal = evaluate(forward + jnp.sqrt(2.0 * s).astype(noise.dtype) * noise)
    backward = proposal.z + s * score(proposal, temperature)
    # |z' - forward|^2 = 2 s |noise|^2.
    log_forward = -jnp.sum(noise**2, axis=-1) / 2
    log_backward = -jnp.sum((point.z - backward) ** 2, axis=-1) / (4 * step_size)
    log_ratio = log_density(proposal, temperature) - log_density(point, temperature)
    log_ratio += log_backward - log_forward
    log_ratio = jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf)
    accepted = log_uniform < log_ratio
    new = jax.tree.map(
        lambda a, b: jnp.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b), proposal, point
    )
    return new, jnp.exp(jnp.minimum(log_ratio, 0.0))


def unadjusted_chain(
    evaluate: Evaluate,
    z: Array,
    temperature: Array,
    keys: PRNGKey,
    step_size: float,
    num_steps: int,
    exchange: Exchange,
) -> tuple[Array, chex.ArrayTree]:
    """`chain` with exchange of states, which uses the evaluations made for the steps.

    Args:
      evaluate: z -> Point, called once per step.
      z: initial states [num, latent_dim].
      temperature: t of each chain [num].
      keys: a key for each chain [num].
      step_size: s.
      num_steps: K.
      exchange: called before each step.

    Returns:
      The states [num, latent_dim], and the records of `exchange`, [num_steps, ...].
    """

    def body(z: Array, k: Array) -> tuple[Array, chex.ArrayTree]:
        point, seen = exchange(evaluate(z), k - 1)
        noise = normal(keys, k, z.shape[1])
        return step(lambda _: score(point, temperature), point.z, step_size, noise), seen

    return jax.lax.scan(body, z, jnp.arange(1, num_steps + 1))


def adjusted_chain(
    evaluate: Evaluate,
    z: Array,
    temperature: Array,
    keys: PRNGKey,
    step_size: float | Array,
    num_steps: int,
    exchange: Exchange | None = None,
) -> tuple[Point, Array, chex.ArrayTree]:
    """The state after `num_steps` Metropolis-adjusted steps; one evaluation per step, one before.

    Args:
      evaluate: z -> Point.
      z: initial states [num, latent_dim].
      temperature: t of each chain [num].
      keys: a key for each chain [num].
      step_size: s, a scalar or of each chain [num].
      num_steps: K.
      exchange: called before each step; None exchanges nothing.

    Returns:
      The final states, the mean acceptance probability of each chain [num], and the records of
      `exchange`, [num_steps, ...].
    """
    chex.assert_shape(keys, (z.shape[0],))
    steps = jnp.broadcast_to(jnp.asarray(step_size, z.dtype), z.shape[:1])

    def body(carry: tuple[Point, Array], k: Array) -> tuple[tuple[Point, Array], chex.ArrayTree]:
        point, total = carry
        point, seen = (point, None) if exchange is None else exchange(point, k - 1)
        noise, uniform = normal(keys, k, z.shape[1]), log_uniform(keys, ACCEPT + k)
        point, probability = mala_step(evaluate, point, temperature, steps, noise, uniform)
        return (point, total + probability), seen

    start = (evaluate(z), jnp.zeros(z.shape[:1], z.dtype))
    (point, total), seen = jax.lax.scan(body, start, jnp.arange(1, num_steps + 1))
    return point, total / max(num_steps, 1), seen


def normal(keys: PRNGKey, salt: int | Array, dim: int) -> Array:
    """Standard normal numbers, one row [dim] from each key [num] folded with `salt`."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, salt), (dim,)))(keys)


def log_uniform(keys: PRNGKey, salt: int | Array) -> Array:
    """Logarithms of uniform numbers in (0, 1), one from each key [num] folded with `salt`."""
    draws = jax.vmap(lambda key: jax.random.exponential(jax.random.fold_in(key, salt)))(keys)
    return -draws
