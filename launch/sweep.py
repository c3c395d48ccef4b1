r"""Trains and evaluates every cell of an experiment; the same command continues it.

python -m launch.sweep --experiment=configs/experiment1.py --config=configs/cifar10.py \
    --workdir=RUNS [--dry_run] [--executor=slurm --partition=gpu --gpus=1 --hours=8]

Cells run one after another here, or as a SLURM job array. A cell that fails is reported and does
not stop the others. Exit codes: 0 all done, 1 some cells failed, 2 bad input, 3 interrupted.
"""

import importlib.util
import inspect
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from launch import program
from thermo_ebm.sweep.jobs import Job

if TYPE_CHECKING:
    from thermo_ebm.evaluation.evaluate import Settings
    from thermo_ebm.sweep.cells import Cell, Status
    from thermo_ebm.sweep.slurm import Resources

_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "File with get_cells() or get_cells(config).", required=True
)
_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "The configuration of all cells; --config.any.field=value."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the cells' folders.", required=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the cells and what they change.")
_EXECUTOR = flags.DEFINE_enum("executor", "local", ["local", "slurm"], "Where cells run.")
_PARTITION = flags.DEFINE_string("partition", None, "SLURM partition.")
_GPUS = flags.DEFINE_integer("gpus", 0, "GPUs of each SLURM job.")
_CPUS = flags.DEFINE_integer("cpus", 2, "CPUs of each SLURM job.")
_HOURS = flags.DEFINE_float("hours", 24.0, "Time of each SLURM job; requeued when it is up.")
_AT_ONCE = flags.DEFINE_integer("at_once", 8, "SLURM jobs at once.")
_SIGNAL = flags.DEFINE_integer(
    "signal_seconds", 120, "Before the time is up, for the last steps and the checkpoint."
)
_SLURM = flags.DEFINE_multi_string(
    "slurm", [], "A further parameter of sbatch, such as --slurm=account=me; may be repeated."
)
_POLL = program.define_poll_seconds(5.0, "How often to look at the jobs.")
_FEATURES = flags.DEFINE_string("features", "efficientnet_lite0", "See launch.eval.")
_RESIZE = flags.DEFINE_string("resize", "bilinear", "See launch.eval.")
_WEIGHTS = flags.DEFINE_string("inception_weights", None, "See launch.eval.")
_CACHE = flags.DEFINE_string("cache_dir", None, "See launch.eval.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "See launch.eval.")
_NUM_SIZES = flags.DEFINE_integer("num_sizes", 10, "See launch.eval.")


class _Sweep(NamedTuple):
    """What stays the same through a sweep."""

    root: Path
    cells: "list[Cell]"
    settings: "Settings"
    started: float  # seconds of the monotonic clock
    left_at_first: list[int]  # how many cells were not done; empty until the first table


def main(argv: Sequence[str]) -> int:
    """Runs what is not yet done, and prints the table of cells."""
    del argv
    import jax

    from thermo_ebm.evaluation import evaluate
    from thermo_ebm.sweep.cells import make_cells

    jax.config.update("jax_platforms", "cpu")  # of this process: the cells need the accelerator
    path = Path(_EXPERIMENT.value)
    changes = _changes(path, _CONFIG.value)
    cells = make_cells(_CONFIG.value, changes)
    _check(cells, settings := _settings())
    if _DRY_RUN.value:
        for cell, change in zip(cells, changes, strict=True):
            print(" ".join([cell.name, *(f"{field}={value}" for field, value in change.items())]))
        return 0
    evaluate.choose_network(settings)  # weights that are missing are missed before the training
    # SIGTERM ends the sweep as Ctrl-C does: with its cell saved.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: dict[str, Job] = {}
    made = _Sweep(Path(_WORKDIR.value).absolute(), cells, settings, time.monotonic(), [])
    try:
        failed = _follow(made, running)
    except BaseException as error:
        for job in running.values():
            job.stop()
        if not isinstance(error, KeyboardInterrupt):
            raise
        where = "; its SLURM jobs go on" if _EXECUTOR.value == "slurm" else ""
        print(f"interrupted{where}: the same command continues", file=sys.stderr)
        return 3
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _settings() -> "Settings":
    from thermo_ebm.evaluation.evaluate import Settings

    return Settings(
        features=_FEATURES.value,
        resize=_RESIZE.value,
        inception_weights=_WEIGHTS.value,
        cache_dir=_CACHE.value,
        num_images=_NUM_IMAGES.value,
        num_sizes=_NUM_SIZES.value,
    )


def _check(cells: "list[Cell]", settings: "Settings") -> None:
    """Refuses what would fail after hours: every cell's configuration, and the evaluation's."""
    from configs import base
    from thermo_ebm.config import checks
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import evaluate

    evaluate.check(settings)
    for cell in cells:
        try:
            checks.check(cell.config, base.get_config())
            evaluate.num_images(cell.config.data.num_val, settings)
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error


def _changes(path: Path, config: ConfigDict) -> list[dict[str, Any]]:
    """Runs an experiment's file and returns its cells' changes of the configuration."""
    from thermo_ebm.errors import UserError, one_line

    if not path.is_file():
        raise UserError(f"--experiment={path}: there is no such file")
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--experiment={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        takes_config = bool(inspect.signature(module.get_cells).parameters)
        return list(module.get_cells(config) if takes_config else module.get_cells())
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"--experiment={path}: {what}") from error


def _follow(made: _Sweep, running: dict[str, Job]) -> dict[str, str]:
    """Starts cells and waits for them; returns which failed, and why.

    A cell is started once. One that another program trains is waited for, and started if that
    program leaves it unfinished. `running` is kept as the caller's, who stops what is in it.
    """
    from thermo_ebm.sweep.cells import Status

    failed: dict[str, str] = {}
    tried: set[str] = set()
    states: dict[str, Status] = {}
    shown: dict[str, Status] = {}
    running |= _submitted(made)
    while True:
        over = [name for name, job in running.items() if job.is_over()]
        states = _states(made, states)  # only now: what is over trains no more
        for name in over:
            _end(name, running.pop(name), states[name], failed, tried)
        waiting = [
            cell
            for cell in made.cells
            if states[cell.name] is Status.WAITING and cell.name not in {*running, *failed}
        ]
        failed |= {cell.name: "ended before it was done" for cell in waiting if cell.name in tried}
        _start(made, [cell for cell in waiting if cell.name not in tried], running)
        tried |= set(running)
        shown = _show(made, _shown_states(states, running, failed), shown)
        if not running and Status.RUNNING not in states.values():
            return {name: why for name, why in failed.items() if states[name] is not Status.DONE}
        time.sleep(_POLL.value)


def _submitted(made: _Sweep) -> dict[str, Job]:
    """The jobs of an earlier start of this sweep that SLURM still has."""

    from thermo_ebm.sweep import slurm

    if _EXECUTOR.value != "slurm":
        return {}
    names = {cell.name for cell in made.cells}
    return {name: job for name, job in slurm.submitted(made.root).items() if name in names}


def _states(made: _Sweep, before: "Mapping[str, Status]") -> "dict[str, Status]":
    """Each cell's state; one that is done stays so."""
    from thermo_ebm.sweep.cells import Status, status

    return {
        cell.name: Status.DONE
        if before.get(cell.name) is Status.DONE
        else status(made.root, cell, made.settings)
        for cell in made.cells
    }


def _end(name: str, job: Job, state: "Status", failed: dict[str, str], tried: set[str]) -> None:
    """Notes why a job failed, unless it did because another program trains that cell."""
    from thermo_ebm.sweep.cells import Status

    reason = job.failure()
    if state is Status.RUNNING:
        tried.discard(name)
    elif reason:
        failed[name] = reason


def _start(made: _Sweep, cells: "list[Cell]", running: dict[str, Job]) -> None:
    """Here the first of the cells if none runs; as SLURM jobs all of them."""
    from thermo_ebm.sweep import jobs, slurm

    if _EXECUTOR.value == "slurm" and cells:
        running |= slurm.submit(made.root, cells, made.settings, _resources())
    elif cells and not running:
        running[cells[0].name] = jobs.start_process(made.root, cells[0], made.settings)


def _resources() -> "Resources":
    from thermo_ebm.errors import UserError
    from thermo_ebm.sweep.slurm import Resources

    for parameter in _SLURM.value:
        if "=" not in parameter:
            raise UserError(f"--slurm={parameter}: must be NAME=VALUE")
    return Resources(
        partition=_PARTITION.value,
        gpus=_GPUS.value,
        cpus=_CPUS.value,
        hours=_HOURS.value,
        at_once=_AT_ONCE.value,
        signal_seconds=_SIGNAL.value,
        further=dict(parameter.split("=", 1) for parameter in _SLURM.value),
    )


def _shown_states(
    states: "Mapping[str, Status]", running: Mapping[str, Job], failed: Mapping[str, str]
) -> "dict[str, Status]":
    """A process that has just been started runs; a SLURM job does once it trains."""
    from thermo_ebm.sweep.cells import Status

    shown = dict(states) | {name: Status.FAILED for name in failed}
    if _EXECUTOR.value == "local":
        shown |= {name: Status.RUNNING for name in running}
    return shown


def _show(
    made: _Sweep, states: "dict[str, Status]", before: "dict[str, Status]"
) -> "dict[str, Status]":
    """Prints the table when it has changed: each cell's status, counts, and the time left."""
    from thermo_ebm.sweep.cells import Status

    if states == before:
        return before
    for name, state in states.items():
        print(f"  {state.value:8} {name}")
    counts = {state: list(states.values()).count(state) for state in Status}
    line = ", ".join(f"{number} {state.value}" for state, number in counts.items())
    left = counts[Status.WAITING] + counts[Status.RUNNING]
    if not before:
        made.left_at_first.append(left)
    if ended := made.left_at_first[0] - left:
        minutes = (time.monotonic() - made.started) / ended * left / 60
        line += f"; about {minutes:.0f} minutes left" if left else ""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
    return states


if __name__ == "__main__":
    program.run(main)
