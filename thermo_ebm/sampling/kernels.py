"""Markov kernels for tempered densities, each a value in `KERNELS`.

The density of a chain at temperature t is log pi_t(z) = log r(z) + t Delta(z) up to a constant,
with a reference r and the log-ratio Delta of the posterior and the reference: the prior p_alpha and
the log-likelihood l (eq. 21), or the linear reference q(z | x) and f + log p0 + l - log q. A
`Target` evaluates it. A kernel is a pair of pure functions,

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
    log_ratio: Array  # Delta, [num]
    grad_log_ratio: Array  # [num, latent_dim]
    log_reference: Array  # log r up to a constant, [num]
    grad_log_reference: Array  # [num, latent_dim]


class Position(NamedTuple):
    """States of chains whose density has not been evaluated."""

    z: Array  # [num, latent_dim]


# The states of a kernel: a tree of arrays [num, ...] with the field z. If it has the field
# log_ratio as well, an exchange of states needs no evaluation of its own.
State = Any


class Target(NamedTuple):
    """The tempered density of each of `num` chains."""

    evaluate: Callable[[Array], Point]  # z [num, latent_dim] -> Point
    score: Callable[[Array], Array]  # z -> gradient of log pi_t at each chain's t; no values
    temperature: Array  # t of each chain, [num]
    # L^-1 of the metric A = L L^T of each group of chains, [groups, latent_dim, latent_dim]; chains
    # of a group stand together, and groups are equally large. None: A = I.
    inverse_factors: Array | None = None


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
    # The acceptance that adapted step sizes approach: for an adjusted kernel that of the best
    # mixing, for an unadjusted one that of a small bias, of the Metropolis test it leaves out.
    best_acceptance: float = 0.574
    # The same moves with the acceptance that a Metropolis test would have, at one evaluation per
    # step, for traces; None: the kernel reports its acceptance itself.
    traced: "Kernel | None" = None
    # L -> the kernel with L leapfrog steps in a move; None: the kernel has no such number.
    with_leapfrog: "Callable[[int], Kernel] | None" = None


def evaluated(target: Target, state: State) -> State:
    """The states with their log-ratios; evaluates the density where that was not done yet."""
    return state if hasattr(state, "log_ratio") else target.evaluate(state.z)


def score(point: Point, temperature: Array) -> Array:
    """Gradient of the log-density at temperature t [num]: [num, latent_dim]."""
    return temperature[:, None] * point.grad_log_ratio + point.grad_log_reference


def log_density(point: Point, temperature: Array) -> Array:
    """Log-density at temperature t [num], up to a constant: [num]."""
    return temperature * point.log_ratio + point.log_reference


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
    sizes = _sizes(point, step_size)
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
    return _choose(proposal, point, log_uniform, log_ratio)


def _choose(
    proposal: Point, point: Point, log_uniform: Array, log_ratio: Array
) -> tuple[Point, Info]:
    """The proposal where a Metropolis test accepts it."""
    accepted = log_uniform < log_ratio
    new = jax.tree.map(
        lambda a, b: jnp.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b), proposal, point
    )
    return new, Info(jnp.exp(jnp.minimum(log_ratio, 0.0)))


def whiten(target: Target, gradient: Array) -> Array:
    """L^-1 g of gradients [num, latent_dim] in the target's metric."""
    return _by_group(target, "gij,gnj->gni", gradient)


def unwhiten(target: Target, velocity: Array) -> Array:
    """L^-T v of whitened velocities [num, latent_dim] in the target's metric."""
    return _by_group(target, "gji,gnj->gni", velocity)


def _by_group(target: Target, subscripts: str, rows: Array) -> Array:
    factors = target.inverse_factors
    if factors is None:
        return rows
    grouped = rows.reshape(factors.shape[0], -1, rows.shape[-1])
    return jnp.einsum(subscripts, factors, grouped).reshape(rows.shape)


def leapfrog(
    target: Target, point: Point, sizes: Array, momentum: Array, num_leapfrog: int
) -> tuple[Point, Array]:
    """A trajectory of leapfrog steps in the target's metric (Neal 2011).

    Momenta are those of the whitened coordinates u = L^T z, in which the metric is I.

    Args:
      target: the density, evaluated once a step.
      point: where the trajectories begin.
      sizes: of the steps, [num].
      momentum: standard normal, [num, latent_dim].
      num_leapfrog: L, number of steps.

    Returns:
      Where the trajectories end, and the log of the Metropolis ratio [num], -inf where a trajectory
      met a density that is not finite.
    """
    size = sizes[:, None]

    def kick(point: Point, momentum: Array) -> Array:
        return momentum + size / 2 * whiten(target, score(point, target.temperature))

    def step(carry: tuple[Point, Array], _: None) -> tuple[tuple[Point, Array], None]:
        point, momentum = carry
        momentum = kick(point, momentum)
        point = target.evaluate(point.z + size * unwhiten(target, momentum))
        return (point, kick(point, momentum)), None

    (end, last), _ = jax.lax.scan(step, (point, momentum), None, length=num_leapfrog)
    log_ratio = log_density(end, target.temperature) - log_density(point, target.temperature)
    log_ratio += jnp.sum(momentum**2 - last**2, axis=-1) / 2
    return end, jnp.where(jnp.isfinite(log_ratio), log_ratio, -jnp.inf)


