"""Maximum likelihood by thermodynamic integration (eq. 27), and the estimators of its gradients."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm import scopes
from thermo_ebm.collectives import all_sum, masked_mean
from thermo_ebm.losses.settings import (
    LossSettings,
    check_settings,
    is_differentiated,
    is_mean_of_images,
    path_settings,
)
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, log_prior
from thermo_ebm.randomness import PAIR_NOISE, PROBE, chain_keys
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling.chains import Latents, SamplerSettings, TemperedChains, tempered_chains
from thermo_ebm.sampling.chunks import map_in_chunks, tile
from thermo_ebm.sampling.exchange import swap_rejection
from thermo_ebm.sampling.path import (
    Ladder,
    Observation,
    Path,
    curvature_products,
    init_state,
    make_ladder,
    probed,
    simulate_pairs,
)
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.integral import neighbour_kl, quadrature_weights, thermodynamic_integral
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch, check_key

# Newton steps of MBAR: 3 are exact up to rounding if neighbouring densities overlap.
MBAR_ITERATIONS = 4


class LossTerms(NamedTuple):
    """Terms of a loss; means over the complete batch. nan where a loss does not compute a term."""

    temperatures: Array  # t_i, [num_temperatures + 1]
    expected_log_likelihood: Array  # E_i, [num_temperatures + 1]
    kl_forward: Array  # KL(p_i, p_(i+1)), [num_temperatures]; nan without a correction
    kl_backward: Array  # KL(p_(i+1), p_i), [num_temperatures]; nan without a correction
    rejection: Array  # of exchanges of t_i and t_(i+1) at chains' ends, [num_temperatures]
    acceptance: Array  # acceptance rate of the chains' steps, [num_temperatures + 1]
    swap_probability: Array  # of exchanges in t_1 .. t_N, [num_temperatures - 1]
    round_trips: Array  # of an image's chains, a scalar
    effective_sample_size: Array  # of an image, a scalar; nan without reweighting
    weights: Array  # weights of the quadrature, [num_temperatures + 1]
    tilt_prior: Array  # E_0[f_alpha], a scalar; nan if the prior's gradient is not "contrastive"
    tilt_posterior: Array  # E_1[f_alpha], likewise
    encoder_kl: Array  # E_q[log q(z | x) - log p_alpha(z)], a scalar; nan without an encoder


class ImageTerms(NamedTuple):
    """Terms of each image, from which `Objective.summary` makes the loss's value; detached."""

    surrogate: Array  # what is differentiated, [num]
    # l of every chain [T, M, num]; without the lower temperatures if the value does not need them.
    log_likelihood: Array
    effective_sample_size: Array  # [num]; nan without reweighting
    tilt_prior: Array  # [num]; nan without the "contrastive" gradient
    tilt_posterior: Array  # [num]; likewise


class Objective(NamedTuple):
    """A loss as one function, and for training in three steps over fixed chains.

    `surrogate` can be applied to a part of the images and their latents: images are independent.
    """

    # (params, batch, key, ladder) -> chains
    draw: Callable[[Params, Batch, PRNGKey, Ladder], TemperedChains]
    # (ladder, params, images, latents) -> ([num], whose mean's gradient is the loss's, and the
    # terms of each image, such as `ImageTerms`, the images along their last axis)
    surrogate: Callable[[Ladder, Params, Array, Latents], tuple[Array, Any]]
    # (terms of all images on this device, chains, mask [num], schedule) -> the value and its terms
    summary: Callable[[Any, TemperedChains, Array, Schedule], tuple[Array, LossTerms]]
    # (params, batch, key, ladder or None for the first) -> the loss and its terms
    loss: Callable[[Params, Batch, PRNGKey, Ladder | None], tuple[Array, LossTerms]]
    first_ladder: Callable[[Batch], Ladder]  # of the settings, before anything is learned
    # (params, path, chains, batch, key of the chains) -> what the chains show of the path
    observe: Callable[[Params, Path, TemperedChains, Batch, PRNGKey], Observation]
    differentiated: bool  # the gradient goes through the chains: only `loss` computes it
    mean_of_images: bool  # the gradient is a mean over images


