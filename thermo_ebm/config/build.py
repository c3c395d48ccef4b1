"""Builds the settings and the loss of the numerical code from a checked configuration."""

from ml_collections import ConfigDict

from thermo_ebm import losses
from thermo_ebm.gradients.amplification import AmplificationSettings
from thermo_ebm.losses import LossSettings, Objective, is_vanilla
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.types import LossFn


def sampler_settings(config: ConfigDict) -> SamplerSettings:
    """The chain settings of a complete configuration.

    The two temperatures of the vanilla loss exchange no states, and an encoder has none.
    """
    sampler, settings = config.sampler, LossSettings.from_config(config)
    prior, posterior = (
        ChainSettings(
            chain.step_size,
            chain.num_steps,
            chain.kernel,
            chain.num_leapfrog,
            sampler.adapt_step_sizes,
        )
        for chain in (sampler.prior, sampler.posterior)
    )
    return SamplerSettings(
        prior=prior._replace(persistent=sampler.prior.persistent),
        posterior=posterior,
        image_chunk=sampler.image_chunk,
        chain_chunk=sampler.chain_chunk,
        precision=sampler.precision,
        chains_per_image=sampler.chains_per_image,
        exchange_every=0 if settings.encoder or is_vanilla(settings) else sampler.exchange_every,
        start=sampler.start,
    )


def amplification_settings(config: ConfigDict) -> AmplificationSettings:
    """How the noise of the gradient is set."""
    return AmplificationSettings(
        **{field: config.gradient_noise[field] for field in AmplificationSettings._fields}
    )


def make_objective(config: ConfigDict, model: LatentEBM, axis_name: str | None) -> Objective:
    """The loss that `config.loss` names, over examples spread along `axis_name`."""
    sampler, settings = sampler_settings(config), LossSettings.from_config(config)
    if settings.encoder is not None:
        of_encoder = settings.encoder
        return losses.encoder_objective(model, sampler, of_encoder, axis_name, settings.prior_l2)
    return losses.make_objective(model, sampler, settings, axis_name)


def parameter_groups(config: ConfigDict) -> tuple[str, ...]:
    """The names of the parameters' groups, each with its fields in `config.optimizer`."""
    has_encoder = LossSettings.from_config(config).encoder is not None
    return ("prior", "generator", *(("encoder",) if has_encoder else ()))


def make_loss(config: ConfigDict, model: LatentEBM, axis_name: str | None) -> LossFn:
    """The same as one function of parameters, batch and key."""
    loss = make_objective(config, model, axis_name).loss
    return lambda params, batch, key: loss(params, batch, key, None)


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """[height, width, channels] of the images."""
    return (config.data.image_size, config.data.image_size, config.data.channels)
