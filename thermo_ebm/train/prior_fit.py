"""A prior of given latents: the second of two stages, after a model whose decoder is frozen.

The tilt f_alpha maximises the mean of log p_alpha(z) = f_alpha(z) + log p0(z) - log Z_alpha over
latents z of training images, drawn from their posteriors:

    grad_alpha = E_latents[grad f_alpha(z)] - E_(p_alpha)[grad f_alpha(z)]

with the second mean from persistent chains of p_alpha (Tieleman 2008), or exact where log Z_alpha
is known. With latents of p(z | x) under the prior p_old, the gain of log p(x) is at least the mean
of log p_alpha(z) - log p_old(z), a step of expectation maximisation (Dempster et al. 1977). Pang
et al. (2020) and Aneja et al. (2021) fit such priors.

>>> import jax
>>> import thermo_ebm as te
>>> latents = 0.5 + 0.1 * jax.random.normal(jax.random.key(0), (500, 2))
>>> settings = te.PriorFitSettings(prior="factorized", features=8, num_updates=200)
>>> fitted = te.fit_prior(latents, jax.random.key(1), settings)
>>> bool(fitted.gain > 1.0)  # nats of log p(z), of latents that were not used
True
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.likelihood.proposal import PriorConstant, draw_prior
from thermo_ebm.likelihood.verdict import Verdict, of_prior
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.models.prior import PRIORS, PriorSettings
from thermo_ebm.sampling.chains import Adaptation, ChainSettings, prior_target, run_chain
from thermo_ebm.sampling.kernels import Info, find_kernel
from thermo_ebm.types import Array, PRNGKey, PyTree, check_key

HELD_OUT_SHARE = 0.1  # of the latents, by which the gain is measured
_CHUNK = 100  # updates between reports of progress
_TRAJECTORIES = 2  # of each chain at each update
_GAIN = 0.3  # of the adaptation of the chains' step size
_CONSTANT = LikelihoodSettings(num_pairs=256)  # for log Z_alpha, without simulated images


class PriorFitSettings(NamedTuple):
    """How a prior is fitted; the first four are fields of `config.model` too."""

    prior: str = "mlp"  # or "factorized"
    features: int = 100
    leak: float = 0.1
    activation: str = "gelu"  # or "leaky_relu"
    sigma: float = 1.0  # sigma_0 of p0
    num_updates: int = 2000
    batch_size: int = 256  # latents of an update
    num_chains: int = 256
    learning_rate: float = 5e-3  # of Adam at first; it falls to 0 as a cosine
    l2: float = 0.0  # of E[f^2], over latents and chains


class FittedPrior(NamedTuple):
    """A prior, and how much better it describes the latents than p0."""

    alpha: PyTree
    model: LatentEBM  # of latents alone: its generator must not be used
    log_z: PriorConstant  # log Z_alpha, nats
    gain: float  # mean of log p_alpha(z) - log p0(z) over held-out latents, nats
    gain_stderr: float  # with that of log Z_alpha
    verdict: Verdict  # on log Z_alpha

    def attach(self, model: LatentEBM) -> LatentEBM:
        """A model with this prior in place of its own; its parameters are `alpha`."""
        prior = self.model
        return model._replace(
            tilt=prior.tilt, make_prior=prior.make_prior, prior_sigma=prior.prior_sigma
        )


class _FitState(NamedTuple):
    alpha: PyTree
    optimiser: Any
    chains: Array  # [num_chains, D]
    log_step_size: Array


def fit_prior(
    latents: Array | np.ndarray,
    key: PRNGKey,
    settings: PriorFitSettings = PriorFitSettings(),  # noqa: B008 (immutable)
    progress: Callable[[int], Any] = lambda updates: None,
) -> FittedPrior:
    """The prior of given latents, its constant, and its gain over p0.

    Args:
      latents: one for each training image, [num, D], at least 20 of any order; the last tenth is
        held out, and gives the gain.
      key: consumed.
      settings: the prior and its optimisation.
      progress: called with numbers of updates just done.

    Raises:
      ValueError: settings that are none, too few latents, latents that are not finite, a key that
        is none, or a fit that diverged.
    """
    check_key(key)
    _check(settings)
    z = jnp.asarray(latents, jnp.float32)
    if z.ndim != 2 or len(z) < 20 or not bool(jnp.isfinite(z).all()):
        raise ValueError(f"latents have shape {z.shape}, must be at least 20 finite rows [num, D]")
    split = len(z) - max(math.ceil(HELD_OUT_SHARE * len(z)), 2)
    model = prior_model(settings, z.shape[1])
    init_key, chain_key, update_key, constant_key = jax.random.split(key, 4)
    alpha = model.init(init_key)["prior"]
    start = model.prior.sample_reference(jax.random.split(chain_key, settings.num_chains))
    state = _FitState(
        alpha, _optimiser(settings).init(alpha), start, jnp.log(jnp.float32(settings.sigma / 2))
    )
    for first in range(0, settings.num_updates, _CHUNK):
        num = min(_CHUNK, settings.num_updates - first)
        numbers = jnp.arange(first, first + num)
        state = _advance(model, settings, state, z[:split], update_key, numbers)
        progress(num)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.alpha)):
        raise ValueError("the fit diverged: choose a smaller learning_rate")
    constant = jax.device_get(_constant(model, state.alpha, constant_key))
    gains = np.asarray(model.tilt(state.alpha, z[split:]), np.float64) - float(constant.log_z)
    error = math.hypot(gains.std(ddof=1) / math.sqrt(len(gains)), float(constant.stderr))
    verdict = of_prior(constant, _CONSTANT.prior_chains)
    return FittedPrior(state.alpha, model, constant, float(gains.mean()), error, verdict)


def prior_model(settings: PriorFitSettings, latent_dim: int) -> LatentEBM:
    """A model of latents with the prior of the settings; its generator returns the latents."""
    fields = settings.features, settings.leak, settings.activation
    parts = PRIORS[settings.prior](PriorSettings(latent_dim, *fields))
    return LatentEBM(
        tilt=parts.tilt,
        generator=lambda beta, z: z,
        init=lambda key: {"prior": parts.init(key), "generator": {}},
        latent_dim=latent_dim,
        prior_sigma=settings.sigma,
        likelihood_sigma=1.0,
        make_prior=parts.make_prior,
    )


def _check(settings: PriorFitSettings) -> None:
    names = [name for name in PRIORS if name != "gaussian"]
    if settings.prior not in names:
        raise ValueError(f"prior is {settings.prior!r}, must be one of {', '.join(names)}")
    for name in ("features", "sigma", "num_updates", "batch_size", "num_chains", "learning_rate"):
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} is {getattr(settings, name)}, must be positive")
    if settings.l2 < 0:
        raise ValueError(f"l2 is {settings.l2}, must not be negative")


def _optimiser(settings: PriorFitSettings) -> optax.GradientTransformation:
    decay = optax.cosine_decay_schedule(settings.learning_rate, settings.num_updates)
    return optax.adam(decay)


@partial(jax.jit, static_argnames=("model", "settings"))
def _advance(
    model: LatentEBM,
    settings: PriorFitSettings,
    state: _FitState,
    latents: Array,
    key: PRNGKey,
    numbers: Array,
) -> _FitState:
    """The state after the updates of these numbers."""
    optimiser, normalizer = _optimiser(settings), model.prior.log_normalizer

    def update(state: _FitState, number: Array) -> tuple[_FitState, None]:
        row_key, move_key = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(row_key, (settings.batch_size,), 0, len(latents))
        chains, log_size = state.chains, state.log_step_size
        if normalizer is None:
            chains, log_size = _moved(model, state, move_key)

        def loss(alpha: PyTree) -> Array:
            cold = model.tilt(alpha, latents[rows])
            if normalizer is not None:
                return normalizer(alpha) - cold.mean() + settings.l2 * jnp.mean(cold**2)
            hot = model.tilt(alpha, chains)
            size = jnp.mean(cold**2) + jnp.mean(hot**2)
            return hot.mean() - cold.mean() + settings.l2 * size

        gradient = jax.grad(loss)(state.alpha)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.alpha)
        alpha = optax.apply_updates(state.alpha, updates)
        return _FitState(alpha, optimiser_state, chains, log_size), None

    return jax.lax.scan(update, state, numbers)[0]


def _moved(model: LatentEBM, state: _FitState, key: PRNGKey) -> tuple[Array, Array]:
    """The chains of p_alpha after their moves, and the adapted log of their step size."""
    best = find_kernel("hmc").best_acceptance

    def adapt(log_step_size: Array, info: Info, k: Array) -> Array:
        return log_step_size + _GAIN * (info.acceptance.mean() - best)

    target = prior_target(model, state.alpha, len(state.chains))
    keys = jax.random.split(key, len(state.chains))
    chain = ChainSettings(Adaptation(state.log_step_size, adapt), _TRAJECTORIES, "hmc")
    moved = run_chain(target, state.chains, keys, chain)
    return moved.latents, moved.log_step_size


@partial(jax.jit, static_argnames="model")
def _constant(model: LatentEBM, alpha: PyTree, key: PRNGKey) -> PriorConstant:
    return draw_prior(model, alpha, key, _CONSTANT)[1]
