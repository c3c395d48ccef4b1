"""Bounds of log p(x) by an encoder, and the estimators of their gradients.

With K samples z_k = m(x) + s(x) u_k, u_k ~ N(0, I), of q_phi(z | x) and the ratios
w_k = p(x, z_k) / q_phi(z_k | x),

    elbo                   L = 1/K sum_k log w_k       <= log p(x)     Kingma & Welling 2014
    importance_weighted    L = log 1/K sum_k w_k       <= log p(x)     Burda et al. 2016

in expectation, and equal for K = 1; the second rises with K towards log p(x). The weight of a
sample in L, v_k = dL / d log w_k, is 1/K or w_k / sum_j w_j.

The gradient of the generator and of the prior is E[sum_k v_k grad log p(x, z_k)]. Without a known
Z_alpha, its gradient is E[grad f] over chains of the prior (Pang et al. 2020, with samples of the
encoder in place of the posterior's chains), and the value has E[f] over them in place of the log of
Z_alpha: L is lower by KL(p_alpha, p_0), still a bound of log p(x) if the chains have arrived.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.losses.settings import VANILLA, EncoderSettings
from thermo_ebm.losses.thermodynamic import (
    LossTerms,
    Objective,
    gradient_only,
    log_likelihoods,
    make_objective,
)
from thermo_ebm.models import encoder
from thermo_ebm.models.encoder import Encoding
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.randomness import STEP_NOISE, all_chain_keys, normal
from thermo_ebm.sampling.chains import Latents, SamplerSettings, TemperedChains, chains_of_prior
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.ratios import effective_sample_size
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch, check_key


class Samples(NamedTuple):
    """Samples of the encoder with their densities, in nats."""

    z: Array  # [K, num, latent_dim]
    log_likelihood: Array  # log p(x | z), [K, num]
    log_weights: Array  # log w, [K, num]


class Bound(NamedTuple):
    """L as a function of log w, [K, num]."""

    value: Callable[[Array], Array]  # -> L, [num]
    weights: Callable[[Array], Array] | None  # -> v, [K, num]; None: 1/K, whatever log w is


BOUNDS: dict[str, Bound] = {
    "elbo": Bound(lambda log_weights: log_weights.mean(axis=0), None),
    "importance_weighted": Bound(
        lambda log_weights: jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights)),
        lambda log_weights: jax.nn.softmax(log_weights, axis=0),
    ),
}

# (encoding, z [K, num, latent_dim]) -> the samples, differentiable in both and in the parameters
Evaluate = Callable[[Encoding, Array], Samples]
# (bound, evaluate, encoding, u [K, num, latent_dim]) -> L with the gradient, [num], and the samples
Estimator = Callable[[Bound, Evaluate, Encoding, Array], tuple[Array, Samples]]


def reparameterized(
    bound: Bound, evaluate: Evaluate, encoding: Encoding, noise: Array
) -> tuple[Array, Samples]:
    """The total derivative of L at fixed u (Kingma & Welling 2014; Burda et al. 2016)."""
    samples = evaluate(encoding, encoder.draw(encoding, noise))
    return bound.value(samples.log_weights), samples


def doubly_reparameterized(
    bound: Bound, evaluate: Evaluate, encoding: Encoding, noise: Array
) -> tuple[Array, Samples]:
    """phi's derivative through the samples alone: no noise where q is the posterior.

    For `importance_weighted` it is sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi), with another
    factor v_k than the other parameters (Tucker et al. 2019); for `elbo` it has v_k itself (Roeder
    et al. 2017).
    """
    z, fixed = encoder.draw(encoding, noise), jax.lax.stop_gradient(encoding)
    weights: Array | float = 1 / len(z)
    if bound.weights is not None:
        # The compiler merges this evaluation with the next, of the same numbers.
        first = evaluate(fixed, jax.lax.stop_gradient(z)).log_weights
        weights = bound.weights(jax.lax.stop_gradient(first))
        z = _scale_gradient(z, weights)
    samples = evaluate(fixed, z)
    value = jax.lax.stop_gradient(bound.value(samples.log_weights))
    return value + gradient_only(jnp.sum(weights * samples.log_weights, axis=0)), samples


def score_function(
    bound: Bound, evaluate: Evaluate, encoding: Encoding, noise: Array
) -> tuple[Array, Samples]:
    """phi's derivative from log q alone: sum_k (L - L_k - v_k + 1/K) d log q(z_k | x) / d phi.

    L_k is L with the mean of the other log w in place of log w_k, which is independent of z_k
    (VIMCO, Mnih & Rezende 2016); 0 for K = 1. The term 1/K has the mean 0 and lets the noise vanish
    where all w are equal.
    """
    z = jax.lax.stop_gradient(encoder.draw(encoding, noise))
    samples, num = evaluate(jax.lax.stop_gradient(encoding), z), len(z)
    log_weights = jax.lax.stop_gradient(samples.log_weights)
    weights = 1 / num if bound.weights is None else bound.weights(log_weights)
    signal = bound.value(log_weights) - _without_each(bound, log_weights)
    scores = encoder.log_density(encoding, z)
    score = jnp.sum((signal - weights + 1 / num) * scores, axis=0)
    return bound.value(samples.log_weights) + gradient_only(score), samples


ESTIMATORS: dict[str, Estimator] = {
    "reparameterized": reparameterized,
    "doubly_reparameterized": doubly_reparameterized,
    "score_function": score_function,
}


def _without_each(bound: Bound, log_weights: Array) -> Array:
    """L_k of `score_function`, [K, num]."""
    num = len(log_weights)
    if num == 1:
        return jnp.zeros_like(log_weights)
    others = (log_weights.sum(axis=0) - log_weights) / (num - 1)
    is_replaced = jnp.eye(num, dtype=bool)[:, :, None]
    return jax.vmap(bound.value)(jnp.where(is_replaced, others[:, None], log_weights))


@jax.custom_vjp
def _scale_gradient(z: Array, factor: Array) -> Array:
    """z [..., D], whose gradient is multiplied by the factor [...]."""
    del factor
    return z


_scale_gradient.defvjp(
    lambda z, factor: (z, factor),
    lambda factor, cotangent: (factor[..., None] * cotangent, jnp.zeros_like(factor)),
)


def encoder_objective(
    model: LatentEBM,
    sampler: SamplerSettings,
    settings: EncoderSettings,
    axis_name: str | None = None,
    prior_l2: float = 0.0,
) -> Objective:
    """Minus a bound of log p(x) as a value: an `Objective` for the training step.

    Its `draw` has chains of the prior and, in place of the ladder's latents, u of each sample, from
    which `surrogate` makes the samples under the parameters at which it is differentiated.

    Args:
      model: the model, with an encoder; its parameters have the group "encoder".
      sampler: the prior's chains; a prior with exact draws has none.
      settings: the bound and its estimator.
      axis_name: the pmapped axis a batch is spread over, if any.
      prior_l2: weight of E_p[f^2] + E_q[f^2] in the prior's gradient.

    Raises:
      ValueError: the model has no encoder, for an unknown name in `settings`, or no sample.
    """
    for field, name, table in (
        ("bound", settings.bound, BOUNDS),
        ("gradient", settings.gradient, ESTIMATORS),
    ):
        if name not in table:
            raise ValueError(f"{field} must be one of {', '.join(table)}, not {name!r}.")
    if settings.num_importance_samples < 1:
        raise ValueError(
            f"num_importance_samples must be at least 1, not {settings.num_importance_samples}."
        )
    if model.encoder is None:
        raise ValueError(f"{settings.bound} needs a model with an encoder (encoder_name 'mirror').")
    sampler = sampler._replace(exchange_every=0)
    of_path = VANILLA._replace(encoder=settings, prior_l2=prior_l2)
    base = make_objective(model, sampler, of_path, axis_name)
    loss = _EncoderLoss(model, sampler, settings, prior_l2, base, axis_name)
    return base._replace(
        draw=loss.draw, surrogate=loss.surrogate, summary=loss.summary, loss=loss.loss
    )


class EncoderTerms(NamedTuple):
    """Terms of each image; nan where a bound does not compute one."""

    value: Array  # -L, [num]
    log_likelihood: Array  # mean over the samples, [num]
    kl: Array  # mean of log q - log p_alpha over the samples, [num]
    effective_sample_size: Array  # [num]
    tilt_prior: Array  # [num]
    tilt_posterior: Array  # [num]


class _EncoderLoss(NamedTuple):
    """The functions of an `Objective` in the order in which a step calls them."""

    model: LatentEBM
    sampler: SamplerSettings
    settings: EncoderSettings
    prior_l2: float
    base: Objective  # of the vanilla loss: its first ladder, and what it learns of the path
    axis_name: str | None

    def draw(self, params: Params, batch: Batch, key: PRNGKey, ladder: Ladder) -> TemperedChains:
        """Chains of the prior, and u [1, K, num, latent_dim] as the ladder's latents."""
        fixed = jax.lax.stop_gradient(params)
        chains = chains_of_prior(self.model, fixed, batch, ladder, key, self.sampler)
        num = self.settings.num_importance_samples
        keys = all_chain_keys(key, jnp.ones(1, jnp.int32), batch.position, num)
        noise = normal(keys.reshape(-1), STEP_NOISE, self.model.latent_dim)
        always = jnp.ones_like(chains.acceptance)
        return chains._replace(
            latents=noise.reshape(*keys.shape, -1),
            acceptance=jnp.concatenate([chains.acceptance, always]),
        )

    def surrogate(
        self, ladder: Ladder, params: Params, images: Array, states: Latents
    ) -> tuple[Array, EncoderTerms]:
        """-L with its gradient for each image [num], and the image's terms."""
        del ladder
        assert self.model.encoder is not None
        states = jax.lax.stop_gradient(states)
        noise, drawn = states.ladder[0], self._tilts(params, states.prior[0])
        prior = self.model.prior
        if prior.log_normalizer is not None:
            normalizer = prior.log_normalizer(params["prior"])
        else:
            normalizer = prior.log_constant + drawn.mean(axis=0)

        def evaluate(encoding: Encoding, z: Array) -> Samples:
            chunk = self.sampler.image_chunk
            likelihood = log_likelihoods(self.model, params["generator"], images, z[None], chunk)[0]
            density = log_prior(self.model, params["prior"], z.reshape(-1, z.shape[-1]))
            density = density.reshape(z.shape[:2]) - normalizer
            log_weights = likelihood + density - encoder.log_density(encoding, z)
            return Samples(z, likelihood, log_weights)

        bound = BOUNDS[self.settings.bound]
        encoding = self.model.encoder(params["encoder"], images)
        estimator = ESTIMATORS[self.settings.gradient]
        value, samples = estimator(bound, evaluate, encoding, noise)
        tilts = self._tilts(params, jax.lax.stop_gradient(samples.z))
        weights, unknown = jnp.full_like(tilts, 1 / len(tilts)), jnp.full_like(value, jnp.nan)
        effective = unknown
        if bound.weights is not None:
            weights = jax.lax.stop_gradient(bound.weights(samples.log_weights))
            effective = effective_sample_size(weights.T[:, None])
        terms = EncoderTerms(
            value=-value,
            log_likelihood=samples.log_likelihood.mean(axis=0),
            kl=(samples.log_likelihood - samples.log_weights).mean(axis=0),
            effective_sample_size=effective,
            tilt_prior=drawn.mean(axis=0),
            tilt_posterior=jnp.sum(weights * tilts, axis=0),
        )
        loss = -value
        if self.prior_l2:
            squares = (drawn**2).mean(axis=0) + jnp.sum(weights * tilts**2, axis=0)
            loss += gradient_only(self.prior_l2 * squares)
        return loss, jax.lax.stop_gradient(terms)

    def summary(
        self, terms: EncoderTerms, chains: TemperedChains, mask: Array, schedule: Schedule
    ) -> tuple[Array, LossTerms]:
        """-L and its terms over the complete batch; E_1 is the mean over samples of the encoder."""

        def mean(values: Array) -> Array:
            return masked_mean(values, mask, self.axis_name)

        of_images = EncoderTerms(*map(mean, terms))
        unknown = jnp.full((), jnp.nan, of_images.value.dtype)
        expected = jnp.stack([unknown, of_images.log_likelihood])
        return of_images.value, LossTerms(
            temperatures=schedule.temperatures,
            weights=jnp.zeros_like(expected),
            expected_log_likelihood=expected,
            kl_forward=unknown[None],
            kl_backward=unknown[None],
            rejection=unknown[None],
            acceptance=mean(chains.acceptance),
            swap_probability=mean(chains.swap_probability),
            round_trips=mean(chains.round_trips.astype(unknown.dtype)),
            effective_sample_size=of_images.effective_sample_size,
            tilt_prior=of_images.tilt_prior,
            tilt_posterior=of_images.tilt_posterior,
            encoder_kl=of_images.kl,
        )

    def loss(
        self, params: Params, batch: Batch, key: PRNGKey, ladder: Ladder | None
    ) -> tuple[Array, LossTerms]:
        """-L over the batch with its gradient, and its terms."""
        check_batch(batch)
        check_key(key)
        ladder = self.base.first_ladder(batch) if ladder is None else ladder
        chains = self.draw(params, batch, key, ladder)
        values, terms = self.surrogate(ladder, params, batch.images, chains.states)
        value, loss_terms = self.summary(terms, chains, batch.mask, ladder.schedule)
        mean = masked_mean(values, batch.mask, self.axis_name)
        return jax.lax.stop_gradient(value) + gradient_only(mean), loss_terms

    def _tilts(self, params: Params, z: Array) -> Array:
        """f_alpha(z), [..., latent_dim] -> [...]."""
        flat = z.reshape(-1, z.shape[-1])
        return self.model.tilt(params["prior"], flat).reshape(z.shape[:-1])
