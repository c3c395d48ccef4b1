"""Chains of the model: one driver, and with it the chains of all temperatures of a schedule.

The random numbers of a chain come from its own key (`thermo_ebm.randomness`), so that a chain does
not depend on how the batch is divided into devices and chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm import scopes
from thermo_ebm.models.latent_ebm import (
    LatentEBM,
    log_likelihood,
    log_power_posterior,
    log_prior,
    with_compute_dtype,
)
from thermo_ebm.randomness import STEP_NOISE, StepKeys, all_chain_keys, normal
from thermo_ebm.sampling import exchange as exchanges
from thermo_ebm.sampling import kernels, linear_reference
from thermo_ebm.sampling.chunks import bind_in_chunks, map_in_chunks, tile
from thermo_ebm.sampling.kernels import Info, Point, State, Target
from thermo_ebm.sampling.linear_reference import LinearReference
from thermo_ebm.sampling.path import FROM_PRIOR, Ladder, Path
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch, check_key

_PILOT_CHAINS, _PILOT_STEPS = 256, 60


class Adaptation(NamedTuple):
    """A step size that changes along the chains."""

    log_step_size: Array  # of the first step, a scalar or [num]
    # (log s of step k, the info of step k, k) -> log s of step k + 1
    update: Callable[[Array, Info, Array], Array]


class ChainSettings(NamedTuple):
    """How a chain runs."""

    step_size: float | Array | Adaptation  # s of eq. 9; an array has one number per chain
    num_steps: int  # K
    kernel: str = "ula"  # a name in kernels.KERNELS
    num_leapfrog: int = kernels.NUM_LEAPFROG  # L, of a kernel with leapfrog steps
    # Whether the step size approaches the kernel's best acceptance: in training from one step to
    # the next (`path.updated`), elsewhere by pilot chains. `step_size` is then the first.
    adapt: bool = False
    # Whether the prior's chains of a training step continue those of the step before. Elsewhere
    # they then run until they have arrived.
    persistent: bool = False


class SamplerSettings(NamedTuple):
    """The chains of prior and posterior."""

    prior: ChainSettings  # K_z steps
    posterior: ChainSettings  # K_{z|x,t} steps
    image_chunk: int = 0  # images sampled at once, with all their temperatures; 0 is all of them
    chain_chunk: int = 0  # of these images' chains, evaluated at once; 0 is all of them
    precision: str = "float32"  # of the networks inside the chains
    chains_per_image: int = 2  # M, at every temperature
    exchange_every: int = 0  # steps between exchanges of neighbouring temperatures; 0: none
    start: str = "prior"  # where chains begin: p0, or "reference", draws of the linear reference


class Chains(NamedTuple):
    """Chains after their last step."""

    state: State  # final states, as the kernel keeps them
    acceptance: Array  # mean acceptance probability of the steps, [num]; 1 without rejection
    swaps: exchanges.Swaps | None  # of all steps, [num_steps, ...] each; None without exchange
    records: Any  # what `record` returned, [num_steps, ...] each
    log_step_size: Any  # after the last adaptation, an Array; None without adaptation

    @property
    def latents(self) -> Array:
        """Final latents, [num, latent_dim]."""
        return self.state.z


class Latents(NamedTuple):
    """States of the chains; M per image, images along the third axis."""

    ladder: Array  # at t_0 .. t_N or at some of these, [T, M, num, latent_dim]
    prior: Array  # of p_alpha, [1, M, num, latent_dim]


class Trace(NamedTuple):
    """States after 1 .. K steps; T = num_temperatures + 1, M chains per image."""

    latents: Array  # [K, T, M, num, latent_dim]
    log_ratio: Array  # Delta (l, with the prior as reference), in nats, [K, T, M, num]
    # Metropolis acceptance probability of each step, hypothetical for "ula", [K, T, M, num].
    acceptance: Array
    # The index in t_1 .. t_N from which each state came before each step, [K, T - 1, M, num].
    source: Array


class TemperedChains(NamedTuple):
    """Where the chains of all temperatures ended; T = num_temperatures + 1, M chains per image."""

    latents: Array  # [T, M, num, latent_dim]
    prior: Array  # latents of p_alpha, [1, M, num, latent_dim]
    acceptance: Array  # mean over an image's chains, of p_alpha and of t_1 .. t_N, [T, num]
    swap_probability: Array  # of neighbours in t_1 .. t_N, [T - 2, num]; 0 without exchange
    round_trips: Array  # of states between t_1 and t_N, summed over an image's chains, [num]
    trace: Trace | None = None  # if it was asked for

    @property
    def states(self) -> Latents:
        """Where the chains of the ladder and of the prior ended."""
        return Latents(self.latents, self.prior)


def run_chain(
    target: Target,
    start: State,
    keys: PRNGKey,
    settings: ChainSettings,
    exchange: exchanges.Exchange | None = None,
    record: Callable[[State, Info], Any] | None = None,
) -> Chains:
    """Runs one chain for each key: the driver of all chains of the library.

    Chains of an unadjusted kernel without exchange are differentiable with respect to everything
    that `target` closes over; activations of a step are recomputed in the backward pass, so that
    only the states are stored.

    Args:
      target: the density of each chain.
      start: latents [num, latent_dim], or final states of earlier chains of the same kernel.
      keys: a key for each chain, [num].
      settings: step size, number of steps and kernel.
      exchange: called before each step with the states and the number of steps done.
      record: called after each step with the new states, which have their log-ratio then, and
        the step's info. Unadjusted chains that are recorded report the acceptance of the
        Metropolis test that they leave out, which takes one more evaluation of the density.

    Raises:
      ValueError: for an unknown kernel.
    """
    kernel = kernels.find_kernel(settings.kernel, settings.num_leapfrog)
    if record is not None and kernel.traced is not None:
        kernel = kernel.traced
    state = start if hasattr(start, "z") else kernel.init(target, start)
    chex.assert_rank(state.z, 2)
    chex.assert_shape([keys, target.temperature], state.z.shape[:1])
    sizes = settings.step_size

    @jax.checkpoint
    def body(carry: tuple[State, Info, Any], k: Array) -> tuple[Any, Any]:
        state, total, log_size = carry
        swaps = None
        if exchange is not None:
            state, swaps = exchange(kernels.evaluated(target, state), k - 1)
        size = jnp.exp(log_size) if isinstance(sizes, Adaptation) else sizes
        state, info = kernel.step(StepKeys(keys, k), state, target, size)
        if isinstance(sizes, Adaptation):
            log_size = sizes.update(log_size, info, k)
        total = jax.tree.map(jnp.add, total, info)
        records = None if record is None else record(kernels.evaluated(target, state), info)
        return (state, total, log_size), (swaps, records)

    nothing = Info(jnp.zeros(state.z.shape[:1], state.z.dtype))
    first = sizes.log_step_size if isinstance(sizes, Adaptation) else None
    (state, total, log_size), (swaps, records) = jax.lax.scan(
        body, (state, nothing, first), jnp.arange(1, settings.num_steps + 1)
    )
    acceptance = total.acceptance / max(settings.num_steps, 1)
    return Chains(state, acceptance, swaps, records, log_size)


def record_nothing(state: State, info: Info) -> None:
    """What `run_chain` records of unadjusted chains whose acceptance alone is wanted."""
    del state, info


def prior_target(model: LatentEBM, alpha: chex.ArrayTree, num: int) -> Target:
    """p_alpha(z) for `num` chains, as a density at t = 0; the generator is never evaluated."""

    def evaluate(z: Array) -> Point:
        value, gradient = _value_and_gradient(partial(log_prior, model, alpha), z)
        return Point(z, jnp.zeros_like(value), jnp.zeros_like(z), value, gradient)

    score = jax.grad(lambda z: log_prior(model, alpha, z).sum())
    return Target(evaluate, score, jnp.zeros(num))


def posterior_target(
    model: LatentEBM,
    params: Params,
    x: Array,
    temperatures: Array,
    chunk: int = 0,
    path: Path = FROM_PRIOR,
) -> Target:
    """The density of each chain on the path to the posterior; by default eq. 21.

    Args:
      model: the model.
      params: alpha and beta.
      x: the image of each chain, [num, *image_shape].
      temperatures: t of each chain, [num].
      chunk: chains whose density is evaluated at once; 0 is all of them.
      path: reference and metric; the chains of a metric's temperature stand together.
    """
    chex.assert_shape(temperatures, (x.shape[0],))
    per_chain: tuple[Array, ...] = (x, temperatures)
    evaluate, score = density_from_prior(model, params)
    if path.reference is not None:
        per_chain += (linear_reference.mean(path.reference, x),)
        evaluate, score = density_from_reference(model, params, path.reference)
    bind = bind_in_chunks(per_chain, chunk)
    return Target(bind(evaluate), bind(score), temperatures, path.inverse_factors)


def density_from_prior(
    model: LatentEBM, params: Params
) -> tuple[Callable[..., Point], Callable[..., Array]]:
    """The path from p_alpha, as functions of x, t and z: log r is f + log p0, and Delta is l."""

    def evaluate(x: Array, t: Array, z: Array) -> Point:
        del t
        likelihood = _value_and_gradient(partial(log_likelihood, model, params["generator"], x), z)
        prior = _value_and_gradient(partial(log_prior, model, params["prior"]), z)
        return Point(z, *likelihood, *prior)

    def score(x: Array, t: Array, z: Array) -> Array:
        return jax.grad(lambda z: log_power_posterior(model, params, x, z, t).sum())(z)

    return evaluate, score


def density_from_reference(
    model: LatentEBM, params: Params, reference: LinearReference
) -> tuple[Callable[..., Point], Callable[..., Array]]:
    """The path from q, as functions of x, t, the mean of q and z.

    log r is log q, and Delta is f + log p0 + l - log q.
    """
    constant = model.prior.log_constant

    def log_joint(x: Array, z: Array) -> Array:
        return log_power_posterior(model, params, x, z, jnp.ones(())) - constant

    def evaluate(x: Array, t: Array, center: Array, z: Array) -> Point:
        del t
        joint, grad_joint = _value_and_gradient(partial(log_joint, x), z)
        log_q = linear_reference.log_density(reference, center, z)
        grad_q = (center - z) @ reference.precision
        return Point(z, joint - log_q, grad_joint - grad_q, log_q, grad_q)

    def score(x: Array, t: Array, center: Array, z: Array) -> Array:
        joint = jax.grad(lambda z: (t * log_joint(x, z)).sum())(z)
        return joint + (1 - t)[:, None] * ((center - z) @ reference.precision)

    return evaluate, score


def _value_and_gradient(fn: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    """Value of `fn` for each row, [num], and its gradient with respect to the row."""

    def total(z: Array) -> tuple[Array, Array]:
        values = fn(z)
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(z)
    return values, gradient


def prior_chains(
    model: LatentEBM, alpha: chex.ArrayTree, keys: PRNGKey, settings: ChainSettings
) -> Chains:
    """Chains from the reference prior towards p_alpha(z) (eq. 10-12), one for each key [num].

    An adapted step size is that of pilot chains and depends on the parameters alone. A prior with
    exact draws has these, without a step.
    """
    if model.prior.exact_sample is not None:
        draws = model.prior.exact_sample(alpha, keys)
        return _standing(prior_target(model, alpha, len(keys)), draws, keys, settings)
    start = model.prior.sample_reference(keys)
    if settings.adapt:
        settings = settings._replace(step_size=_pilot_step_size(model, alpha, settings))
    return run_chain(prior_target(model, alpha, len(keys)), start, keys, settings)


def _standing(target: Target, draws: Array, keys: PRNGKey, settings: ChainSettings) -> Chains:
    """Exact draws as chains without a step, whose acceptance is 1."""
    chains = run_chain(target, draws, keys, settings._replace(num_steps=0))
    return chains._replace(acceptance=jnp.ones_like(chains.acceptance))


def _pilot_step_size(model: LatentEBM, alpha: chex.ArrayTree, settings: ChainSettings) -> Array:
    """The step size of the kernel's best acceptance, from pilot chains of the prior."""
    keys = jax.random.split(jax.random.key(0), _PILOT_CHAINS)
    target = prior_target(model, alpha, _PILOT_CHAINS)
    best = kernels.find_kernel(settings.kernel, settings.num_leapfrog).best_acceptance

    def update(log_step_size: Array, info: Info, k: Array) -> Array:
        # The gain falls, so that the last value depends little on the last acceptance.
        return log_step_size + 3 * (info.acceptance.mean() - best) / jnp.sqrt(k)

    adaptation = Adaptation(jnp.log(jnp.float32(settings.step_size)), update)
    pilot = settings._replace(step_size=adaptation, num_steps=_PILOT_STEPS)
    start = model.prior.sample_reference(keys)
    return jnp.exp(run_chain(target, start, keys, pilot, record=record_nothing).log_step_size)


