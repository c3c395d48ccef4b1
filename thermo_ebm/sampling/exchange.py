"""Exchange of states between neighbouring temperatures of one image's chains.

Deterministic even-odd exchange (Syed et al. 2022): each exchange tries either all even or all odd
pairs of neighbours, alternately; a pair swaps with probability

    min(1, exp((t_i - t_j) (Delta_j - Delta_i))),

with the log-ratio Delta of posterior and reference (l, if the reference is the prior), which leaves
the product of the tempered densities invariant. Each chain of each image decides independently.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.randomness import STEP_EXCHANGE, log_uniform
from thermo_ebm.sampling.kernels import State
from thermo_ebm.types import Array, PRNGKey


class Swaps(NamedTuple):
    """One exchange in `num` groups of chains, each with one chain per temperature."""

    source: Array  # int32 [num_temperatures, num]: temperature whose state each place takes
    probability: Array  # probability of each pair's swap, tried or not, [num_temperatures - 1, num]
    due: Array  # whether there was an exchange, a bool


# (states of chains [num_temperatures * num] with their log_ratio, number of steps done) ->
# (the states, exchanged if an exchange is due, and what was decided)
Exchange = Callable[[State, Array], tuple[State, Swaps]]


def swap_log_ratio(temperatures: Array, log_likelihood: Array) -> Array:
    """Log of exp((t_i - t_j) (l_j - l_i)) for neighbours j = i + 1.

    Args:
      temperatures: t, increasing, [num_temperatures].
      log_likelihood: l of the states at each temperature, [num_temperatures, ...].

    Returns:
      [num_temperatures - 1, ...]; a swap is accepted with probability min(1, exp(log ratio)).
    """
    chex.assert_axis_dimension(log_likelihood, 0, temperatures.shape[0])
    intervals = -jnp.diff(temperatures)  # t_i - t_j
    shape = (-1, *[1] * (log_likelihood.ndim - 1))
    return intervals.reshape(shape) * jnp.diff(log_likelihood, axis=0)


def swap_rejection(temperatures: Array, log_likelihood: Array) -> Array:
    """Probability that a swap of neighbours is rejected; arguments as for `swap_log_ratio`."""
    return -jnp.expm1(jnp.minimum(swap_log_ratio(temperatures, log_likelihood), 0.0))


def swaps(
    temperatures: Array, log_likelihood: Array, log_uniforms: Array, phase: Array, due: Array
) -> Swaps:
    """Decides which neighbours swap.

    Args:
      temperatures: t, increasing, [num_temperatures].
      log_likelihood: l at each temperature's state, [num_temperatures, num].
      log_uniforms: log of a uniform number for each pair, [num_temperatures - 1, num].
      phase: 0 tries the pairs (0, 1), (2, 3), ..., 1 the pairs (1, 2), (3, 4), ...
      due: whether there is an exchange at all.
    """
    log_ratio = swap_log_ratio(temperatures, log_likelihood)
    pairs = jnp.arange(temperatures.shape[0] - 1)
    tried = (pairs % 2 == phase)[:, None] & due
    accepted = (tried & (log_uniforms < log_ratio)).astype(jnp.int32)
    up, down = jnp.pad(accepted, [(0, 1), (0, 0)]), jnp.pad(accepted, [(1, 0), (0, 0)])
    source = jnp.arange(temperatures.shape[0], dtype=jnp.int32)[:, None] + up - down
    probability = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0.0))
    return Swaps(source, probability, jnp.asarray(due))


def make_exchange(temperatures: Array, keys: PRNGKey, interval: int) -> Exchange:
    """Returns a function that exchanges states every `interval` steps, with alternating phase.

    Args:
      temperatures: t, increasing, [num_temperatures].
      keys: keys of the chains [num_temperatures * num], temperature slowest; the uniform number of
        a pair comes from the key of its lower temperature.
      interval: number of steps between exchanges, at least 1.
    """
    num_temperatures = temperatures.shape[0]
    lower = keys.reshape(num_temperatures, -1)[:-1]

    def exchange(state: State, done: Array) -> tuple[State, Swaps]:
        due = (done > 0) & (done % interval == 0)
        uniforms = log_uniform(lower.reshape(-1), STEP_EXCHANGE + done).reshape(lower.shape)
        likelihood = state.log_ratio.reshape(num_temperatures, -1)
        decided = swaps(temperatures, likelihood, uniforms, done // interval % 2, due)

        def take(leaf: Array) -> Array:
            grouped = leaf.reshape(*decided.source.shape, *leaf.shape[1:])
            index = decided.source.reshape(*decided.source.shape, *[1] * (leaf.ndim - 1))
            return jnp.take_along_axis(grouped, index, axis=0).reshape(leaf.shape)

        return jax.tree.map(take, state), decided

    return exchange


def mean_probability(steps: Swaps) -> Array:
    """Mean probability of each pair's swap over the exchanges of complete chains.

    Args:
      steps: the `Swaps` of all steps, stacked, [num_steps, ...] each.

    Returns:
      [num_temperatures - 1, num]; 0 if there was no exchange.
    """
    weight = steps.due.astype(steps.probability.dtype)
    total = jnp.einsum("k,ktn->tn", weight, steps.probability)
    return total / jnp.maximum(weight.sum(), 1.0)


def round_trips(source: Array) -> Array:
    """Round trips of the states between the lowest and the highest temperature.

    Args:
      source: which temperature's state each place took, [num_exchanges, num_temperatures, num].

    Returns:
      Number of round trips, summed over the states of each group, [num].
    """
    num_temperatures, num = source.shape[1:]
    # Of the state at each place. 0: never at the lowest; 1: was there; 2: at the highest since.
    start = jnp.zeros((num_temperatures, num), jnp.int32).at[0].set(1)

    def follow(carry: tuple[Array, Array], moves: Array) -> tuple[tuple[Array, Array], None]:
        came_from, trips = carry
        came_from = jnp.take_along_axis(came_from, moves, axis=0)
        trips = trips + (came_from[0] == 2)
        came_from = came_from.at[0].set(1)
        came_from = came_from.at[-1].set(jnp.where(came_from[-1] >= 1, 2, came_from[-1]))
        return (came_from, trips), None

    (_, trips), _ = jax.lax.scan(follow, (start, jnp.zeros(num, jnp.int32)), source)
    return trips
