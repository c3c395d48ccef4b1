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

HELD_OUT_SHARE = 0.2  # of the images: half of them choose the tilt, half measure its gain
_CHOICES = 10  # tilts along the fit, of which the best is chosen: later ones may overfit
_TRAJECTORIES = 2  # of each chain at each update
_GAIN = 0.3  # of the adaptation of the chains' step size
# For log Z_alpha, without simulated images; and for that of the choice, whose errors are of no
# consequence where they decide.
_CONSTANT = LikelihoodSettings(num_pairs=256)
_OF_CHOICE = _CONSTANT._replace(prior_chains=512, prior_temperatures=48)


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
    num_updates: int  # after which the tilt was the best of those tried
    gain: float  # mean of log p_alpha(z) - log p0(z) over held-out images' latents, nats
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

    Of ten tilts along the fit, and the first, the best on held-out latents is kept.

    Args:
      latents: one for each training image, [num, D], or several, [num, draws, D], of at least 20
        images in any order; the last fifth is held out. More draws of an image are less overfitted.
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
    if z.ndim not in (2, 3) or len(z) < 20 or not bool(jnp.isfinite(z).all()):
        raise ValueError(
            f"latents have shape {z.shape}, must be at least 20 finite rows [num, D] or "
            "[num, draws, D]"
        )
    z = z.reshape(len(z), -1, z.shape[-1])
    held_out = math.ceil(HELD_OUT_SHARE * len(z))
    used, choosing, measuring = jnp.split(z, [len(z) - held_out, len(z) - held_out // 2])
    model = prior_model(settings, z.shape[-1])
    init_key, chain_key, update_key, choice_key, constant_key = jax.random.split(key, 5)
    alpha = model.init(init_key)["prior"]
    start = model.prior.sample_reference(jax.random.split(chain_key, settings.num_chains))
    state = _FitState(
        alpha, _optimiser(settings).init(alpha), start, jnp.log(jnp.float32(settings.sigma / 2))
    )
    # Of the same key for all: their errors are alike.
    best, best_value, best_updates = alpha, _mean_gain(model, alpha, choosing, choice_key), 0
    for numbers in np.array_split(np.arange(settings.num_updates), _CHOICES):
        if not len(numbers):
            continue
        state = _advance(model, settings, state, used, update_key, jnp.asarray(numbers))
        value = _mean_gain(model, state.alpha, choosing, choice_key)
        if not math.isfinite(value):
            raise ValueError("the fit diverged: choose a smaller learning_rate")
        if value > best_value:
            best, best_value, best_updates = state.alpha, value, int(numbers[-1]) + 1
        progress(len(numbers))
    constant = jax.device_get(_constant(model, best, constant_key, _CONSTANT))
    gains = _gains(model, best, measuring, constant)
    error = math.hypot(gains.std(ddof=1) / math.sqrt(len(gains)), float(constant.stderr))
    verdict = of_prior(constant, _CONSTANT.prior_chains)
    return FittedPrior(best, model, constant, best_updates, float(gains.mean()), error, verdict)


def _mean_gain(model: LatentEBM, alpha: PyTree, latents: Array, key: PRNGKey) -> float:
    return float(_gains(model, alpha, latents, _constant(model, alpha, key, _OF_CHOICE)).mean())


def _gains(model: LatentEBM, alpha: PyTree, latents: Array, constant: PriorConstant) -> np.ndarray:
    """log p_alpha(z) - log p0(z), the mean over the draws of each image, [num]."""
    tilts = model.tilt(alpha, latents.reshape(-1, model.latent_dim))
    of_draws = np.asarray(tilts, np.float64).reshape(latents.shape[:2])
    return of_draws.mean(axis=1) - float(constant.log_z)


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
        row_key, draw_key, move_key = jax.random.split(jax.random.fold_in(key, number), 3)
        shape, (num, draws, _) = (settings.batch_size,), latents.shape
        rows = jax.random.randint(row_key, shape, 0, num)
        batch = latents[rows, jax.random.randint(draw_key, shape, 0, draws)]
        chains, log_size = state.chains, state.log_step_size
        if normalizer is None:
            chains, log_size = _moved(model, state, move_key)

        def loss(alpha: PyTree) -> Array:
            cold = model.tilt(alpha, batch)
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


@partial(jax.jit, static_argnames=("model", "settings"))
def _constant(
    model: LatentEBM, alpha: PyTree, key: PRNGKey, settings: LikelihoodSettings
) -> PriorConstant:
    return draw_prior(model, alpha, key, settings)[1]
