"""Maximum likelihood by thermodynamic integration (eq. 27), and the estimators of its gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import scopes
from thermo_ebm.collectives import masked_mean
from thermo_ebm.losses.likelihoods import log_likelihoods, tilts
from thermo_ebm.losses.settings import LossSettings, check_settings
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import SamplerSettings, TemperedChains, tempered_chains
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.integral import neighbour_kl, quadrature_correction, quadrature_weights
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey, PyTree, check_batch

# Newton steps of MBAR: 3 are exact up to rounding if neighbouring densities overlap.
MBAR_ITERATIONS = 4


class ThermodynamicAux(NamedTuple):
    """Terms of the thermodynamic loss; means over the batch."""

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


class ThermodynamicParts(NamedTuple):
    """Terms of the loss's value for each image."""

    log_likelihood: Array  # l of every chain, [num_temperatures + 1, M, num]
    effective_sample_size: Array  # [num]; nan without reweighting


def thermodynamic_loss(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
    settings: LossSettings,
    axis_name: str | None = None,
    schedule: Schedule | None = None,
) -> tuple[Array, ThermodynamicAux]:
    """The negative thermodynamic integral (eq. 27), with the gradients chosen in `settings`.

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
      batch: this device's examples.
      key: consumed.
      sampler: the chains.
      settings: the loss.
      axis_name: the pmapped axis the batch is spread over, if any.
      schedule: the temperatures; by default the schedule named in `settings`.

    Returns:
      The loss over the whole batch, in nats per image, and its parts. With an axis, the gradient is
      this device's share: sum the shares over the devices.

    Raises:
      ValueError: for an unknown name in `settings`, or settings that do not fit together.
    """
    check_batch(batch)
    check_settings(settings, sampler)
    if schedule is None:
        schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    chains = thermodynamic_draws(model, params, batch, key, sampler, settings, schedule)
    latents, images = chains.latents, batch.images
    values, parts = thermodynamic_surrogate(
        model, params, images, latents, sampler, settings, schedule
    )
    loss, aux = thermodynamic_summary(parts, chains, batch.mask, settings, schedule, axis_name)
    loss = jax.lax.stop_gradient(loss) + _gradient_only(masked_mean(values, batch.mask, axis_name))
    if (through := _through_chains(settings)) is not None:
        beta = (
            params["generator"]
            if through["generator"]
            else jax.lax.stop_gradient(params["generator"])
        )
        likelihood = log_likelihoods(model, beta, images, latents, sampler.image_chunk)
        loss += _gradient_only(
            _negative_estimate(likelihood, latents, batch.mask, settings, schedule, axis_name)[0]
        )
    return loss, aux


def thermodynamic_draws(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
    settings: LossSettings,
    schedule: Schedule,
) -> TemperedChains:
    """The chains at all temperatures, differentiable only if a gradient goes through them."""
    fixed, through = jax.lax.stop_gradient(params), _through_chains(settings)
    alpha = params["prior"] if through is not None and through["prior"] else fixed["prior"]
    beta = (
        params["generator"] if through is not None and through["generator"] else fixed["generator"]
    )
    return tempered_chains(
        model,
        {"prior": alpha, "generator": beta},
        batch.images,
        batch.position,
        schedule.temperatures,
        key,
        sampler,
    )


def thermodynamic_surrogate(
    model: LatentEBM,
    params: Params,
    images: Array,
    latents: Array,
    sampler: SamplerSettings,
    settings: LossSettings,
    schedule: Schedule,
) -> tuple[Array, ThermodynamicParts]:
    """Each image's share of the differentiated surrogate (chains fixed) and of the loss's value.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape].
      latents: final states of the chains, [num_temperatures + 1, M, num, latent_dim].
      sampler: the chains.
      settings: the loss.
      schedule: the temperatures.

    Returns:
      [num], whose mean's gradient is the loss's, and the parts, detached.
    """
    latents, chunk = jax.lax.stop_gradient(latents), sampler.image_chunk
    generator, prior = settings.generator_gradient, settings.prior_gradient
    last = latents.shape[0] - 1
    first = {"detached": 0, "reweighted": 1, "posterior": last, "langevin": last + 1}[generator]
    likelihood = _likelihoods(model, params["generator"], images, latents, chunk, first)
    fixed = jax.lax.stop_gradient(likelihood)
    values = jnp.zeros(images.shape[0], fixed.dtype)
    size = jnp.full(images.shape[0], jnp.nan, fixed.dtype)
    weights = None
    if generator == "reweighted":
        with jax.named_scope(scopes.CORRECTION):
            by_image = jnp.moveaxis(fixed[1:], 2, 0)
            hot = ratios.posterior_weights(schedule.temperatures[1:], by_image, MBAR_ITERATIONS)
            size, weights = ratios.effective_sample_size(hot), jnp.moveaxis(hot, 0, 2)
        values -= jnp.sum(weights * likelihood[1:], axis=(0, 1))
    elif generator == "detached":
        of_temperature = quadrature_weights(settings.quadrature, schedule)
        values -= jnp.einsum("t,tmn->n", of_temperature, likelihood) / likelihood.shape[1]
    elif generator == "posterior":
        values -= likelihood[-1].mean(axis=0)
    if prior == "contrastive":
        values += tilts(model, params["prior"], latents[0]).mean(axis=0)
        if weights is None:
            values -= tilts(model, params["prior"], latents[-1]).mean(axis=0)
        else:
            values -= jnp.sum(weights * tilts(model, params["prior"], latents[1:]), axis=(0, 1))
    return values, ThermodynamicParts(fixed, size)


