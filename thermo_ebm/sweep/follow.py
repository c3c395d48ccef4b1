"""Follows a sweep: starts cells, waits for them, and reports them, until none is left.

Cells run in an `Executor`: as processes on this machine, or as jobs of a SLURM array.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.sweep.cells import Cell, Status, status
from thermo_ebm.sweep.executors import Executor, Job

States = dict[str, Status]  # by the cells' names


class Sweep(NamedTuple):
    """What a sweep runs, and where."""

    root: Path  # the folder of the cells' folders
    cells: list[Cell]
    settings: MetricSettings  # of the cells' evaluation
    executor: Executor


def follow(
    sweep: Sweep,
    running: dict[str, Job],
    report: Callable[[States], None],
    pause: Callable[[], None],
) -> dict[str, str]:
    """Starts cells and waits for them.

    A cell is started once. If another program trains a cell, the sweep waits for that program, and
    starts the cell if the program leaves the cell unfinished.

    Args:
      sweep: the cells and where they run.
      running: the running jobs, empty at first; the caller stops them after an error.
      report: called with the state of each cell after every check.
      pause: called between two checks.

    Returns:
      Which cells failed, and why.

    Raises:
      UserError: cells cannot be started.
    """
    failed: dict[str, str] = {}
    tried: set[str] = set()
    states: States = {}
    names = {cell.name for cell in sweep.cells}
    running |= {name: job for name, job in sweep.executor.submitted().items() if name in names}
    while True:
        over = [name for name, job in running.items() if job.is_over()]
        states = _states(sweep, states)  # after is_over: these jobs no longer train
        for name in over:
            _end(name, running.pop(name), states[name], failed, tried)
        waiting = [
            cell
            for cell in sweep.cells
            if states[cell.name] is Status.WAITING and cell.name not in {*running, *failed}
        ]
        failed |= {cell.name: "ended before it was done" for cell in waiting if cell.name in tried}
        untried = [cell for cell in waiting if cell.name not in tried]
        running |= sweep.executor.start(untried, running)
        tried |= set(running)
        report(_reported(sweep.executor, states, running, failed))
        if not running and Status.RUNNING not in states.values():
            return {name: why for name, why in failed.items() if states[name] is not Status.DONE}
        pause()


def _states(sweep: Sweep, before: Mapping[str, Status]) -> States:
    """The state of each cell; a cell that is done stays done."""
    return {
        cell.name: Status.DONE
        if before.get(cell.name) is Status.DONE
        else status(sweep.root, cell, sweep.settings)
        for cell in sweep.cells
    }


def _end(name: str, job: Job, state: Status, failed: dict[str, str], tried: set[str]) -> None:
    """Records why a job failed, unless it failed because another program trains that cell."""
    reason = job.failure()
    if state is Status.RUNNING:
        tried.discard(name)
    elif reason:
        failed[name] = reason


def _reported(
    executor: Executor,
    states: Mapping[str, Status],
    running: Mapping[str, Job],
    failed: Mapping[str, str],
) -> States:
    """The states with failures and, where started jobs run at once, with these jobs as running."""
    reported = dict(states) | {name: Status.FAILED for name in failed}
    if not executor.queues:
        reported |= {name: Status.RUNNING for name in running}
    return reported
