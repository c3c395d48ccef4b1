"""Exchange of states between neighbouring temperatures of one image's chains.

Deterministic even-odd exchange (Syed et al. 2022): each exchange tries either all even or all odd
pairs of neighbours, alternately; a pair swaps with probability

    min(1, exp((t_i - t_j) (l_j - l_i))),

which leaves the product of the tempered posteriors invariant. Each chain of each image
decides independently.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.sampling.kernels import EXCHANGE, Point, log_uniform
from thermo_ebm.types import Array, PRNGKey


class Swaps(NamedTuple):
    """One exchange in `num` groups of chains, each with one chain per temperature."""

    source: Array  # int32 [num_temperatures, num]: temperature whose state each place takes
    probability: Array  # probability of each pair's swap, tried or not, [num_temperatures - 1, num]
    due: Array  # whether there was an exchange, a bool


class ExchangeStatistics(NamedTuple):
    """Statistics of all exchanges of complete chains."""

    probability: Array  # mean probability of a swap of each pair, [num_temperatures - 1, num]
    round_trips: Array  # round trips from the lowest temperature to the highest and back, [num]


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
    num_temperatures = temperatures.shape[0]
    chex.assert_axis_dimension(log_likelihood, 0, num_temperatures)
    steps = -jnp.diff(temperatures)[:, None]  # t_i - t_j
    log_ratio = steps * jnp.diff(log_likelihood, axis=0)
    tried = (jnp.arange(num_temperatures - 1) % 2 == phase)[:, None] & due
    accepted = (tried & (log_uniforms < log_ratio)).astype(jnp.int32)
    up, down = jnp.pad(accepted, [(0, 1), (0, 0)]), jnp.pad(accepted, [(1, 0), (0, 0)])
    source = jnp.arange(num_temperatures, dtype=jnp.int32)[:, None] + up - down
    probability = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0.0))
    return Swaps(source, probability, jnp.asarray(due))


def permuted(point: Point, source: Array) -> Point:
    """Moves to each place the state of its source.

    Args:
      point: the states of chains [num_temperatures * num], temperature slowest.
      source: [num_temperatures, num].
    """

    def take(leaf: Array) -> Array:
        grouped = leaf.reshape(*source.shape, *leaf.shape[1:])
        index = source.reshape(*source.shape, *[1] * (leaf.ndim - 1))
        return jnp.take_along_axis(grouped, index, axis=0).reshape(leaf.shape)

    return jax.tree.map(take, point)


def make_exchange(
    temperatures: Array, keys: PRNGKey, every: int
) -> Callable[[Point, Array], tuple[Point, Swaps]]:
    """Returns a function that exchanges states every `every` steps, with alternating phase.

    Args:
      temperatures: t, increasing, [num_temperatures].
      keys: keys of the chains [num_temperatures * num], temperature slowest; the uniform number of
        a pair comes from the key of its lower temperature.
      every: at least 1.

    Returns:
      A function (Point of chains [num_temperatures * num], number of steps done) -> (the Point with
      states exchanged if an exchange is due, and the `Swaps` that were decided).
    """
    num_temperatures = temperatures.shape[0]
    lower = keys.reshape(num_temperatures, -1)[:-1]

    def exchange(point: Point, done: Array) -> tuple[Point, Swaps]:
        due = (done > 0) & (done % every == 0)
        uniforms = log_uniform(lower.reshape(-1), EXCHANGE + done).reshape(lower.shape)
        likelihood = point.log_likelihood.reshape(num_temperatures, -1)
        decided = swaps(temperatures, likelihood, uniforms, done // every % 2, due)
        return permuted(point, decided.source), decided

    return exchange


def statistics(seen: Swaps) -> ExchangeStatistics:
    """Summarises all exchanges of a run of chains.

    Args:
      seen: the `Swaps` of all steps, stacked, [num_steps, ...] each.
    """
    weight = seen.due.astype(seen.probability.dtype)
    total = jnp.einsum("k,ktn->tn", weight, seen.probability)
    return ExchangeStatistics(total / jnp.maximum(weight.sum(), 1.0), round_trips(seen.source))


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

    def follow(carry: tuple[Array, Array], one: Array) -> tuple[tuple[Array, Array], None]:
        came_from, trips = carry
        came_from = jnp.take_along_axis(came_from, one, axis=0)
        trips = trips + (came_from[0] == 2)
        came_from = came_from.at[0].set(1)
        came_from = came_from.at[-1].set(jnp.where(came_from[-1] >= 1, 2, came_from[-1]))
        return (came_from, trips), None

    (_, trips), _ = jax.lax.scan(follow, (start, jnp.zeros(num, jnp.int32)), source)
    return trips
