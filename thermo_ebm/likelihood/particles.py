"""Annealed sequential Monte Carlo: unbiased estimates of normalising constants.

For each of `num` problems, chains follow the path

    log pi_s(z) = log r(z) + s Delta(z),        0 = s_0 < .. < s_N = 1

from a normalised reference r that can be sampled to an unnormalised density pi_1 with the constant
Z. The weights of a problem's M chains are exp(sum_k (s_k - s_(k-1)) Delta(z_(k-1))). The chains
stand in independent islands; where the effective sample size of an island's weights falls below
half of its chains, they are resampled (systematic) and the mean weight is banked. The product of an
island's banked means is an unbiased estimate of Z (Del Moral, Doucet & Jasra 2006), and so is the
mean over islands, whose spread gives the error.

A pilot run, with random numbers that the estimate does not use, chooses for each problem the
schedule s(u), u in (0, 1), with equal barriers (Syed et al. 2024), and the step sizes along it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.randomness import (
    STEP_EXCHANGE,
    StepKeys,
    log_uniform,
    normal,
)
from thermo_ebm.sampling.kernels import KERNELS, Info, Kernel, State, Target
from thermo_ebm.types import Array, PRNGKey

# In the pilot: the share of chains that remain effective when s rises, which is a variance of the
# log-weights of about 1/4, and the first step size in the whitened coordinates.
REMAINING = 0.8
FIRST_STEP_SIZE = 0.7  # of leapfrog steps; of another kernel, its pilot finds it from there
TRAJECTORIES_OF_PILOT = 2  # at each temperature
_BISECTIONS = 40


class Problem(NamedTuple):
    """The path of each of `num` problems; chains of a problem stand together."""

    # (s [num], chains of a problem) -> the density of num * chains chains
    target: Callable[[Array, int], Target]
    # standard normal numbers [num * chains, latent_dim] -> draws of r
    draw: Callable[[Array], Array]
    numbers: Array  # from which each problem's random numbers come, [num] integers
    latent_dim: int


class PathSchedule(NamedTuple):
    """s(u) and the log of the step size at u, linear between knots at u = j / intervals."""

    knots: Array  # s, [num, pilot_temperatures + 1]; 1 from number `intervals` on
    log_step_size: Array  # [num, pilot_temperatures + 1]
    intervals: Array  # up to s = 1, [num]
    num_temperatures: Array  # N of an estimate along it, [num]; of the pilot, `intervals`


class Effort(NamedTuple):
    """Numbers of chains, temperatures and moves."""

    chains: int  # M, a multiple of `islands`
    islands: int
    trajectories: int = 1  # moves at each temperature
    kernel: Kernel = KERNELS["hmc"]
    most_temperatures: int = 0  # of a pilot, and of chains that come down


class Population(NamedTuple):
    """Chains of all problems with their weights."""

    state: State  # [num * M, ...]
    log_weight: Array  # since the last resampling, [num, islands, M / islands]
    log_bank: Array  # log of the product of the banked means, [num, islands]
    is_resampled: Array  # whether any island was, bool [num]
    smallest_size: Array  # effective sample size, least over temperatures, [num]
    acceptance: Array  # sum over temperatures, [num]
    lineage: Array | None = None  # slot of the retained chain in island 0, [num]


class Normaliser(NamedTuple):
    """Estimates of log Z of each problem, [num] each, and the chains at s = 1."""

    log_z: Array
    stderr: Array  # from the islands, or from the chains where no island was resampled
    spread: Array  # largest less smallest log Z of an island
    effective_sample_size: Array  # of the M weights: least over temperatures, and at the end
    acceptance: Array  # mean over temperatures
    z: Array  # [num * M, latent_dim]
    log_weight: Array  # log of the chains' weights at s = 1, [num, M]; their mean is Z


def pilot(problem: Problem, key: PRNGKey, effort: Effort) -> PathSchedule:
    """The schedule and the step sizes of each problem, by the chains of a single island."""
    num, kernel, temperatures = problem.numbers.shape[0], effort.kernel, effort.most_temperatures
    effort = effort._replace(islands=1)
    keys = _keys(problem, key, effort.chains)
    knots = jnp.zeros((num, temperatures + 1))
    log_sizes = jnp.full((num, temperatures + 1), jnp.log(FIRST_STEP_SIZE))

    def unfinished(carry: Any) -> Array:
        k, now, *_ = carry
        return (k <= temperatures) & jnp.any(now < 1)

    def visit(carry: Any) -> Any:
        k, now, population, log_size, count, knots, log_sizes = carry
        active = now < 1
        rise = jnp.where(k == temperatures, 1 - now, _rise(population, 1 - now))
        population = _reweigh(population, jnp.where(active, rise, 0.0))
        population = resample(population, keys, k)
        now = jnp.minimum(now + rise, 1.0)
        target, state = problem.target(now, effort.chains), population.state

        def move(carry: tuple[State, Array], r: Array) -> tuple[tuple[State, Array], None]:
            state, log_size = carry
            sizes = jnp.repeat(jnp.exp(log_size), effort.chains)
            step = StepKeys(keys, TRAJECTORIES_OF_PILOT * k + r)
            state, info = kernel.step(step, state, target, sizes)
            change = info.acceptance.reshape(num, -1).mean(axis=1) - kernel.best_acceptance
            return (state, log_size + jnp.where(active, change, 0.0)), None

        rounds = jnp.arange(TRAJECTORIES_OF_PILOT)
        (state, log_size), _ = jax.lax.scan(move, (state, log_size), rounds)
        knots = knots.at[:, k].set(now)
        log_sizes = log_sizes.at[:, k].set(log_size)
        population = population._replace(state=state)
        return k + 1, now, population, log_size, count + active, knots, log_sizes

    start = _start(problem, keys, effort)
    carry = (1, jnp.zeros(num), start, log_sizes[:, 0], jnp.zeros(num, jnp.int32), knots, log_sizes)
    *_, count, knots, log_sizes = jax.lax.while_loop(unfinished, visit, carry)
    return PathSchedule(knots, log_sizes, count, count)


def _rise(population: Population, most: Array) -> Array:
    """The largest step in s, at most `most`, that leaves `REMAINING` of the chains effective."""
    log_share = jax.nn.log_softmax(population.log_weight[:, 0], axis=-1)
    log_ratio = _log_ratio(population)[:, 0]

    def is_small(rise: Array) -> Array:
        log_factor = rise[:, None] * log_ratio
        first = jax.nn.logsumexp(log_share + log_factor, axis=-1)
        second = jax.nn.logsumexp(log_share + 2 * log_factor, axis=-1)
        return jnp.exp(2 * first - second) >= REMAINING

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        small = is_small(middle)
        return jnp.where(small, middle, low), jnp.where(small, high, middle)

    ends = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(most), most))
    return jnp.where(is_small(most), most, ends[1])


def anneal(
    problem: Problem,
    schedule: PathSchedule,
    key: PRNGKey,
    effort: Effort,
    retained: State | None = None,
) -> Normaliser:
    """Unbiased estimates of Z along a schedule; conditional SMC with a retained chain.

    Args:
      problem: the paths.
      schedule: from a pilot with another key.
      key: consumed.
      effort: chains and moves.
      retained: of `descend`, from an exact sample of pi_1; then 1 / Z is estimated without bias by
        1 / Z-hat (Andrieu, Doucet & Holenstein 2010).
    """
    num, kernel, num_temperatures = len(problem.numbers), effort.kernel, schedule.num_temperatures
    keys = _keys(problem, key, effort.chains)

    def visit(carry: tuple[Array, Population]) -> tuple[Array, Population]:
        k, population = carry
        temperature, log_size = _at(schedule, k / num_temperatures)
        before, _ = _at(schedule, (k - 1) / num_temperatures)
        moved = _reweigh(population, temperature - before)
        moved = resample(moved, keys, k)
        target = problem.target(temperature, effort.chains)
        sizes = jnp.repeat(jnp.exp(log_size), effort.chains)

        def move(state: State, r: Array) -> tuple[State, Info]:
            return kernel.step(StepKeys(keys, effort.trajectories * k + r), state, target, sizes)

        state, info = jax.lax.scan(move, moved.state, jnp.arange(effort.trajectories))
        if retained is not None:
            assert moved.lineage is not None
            rows = jnp.arange(num) * effort.chains + moved.lineage
            state = _insert(state, retained, k, rows)
        rate = info.acceptance.mean(axis=0).reshape(num, -1).mean(axis=1)
        moved = moved._replace(state=state, acceptance=moved.acceptance + rate)
        return k + 1, _where(k <= num_temperatures, moved, population)

    population = _start(problem, keys, effort)
    if retained is not None:
        state = _insert(population.state, retained, 0, jnp.arange(num) * effort.chains)
        population = population._replace(state=state, lineage=jnp.zeros(num, jnp.int32))
    last = jnp.max(num_temperatures)
    _, population = jax.lax.while_loop(
        lambda carry: carry[0] <= last, visit, (jnp.ones((), jnp.int32), population)
    )
    return _summary(population, num_temperatures)


def descend(
    problem: Problem,
    schedule: PathSchedule,
    key: PRNGKey,
    effort: Effort,
    latents: Array,
) -> State:
    """Chains from exact samples of pi_1 backwards through the moves at s_N .. s_1.

    The moves are reversible, so that the states are those of a chain that came up to the sample.

    Args:
      problem: the paths.
      schedule: that of the estimate.
      key: consumed.
      effort: moves of the estimate; `most_temperatures` is at least the largest N.
      latents: [num, latent_dim].

    Returns:
      The states after the moves at s_k, k = 0 .. most_temperatures,
      [most_temperatures + 1, num, ...].
    """
    kernel, num_temperatures = effort.kernel, schedule.num_temperatures
    keys = _keys(problem, key, 1)

    def visit(state: State, k: Array) -> tuple[State, State]:
        temperature, log_size = _at(schedule, k / num_temperatures)
        target = problem.target(temperature, 1)

        def move(state: State, r: Array) -> tuple[State, None]:
            step = StepKeys(keys, effort.trajectories * k + r)
            return kernel.step(step, state, target, jnp.exp(log_size))[0], None

        lower, _ = jax.lax.scan(move, state, jnp.arange(effort.trajectories))
        return _where(k <= num_temperatures, lower, state), state

    start = kernel.init(problem.target(jnp.ones(len(latents)), 1), latents)
    numbers = jnp.arange(1, effort.most_temperatures + 1)
    first, states = jax.lax.scan(visit, start, numbers, reverse=True)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, states)


def continued(
    problem: Problem, schedule: PathSchedule, key: PRNGKey, start: Array, effort: Effort
) -> Array:
    """States of chains at s = 1, after each of their moves.

    Args:
      problem: the paths.
      schedule: whose last step sizes are used.
      key: consumed.
      start: of equally many chains of each problem, [num * chains, latent_dim].
      effort: its `trajectories` are the moves.

    Returns:
      [trajectories, num * chains, latent_dim].
    """
    kernel, num = effort.kernel, len(problem.numbers)
    chains = len(start) // num
    target = problem.target(jnp.ones(num), chains)
    sizes = jnp.repeat(jnp.exp(_at(schedule, jnp.ones(num))[1]), chains)
    keys = _keys(problem, key, chains)

    def move(state: State, k: Array) -> tuple[State, Array]:
        state = kernel.step(StepKeys(keys, k), state, target, sizes)[0]
        return state, state.z

    return jax.lax.scan(move, kernel.init(target, start), jnp.arange(effort.trajectories))[1]


def _insert(state: State, retained: State, k: Array | int, rows: Array) -> State:
    """The states with those of the retained chains at s_k in these rows."""
    return jax.tree.map(lambda a, b: a.at[rows].set(b[k]), state, retained)


def _at(schedule: PathSchedule, u: Array) -> tuple[Array, Array]:
    """s and the log step size at u [num]; 1 beyond u = 1."""
    place = jnp.clip(u, 0.0, 1.0) * schedule.intervals
    left = jnp.minimum(place.astype(jnp.int32), schedule.intervals - 1)
    share = place - left

    def between(values: Array) -> Array:
        rows = jnp.arange(len(left))
        return (1 - share) * values[rows, left] + share * values[rows, left + 1]

    return between(schedule.knots), between(schedule.log_step_size)


def _keys(problem: Problem, key: PRNGKey, chains: int) -> PRNGKey:
    """A key for each chain, [num * chains]."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    of_problems = fold(key, problem.numbers)
    return jax.vmap(fold, in_axes=(0, None))(of_problems, jnp.arange(chains)).reshape(-1)


