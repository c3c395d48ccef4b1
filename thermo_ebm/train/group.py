"""Resources of one group of repetitions: compiled programs, and images on the devices."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.cost import plan
from thermo_ebm.randomness import PICTURES
from thermo_ebm.sampling.chains import ChainSettings
from thermo_ebm.sampling.samples import sample_images
from thermo_ebm.train import spmd
from thermo_ebm.train.batches import make_layout, split_over_devices
from thermo_ebm.train.feed import Feed
from thermo_ebm.train.spmd import Programs
from thermo_ebm.train.tasks import Task
from thermo_ebm.types import Params

NUM_PICTURES = 64


class Group(NamedTuple):
    """Resources of one group of repetitions that train together."""

    config: ConfigDict
    task: Task
    programs: Programs
    feed: Feed  # the training images
    validation: jax.Array  # [num_devices, per_device, *image_shape] uint8, on the devices
    real: np.ndarray  # the first validation images of this process's share, for pictures
    draw: Callable[..., Any]  # (params, key) -> samples and the fixed latent's image
    total_steps: int
    flops_per_step: int  # of one repetition
    size: int  # repetitions that train together
    initial: Callable[[], Params | None]  # the parameters of a warm start, of every repetition


def make_group(
    config: ConfigDict,
    task: Task,
    feed: Feed,
    validation: np.ndarray,
    size: int,
    initial: Callable[[], Params | None],
) -> Group:
    """Spreads the validation images over the devices; makes the programs for `size` repetitions.

    Args:
      config: the whole configuration.
      task: its task.
      feed: the training images.
      validation: this process's share of the validation images (`batches.Layout`).
      size: repetitions that train together.
      initial: reads the parameters of a warm start, if there is one.
    """
    spread = spmd.spread(split_over_devices(validation, make_layout(task.num_val)))
    draw = jax.jit(partial(_draw, task, sampler_settings(config).prior))
    compiled = spmd.make_programs(task, size)
    total_steps = config.num_epochs * task.steps_per_epoch
    flops = plan.step_flops(config)
    real = validation[:NUM_PICTURES]
    return Group(
        config, task, compiled, feed, spread, real, draw, total_steps, flops, size, initial
    )


def _draw(task: Task, settings: ChainSettings, params: Any, key: Any) -> tuple[Any, Any]:
    """Samples [NUM_PICTURES, ...] and the image [...] of a latent the key alone fixes, uint8."""
    key = jax.random.fold_in(key, PICTURES)
    key_samples, key_latent = jax.random.split(key)
    samples = sample_images(task.model, params, key_samples, NUM_PICTURES, settings)
    latent = task.model.prior.sample_reference(key_latent[None])
    return data.to_uint8(samples), data.to_uint8(
        task.model.generator(params["generator"], latent)[0]
    )
