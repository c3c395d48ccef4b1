"""What is worked out before anything compiles: the chunk of temperatures, a step's arithmetic."""

import jax
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape, make_loss
from thermo_ebm.cost.flops import gradient_flops
from thermo_ebm.cost.memory import automatic_chunk, usable_bytes
from thermo_ebm.models.conv_transpose import dilated
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.types import LossFn


def with_chunk(config: ConfigDict) -> ConfigDict:
    """The configuration with `sampler.temperature_chunk` chosen where it is 0.

    The chunk is the largest that a device's memory takes, 0 again where all temperatures fit.
    """
    if config.sampler.temperature_chunk or config.loss.name == "vanilla":
        return config
    config = ConfigDict(config.to_dict())
    model = make_model(config.model, config.data.channels)

    def loss(chunk: int) -> LossFn:
        config.sampler.temperature_chunk = chunk
        return make_loss(config, model, axis_name=None)

    share = -(-config.batch_size // jax.device_count())
    config.sampler.temperature_chunk = automatic_chunk(
        loss,
        model,
        config.loss.num_temperatures,
        share * config.parallel_repetitions,
        image_shape(config),
        usable_bytes(jax.local_devices()[0]),
    )
    return config


def step_flops(config: ConfigDict) -> int:
    """The model's arithmetic in one step of one repetition, in operations, chains included.

    Transposed convolutions count in their direct form, whichever form this machine runs.
    """
    model = make_model(config.model, config.data.channels, dilated)
    loss = make_loss(config, model, axis_name=None)
    return gradient_flops(loss, model, config.batch_size, image_shape(config)).useful