def thermodynamic_loss(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
    settings: LossSettings,
) -> tuple[Array, LossTerms]:
    """The negative thermodynamic integral (eq. 27), with the gradients chosen in `settings`.

    A batch spread over devices, another schedule or a learned path: `make_objective`.

    `prior_gradient`: the estimator of alpha's gradient.
      "langevin": through all K steps of the chains (the paper's text); right for smooth tilts.
      "contrastive": E_1[grad f] - E_0[grad f], the derivative of the exact integral (E_1 from the
        reweighted chains of all temperatures if the generator's gradient is "reweighted").
      "none": no gradient; chains are detached.

    `generator_gradient`: the estimator of beta's gradient.
      "langevin": the total derivative, including the derivative through the chains.
      "detached": the quadrature's weighted sum of E_i over fixed chains: the gradient of the
        quadrature, which differs from that of log p(x) even for converged chains.
      "posterior": E_1 over the chains at t = 1, the derivative of the exact integral.
      "reweighted": E_1 over the chains of all temperatures t_1 .. t_N, each weighted as a sample of
        the posterior (`ratios.posterior_weights`): the same mean, with noise that rises with p.

    Args:
      model: the model.
      params: alpha and beta.
      batch: the examples.
      key: consumed.
      sampler: the chains.
      settings: the loss.

    Returns:
      The loss over the batch, in nats per image, and its terms.

    Raises:
      ValueError: for an unknown name in `settings`, settings that do not fit together, a `batch` or
        `key` that is none, or images that are not in [-1, 1].
    """
    return make_objective(model, sampler, settings).loss(params, batch, key, None)


def make_objective(
    model: LatentEBM,
    sampler: SamplerSettings,
    settings: LossSettings,
    axis_name: str | None = None,
) -> Objective:
    """The loss of `thermodynamic_loss` as a value.

    With an axis, the gradient of `Objective.loss` is this device's share: sum the shares over the
    devices.

    Args:
      model: the model.
      sampler: the chains.
      settings: the loss.
      axis_name: the pmapped axis a batch is spread over, if any.

    Raises:
      ValueError: for an unknown name in `settings`, or settings that do not fit together.
    """
    check_settings(settings, sampler)
    loss = _Loss(model, sampler, settings, axis_name)
    return Objective(
        draw=loss.draw,
        surrogate=loss.surrogate,
        summary=loss.summary,
        loss=loss.loss,
        first_ladder=loss.first_ladder,
        observe=loss.observe,
        differentiated=is_differentiated(settings),
        mean_of_images=is_mean_of_images(settings),
    )


