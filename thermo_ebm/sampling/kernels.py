"""Markov kernels for tempered densities, each a value in `KERNELS`.

The density of a chain at temperature t is log q_t(z) = t l(z) + log p_alpha(z) up to a constant,
with the log-likelihood l (eq. 21); a `Target` evaluates it. A kernel is a pair of pure functions,

    init(target, z) -> state,        step(keys, state, target, step_size) -> (state, info),

on the states of many chains at once. A kernel of your own is used everywhere (training, exchange,
likelihood, traces, diagnostics) once it stands in `KERNELS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.randomness import StepKeys
from thermo_ebm.types import Array


class Point(NamedTuple):
    """States of chains, with both parts of the log-density there and their gradients."""

    z: Array  # [num, latent_dim]
    log_likelihood: Array  # l, [num]
    grad_log_likelihood: Array  # [num, latent_dim]
    log_prior: Array  # up to a constant, [num]
    grad_log_prior: Array  # [num, latent_dim]


class Position(NamedTuple):
    """States of chains whose density has not been evaluated."""

    z: Array  # [num, latent_dim]


# The states of a kernel: a tree of arrays [num, ...] with the field z. If it has the field
# log_likelihood as well, an exchange of states needs no evaluation of its own.
State = Any


class Target(NamedTuple):
    """The tempered density of each of `num` chains."""

    evaluate: Callable[[Array], Point]  # z [num, latent_dim] -> Point
    score: Callable[[Array], Array]  # z -> gradient of log q_t at each chain's t; no values
    temperature: Array  # t of each chain, [num]


class Info(NamedTuple):
    """What a step reports beside the new states."""

    acceptance: Array  # probability with which each chain's move was accepted, [num]


class Kernel(NamedTuple):
    """A Markov kernel; see the module's docstring.

    A step size is a scalar or one number for each chain, [num]. An unadjusted kernel accepts every
    move, so that its chains can be differentiated, and leaves the density only nearly invariant.
    """

    init: Callable[[Target, Array], State]
    step: Callable[[StepKeys, State, Target, float | Array], tuple[State, Info]]
    adjusted: bool  # whether a Metropolis test decides on each move
    # The same moves with the acceptance that a Metropolis test would have, at one evaluation per
    # step, for traces; None: the kernel reports its acceptance itself.
    traced: "Kernel | None" = None


def evaluated(target: Target, state: State) -> State:
    """The states with their log-likelihoods; evaluates the density where that was not done yet."""
    return state if hasattr(state, "log_likelihood") else target.evaluate(state.z)


def score(point: Point, temperature: Array) -> Array:
    """Gradient of the log-density at temperature t [num]: [num, latent_dim]."""
    return temperature[:, None] * point.grad_log_likelihood + point.grad_log_prior


def log_density(point: Point, temperature: Array) -> Array:
    """Log-density at temperature t [num], up to a constant: [num]."""
    return temperature * point.log_likelihood + point.log_prior


def langevin_move(z: Array, gradient: Array, step_size: float | Array, noise: Array) -> Array:
    """One unadjusted step: z' = z + s grad log q(z) + sqrt(2 s) epsilon (eq. 9).

    Args:
      z: [num, latent_dim].
      gradient: grad log q(z), [num, latent_dim].
      step_size: s, a scalar or [num, 1].
      noise: epsilon, standard normal, [num, latent_dim].

    Returns:
      z', [num, latent_dim].
    """
    chex.assert_equal_shape([z, noise])
    return z + step_size * gradient + jnp.sqrt(2.0 * step_size).astype(z.dtype) * noise


def metropolis_step(
    target: Target, point: Point, step_size: float | Array, noise: Array, log_uniform: Array
) -> tuple[Point, Info]:
    """One Metropolis-adjusted Langevin step (Roberts & Tweedie 1996) of each chain.

    The proposal is the unadjusted step; it is accepted with min(1, exp r),

        r = log q(z') - log q(z) + log N(z; z' + s score(z'), 2 s) - log N(z'; z + s score(z), 2 s).

    A proposal where the density is not finite is rejected.

    Args:
      target: the density, evaluated once, at the proposals.
      point: the current states.
      step_size: s, a scalar or [num].
      noise: standard normal, [num, latent_dim].
      log_uniform: log of a uniform number for each chain [num].

    Returns:
      The new states, and the acceptance probability of each chain.
    """
    chex.assert_equal_shape([point.z, noise])
    sizes = jnp.broadcast_to(jnp.asarray(step_size, point.z.dtype), point.z.shape[:1])
    s, temperature = sizes[:, None], target.temperature
    forward = point.z + s * score(point, temperature)
    proposal = target.evaluate(forward + jnp.sqrt(2.0 * s).astype(noise.dtype) * noise)
    backward = proposal.z + s * score(proposal, temperature)
    # |z' - forward|^2 = 2 s |noise|^2.
    log_forward = -jnp.sum(noise**2, axis=-1) / 2
    log_backward = -jnp.sum((point.z - backward) ** 2, axis=-1) / (4 * sizes)
    log_ratio = log_density(proposal, temperature) - log_density(point, temperature)
    log_ratio += log_backward - log_forward
    log_ratio = jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf)
    accepted = log_uniform < log_ratio
    new = jax.tree.map(
        lambda a, b: jnp.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b), proposal, point
    )
    return new, Info(jnp.exp(jnp.minimum(log_ratio, 0.0)))


def _position(target: Target, z: Array) -> Position:
    del target
    return Position(z)


def _point(target: Target, z: Array) -> Point:
    return target.evaluate(z)


def _unadjusted_step(
    keys: StepKeys, state: Position | Point, target: Target, step_size: float | Array
) -> tuple[Position, Info]:
    """Where an exchange has evaluated the states, the step uses that evaluation."""
    z, noise = state.z, keys.noise(state.z.shape[1])
    if isinstance(state, Point):
        gradient = score(state, target.temperature)
    else:
        gradient = target.score(z)
    size = jnp.expand_dims(step_size, -1) if jnp.ndim(step_size) else step_size
    return Position(langevin_move(z, gradient, size, noise)), Info(jnp.ones(len(z), z.dtype))


def _adjusted_step(
    keys: StepKeys, state: Point, target: Target, step_size: float | Array
) -> tuple[Point, Info]:
    noise = keys.noise(state.z.shape[1])
    return metropolis_step(target, state, step_size, noise, keys.log_uniform())


def _traced_unadjusted_step(
    keys: StepKeys, state: Point, target: Target, step_size: float | Array
) -> tuple[Point, Info]:
    """A log-uniform number below every log-ratio accepts all proposals: an unadjusted step."""
    noise = keys.noise(state.z.shape[1])
    return metropolis_step(target, state, step_size, noise, jnp.full(len(state.z), -jnp.inf))


KERNELS: dict[str, Kernel] = {
    "ula": Kernel(
        _position,
        _unadjusted_step,
        adjusted=False,
        traced=Kernel(_point, _traced_unadjusted_step, adjusted=False),
    ),
    "mala": Kernel(_point, _adjusted_step, adjusted=True),
}


def find_kernel(name: str) -> Kernel:
    """The kernel of this name.

    Raises:
      ValueError: `KERNELS` has no such name.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, not {name!r}.")
    return KERNELS[name]