def _likelihoods(
    model: LatentEBM, beta: PyTree, images: Array, latents: Array, chunk: int, first: int
) -> Array:
    """l of every chain [T, M, num], differentiable from temperature `first` on.

    The chains before `first` are evaluated apart from the others, so that no gradient of zero is
    computed for them.
    """
    parts = ((jax.lax.stop_gradient(beta), latents[:first]), (beta, latents[first:]))
    return jnp.concatenate(
        [log_likelihoods(model, own, images, z, chunk) for own, z in parts if len(z)]
    )


def thermodynamic_summary(
    parts: ThermodynamicParts,
    chains: TemperedChains,
    mask: Array,
    settings: LossSettings,
    schedule: Schedule,
    axis_name: str | None,
) -> tuple[Array, ThermodynamicAux]:
    """The loss's value and its parts over the whole batch."""
    likelihood = parts.log_likelihood
    loss, (expected, kl_forward, kl_backward) = _negative_estimate(
        likelihood, chains.latents, mask, settings, schedule, axis_name
    )
    # exp(-(dt) (l_i - l_(i+1))): the acceptance probability of an exchange of neighbours.
    log_ratio = -jnp.diff(schedule.temperatures)[:, None, None] * jnp.diff(likelihood, axis=0)
    rejection = -jnp.expm1(jnp.minimum(log_ratio, 0.0)).mean(axis=1)
    return loss, ThermodynamicAux(
        temperatures=schedule.temperatures,
        weights=quadrature_weights(settings.quadrature, schedule),
        expected_log_likelihood=expected,
        kl_forward=kl_forward,
        kl_backward=kl_backward,
        rejection=masked_mean(rejection, mask, axis_name),
        acceptance=masked_mean(chains.acceptance, mask, axis_name),
        swap_probability=masked_mean(chains.swap_probability, mask, axis_name),
        round_trips=masked_mean(chains.round_trips.astype(likelihood.dtype), mask, axis_name),
        effective_sample_size=masked_mean(parts.effective_sample_size, mask, axis_name),
    )


def _negative_estimate(
    likelihood: Array,
    latents: Array,
    mask: Array,
    settings: LossSettings,
    schedule: Schedule,
    axis_name: str | None,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Minus the corrected quadrature, with the E_i and divergences that it uses."""
    expected = masked_mean(likelihood.mean(axis=1), mask, axis_name)
    integral = jnp.sum(quadrature_weights(settings.quadrature, schedule) * expected)
    with jax.named_scope(scopes.CORRECTION):
        divergences = _divergences(
            likelihood, latents, expected, mask, settings, schedule, axis_name
        )
    if divergences is None:
        nothing = jnp.full(schedule.temperatures.shape[0] - 1, jnp.nan, expected.dtype)
        return -integral, (expected, nothing, nothing)
    correction = quadrature_correction(
        schedule, expected, *divergences, settings.kl_form, settings.quadrature
    )
    return -(integral + settings.kl_weight * correction), (expected, *divergences)


def _divergences(
    likelihood: Array,
    latents: Array,
    expected: Array,
    mask: Array,
    settings: LossSettings,
    schedule: Schedule,
    axis_name: str | None,
) -> tuple[Array, Array] | None:
    """KL(p_i, p_(i+1)) and KL(p_(i+1), p_i), [num_temperatures] each, by the chosen correction."""
    if settings.correction == "none":
        return None
    if settings.correction == "pooled_gaussian":
        # Chains of an image are pooled like those of different images.
        pooled = latents.reshape(latents.shape[0], -1, latents.shape[-1])
        every = jnp.tile(mask, latents.shape[1])
        return neighbour_kl(shrunk_moments(pooled, every, settings.kl_shrinkage, axis_name))
    # With c = log Z_(i+1) / Z_i of an image: KL(p_i, p_(i+1)) = c - dt E_i, and
    # KL(p_(i+1), p_i) = dt E_(i+1) - c.
    by_image = jnp.moveaxis(likelihood, 2, 0)
    of_image = ratios.neighbour_ratios(schedule.temperatures, by_image)
    c = masked_mean(jnp.moveaxis(of_image, 0, 1), mask, axis_name)
    expected, steps = jax.lax.stop_gradient(expected), jnp.diff(schedule.temperatures)
    return c - steps * expected[:-1], steps * expected[1:] - c


def _through_chains(settings: LossSettings) -> Params | None:
    """Which of alpha and beta have a gradient through the chains; None if neither does."""
    through = {
        "prior": settings.prior_gradient == "langevin",
        "generator": settings.generator_gradient == "langevin",
    }
    return through if any(through.values()) else None


def _gradient_only(surrogate: Array) -> Array:
    """Zero, with the gradient of `surrogate`."""
    return surrogate - jax.lax.stop_gradient(surrogate)