class _Loss(NamedTuple):
    """The functions of an `Objective`, in the order in which a step calls them."""

    model: LatentEBM
    sampler: SamplerSettings
    settings: LossSettings
    axis_name: str | None

    def draw(self, params: Params, batch: Batch, key: PRNGKey, ladder: Ladder) -> TemperedChains:
        """The chains at all temperatures, differentiable only if a gradient goes through them."""
        return tempered_chains(
            self.model, self._through_chains(params), batch, ladder, key, self.sampler
        )

    def observe(
        self,
        params: Params,
        path: Path,
        chains: TemperedChains,
        batch: Batch,
        key: PRNGKey,
    ) -> Observation:
        """What a step's chains show of the path: pairs of the prior's, probes of the posterior's.

        Other numbers are folded into the key than for the chains.
        """
        pairs = curvature = probes = prior_latents = None
        if path.reference is not None:
            keys, latents = chain_keys(key, PAIR_NOISE, batch.position), chains.prior[0, 0]
            outputs = self.model.generator(params["generator"], latents)
            simulated = simulate_pairs(self.model.likelihood, latents, outputs, keys)
            sums = linear_reference.pair_sums(path.reference, simulated, batch.mask)
            pairs = all_sum(sums, self.axis_name)
        if path.inverse_factors is not None:
            rows, weights = probed(batch.position, batch.mask)
            keys = chain_keys(key, PROBE, batch.position[rows])
            latents = chains.latents[-1, 0, rows]
            products = curvature_products(self.model, params, latents, keys, weights)
            curvature, probes = all_sum((products, weights.sum()), self.axis_name)
        if path.prior_latents is not None:
            nowhere = jnp.zeros_like(path.prior_latents)
            states = batch.mask[:, None] * chains.prior[0]
            states = nowhere.at[:, batch.position].add(states)
            prior_latents = all_sum(states, self.axis_name)
        return Observation(pairs, curvature, probes, prior_latents)

    def surrogate(
        self, ladder: Ladder, params: Params, images: Array, states: Latents
    ) -> tuple[Array, ImageTerms]:
        """What is differentiated over fixed chains, for each image, and the image's terms."""
        states, chunk = jax.lax.stop_gradient(states), self.sampler.image_chunk
        schedule, path = ladder
        latents = states.ladder
        generator, prior = self.settings.generator_gradient, self.settings.prior_gradient
        last = latents.shape[0] - 1
        # The temperatures whose likelihoods are differentiated begin at `first`, and those whose
        # likelihoods are needed at all at `lowest`.
        first = {"detached": 0, "reweighted": 1, "posterior": last, "langevin": last + 1}[generator]
        lowest = 0 if self.settings.value == "integral" else first
        beta = params["generator"]
        # Evaluated separately, so that no gradient of zero is computed.
        groups = (
            (jax.lax.stop_gradient(beta), latents[lowest:first]),
            (beta, latents[first:]),
        )
        likelihood = jnp.concatenate(
            [log_likelihoods(self.model, beta, images, z, chunk) for beta, z in groups if len(z)]
        )
        fixed = jax.lax.stop_gradient(likelihood)
        if path.reference is not None:
            fixed += self._prior_over_reference(params, images, latents[lowest:], path)
        values = jnp.zeros(images.shape[0], fixed.dtype)
        unknown = jnp.full(images.shape[0], jnp.nan, fixed.dtype)
        terms = ImageTerms(values, fixed, unknown, unknown, unknown)
        weights = None
        if generator == "reweighted":
            above_zero = slice(1 - lowest, None)
            with jax.named_scope(scopes.CORRECTION):
                by_image = jnp.moveaxis(fixed[above_zero], 2, 0)
                of_image = ratios.posterior_weights(
                    schedule.temperatures[1:], by_image, MBAR_ITERATIONS
                )
                terms = terms._replace(effective_sample_size=ratios.effective_sample_size(of_image))
                weights = jnp.moveaxis(of_image, 0, 2)
            values -= jnp.sum(weights * likelihood[above_zero], axis=(0, 1))
        elif generator == "detached":
            quadrature = quadrature_weights(self.settings.quadrature, schedule)
            values -= jnp.einsum("t,tmn->n", quadrature, likelihood) / likelihood.shape[1]
        elif generator == "posterior":
            values -= likelihood[-1].mean(axis=0)
        if prior == "contrastive":
            cold = self._tilts(params, states.prior[0])
            hot = self._tilts(params, latents[-1] if weights is None else latents[1:])

            def posterior_mean(values: Array) -> Array:
                if weights is None:
                    return values.mean(axis=0)
                return jnp.sum(weights * values, axis=(0, 1))

            tilt_prior, tilt_posterior = cold.mean(axis=0), posterior_mean(hot)
            values += tilt_prior
            values -= tilt_posterior
            if self.settings.prior_l2:
                squares = (cold**2).mean(axis=0) + posterior_mean(hot**2)
                values += self.settings.prior_l2 * squares
            terms = terms._replace(tilt_prior=tilt_prior, tilt_posterior=tilt_posterior)
        return values, jax.lax.stop_gradient(terms._replace(surrogate=values))

    def summary(
        self, terms: ImageTerms, chains: TemperedChains, mask: Array, schedule: Schedule
    ) -> tuple[Array, LossTerms]:
        """The loss's value and its terms over the complete batch."""
        likelihood, num_temperatures = terms.log_likelihood, schedule.temperatures.shape[0]
        missing = (num_temperatures - likelihood.shape[0], *likelihood.shape[1:])
        likelihood = jnp.concatenate([jnp.full(missing, jnp.nan, likelihood.dtype), likelihood])

        def mean(values: Array) -> Array:
            return masked_mean(values, mask, self.axis_name)

        value, expected, kl_forward, kl_backward = self._negative_integral(
            likelihood, chains.latents, mask, schedule
        )
        if self.settings.value == "surrogate":
            value = mean(terms.surrogate)
        return value, LossTerms(
            temperatures=schedule.temperatures,
            weights=quadrature_weights(self.settings.quadrature, schedule),
            expected_log_likelihood=expected,
            kl_forward=kl_forward,
            kl_backward=kl_backward,
            rejection=mean(swap_rejection(schedule.temperatures, likelihood).mean(axis=1)),
            acceptance=mean(chains.acceptance),
            swap_probability=mean(chains.swap_probability),
            round_trips=mean(chains.round_trips.astype(likelihood.dtype)),
            effective_sample_size=mean(terms.effective_sample_size),
            tilt_prior=mean(terms.tilt_prior),
            tilt_posterior=mean(terms.tilt_posterior),
            encoder_kl=jnp.full((), jnp.nan, likelihood.dtype),
        )

    def loss(
        self,
        params: Params,
        batch: Batch,
        key: PRNGKey,
        ladder: Ladder | None,
    ) -> tuple[Array, LossTerms]:
        """The value, with the gradient of the surrogate and of what goes through the chains."""
        check_batch(batch)
        check_key(key)
        ladder = self.first_ladder(batch) if ladder is None else ladder
        schedule, chains = ladder.schedule, self.draw(params, batch, key, ladder)
        values, terms = self.surrogate(ladder, params, batch.images, chains.states)
        value, loss_terms = self.summary(terms, chains, batch.mask, schedule)
        loss = jax.lax.stop_gradient(value)
        loss += gradient_only(masked_mean(values, batch.mask, self.axis_name))
        if is_differentiated(self.settings):
            beta, chunk = self._through_chains(params)["generator"], self.sampler.image_chunk
            likelihood = log_likelihoods(self.model, beta, batch.images, chains.latents, chunk)
            loss += gradient_only(
                self._negative_integral(likelihood, chains.latents, batch.mask, schedule)[0]
            )
        return loss, loss_terms

    def first_ladder(self, batch: Batch) -> Ladder:
        """The schedule named in the settings, and the path before anything is learned."""
        settings, dim = self.settings, math.prod(batch.images.shape[1:])
        schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
        of_path = path_settings(settings, self.sampler)
        state = init_state(self.model, of_path, settings.num_temperatures, dim)
        return make_ladder(self.model, state, schedule)

    def _prior_over_reference(
        self, params: Params, images: Array, latents: Array, path: Path
    ) -> Array:
        """f + log p0 - log q(z | x) of latents [T, M, num, latent_dim]: [T, M, num]."""
        assert path.reference is not None
        flat = latents.reshape(-1, latents.shape[-1])
        center = linear_reference.mean(path.reference, images)
        centers = jnp.broadcast_to(center, latents.shape).reshape(flat.shape)
        values = log_prior(self.model, params["prior"], flat) - self.model.prior.log_constant
        values -= linear_reference.log_density(path.reference, centers, flat)
        return jax.lax.stop_gradient(values).reshape(latents.shape[:-1])

    def _through_chains(self, params: Params) -> Params:
        """The parameters with the gradients stopped that do not go through the chains."""
        fixed = dict(jax.lax.stop_gradient(params))
        if self.settings.prior_gradient == "langevin":
            fixed["prior"] = params["prior"]
        if self.settings.generator_gradient == "langevin":
            fixed["generator"] = params["generator"]
        return fixed

    def _tilts(self, params: Params, latents: Array) -> Array:
        """f_alpha(z) of latents [..., latent_dim] -> [...]."""
        flat = latents.reshape(-1, latents.shape[-1])
        return self.model.tilt(params["prior"], flat).reshape(latents.shape[:-1])

    def _negative_integral(
        self, likelihood: Array, latents: Array, mask: Array, schedule: Schedule
    ) -> tuple[Array, Array, Array, Array]:
        """Minus eq. 24, with the E_i and the divergences of neighbours that it uses."""
        settings, temperatures = self.settings, schedule.temperatures
        expected = masked_mean(likelihood.mean(axis=1), mask, self.axis_name)
        kl_forward = kl_backward = None
        with jax.named_scope(scopes.CORRECTION):
            if settings.correction == "pooled_gaussian":
                # Chains of an image are pooled like those of different images.
                pooled = latents.reshape(latents.shape[0], -1, latents.shape[-1])
                of_chain = jnp.tile(mask, latents.shape[1])
                moments = shrunk_moments(pooled, of_chain, self.axis_name)
                kl_forward, kl_backward = neighbour_kl(moments)
            elif settings.correction == "ratio":
                # With c = log Z_(i+1) / Z_i of an image: KL(p_i, p_(i+1)) = c - dt E_i, and
                # KL(p_(i+1), p_i) = dt E_(i+1) - c.
                of_image = ratios.neighbour_ratios(temperatures, jnp.moveaxis(likelihood, 2, 0))
                c = masked_mean(jnp.moveaxis(of_image, 0, 1), mask, self.axis_name)
                fixed, intervals = jax.lax.stop_gradient(expected), jnp.diff(temperatures)
                kl_forward, kl_backward = c - intervals * fixed[:-1], intervals * fixed[1:] - c
        integral = thermodynamic_integral(
            temperatures,
            expected,
            kl_forward,
            kl_backward,
            settings.kl_weight,
            settings.kl_form,
            settings.quadrature,
            schedule.slopes,
        )
        if kl_forward is None or kl_backward is None:
            kl_forward = kl_backward = jnp.full(len(temperatures) - 1, jnp.nan, expected.dtype)
        return -integral, expected, kl_forward, kl_backward


