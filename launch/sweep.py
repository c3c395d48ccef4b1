r"""Trains and evaluates every cell of an experiment; the same command continues it.

python -m launch.sweep --experiment=configs/experiment1.py --config=configs/cifar10.py \
    --workdir=RUNS [--dry_run] [--executor=slurm --partition=gpu --gpus=1 --hours=8]

Cells run one after another here, or as a SLURM job array. A cell that fails is reported and does
not stop the others. Exit codes: 0 all done, 1 some cells failed, 2 bad input, 3 interrupted.
"""

import importlib.util
import sys
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import config_flags

from launch import program
from launch.cell import CellJob

if TYPE_CHECKING:
    from thermo_ebm.sweep import Cell

_EXPERIMENT = flags.DEFINE_string("experiment", None, "File with get_cells().", required=True)
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
_POLL = flags.DEFINE_float("poll_seconds", 5.0, "How often to look at the jobs.")
_FEATURES = flags.DEFINE_string("features", "efficientnet_lite0", "See launch.eval.")
_WEIGHTS = flags.DEFINE_string("inception_weights", None, "See launch.eval.")
_CACHE = flags.DEFINE_string("cache_dir", None, "See launch.eval.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "See launch.eval.")
_NUM_SIZES = flags.DEFINE_integer("num_sizes", 10, "See launch.eval.")

JOBS = ".jobs"  # submitit's folder: each job's output


def main(argv: Sequence[str]) -> int:
    """Runs what is not yet done, and prints the table of cells."""
    del argv
    from configs import base
    from thermo_ebm import config as configuration
    from thermo_ebm import sweep

    root = Path(_WORKDIR.value)
    cells = sweep.make_cells(_CONFIG.value, _changes(Path(_EXPERIMENT.value)))
    for cell in cells:
        configuration.check(cell.config, base.get_config())
    if _DRY_RUN.value:
        print("\n".join(cell.name for cell in cells))
        return 0
    jobs = _submit(root, cells, base.get_config())
    try:
        failed = _follow(root, cells, jobs)
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 3
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _changes(path: Path) -> list[dict[str, Any]]:
    """Runs an experiment's file and returns its cells' changes."""
    from thermo_ebm.errors import UserError

    if not path.is_file():
        raise UserError(f"--experiment={path}: there is no such file")
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--experiment={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return list(module.get_cells())
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"--experiment={path}: {type(error).__name__}: {error}") from error


def _submit(root: Path, cells: "list[Cell]", reference: Any) -> dict[str, Any]:
    """Submits the cells that are neither done nor running; returns jobs by cell name."""
    from thermo_ebm import evaluation, sweep

    settings = evaluation.Settings(
        features=_FEATURES.value,
        inception_weights=_WEIGHTS.value,
        cache_dir=_CACHE.value,
        num_images=_NUM_IMAGES.value,
        num_sizes=_NUM_SIZES.value,
    )
    todo = [
        cell for cell in cells if sweep.status(root, cell, _FEATURES.value) is sweep.Status.WAITING
    ]
    executor = _executor(root)
    if _EXECUTOR.value == "slurm" and todo:
        with executor.batch():
            jobs = [
                executor.submit(CellJob(), str(root), cell, reference, settings) for cell in todo
            ]
        return {cell.name: job for cell, job in zip(todo, jobs, strict=True)}
    return {
        cell.name: lambda cell=cell: executor.submit(
            CellJob(), str(root), cell, reference, settings
        )
        for cell in todo
    }


def _executor(root: Path) -> Any:
    import submitit

    executor = submitit.AutoExecutor(folder=root / JOBS, cluster=_EXECUTOR.value)
    if _EXECUTOR.value == "slurm":
        executor.update_parameters(
            name="thermo_ebm",
            slurm_partition=_PARTITION.value,
            gpus_per_node=_GPUS.value or None,
            cpus_per_task=_CPUS.value,
            timeout_min=max(round(60 * _HOURS.value), 1),
            slurm_array_parallelism=_AT_ONCE.value,
        )
    else:
        executor.update_parameters(timeout_min=60 * 24 * 365)
    return executor


def _follow(root: Path, cells: "list[Cell]", jobs: dict[str, Any]) -> dict[str, str]:
    """Waits for the jobs, starting local ones one after another; returns what failed, and why."""
    failed: dict[str, str] = {}
    seconds: list[float] = []
    waiting, running = dict(jobs), dict[str, tuple[Any, float]]()
    while True:
        while waiting and (_EXECUTOR.value == "slurm" or not running):
            name = next(iter(waiting))
            job = waiting.pop(name)
            running[name] = (job if _EXECUTOR.value == "slurm" else job(), time.monotonic())
        _show(root, cells, running, failed, seconds)
        if not running:
            return failed
        ended: list[str] = []
        while not ended:
            time.sleep(_POLL.value)
            ended = [name for name, (job, _) in running.items() if job.done()]
        for name in ended:
            job, started = running.pop(name)
            seconds.append(time.monotonic() - started)
            if reason := _failure(job):
                failed[name] = reason


def _failure(job: Any) -> str:
    """Why a job failed, in one line; empty where it did not."""
    try:
        error = job.exception()
    except Exception as lost:  # the job left no result: killed, say
        error = lost
    if error is None:
        return ""
    # submitit puts the job's traceback between two rules; its last line says what happened.
    trace = str(error).split("-" * 22)
    lines = trace[1 if len(trace) > 1 else 0].strip().splitlines()
    return f"{lines[-1].strip() if lines else type(error).__name__} (see {job.paths.stderr})"


def _show(
    root: Path,
    cells: "list[Cell]",
    running: Container[str],
    failed: Container[str],
    seconds: list[float],
) -> None:
    """Prints the table: each cell's status, counts, and the time left."""
    from thermo_ebm import sweep

    states = {cell.name: sweep.status(root, cell, _FEATURES.value) for cell in cells}
    for name, state in states.items():
        if name in failed:
            states[name] = sweep.Status.FAILED
        elif name in running and state is sweep.Status.WAITING and _EXECUTOR.value == "local":
            states[name] = sweep.Status.RUNNING
    for name, state in states.items():
        print(f"  {state.value:8} {name}")
    counts = {state: list(states.values()).count(state) for state in sweep.Status}
    left = counts[sweep.Status.WAITING] + counts[sweep.Status.RUNNING]
    line = ", ".join(f"{number} {state.value}" for state, number in counts.items())
    if seconds and left:
        line += f"; about {left * sum(seconds) / len(seconds) / 60:.0f} minutes left"
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    program.run(main)
