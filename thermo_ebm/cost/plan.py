"""Plans made before anything is compiled: the chunk of images, memory and arithmetic."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape, make_loss, make_objective, parameter_groups
from thermo_ebm.cost.flops import gradient_flops_by_part, num_bytes
from thermo_ebm.cost.memory import (
    VMEM_BYTES,
    GradientFn,
    automatic_chunk,
    step_bytes,
    usable_bytes,
)
from thermo_ebm.gradients.halves import halved_sums
from thermo_ebm.losses import LossSettings, is_differentiated, is_vanilla
from thermo_ebm.models.conv_transpose import dilated
from thermo_ebm.models.latent_ebm import LatentEBM, make_model, with_compute_dtype
from thermo_ebm.types import Batch, Params, PRNGKey

# The share of VMEM that the largest activation may take: VMEM holds a layer's input and output.
_VMEM_SHARE = 0.5


class PlanTarget(NamedTuple):
    """The model and the devices that a plan is for."""

    model: LatentEBM
    num_devices: int  # that share a batch
    usable_bytes: int  # of each device, that a step may take
    vmem_bytes: int = 0  # of each device; 0 if VMEM sets no limit
    halves_together: bool = False  # see `halves_together` below


def halves_together(platform: str) -> bool:
    """Whether both halves' gradients are faster together on a platform, such as "cpu" or "tpu".

    On a CPU it is faster to compute both at once, because the matrix products are larger. Elsewhere
    the gradients of the weights would be a grouped convolution, for which XLA rearranges all
    activations, and need twice the memory.
    """
    return platform == "cpu"


def this_machine(model: LatentEBM) -> PlanTarget:
    """The devices that JAX has."""
    device = jax.local_devices()[0]
    vmem = VMEM_BYTES.get(device.device_kind, 0)
    together = halves_together(device.platform)
    return PlanTarget(model, jax.device_count(), usable_bytes(device), vmem, together)


def with_chunk(
    config: ConfigDict, repetitions: int, target: PlanTarget | None = None
) -> ConfigDict:
    """The configuration with the chunks of the thermodynamic loss chosen where they are 0.

    `sampler.image_chunk` is the largest that fits a device's memory, and 0 if all images fit.
    `sampler.chain_chunk` is the largest whose activations fit a TPU's VMEM, where chains are
    faster; it stays 0 on other devices.

    Args:
      config: the configuration.
      repetitions: number of repetitions that train together.
      target: by default the configuration's model on the devices that JAX has.
    """
    settings = LossSettings.from_config(config)
    if settings.encoder is not None or is_vanilla(settings):
        return config
    config = ConfigDict(config.to_dict())
    target = target or this_machine(make_model(config))
    num_images, sampler = repetitions * _share(config, target.num_devices), config.sampler
    # A gradient through the steps would keep the activations of all chunks.
    differentiated = is_differentiated(settings)
    if target.vmem_bytes and not sampler.chain_chunk and not differentiated:
        bytes_per_chain = repetitions * _activation_bytes(config, target.model)
        sampler.chain_chunk = max(int(_VMEM_SHARE * target.vmem_bytes) // bytes_per_chain, 1)
    if not sampler.image_chunk:  # after the chunk of chains, on which the memory depends
        stacked = _stack_repetitions(config, repetitions)

        def peak(chunk: int) -> int:
            stacked.sampler.image_chunk = chunk
            gradient = gradient_of(stacked, target.model, target.halves_together)
            return step_bytes(gradient, target.model, num_images, image_shape(config))

        chunk = automatic_chunk(peak, num_images, target.usable_bytes)
        sampler.image_chunk = -(-chunk // repetitions)
    return config


def gradient_of(config: ConfigDict, model: LatentEBM, halves_together: bool) -> GradientFn:
    """A stand-in for the training gradient (`train/step.py`) with the same peak memory."""
    objective = make_objective(config, model, None)
    if objective.differentiated:
        return jax.value_and_grad(make_loss(config, model, None), has_aux=True)

    def gradient(params: Params, batch: Batch, key: PRNGKey) -> tuple:
        # The linear reference and its moments are [d, D], of the size of some images.
        ladder = objective.first_ladder(batch)
        chains = objective.draw(params, batch, key, ladder)
        surrogate = partial(objective.surrogate, ladder)
        return halved_sums(surrogate, params, batch, chains.states, halves_together), chains

    return gradient


def _activation_bytes(config: ConfigDict, model: LatentEBM) -> int:
    """Bytes of the generator's largest activation for one chain."""
    generator = with_compute_dtype(model, jnp.dtype(config.sampler.precision)).generator
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))

    def sizes(num: int) -> list[int]:
        z = jax.ShapeDtypeStruct((num, model.latent_dim), "float32")
        equations = jax.make_jaxpr(generator)(params["generator"], z).eqns
        return [num_bytes(variable) for eqn in equations for variable in eqn.outvars]

    # The difference leaves out the parameters, which the generator casts too.
    return max(double - single for single, double in zip(sizes(1), sizes(2), strict=True))


def _stack_repetitions(config: ConfigDict, repetitions: int) -> ConfigDict:
    """One repetition with the images of all repetitions that train together."""
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
      config: the configuration as `with_chunk` returns it.
      repetitions: number of repetitions that train together.
    """
    model = make_model(config)
    share = _share(config, jax.device_count())
    together = halves_together(jax.default_backend())
    gradient = gradient_of(_stack_repetitions(config, repetitions), model, together)
    step = step_bytes(gradient, model, share * repetitions, image_shape(config))
    return step + sum(image_bytes(config, repetitions))


def image_bytes(config: ConfigDict, repetitions: int) -> tuple[int, int]:
    """Bytes of the images that a device holds: of a dispatch's steps, and of the validation."""
    accumulate, devices = config.gradient_noise.accumulate, jax.device_count()
    steps = min(
        config.steps_per_dispatch, config.data.num_train // (config.batch_size * accumulate)
    )
    train = repetitions * steps * accumulate * _share(config, devices)
    validation = -(-config.data.num_val // devices)
    pixels = math.prod(image_shape(config))
    return train * pixels, validation * pixels


def num_parameters(config: ConfigDict) -> dict[str, int]:
    """Numbers of parameters of the prior, the generator and, if there is one, the encoder."""
    model = make_model(config)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return {
        group: sum(leaf.size for leaf in jax.tree.leaves(params[group]))
        for group in parameter_groups(config)
    }


def step_flops(config: ConfigDict) -> int:
    """The model's arithmetic in one step of one repetition, in operations, chains included.

    Transposed convolutions count in their direct form, whichever form this machine runs.
    """
    return sum(step_flops_by_part(config).values())


def step_flops_by_part(config: ConfigDict) -> dict[str, int]:
    """As `step_flops`, for each of the parts in `scopes.PARTS` that has any operation."""
    config = without_filling(config)
    model = make_model(config, conv_transpose=dilated)
    loss = make_loss(config, model, axis_name=None)
    parts = gradient_flops_by_part(loss, model, config.batch_size, image_shape(config))
    return {part: count.useful * config.gradient_noise.accumulate for part, count in parts.items()}


def without_filling(config: ConfigDict) -> ConfigDict:
    """The configuration without chunks of chains, whose padding is not the model's arithmetic."""
    config = ConfigDict(config.to_dict())
    config.sampler.chain_chunk = 0
    return config