def _start(problem: Problem, keys: PRNGKey, effort: Effort) -> Population:
    num = problem.numbers.shape[0]
    z = problem.draw(normal(keys, 0, problem.latent_dim))
    state = effort.kernel.init(problem.target(jnp.zeros(num), effort.chains), z)
    shape = num, effort.islands, effort.chains // effort.islands
    return Population(
        state=state,
        log_weight=jnp.zeros(shape),
        log_bank=jnp.zeros(shape[:2]),
        is_resampled=jnp.zeros(num, bool),
        smallest_size=jnp.full(num, float(effort.chains)),
        acceptance=jnp.zeros(num),
    )


def _log_ratio(population: Population) -> Array:
    """Delta of each chain as [num, islands, M / islands]; -inf where it is not a number."""
    log_ratio = population.state.log_ratio.reshape(population.log_weight.shape)
    return jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)


def _reweigh(population: Population, rise: Array) -> Population:
    """The weights after a step of `rise` [num] in s."""
    rise = rise[:, None, None]
    added = jnp.where(rise > 0, rise * _log_ratio(population), 0.0)
    return population._replace(log_weight=population.log_weight + added)


def resample(population: Population, keys: PRNGKey, k: Array) -> Population:
    """Systematic resampling of islands with few effective chains."""
    num, islands, size = population.log_weight.shape
    share = jax.nn.softmax(population.log_weight, axis=-1)
    effective = 1 / jnp.sum(share**2, axis=-1)
    few = effective < size / 2
    first_of_island = keys.reshape(num * islands, size)[:, 0]
    uniform = jnp.exp(log_uniform(first_of_island, STEP_EXCHANGE + k)).reshape(num, islands)
    edges = jnp.cumsum(share, axis=-1)
    edges = edges / edges[..., -1:]
    lineage = population.lineage
    if lineage is not None:
        # A uniform point in the retained chain's interval makes the systematic draw conditional on
        # one descendant of it, which is retained in turn.
        rows = jnp.arange(num)
        left = jnp.where(lineage > 0, edges[rows, 0, lineage - 1], 0.0)
        point = size * (left + uniform[:, 0] * (edges[rows, 0, lineage] - left))
        descendant = jnp.clip(point.astype(jnp.int32), 0, size - 1)
        uniform = uniform.at[:, 0].set(point - descendant)
    points = (uniform[..., None] + jnp.arange(size)) / size
    ancestors = jnp.sum(edges[..., None, :] <= points[..., :, None], axis=-1)
    ancestors = jnp.minimum(ancestors, size - 1)
    if lineage is not None:
        ancestors = ancestors.at[rows, 0, descendant].set(lineage)
        lineage = jnp.where(few[:, 0], descendant, lineage)
    ancestors = jnp.where(few[..., None], ancestors, jnp.arange(size))
    rows = (jnp.arange(num * islands).reshape(num, islands, 1) * size + ancestors).reshape(-1)
    banked = _log_mean_exp(population.log_weight)
    return population._replace(
        state=jax.tree.map(lambda leaf: leaf[rows], population.state),
        log_weight=jnp.where(few[..., None], 0.0, population.log_weight),
        log_bank=population.log_bank + jnp.where(few, banked, 0.0),
        is_resampled=population.is_resampled | few.any(axis=1),
        smallest_size=jnp.minimum(population.smallest_size, effective.sum(axis=1)),
        lineage=lineage,
    )


