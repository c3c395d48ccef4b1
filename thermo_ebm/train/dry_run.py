"""What a start of training would do, found without training, compiling or writing anything."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from thermo_ebm.cost import plan
from thermo_ebm.run import provenance
from thermo_ebm.train import hosts, images, recovery, start, summary
from thermo_ebm.train.tasks import Task, make_task


class RunPlan(NamedTuple):
    """The plan of a run."""

    config: ConfigDict  # the image chunk chosen
    repetitions: list[int]  # the numbers of those that are not done
    size: int  # repetitions that train together
    parameters: tuple[int, int]  # of the prior and of the generator
    flops_per_step: int  # of one repetition; a multiply-add is two operations
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


def _levels(config: ConfigDict, task: Task, workdir: Path) -> provenance.ImageLevels:
    del workdir
    return images.load(config, task).levels


def plan_run(
    config: ConfigDict,
    workdir: Path,
    read_images: Callable[[ConfigDict, Task, Path], provenance.ImageLevels] = _levels,
) -> RunPlan:
    """Checks everything that `loop.train` checks before it compiles, and counts what it would do.

    Args:
      config: checked by `config.check`, and compared with the run (`configuration.check_config`).
      workdir: the run's folder, which may be absent.
      read_images: reads the images, and returns what identifies them.

    Raises:
      UserError: as `loop.train`, before its first step.
    """
    task = make_task(config)
    start.check_agreement(config, workdir)
    start.check_writers(config)
    total = config.num_epochs * task.steps_per_epoch
    numbers = range(config.num_repetitions)
    done = [min(recovery.steps_done(task, workdir, number), total) for number in numbers]
    means = read_images(config, task, workdir)
    with hosts.together():
        provenance.check_images(workdir, means)
    unfinished = [number for number in numbers if done[number] < total]
    sizes = [len(group) for group in start.groups(config) if {*group} & {*unfinished}]
    size = (sizes or [len(start.groups(config)[0])])[0]
    chunked = plan.with_chunk(config, size)
    return RunPlan(
        config=chunked,
        repetitions=unfinished,
        size=size,
        parameters=plan.num_parameters(config),
        flops_per_step=plan.step_flops(chunked),
        steps=total * config.num_repetitions,
        steps_done=sum(done),
    )


def lines(planned: RunPlan, workdir: Path) -> list[str]:
    """The summary at the start of a run, and the steps and operations of all repetitions."""
    shown = summary.lines(
        planned.config, planned.size, planned.flops_per_step, workdir, planned.repetitions
    )
    shown.append(f"total       {totals(planned.steps, planned.flops)}")
    if planned.steps_done:
        left = totals(planned.steps - planned.steps_done, planned.flops_left)
        shown.append(f"left        {left}")
    return shown


def totals(steps: int, flops: int) -> str:
    """Steps and operations for reading, the operations exact as well.

    >>> totals(1500, 5_600_000)
    '1,500 steps, 5.6 MFLOP (5,600,000)'
    """
    return f"{steps:,} steps, {summary.decimal(flops)}FLOP ({flops:,})"
