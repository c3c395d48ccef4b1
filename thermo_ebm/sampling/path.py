"""The path from a reference to the posterior, and what a training run learns of it.

    log pi_s(z) = (1 - s) log r(z) + s log p(x, z),      s_0 = 0 < .. < s_N = 1

r is the prior, or the linear reference q(z | x) of `linear_reference`. Chains at s move in the
metric A_s = (1 - s) C^-1 + s (G + I / sigma_0^2): C is the covariance of q (sigma_0^2 I of the
prior), and G = E[J^T F J] the mean curvature of the log-likelihood, J the generator's Jacobian and
F the Fisher information of its outputs (I / sigma_l^2 for the Gaussian likelihood). Estimates v v^T
of G, v = J^T F^(1/2) u, come from random probes u ~ N(0, I).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.cholesky import cholesky_and_inverse
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.models.likelihoods import ImageLikelihood
from thermo_ebm.randomness import STEP_NOISE, normal
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling.kernels import find_kernel
from thermo_ebm.sampling.linear_reference import LinearReference, PairMoments, Pairs
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Array, Params, PRNGKey

LEAST_CURVATURE_WEIGHT = 0.05  # of a step's probes in the running curvature
PROBED_SHARE = 4  # of so many images one is probed


class PathState(NamedTuple):
    """What a run has learned of the path. None: the settings do not need it."""

    moments: PairMoments | None  # of simulated pairs, for the linear reference
    curvature: Array | None  # G, [D, D]
    log_step_size: Array | None  # of the prior's chains and of t_1 .. t_N, [N + 1]
    updates: Array  # int32
    # The last states of the prior's chains, [M, images of a step, D]; nan before the first step.
    prior_latents: Array | None = None


class Path(NamedTuple):
    """What chains of one step use of it."""

    reference: LinearReference | None = None  # None: the prior
    inverse_factors: Array | None = None  # L^-1 of A_s = L L^T for s_1 .. s_N, [N, D, D]
    step_size: Array | None = None  # of the prior's chains and of s_1 .. s_N, [N + 1]
    prior_latents: Array | None = None  # where the prior's chains begin; None: at p0


FROM_PRIOR = Path()  # from the prior, in the metric I, with the samplers' step sizes


class Ladder(NamedTuple):
    """Temperatures, and the path whose densities they choose."""

    schedule: Schedule
    path: Path = FROM_PRIOR

    @property
    def temperatures(self) -> Array:
        """t_0 = 0 .. t_N = 1, [num_temperatures + 1]."""
        return self.schedule.temperatures


class PathSettings(NamedTuple):
    """Which path, and what of it is learned."""

    reference: str = "prior"  # or "linear"
    metric: bool = False  # whether chains move in A_s instead of I
    # The first step sizes of prior and posterior, if they adapt; None: they stay those of the
    # samplers.
    first_step_sizes: tuple[Any, Any] | None = None
    # M and the images of a step, if the prior's chains persist.
    prior_chains: tuple[int, int] | None = None


class Observation(NamedTuple):
    """Sums of what the chains of a step show of the path, over all devices.

    None: it is not learned.
    """

    pairs: Any  # PairSums
    curvature: Any  # an Array: the weighted sum of v v^T, [D, D]
    probes: Any  # an Array: the sum of the weights
    prior_latents: Any  # an Array: the states of the prior's chains at the images' positions


def init_state(
    model: LatentEBM, settings: PathSettings, num_temperatures: int, image_dim: int
) -> PathState | None:
    """The state before the first step, when q is p0; None if nothing is learned."""
    if not is_learned(settings):
        return None
    moments = curvature = log_step_size = prior_latents = None
    if settings.reference == "linear":
        moments = linear_reference.prior_moments(model.latent_dim, image_dim, model.prior_sigma)
    if settings.metric:
        curvature = jnp.zeros((model.latent_dim, model.latent_dim))
    if settings.first_step_sizes is not None:
        prior, posterior = map(math.log, settings.first_step_sizes)
        # Not of JAX's weak type, with which the step would be compiled twice.
        log_step_size = jnp.full(num_temperatures + 1, posterior, jnp.float32).at[0].set(prior)
    if settings.prior_chains is not None:
        shape = *settings.prior_chains, model.latent_dim
        prior_latents = jnp.full(shape, jnp.nan, jnp.result_type(float))
    return PathState(moments, curvature, log_step_size, jnp.zeros((), jnp.int32), prior_latents)


def is_learned(settings: PathSettings) -> bool:
    """Whether a run has a `PathState`."""
    return settings != PathSettings()


def with_num_temperatures(state: PathState, num_temperatures: int) -> PathState:
    """The state for another N_t: every temperature has the step size of t = 1."""
    if state.log_step_size is None:
        return state
    prior, posterior = state.log_step_size[0], state.log_step_size[-1]
    return state._replace(log_step_size=jnp.full(num_temperatures + 1, posterior).at[0].set(prior))


def make_ladder(model: LatentEBM, state: PathState | None, schedule: Schedule) -> Ladder:
    """The ladder of the next step.

    Args:
      model: the model.
      state: what has been learned; None for the path from the prior in the metric I.
      schedule: s_0 = 0 .. s_N = 1.
    """
    if state is None:
        return Ladder(schedule)
    reference = factors = step_size = None
    if state.moments is not None:
        least = model.likelihood.least_variance
        reference = linear_reference.fit(state.moments, model.prior_sigma, least)
    if state.curvature is not None:
        factors = inverse_factors(model, reference, state.curvature, schedule.temperatures[1:])
    if state.log_step_size is not None:
        step_size = jnp.exp(state.log_step_size)
    return Ladder(schedule, Path(reference, factors, step_size, state.prior_latents))


def inverse_factors(
    model: LatentEBM, reference: LinearReference | None, curvature: Array, temperatures: Array
) -> Array:
    """L^-1 of A_s = L L^T at each of the temperatures: [num, D, D].

    Args:
      model: the model.
      reference: q; None for the prior.
      curvature: G, [D, D].
      temperatures: s, [num].
    """
    identity = jnp.eye(model.latent_dim)
    prior = identity / model.prior_sigma**2
    hot = prior if reference is None else reference.precision
    s = temperatures[:, None, None]
    metrics = (1 - s) * hot + s * (curvature + prior)
    return jax.vmap(cholesky_and_inverse)(metrics)[1]


def simulate_pairs(
    likelihood: ImageLikelihood, latents: Array, outputs: Array, keys: PRNGKey
) -> Pairs:
    """Pairs simulated from the model, at latents of its prior.

    Args:
      likelihood: of images.
      latents: z ~ p_alpha, [num, D].
      outputs: of the generator at these latents, [num, ...].
      keys: of the images, [num].
    """
    num, least = len(latents), likelihood.least_variance
    x, mean = likelihood.sample(keys, outputs), likelihood.mean(outputs)
    excess = jnp.sum((likelihood.variance(outputs) - least).reshape(num, -1), axis=1)
    return Pairs(latents, mean.reshape(num, -1), excess, x.reshape(num, -1))


def curvature_products(
    model: LatentEBM, params: Params, latents: Array, keys: PRNGKey, weights: Array
) -> Array:
    """The weighted sum of v v^T over latents, with v = J^T F^(1/2) u: [D, D].

    F is the Fisher information of the outputs, 1 / sigma_l^2 for the Gaussian likelihood.

    Args:
      model: the model.
      params: alpha and beta.
      latents: where J is evaluated, [num, D].
      keys: of the probes u, [num].
      weights: [num].
    """
    outputs, pull_back = jax.vjp(lambda z: model.generator(params["generator"], z), latents)
    noise = normal(keys, STEP_NOISE, math.prod(outputs.shape[1:])).reshape(outputs.shape)
    v = pull_back(jnp.sqrt(model.likelihood.information(outputs)) * noise)[0]
    return (weights[:, None] * v).T @ v


def probed(positions: Array, mask: Array) -> tuple[Array, Array]:
    """Rows of the images with probes, those of every fourth position, and their weights.

    Args:
      positions: in the complete batch, one after another, [num].
      mask: 0 for padding, [num].
    """
    num = positions.shape[0]
    rows = -positions[0] % PROBED_SHARE + PROBED_SHARE * jnp.arange(-(-num // PROBED_SHARE))
    clipped = jnp.minimum(rows, num - 1)
    return clipped, (rows < num) * mask[clipped]


def updated(state: PathState, observed: Observation, acceptance: Array, best: Array) -> PathState:
    """The state after a step.

    Args:
      state: before it.
      observed: of the complete batch.
      acceptance: of the prior's chains and of t_1 .. t_N, [N + 1].
      best: the acceptance that the step sizes approach, [N + 1].
    """
    moments, curvature, log_step_size = state.moments, state.curvature, state.log_step_size
    if moments is not None:
        moments = linear_reference.updated(moments, observed.pairs)
    if curvature is not None:
        weight = jnp.maximum(LEAST_CURVATURE_WEIGHT, 1.0 / (state.updates + 1))
        curvature = (1 - weight) * curvature + weight * observed.curvature / observed.probes
    if log_step_size is not None:
        # Robbins & Monro 1951, with a gain that stays positive since the density keeps changing.
        gain = jnp.maximum(0.25, 1.0 / (1 + state.updates / 10))
        log_step_size += gain * (acceptance - best)
    return PathState(moments, curvature, log_step_size, state.updates + 1, observed.prior_latents)


def best_acceptance(prior_kernel: str, posterior_kernel: str, num_temperatures: int) -> Array:
    """The acceptance that the step sizes approach, [N + 1]."""
    prior, posterior = (
        find_kernel(name).best_acceptance for name in (prior_kernel, posterior_kernel)
    )
    return jnp.full(num_temperatures + 1, posterior).at[0].set(prior)
