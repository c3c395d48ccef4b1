"""Plans made before anything is compiled: the chunk of images, memory and arithmetic."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape, loss_settings, make_loss, make_objective
from thermo_ebm.cost.chips import fast_bytes
from thermo_ebm.cost.flops import gradient_flops_by_part
from thermo_ebm.cost.jaxprs import num_bytes
from thermo_ebm.cost.memory import (
    GradientFn,
    automatic_chunk,
    step_bytes,
    usable_bytes,
)
from thermo_ebm.gradients.halves import are_together, objective_sums
from thermo_ebm.losses.settings import is_differentiated
from thermo_ebm.models.conv_transpose import dilated
from thermo_ebm.models.latent_ebm import LatentEBM, make_model, with_compute_dtype
from thermo_ebm.thermo.schedule import make_schedule

# The share of the fast memory that the largest activation may take; a layer's input and output are
# there together.
_FAST_SHARE = 0.5


class Target(NamedTuple):
    """What a plan is made for."""

    model: LatentEBM
    num_devices: int  # that share a batch
    usable_bytes: int  # of each device, that a step may take
    fast_bytes: int = 0  # of the memory next to its matrix units; 0 if that sets no limit
    halves_together: bool = False  # see `halves.are_together`


def this_machine(model: LatentEBM) -> Target:
    """The devices that JAX has."""
    device = jax.local_devices()[0]
    fast = fast_bytes(device.device_kind)
    together = are_together(device.platform)
    return Target(model, jax.device_count(), usable_bytes(device), fast, together)


def with_chunk(config: ConfigDict, repetitions: int, target: Target | None = None) -> ConfigDict:
    """The configuration with the chunks of the thermodynamic loss chosen where they are 0.

    `sampler.image_chunk` is the largest that fits a device's memory, and 0 if all images fit.
    `sampler.chain_chunk` is the largest whose activations fit the memory next to a TPU's matrix
    units, where chains are faster; it stays 0 elsewhere.

    Args:
      config: the configuration.
      repetitions: how many train together.
      target: by default the configuration's model on the devices that JAX has.
    """
    if config.loss.name == "vanilla":
        return config
    config = ConfigDict(config.to_dict())
    target = target or this_machine(make_model(config.model, config.data.channels))
    num_images, sampler = repetitions * _share(config, target.num_devices), config.sampler
    # A gradient through the steps would keep the activations of all chunks.
    through = is_differentiated(loss_settings(config))
    if target.fast_bytes and not sampler.chain_chunk and not through:
        of_chain = repetitions * _activation_bytes(config, target.model)
        sampler.chain_chunk = max(int(_FAST_SHARE * target.fast_bytes) // of_chain, 1)
    if not sampler.image_chunk:  # what its chains need follows from their own chunk
        chunk = _chunk_in_memory(_in_one(config, repetitions), target, num_images)
        sampler.image_chunk = -(-chunk // repetitions)
    return config


def _chunk_in_memory(config: ConfigDict, target: Target, num_images: int) -> int:
    """The largest chunk of a device's images that fits its memory."""

    def gradient(chunk: int) -> GradientFn:
        changed = ConfigDict(config.to_dict())
        changed.sampler.image_chunk = chunk
        return gradient_of(changed, target.model, target.halves_together)

    shape = image_shape(config)
    return automatic_chunk(gradient, target.model, num_images, shape, target.usable_bytes)


def gradient_of(config: ConfigDict, model: LatentEBM, halves_together: bool) -> GradientFn:
    """A function that needs the memory of the gradient in training (`train/gradient.py`)."""
    objective, settings = make_objective(config, model, None), loss_settings(config)
    if objective.differentiated:
        return jax.value_and_grad(make_loss(config, model, None), has_aux=True)
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    return partial(objective_sums, objective, schedule=schedule, together=halves_together)


def _activation_bytes(config: ConfigDict, model: LatentEBM) -> int:
    """Bytes of the generator's largest activation, of one chain."""
    generator = with_compute_dtype(model, jnp.dtype(config.sampler.precision)).generator
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))

    def sizes(num: int) -> list[int]:
        z = jax.ShapeDtypeStruct((num, model.latent_dim), "float32")
        equations = jax.make_jaxpr(generator)(params["generator"], z).eqns
        return [num_bytes(variable) for eqn in equations for variable in eqn.outvars]

    # Of the parameters, which are cast there too, there are no more for two images than for one.
    grown = [two - one for one, two in zip(sizes(1), sizes(2), strict=True)]
    return max(grown)


def _in_one(config: ConfigDict, repetitions: int) -> ConfigDict:
    """The repetitions that train together as one with the images of all."""
    config = ConfigDict(config.to_dict())
    config.sampler.image_chunk *= repetitions
    config.sampler.chain_chunk *= repetitions
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
    share = _share(config, jax.device_count())
    together = are_together(jax.default_backend())
    gradient = gradient_of(_in_one(config, repetitions), model, together)
    step = step_bytes(gradient, model, share * repetitions, image_shape(config))
    images = (config.data.num_train + config.data.num_val) * math.prod(image_shape(config))
    return step + -(-images // jax.device_count())


def num_parameters(config: ConfigDict) -> tuple[int, int]:
    """How many parameters the prior and the generator have."""
    model = make_model(config.model, config.data.channels)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    prior, generator = (
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (params["prior"], params["generator"])
    )
    return prior, generator


def step_flops(config: ConfigDict) -> int:
    """The model's arithmetic in one step of one repetition, in operations, chains included.

    Transposed convolutions count in their direct form, whichever form this machine runs.
    """
    return sum(step_flops_by_part(config).values())


def step_flops_by_part(config: ConfigDict) -> dict[str, int]:
    """As `step_flops`, for each of the parts in `scopes.PARTS` that has any operation."""
    config = without_filling(config)
    model = make_model(config.model, config.data.channels, dilated)
    loss = make_loss(config, model, axis_name=None)
    parts = gradient_flops_by_part(loss, model, config.batch_size, image_shape(config))
    return {part: count.useful * config.gradient_noise.accumulate for part, count in parts.items()}


def without_filling(config: ConfigDict) -> ConfigDict:
    """The configuration without chunks of chains, whose filled rows are not the model's."""
    config = ConfigDict(config.to_dict())
    config.sampler.chain_chunk = 0
    return config