def _summary(population: Population, num_temperatures: Array) -> Normaliser:
    num = population.log_weight.shape[0]
    log_z = population.log_bank + _log_mean_exp(population.log_weight)
    log_weight = (population.log_bank[..., None] + population.log_weight).reshape(num, -1)
    value = _log_mean_exp(log_z)
    of_islands = _relative_error(log_z, value)
    of_chains = _relative_error(log_weight, value)
    share = jax.nn.softmax(log_weight, axis=-1)
    return Normaliser(
        log_z=value,
        stderr=jnp.where(population.is_resampled, of_islands, of_chains),
        spread=log_z.max(axis=1) - log_z.min(axis=1),
        effective_sample_size=jnp.minimum(population.smallest_size, 1 / jnp.sum(share**2, axis=-1)),
        acceptance=population.acceptance / num_temperatures,
        z=population.state.z,
        log_weight=log_weight,
    )


def _relative_error(log_values: Array, log_mean: Array) -> Array:
    """Standard error of the log of a mean of independent numbers [num, n] (delta method).

    With few numbers the variance is itself uncertain: that of Student's t, not of a normal.
    """
    n = log_values.shape[1]
    relative = jnp.exp(log_values - log_mean[:, None])
    variance = jnp.sum((relative - 1) ** 2, axis=1) / (n - 1) / n
    return jnp.sqrt(variance * (n - 1) / max(n - 3, 1))


def _log_mean_exp(log_values: Array) -> Array:
    """Over the last axis."""
    return jax.nn.logsumexp(log_values, axis=-1) - jnp.log(log_values.shape[-1])


def _where(condition: Array, new: Any, old: Any) -> Any:
    """Trees whose leaves are [num, ...] or [num * chains, ...], by problem."""

    def choose(a: Array, b: Array) -> Array:
        flags = jnp.repeat(condition, a.shape[0] // condition.shape[0])
        return jnp.where(flags.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
