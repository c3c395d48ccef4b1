"""What a start of training would do, found without training or writing anything."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from thermo_ebm.config.build import image_shape
from thermo_ebm.cost import memory, plan
from thermo_ebm.errors import counted
from thermo_ebm.run import provenance
from thermo_ebm.train import hosts, recovery, start
from thermo_ebm.train.report import binary, decimal
from thermo_ebm.train.task import Task, make_task, updates_per_epoch


class RunPlan(NamedTuple):
    """The plan of a run."""

    config: ConfigDict  # the image chunk chosen
    repetitions: list[int]  # the numbers of those that are not done
    size: int  # repetitions that train together
    parameters: dict[str, int]  # by group: of the prior, the generator, perhaps an encoder
    flops_per_step: int  # of one repetition; a multiply-add is two operations
    device_bytes: int  # estimate for each device
    steps: int  # of all repetitions
    steps_done: int  # of them, those that checkpoints hold

    @property
    def flops(self) -> int:
        """Operations of all steps of all repetitions."""
        return self.steps * self.flops_per_step

    @property
    def flops_left(self) -> int:
        """Operations of the steps that are not done."""
        return (self.steps - self.steps_done) * self.flops_per_step


def plan_run(
    config: ConfigDict,
    workdir: Path,
    read_images: Callable[[Task, Path], provenance.ImageLevels] | None = None,
) -> RunPlan:
    """Checks everything that `loop.train` checks before it compiles, and counts what it would do.

    Args:
      config: checked by `config.check`, and compared with the run (`configuration.check_config`).
      workdir: the run's folder, which may be absent.
      read_images: reads the images and returns what identifies them; by default as `loop.train`.

    Raises:
      UserError: as `loop.train`, before its first step.
    """
    task = make_task(config)
    start.check_agreement(config, workdir)
    start.check_writers(config)
    numbers = range(config.num_repetitions)
    done = [min(recovery.steps_done(task, workdir, n), task.total_steps) for n in numbers]
    levels = read_images(task, workdir) if read_images else start.load(task, workdir).levels
    with hosts.together():
        provenance.check_images(workdir, levels)
    unfinished = [number for number in numbers if done[number] < task.total_steps]
    sizes = [len(group) for group in start.groups(config) if {*group} & {*unfinished}]
    size = (sizes or [len(start.groups(config)[0])])[0]
    chunked = plan.with_chunk(config, size)
    return RunPlan(
        config=chunked,
        repetitions=unfinished,
        size=size,
        parameters=plan.num_parameters(config),
        flops_per_step=plan.step_flops(chunked),
        device_bytes=plan.device_bytes(chunked, size),
        steps=task.total_steps * config.num_repetitions,
        steps_done=sum(done),
    )


def lines(planned: RunPlan, workdir: Path) -> list[str]:
    """The summary at the start of a run, and the steps and operations of all repetitions."""
    costs = start_lines(
        planned.config, planned.flops_per_step, planned.device_bytes, workdir, planned.repetitions
    )
    costs.append(f"total       {totals(planned.steps, planned.flops)}")
    if planned.steps_done:
        left = totals(planned.steps - planned.steps_done, planned.flops_left)
        costs.append(f"left        {left}")
    return costs


def start_lines(
    config: ConfigDict, flops: int, device_bytes: int, workdir: Path, repetitions: Sequence[int]
) -> list[str]:
    """Output folder, devices, data, parameters, and the cost of a step and of the run.

    Args:
      config: the configuration, its image chunk chosen.
      flops: operations of one step of one repetition.
      device_bytes: estimate of the memory for each device.
      workdir: the run's folder.
      repetitions: the numbers of all that are not done.
    """
    height, width, channels = image_shape(config)
    parameters = [f"{num:,} of the {group}" for group, num in plan.num_parameters(config).items()]
    steps_per_epoch = updates_per_epoch(config)
    devices = jax.devices()
    usable = binary(memory.usable_bytes(jax.local_devices()[0]))
    of = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    numbers = (
        f"{counted(len(repetitions), 'model')} (repetition{'s' if len(repetitions) > 1 else ''} "
    )
    numbers += f"{', '.join(map(str, repetitions))})"
    if config.parallel_repetitions > 1:
        numbers += f", {config.parallel_repetitions} at once"
    if not repetitions:
        numbers = "no repetition is left"
    return [
        f"run         {workdir}",
        f"devices     {len(devices)} ({devices[0].platform}, {devices[0].device_kind}){of}",
        f"data        {config.data.name}: {config.data.num_train} training and "
        f"{config.data.num_val} validation images, {height} x {width} x {channels}",
        f"parameters  {', '.join(parameters)}",
        f"step        {decimal(flops)}FLOP per repetition",
        f"memory      about {binary(device_bytes)} on each device, of {usable} that may be used",
        f"training    {numbers}: {counted(config.num_epochs * steps_per_epoch, 'step')} each "
        f"({counted(config.num_epochs, 'epoch')} of {steps_per_epoch})",
    ]


def totals(steps: int, flops: int) -> str:
    """Steps and operations for reading, the operations exact as well.

    >>> totals(1500, 5_600_000)
    '1,500 steps, 5.6 MFLOP (5,600,000)'
    """
    return f"{counted(steps, 'step')}, {decimal(flops)}FLOP ({flops:,})"
