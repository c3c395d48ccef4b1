"""Annealing of chains from prior to posterior, or back, with a step size that chains share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.randomness import all_chain_keys
from thermo_ebm.sampling.chains import (
    Adaptation,
    ChainSettings,
    posterior_target,
    prior_target,
    run_chain,
)
from thermo_ebm.sampling.chunks import tile
from thermo_ebm.sampling.kernels import Info, State, Target, evaluated, find_kernel
from thermo_ebm.types import Array, Params, PRNGKey

TARGET_ACCEPTANCE = 0.574  # optimal for Langevin proposals (Roberts & Rosenthal 1998)
_GAIN = 1.0  # of the adaptation of log s, per step
_STEP_SIZE = 0.1  # at first, in units of sigma_0^2


class LikelihoodSettings(NamedTuple):
    """Settings of the estimator of log p(x)."""

    num_temperatures: int = 30  # N
    chains_per_image: int = 16  # M, at least 2
    steps_per_temperature: int = 10  # steps; the first half of them adapt the step size
    prior_steps: int = 200  # steps of the initial chains towards p_alpha
    power: float = 3.0  # p of the schedule before its adaptation
    pilots: int = 2  # pilot runs, with a quarter of the chains, that adapt the schedule
    simulation_steps: int = 2000  # steps of the prior chains that give latents of simulated images
    kernel: str = "mala"  # a name in kernels.KERNELS, of an adjusted kernel


class Annealed(NamedTuple):
    """Record of annealed chains, in the order of the temperatures that they passed."""

    log_likelihood: Array  # l at each temperature, [num_temperatures + 1, M, num]
    acceptance: Array  # [num_temperatures]
    latents: Array  # final states of the chains, [M, num, latent_dim]
    log_step_size: Array  # log of the final step size, a scalar


class Annealer(NamedTuple):
    """The chains of some images, which share a step size."""

    model: LatentEBM
    params: Params
    settings: LikelihoodSettings
    positions: Array  # [num], from which each image's random numbers come
    mask: Array  # [num], 0 for padding images, which do not change the step size
    key: PRNGKey
    axis_name: str | None = None  # the pmapped axis the images are spread over, if any

    def prior_latents(self) -> tuple[Array, Array]:
        """Ends of long chains towards p_alpha, [M, num, latent_dim], and the log step size."""
        start = self.model.prior.sample_reference(self._keys(0))
        target = prior_target(self.model, self.params["prior"], len(start))
        log_step_size = jnp.log(jnp.float32(_STEP_SIZE * self.model.prior_sigma**2))
        steps = self.settings.prior_steps
        (state, log_step_size), _ = self._move(target, 0, (start, log_step_size), steps)
        return self._by_image(state.z), log_step_size

    def anneal(
        self, images: Array, latents: Array, temperatures: Array, log_step_size: Array
    ) -> Annealed:
        """Takes chains from the first temperature through all others, in the given order.

        Args:
          images: [num, *image_shape].
          latents: states at the first temperature, [M, num, latent_dim].
          temperatures: increasing from the prior's, or decreasing from the posterior's.
          log_step_size: log of the initial step size, a scalar.
        """
        repeated = tile(images, self.settings.chains_per_image)

        def target_at(temperature: Array) -> Target:
            t = jnp.full(repeated.shape[0], temperature)
            return posterior_target(self.model, self.params, repeated, t)

        def visit(
            carry: tuple[State, Array], rung: tuple[Array, Array]
        ) -> tuple[tuple[State, Array], tuple[Array, Array]]:
            index, temperature = rung
            target, steps = target_at(temperature), self.settings.steps_per_temperature
            carry, acceptance = self._move(target, index, carry, steps)
            return carry, (evaluated(target, carry[0]).log_ratio, acceptance)

        first = target_at(temperatures[0])
        flat = latents.reshape(-1, latents.shape[-1])
        state = find_kernel(self.settings.kernel).init(first, flat)
        indices = jnp.arange(1, temperatures.shape[0])
        (last, log_step_size), (likelihood, acceptance) = jax.lax.scan(
            visit, (state, log_step_size), (indices, temperatures[1:])
        )
        start = evaluated(first, state).log_ratio[None]
        likelihood = jnp.concatenate([start, likelihood])
        shape = (-1, self.settings.chains_per_image, images.shape[0])
        return Annealed(
            likelihood.reshape(shape), acceptance, self._by_image(last.z), log_step_size
        )

    def _move(
        self, target: Target, index: Array | int, carry: tuple[State, Array], num_steps: int
    ) -> tuple[tuple[State, Array], Array]:
        """Steps at the temperature of this index, the first half of which adapt the step size.

        The carry is the chains' states and the log step size. Returns both after the steps, and the
        acceptance rate in the second half, a mean over all chains.
        """
        start, log_step_size = carry
        adapting = -(-num_steps // 2)
        weights = jnp.tile(self.mask, self.settings.chains_per_image)
        total = all_sum(weights.sum(), self.axis_name)

        def acceptance(info: Info) -> Array:
            return all_sum(jnp.sum(weights * info.acceptance), self.axis_name) / total

        def update(log_step_size: Array, info: Info, k: Array) -> Array:
            change = _GAIN * (acceptance(info) - TARGET_ACCEPTANCE)
            return log_step_size + jnp.where(k <= adapting, change, 0.0)

        adaptation = Adaptation(log_step_size, update)
        settings = ChainSettings(adaptation, num_steps, self.settings.kernel)
        chains = run_chain(
            target, start, self._keys(index), settings, record=lambda _, info: acceptance(info)
        )
        rates = chains.records[adapting:] if num_steps > 1 else chains.records
        return (chains.state, chains.log_step_size), rates.mean()

    def _keys(self, index: Array | int) -> PRNGKey:
        """A key for each chain at one temperature, [M * num]."""
        per_image = self.settings.chains_per_image
        indices = jnp.asarray(index)[None]
        return all_chain_keys(self.key, indices, self.positions, per_image).reshape(-1)

    def _by_image(self, latents: Array) -> Array:
        """[M * num, latent_dim] -> [M, num, latent_dim]."""
        return latents.reshape(self.settings.chains_per_image, -1, latents.shape[-1])
