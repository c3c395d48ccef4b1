r"""Trains and evaluates every cell of an experiment; the same command continues a sweep.

python -m launch.sweep --experiment=configs/experiment1.py --config=configs/cifar10.py \
    --config.data.data_dir=TFDS --workdir=RUNS \
    [--dry_run] [--executor=slurm --partition=gpu --gpus=1 --hours=8]

Cells run one after another here, or as a SLURM job array. A cell that fails is reported and does
not stop the others. Exit codes: 0 all done, 1 some cells failed, 2 bad input, 3 interrupted.
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from absl import flags

from thermo_ebm.errors import UserError, printable

from . import config_file, evaluation_flags, program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    import jax

    from thermo_ebm import data
    from thermo_ebm.config import checks, shipped
    from thermo_ebm.evaluation.metric_settings import MetricSettings
    from thermo_ebm.sweep import cells, executors, plans
    from thermo_ebm.sweep.cells import Cell, Status
    from thermo_ebm.sweep.executors import Executor, Job
    from thermo_ebm.sweep.follow import States, Sweep, follow
    from thermo_ebm.train import report, sizes, timing


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path(
        "experiment",
        None,
        "Python file with get_cells() or get_cells(config), or the name of a shipped one.",
        required=True,
    )
    config_file.define(
        "digits_paper",
        "Configuration of all cells; --config.any.field=value changes a field.",
    )
    config_file.define_images()
    DEFINE_path("workdir", None, "Folder of the run directories of all cells.", required=True)
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Check everything as for a real start, print the cells with their parameters, memory, "
        "steps and FLOPs, and write nothing.",
    )
    flags.DEFINE_string(
        "budget",
        None,
        "Time of the training of each cell, such as 20m: sets its num_epochs, as for launch.train, "
        "so that cells are compared at equal time.",
    )
    flags.DEFINE_enum("executor", "local", ["local", "slurm"], "Where cells run.")
    flags.DEFINE_string("partition", None, "SLURM partition.")
    flags.DEFINE_integer("gpus", 0, "GPUs of each SLURM job.", lower_bound=0)
    flags.DEFINE_integer("cpus", 2, "CPUs of each SLURM job.", lower_bound=1)
    flags.DEFINE_float("hours", 24.0, "Time limit of each SLURM job, which is then requeued.")
    flags.register_validator(
        "hours", lambda hours: 0 < hours < float("inf"), message="must be positive"
    )
    flags.DEFINE_integer("at_once", 8, "Largest number of SLURM jobs at the same time.", 1)
    flags.DEFINE_integer(
        "signal_seconds",
        120,
        "Seconds before the time limit at which a job saves and ends.",
        lower_bound=1,
    )
    flags.DEFINE_multi_string(
        "slurm", [], "Another option of sbatch, such as --slurm=account=me; may be repeated."
    )
    program.define_poll_seconds(5.0, "Seconds between checks of the jobs.")
    evaluation_flags.define()


def main(argv: Sequence[str]) -> int:
    """Runs the cells that are not done, and prints the table of cells."""
    del argv
    values, settings = flags.FLAGS, evaluation_flags.settings()
    config, notes = sizes.complete(config_file.read(), values.image_size)
    for note in notes:
        report.say(printable(note))
    if not values.dry_run or values.executor != "local":
        # Only in this process: the cells need the accelerator.
        jax.config.update("jax_platforms", "cpu")
    changes = cells.read_changes(Path(shipped.find(values.experiment)), config)
    budget = timing.parse_duration(values.budget) if values.budget else 0.0
    sweep_cells = cells.make_cells(config, changes, budget)
    root = Path(values.workdir).absolute()
    _check(root, sweep_cells, settings)
    settings.choose_network()  # reports missing weights before training
    executor = _executor(root, settings)
    if values.dry_run:
        return _dry_run(root, sweep_cells, changes)
    return _follow(Sweep(root, sweep_cells, settings, executor))


def _dry_run(root: Path, sweep_cells: list[Cell], changes: list[dict[str, Any]]) -> int:
    """Prints one line per cell and the totals; starts no cell."""
    program.check_devices()
    planned = plans.plan_cells(root, sweep_cells)
    for cell, change, plan in zip(sweep_cells, changes, planned, strict=True):
        print(plans.cell_line(cell, change, plan))
    print("\n".join(plans.total_lines(planned)))
    return 0


def _follow(sweep: Sweep) -> int:
    """Follows the sweep to its end, or until it is interrupted; returns the exit code."""
    program.continue_without_output()
    # SIGTERM and a closed terminal end the sweep as Ctrl-C does: the running cell is saved.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end_sweep)
    running: dict[str, Job] = {}
    try:
        failed = follow(sweep, running, _table(), lambda: time.sleep(flags.FLAGS.poll_seconds))
    except BaseException as error:
        for job in running.values():
            job.stop()
        if not isinstance(error, KeyboardInterrupt):
            raise
        where = "; its SLURM jobs continue" if sweep.executor.queues else ""
        print(f"interrupted{where}: the same command continues", file=sys.stderr)
        return 3
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _end_sweep(number: int, frame: FrameType | None) -> None:
    """Interrupts the sweep, once: a terminal that is closed may send its signal several times."""
    signal.signal(number, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _check(root: Path, sweep_cells: list[Cell], settings: MetricSettings) -> None:
    """Checks the configuration of every cell and the evaluation before hours of work."""
    for cell in sweep_cells:
        try:
            checks.check(cell.config)
            data.check_output(cell.config.data, root, "workdir")
            settings.extent(cell.config)
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error


def _executor(root: Path, settings: MetricSettings) -> Executor:
    """Where the cells run: here, or on SLURM."""
    values = flags.FLAGS
    for parameter in values.slurm:
        if "=" not in parameter:
            raise UserError(f"--slurm={parameter}: must be NAME=VALUE")
    if values.executor == "local":
        return executors.one_at_a_time(root, settings, f"{__package__}.cell")
    executors.check_slurm()
    resources = executors.Resources(
        partition=values.partition,
        gpus=values.gpus,
        cpus=values.cpus,
        hours=values.hours,
        at_once=values.at_once,
        signal_seconds=values.signal_seconds,
        further=dict(parameter.split("=", 1) for parameter in values.slurm),
    )
    return executors.job_array(root, settings, resources)


def _table() -> Callable[[States], None]:
    """Prints the table when a status has changed: cells, counts, and the time left."""
    started = time.monotonic()
    before: States = {}
    left_at_first = 0

    def print_table(states: States) -> None:
        nonlocal before, left_at_first
        if states == before:
            return
        for name, state in states.items():
            print(f"  {state.value:8} {name}")
        counts = {state: list(states.values()).count(state) for state in Status}
        line = ", ".join(f"{number} {state.value}" for state, number in counts.items())
        left = counts[Status.WAITING] + counts[Status.RUNNING]
        left_at_first = left_at_first if before else left
        if left and (ended := left_at_first - left):
            minutes = (time.monotonic() - started) / ended * left / 60
            line += f"; about {minutes:.0f} minutes left"
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        before = states

    return print_table


if __name__ == "__main__":
    program.run(main, define_flags)