def posterior_chains(
    model: LatentEBM,
    params: Params,
    x: Array,
    temperatures: Array,
    keys: PRNGKey,
    settings: ChainSettings,
) -> Chains:
    """Chains from the reference prior towards the power posterior (eq. 22).

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape].
      temperatures: t of each chain [num].
      keys: a key for each chain [num].
      settings: step size, number of steps and kernel.
    """
    target = posterior_target(model, params, x, temperatures)
    return run_chain(target, model.prior.sample_reference(keys), keys, settings)


def tempered_chains(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    ladder: Ladder,
    key: PRNGKey,
    settings: SamplerSettings,
    start: Array | None = None,
    record: bool = False,
) -> TemperedChains:
    """Chains at every temperature of a ladder, M per image, and chains of the prior.

    The chains of t_0 = 0 target the prior and use the prior's sampler. All others run as one
    batch, or in chunks of at most `settings.image_chunk` images with all their temperatures. Of
    their chains, every step evaluates at most `settings.chain_chunk` at once.

    With the linear reference, t_0 = 0 has draws of q, and the chains of the prior stand beside the
    ladder.

    Args:
      model: the model.
      params: alpha and beta. Unadjusted chains without exchange are differentiable with respect to
        both; to detach the chains from alpha or beta, stop its gradient.
      batch: this device's examples.
      ladder: temperatures, reference, metric and step sizes.
      key: consumed.
      settings: the samplers.
      start: first states of the prior's chains and of t_1 .. t_N, [num_temperatures + 1, M, num,
        latent_dim]; by default those that `settings.start` names.
      record: whether to return the trace of all steps; prior and posterior then need equal numbers
        of steps. Random numbers and steps are the same as without. Its first temperature is that of
        the prior's chains, which have l in place of Delta.

    Raises:
      ValueError: for an unknown kernel, a `batch` or `key` that is none, or images that are not in
        [-1, 1].
    """
    check_batch(batch)
    check_key(key)
    chex.assert_rank(ladder.temperatures, 1)
    x, positions, _ = batch
    model = with_compute_dtype(model, jnp.dtype(settings.precision))
    chains = _LadderChains(model, params, ladder, key, settings, record)

    def run_chunk(arrays: tuple[Array, Array, Array | None]) -> TemperedChains:
        x, positions, start = arrays
        start = None if start is None else jnp.moveaxis(start, 0, 2)
        return _move_images(chains.posterior(x, positions, start), to_front=True)

    with jax.named_scope(scopes.PRIOR_CHAINS):
        prior = chains.prior(x, positions, None if start is None else start[:1])
    with jax.named_scope(scopes.POSTERIOR_CHAINS):
        start = None if start is None else jnp.moveaxis(start[1:], 2, 0)
        chunks = map_in_chunks(run_chunk, (x, positions, start), settings.image_chunk)
        posterior = _move_images(chunks, to_front=False)
        first = prior.latents
        if ladder.path.reference is not None:
            first = chains.reference_draws(x, positions, jnp.zeros(1, jnp.int32))
    return posterior._replace(
        latents=jnp.concatenate([first, posterior.latents]),
        prior=prior.latents,
        acceptance=jnp.concatenate([prior.acceptance, posterior.acceptance]),
        trace=_joined(prior.trace, posterior.trace),
    )


