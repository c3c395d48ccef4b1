"""A checked configuration turned into the settings and the loss that the mathematics takes."""

from ml_collections import ConfigDict

from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.types import LossFn


def sampler_settings(config: ConfigDict) -> SamplerSettings:
    """The chains that a whole configuration asks for."""
    sampler = config.sampler
    return SamplerSettings(
        prior=ChainSettings(sampler.prior.step_size, sampler.prior.num_steps),
        posterior=ChainSettings(sampler.posterior.step_size, sampler.posterior.num_steps),
        temperature_chunk=sampler.temperature_chunk,
        precision=sampler.precision,
    )


def loss_settings(config: ConfigDict) -> LossSettings:
    """The thermodynamic loss that a whole configuration asks for."""
    return LossSettings(**{field: config.loss[field] for field in LossSettings._fields})


def make_loss(config: ConfigDict, model: LatentEBM, axis_name: str | None) -> LossFn:
    """The loss that `config.loss` names, over examples spread along `axis_name`."""
    sampler, settings = sampler_settings(config), loss_settings(config)
    if config.loss.name == "vanilla":
        return lambda params, batch, key: vanilla_loss(
            model, params, batch, key, sampler, axis_name
        )
    return lambda params, batch, key: thermodynamic_loss(
        model, params, batch, key, sampler, settings, axis_name
    )


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """[height, width, channels] of the images."""
    return (config.data.image_size, config.data.image_size, config.data.channels)
