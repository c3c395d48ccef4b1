"""The dry run of a sweep: what its cells would train and cost, without starting any of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from thermo_ebm.errors import UserError, counted
from thermo_ebm.run import configuration, layout, provenance
from thermo_ebm.sweep.cells import Cell
from thermo_ebm.train import dry_run, report, start
from thermo_ebm.train.dry_run import RunPlan
from thermo_ebm.train.task import Task


def plan_cells(root: Path, cells: Sequence[Cell]) -> list[RunPlan]:
    """The plan of each cell, whose folder is `root / cell.name`; see `dry_run.plan_run`.

    Raises:
      UserError: a cell could not be trained; the message names the cell.
    """
    try:
        layout.check_writable(root)
    except OSError as error:
        raise UserError(f"workdir={root}: cannot be written: {error.strerror}") from error
    read, plans = _cached_reader(), []
    for cell in cells:
        folder = root / cell.name
        try:
            configuration.check_config(folder, cell.config, make_folder=False)
            plans.append(dry_run.plan_run(cell.config, folder, read))
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error
    return plans


def _cached_reader() -> Callable[[Task, Path], provenance.ImageLevels]:
    """Reads images that several cells share only once; checks the memory of each cell."""
    levels: dict[str, provenance.ImageLevels] = {}

    def read(task: Task, workdir: Path) -> provenance.ImageLevels:
        start.check_memory(task.config, jax.local_devices()[0])
        key = json.dumps(task.config.data.to_dict())
        if key not in levels:
            levels[key] = start.load(task, workdir).levels
        return levels[key]

    return read


def cell_line(cell: Cell, change: dict[str, Any], cell_plan: RunPlan) -> str:
    """One cell: its name, the fields that it changes, and what it costs."""
    name = " ".join([cell.name, *(f"{field}={value}" for field, value in change.items())])
    memory = report.binary(cell_plan.device_bytes)
    return (
        f"{name}: {sum(cell_plan.parameters.values()):,} parameters, "
        f"{report.decimal(cell_plan.flops_per_step)}FLOP per step, about {memory} on each device, "
        f"{dry_run.totals(cell_plan.steps, cell_plan.flops)}"
    )


def total_lines(plans: Sequence[RunPlan]) -> list[str]:
    """The steps and operations of all cells, and of what is left of them."""
    steps = sum(cell_plan.steps for cell_plan in plans)
    flops = sum(cell_plan.flops for cell_plan in plans)
    lines = [f"total: {counted(len(plans), 'cell')}, {dry_run.totals(steps, flops)}"]
    if done := sum(cell_plan.steps_done for cell_plan in plans):
        flops_left = sum(cell_plan.flops_left for cell_plan in plans)
        lines.append(f"left: {dry_run.totals(steps - done, flops_left)}")
    return lines