def _position(target: Target, z: Array) -> Position:
    del target
    return Position(z)


def _point(target: Target, z: Array) -> Point:
    return target.evaluate(z)


def _sizes(point: Point, step_size: float | Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(step_size, point.z.dtype), point.z.shape[:1])


def _unadjusted_step(
    keys: StepKeys, state: Position | Point, target: Target, step_size: float | Array
) -> tuple[Position, Info]:
    """Where an exchange has evaluated the states, the step uses that evaluation."""
    z, noise = state.z, keys.noise(state.z.shape[1])
    if isinstance(state, Point):
        gradient = score(state, target.temperature)
    else:
        gradient = target.score(z)
    if target.inverse_factors is not None:
        gradient = unwhiten(target, whiten(target, gradient))
        noise = unwhiten(target, noise)
    size = jnp.expand_dims(step_size, -1) if jnp.ndim(step_size) else step_size
    return Position(langevin_move(z, gradient, size, noise)), Info(jnp.ones(len(z), z.dtype))


def _langevin_step(
    target: Target, point: Point, step_size: float | Array, noise: Array, log_uniform: Array
) -> tuple[Point, Info]:
    """In a metric, one leapfrog step of size sqrt(2 s) is a Metropolis-adjusted Langevin step."""
    if target.inverse_factors is None:
        return metropolis_step(target, point, step_size, noise, log_uniform)
    sizes = jnp.sqrt(2 * _sizes(point, step_size))
    end, log_ratio = leapfrog(target, point, sizes, noise, 1)
    return _choose(end, point, log_uniform, log_ratio)


def _adjusted_step(
    keys: StepKeys, state: Point, target: Target, step_size: float | Array
) -> tuple[Point, Info]:
    noise = keys.noise(state.z.shape[1])
    return _langevin_step(target, state, step_size, noise, keys.log_uniform())


def _traced_unadjusted_step(
    keys: StepKeys, state: Point, target: Target, step_size: float | Array
) -> tuple[Point, Info]:
    """A log-uniform number below every log-ratio accepts all proposals: an unadjusted step."""
    noise = keys.noise(state.z.shape[1])
    return _langevin_step(target, state, step_size, noise, jnp.full(len(state.z), -jnp.inf))


def hmc(num_leapfrog: int) -> Kernel:
    """Hamiltonian Monte Carlo with L leapfrog steps in the target's metric.

    Each trajectory's step is the step size times exp(-U), U uniform in (0, 1): without it
    chains where the density is more curved than elsewhere would reject every move.

    Args:
      num_leapfrog: L, at least 1.

    Raises:
      ValueError: for fewer than one leapfrog step.
    """
    if num_leapfrog < 1:
        raise ValueError(f"num_leapfrog must be at least 1, not {num_leapfrog}.")

    def step(
        keys: StepKeys, state: Point, target: Target, step_size: float | Array
    ) -> tuple[Point, Info]:
        sizes = _sizes(state, step_size) * jnp.exp(-JITTER * keys.uniform())
        momentum = keys.noise(state.z.shape[1])
        end, log_ratio = leapfrog(target, state, sizes, momentum, num_leapfrog)
        return _choose(end, state, keys.log_uniform(), log_ratio)

    return Kernel(_point, step, adjusted=True, best_acceptance=0.75, with_leapfrog=hmc)


NUM_LEAPFROG = 3  # L unless settings name another
JITTER = 1.0  # a trajectory's step is between exp(-1) times the step size and the step size

KERNELS: dict[str, Kernel] = {
    "ula": Kernel(
        _position,
        _unadjusted_step,
        adjusted=False,
        best_acceptance=0.9,
        traced=Kernel(_point, _traced_unadjusted_step, adjusted=False, best_acceptance=0.9),
    ),
    # best at 0.574 (Roberts & Rosenthal 1998)
    "mala": Kernel(_point, _adjusted_step, adjusted=True),
    "hmc": hmc(NUM_LEAPFROG),
}


def find_kernel(name: str, num_leapfrog: int = NUM_LEAPFROG) -> Kernel:
    """The kernel of this name.

    Args:
      name: of the kernel.
      num_leapfrog: L, leapfrog steps in a move of a kernel that has them.

    Raises:
      ValueError: `KERNELS` has no such name, or for fewer than one leapfrog step.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, not {name!r}.")
    kernel = KERNELS[name]
    return kernel if kernel.with_leapfrog is None else kernel.with_leapfrog(num_leapfrog)
