"""Plans made before anything is compiled: the chunk of images, memory and arithmetic."""

import math
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape, make_loss
from thermo_ebm.cost.flops import gradient_flops
from thermo_ebm.cost.memory import automatic_chunk, step_bytes, usable_bytes
from thermo_ebm.models.conv_transpose import dilated
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.types import LossFn


class Target(NamedTuple):
    """What a plan is made for."""

    model: LatentEBM
    num_devices: int  # that share a batch
    usable_bytes: int  # of each device, that a step may take


def this_machine(model: LatentEBM) -> Target:
    """The devices that JAX has."""
    usable = usable_bytes(jax.local_devices()[0])
    return Target(model, jax.device_count(), usable)


def with_chunk(config: ConfigDict, repetitions: int, target: Target | None = None) -> ConfigDict:
    """The configuration with `sampler.image_chunk` chosen where it is 0.

    The chunk is the largest that fits a device's memory; it stays 0 if all images fit.

    Args:
      config: the configuration.
      repetitions: how many train together.
      target: by default the configuration's model on the devices that JAX has.
    """
    if config.sampler.image_chunk or config.loss.name == "vanilla":
        return config
    config = ConfigDict(config.to_dict())
    target = target or this_machine(make_model(config.model, config.data.channels))

    def loss(chunk: int) -> LossFn:
        config.sampler.image_chunk = chunk
        return make_loss(config, target.model, axis_name=None)

    chunk = automatic_chunk(
        loss,
        target.model,
        _share(config, target.num_devices) * repetitions,
        image_shape(config),
        target.usable_bytes,
    )
    config.sampler.image_chunk = -(-chunk // repetitions)
    return config


def _share(config: ConfigDict, num_devices: int) -> int:
    """Examples of a batch on each device."""
    return -(-config.batch_size // num_devices)


def device_bytes(config: ConfigDict, repetitions: int) -> int:
    """Estimates the bytes that a device holds in training: a step, and its share of the images.

    Args:
      config: the configuration, its chunk chosen.
      repetitions: how many train together.
    """
    model = make_model(config.model, config.data.channels)
    loss = make_loss(config, model, axis_name=None)
    share = _share(config, jax.device_count())
    step = step_bytes(loss, model, share * repetitions, image_shape(config))
    images = (config.data.num_train + config.data.num_val) * math.prod(image_shape(config))
    return step + -(-images // jax.device_count())


def num_parameters(config: ConfigDict) -> tuple[int, int]:
    """How many parameters the prior and the generator have."""
    model = make_model(config.model, config.data.channels)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    prior, generator = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params.alpha, params.beta)
    )
    return prior, generator


def step_flops(config: ConfigDict) -> int:
    """The model's arithmetic in one step of one repetition, in operations, chains included.

    Transposed convolutions count in their direct form, whichever form this machine runs.
    """
    model = make_model(config.model, config.data.channels, dilated)
    loss = make_loss(config, model, axis_name=None)
    flops = gradient_flops(loss, model, config.batch_size, image_shape(config)).useful
    return flops * config.dial.accumulate