def chains_of_prior(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    ladder: Ladder,
    key: PRNGKey,
    settings: SamplerSettings,
) -> TemperedChains:
    """The chains of t_0 alone, those that `tempered_chains` has; arguments likewise."""
    model = with_compute_dtype(model, jnp.dtype(settings.precision))
    chains = _LadderChains(model, params, ladder, key, settings, record=False)
    with jax.named_scope(scopes.PRIOR_CHAINS):
        return chains.prior(batch.images, batch.position, None)


class _LadderChains(NamedTuple):
    """The chains of `tempered_chains`, whose arguments these are, for some of the images."""

    model: LatentEBM
    params: Params
    ladder: Ladder
    key: PRNGKey
    settings: SamplerSettings
    record: bool

    def prior(self, x: Array, positions: Array, start: Array | None) -> TemperedChains:
        """The chains of p_alpha; their trace has l, which needs the generator.

        A prior with exact draws has these; they move only to be recorded.
        """
        keys, alpha = self._keys(positions, jnp.zeros(1, jnp.int32)), self.params["prior"]
        flat, settings = keys.reshape(-1), self.settings.prior
        target = prior_target(self.model, alpha, keys.size)
        begin = start
        if begin is None and self.model.prior.exact_sample is not None:
            begin = self.model.prior.exact_sample(alpha, flat)
            if not self.record:
                return _by_temperature(_standing(target, begin, flat, settings), keys.shape)
        elif begin is None:
            begin = self.model.prior.sample_reference(flat)
            if (kept := self.ladder.path.prior_latents) is not None:
                kept = kept[:, positions].reshape(begin.shape)
                begin = jnp.where(jnp.isfinite(kept), kept, begin)
        if self.record:
            target = self._posterior_target(x, self.ladder.temperatures[:1], keys, FROM_PRIOR)
        settings = self._with_step_sizes(settings, slice(0, 1), keys)
        begin = begin.reshape(keys.size, -1)
        moved = run_chain(target, begin, flat, settings, None, self._record)
        return _by_temperature(moved, keys.shape)

    def posterior(self, x: Array, positions: Array, start: Array | None) -> TemperedChains:
        """The chains of t_1 .. t_N, with their exchanges."""
        t = self.ladder.temperatures[1:]
        indices = jnp.arange(1, len(t) + 1)
        keys = self._keys(positions, indices)
        flat = keys.reshape(-1)
        target = self._posterior_target(x, t, keys, self.ladder.path)
        if start is None and self.settings.start == "reference":
            start = self.reference_draws(x, positions, indices)
        elif start is None:
            start = self.model.prior.sample_reference(flat)
        exchange = None
        if self.settings.exchange_every:
            exchange = exchanges.make_exchange(t, flat, self.settings.exchange_every)
        settings = self._with_step_sizes(self.settings.posterior, slice(1, None), keys)
        start = start.reshape(keys.size, -1)
        moved = run_chain(target, start, flat, settings, exchange, self._record)
        return _by_temperature(moved, keys.shape)

    def reference_draws(self, x: Array, positions: Array, indices: Array) -> Array:
        """Draws of q at some of the temperatures, [T, M, num, latent_dim]."""
        keys, reference = self._keys(positions, indices), self.ladder.path.reference
        assert reference is not None
        noise = normal(keys.reshape(-1), STEP_NOISE, self.model.latent_dim)
        center = linear_reference.mean(reference, x)
        z = linear_reference.draw(reference, tile(center, keys.size // len(positions)), noise)
        return z.reshape(*keys.shape, -1)

    @property
    def _record(self) -> Callable[[State, Info], Any] | None:
        if self.record:
            return _trace_step
        return None if self.ladder.path.step_size is None else record_nothing

    def _keys(self, positions: Array, indices: Array) -> PRNGKey:
        """[len(indices), M, num]."""
        return all_chain_keys(self.key, indices, positions, self.settings.chains_per_image)

    def _with_step_sizes(
        self, settings: ChainSettings, group: slice, keys: PRNGKey
    ) -> ChainSettings:
        """With the path's step sizes, if it has them, of chains at some of the temperatures."""
        if self.ladder.path.step_size is None:
            return settings
        sizes = self.ladder.path.step_size[group]
        return settings._replace(step_size=jnp.repeat(sizes, keys.size // len(sizes)))

    def _posterior_target(self, x: Array, t: Array, keys: PRNGKey, path: Path) -> Target:
        of_chain = jnp.repeat(t, keys.size // len(t))
        repeated = tile(x, keys.size // x.shape[0])
        chunk = self.settings.chain_chunk
        return posterior_target(self.model, self.params, repeated, of_chain, chunk, path)


def _trace_step(state: State, info: Info) -> tuple[Array, Array, Array]:
    return state.z, state.log_ratio, info.acceptance


def _by_temperature(chains: Chains, shape: tuple[int, ...]) -> TemperedChains:
    """Chains [T * M * num] of some temperatures as [T, M, num] (`shape`), and their exchanges."""
    num_temperatures, per_image, num = shape
    probability = jnp.zeros((num_temperatures - 1, num), chains.latents.dtype)
    trips, trace = jnp.zeros(num, jnp.int32), None
    if (swaps := chains.swaps) is not None:
        probability = exchanges.mean_probability(swaps).reshape(-1, per_image, num).mean(axis=1)
        trips = exchanges.round_trips(swaps.source).reshape(per_image, num).sum(axis=0)
    if chains.records is not None:
        z, likelihood, acceptance = (
            leaf.reshape(leaf.shape[0], *shape, *leaf.shape[2:]) for leaf in chains.records
        )
        source = jnp.arange(num_temperatures, dtype=jnp.int32)[:, None, None]
        if swaps is not None:
            source = swaps.source.reshape(likelihood.shape)
        trace = Trace(z, likelihood, acceptance, 1 + jnp.broadcast_to(source, likelihood.shape))
    latents = chains.latents.reshape(*shape, -1)
    return TemperedChains(
        latents,
        latents[:1],
        chains.acceptance.reshape(shape).mean(axis=1),
        probability,
        trips,
        trace,
    )


def _move_images(chains: TemperedChains, to_front: bool) -> TemperedChains:
    """Moves the axis of images to the front of each field, or from there to its own place."""
    axes = [2, 2, 1, 1, 0] + [3] * len(chains.trace or ())
    leaves, structure = jax.tree.flatten(chains)
    moved = [
        jnp.moveaxis(leaf, axis, 0) if to_front else jnp.moveaxis(leaf, 0, axis)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def _joined(prior: Trace | None, posterior: Trace | None) -> Trace | None:
    """The trace of all temperatures; the prior's chains take no part in exchanges."""
    if prior is None or posterior is None:
        return None
    pairs = zip(prior, posterior, strict=True)
    fields = Trace(*(jnp.concatenate(pair, axis=1) for pair in pairs))
    return fields._replace(source=posterior.source)