def log_likelihoods(
    model: LatentEBM, beta: chex.ArrayTree, images: Array, latents: Array, image_chunk: int = 0
) -> Array:
    """l = log p_beta(x | z) of every chain.

    Args:
      model: the model.
      beta: the generator's parameters.
      images: [num, *image_shape].
      latents: [T, M, num, latent_dim].
      image_chunk: images evaluated at once; 0 is all. Chunks bound the memory of the gradient too.

    Returns:
      [T, M, num], in nats.
    """
    chex.assert_equal(latents.shape[2], images.shape[0])

    def chunk(arrays: tuple[Array, Array]) -> Array:
        x, z = arrays[0], jnp.swapaxes(arrays[1], 0, 2)
        times = z.shape[0] * z.shape[1]
        values = log_likelihood(model, beta, tile(x, times), z.reshape(-1, z.shape[-1]))
        return jnp.swapaxes(values.reshape(z.shape[:3]), 0, 2)

    # Recomputed in the backward pass, so that chunks bound the memory of the gradient as well.
    fn = jax.checkpoint(chunk) if 0 < image_chunk < images.shape[0] else chunk
    values = map_in_chunks(fn, (images, jnp.swapaxes(latents, 0, 2)), image_chunk)
    return jnp.swapaxes(values, 0, 2)


def gradient_only(surrogate: Array) -> Array:
    """Zero, with the gradient of `surrogate`."""
    return surrogate - jax.lax.stop_gradient(surrogate)
