"""A summary, in a few lines, of what a start of training will do."""

from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape
from thermo_ebm.cost import memory, plan
from thermo_ebm.train.tasks import updates_per_epoch


def lines(
    config: ConfigDict, size: int, flops: int, workdir: Path, repetitions: Sequence[int]
) -> list[str]:
    """Output folder, devices, data, parameters, and the cost of a step and of the run.

    Args:
      config: the configuration, its image chunk chosen.
      size: repetitions that train together.
      flops: operations of one step of one repetition.
      workdir: the run's folder.
      repetitions: the numbers of all that are not done.
    """
    height, width, channels = image_shape(config)
    prior, generator = plan.num_parameters(config)
    steps_per_epoch = updates_per_epoch(config)
    devices = jax.devices()
    held = binary(plan.device_bytes(config, size))
    usable = binary(memory.usable_bytes(jax.local_devices()[0]))
    of = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    numbers = ", ".join(map(str, repetitions))
    which = f"repetition{'s' if len(repetitions) > 1 else ''} {numbers or 'none'}"
    together = f", {size} at once" if size > 1 else ""
    return [
        f"run         {workdir}",
        f"devices     {len(devices)} ({devices[0].platform}, {devices[0].device_kind}){of}",
        f"data        {config.data.name}: {config.data.num_train} training and "
        f"{config.data.num_val} validation images, {height} x {width} x {channels}",
        f"parameters  {prior:,} of the prior, {generator:,} of the generator",
        f"step        {decimal(flops)}FLOP per repetition",
        f"memory      about {held} on each device, of {usable} that may be used",
        f"training    {which}{together}: {config.num_epochs * steps_per_epoch} steps each "
        f"({config.num_epochs} epochs of {steps_per_epoch})",
    ]


def binary(number: int) -> str:
    """Formats bytes for reading.

    >>> binary(3 * 2**20), binary(5 * 2**30)
    ('3.0 MiB', '5.0 GiB')
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def decimal(number: float) -> str:
    """Formats a number with a unit prefix.

    >>> decimal(1234), decimal(5.6e10)
    ('1.23 k', '56 G')
    """
    prefixes = ["", "k", "M", "G", "T"]
    while number >= 1000 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}"
