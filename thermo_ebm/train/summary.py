"""A summary, in a few lines, of what a start of training will do."""

from collections.abc import Sequence
from pathlib import Path

import jax

from thermo_ebm.cost import memory, plan
from thermo_ebm.train.group import Group


def lines(group: Group, workdir: Path, repetitions: Sequence[int]) -> list[str]:
    """Output folder, devices, data, parameters, and the cost of a step and of the run.

    Args:
      group: the first that trains.
      workdir: the run's folder.
      repetitions: the numbers of all that are not done.
    """
    config, task, size = group.config, group.task, group.size
    height, width, channels = group.validation.shape[2:]
    prior, generator = plan.num_parameters(config)
    devices = jax.devices()
    held = _binary(plan.device_bytes(config, size))
    usable = _binary(memory.usable_bytes(jax.local_devices()[0]))
    of = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    numbers = ", ".join(map(str, repetitions))
    which = f"repetition{'s' if len(repetitions) > 1 else ''} {numbers}"
    together = f", {size} at once" if size > 1 else ""
    return [
        f"run         {workdir}",
        f"devices     {len(devices)} ({devices[0].platform}, {devices[0].device_kind}){of}",
        f"data        {config.data.name}: {task.num_train} training and {task.num_val} validation "
        f"images, {height} x {width} x {channels}",
        f"parameters  {prior:,} of the prior, {generator:,} of the generator",
        f"step        {_decimal(group.flops_per_step)}FLOP per repetition",
        f"memory      about {held} on each device, of {usable} that may be used",
        f"training    {which}{together}: {group.total_steps} steps each "
        f"({config.num_epochs} epochs of {task.steps_per_epoch})",
    ]


def _binary(number: int) -> str:
    """Formats bytes for reading.

    >>> _binary(3 * 2**20), _binary(5 * 2**30)
    ('3.0 MiB', '5.0 GiB')
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _decimal(number: float) -> str:
    """Formats a number with a unit prefix.

    >>> _decimal(1234), _decimal(5.6e10)
    ('1.23 k', '56 G')
    """
    prefixes = ["", "k", "M", "G", "T"]
    while number >= 1000 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}"
