"""Where the cells of a sweep run: as processes on this machine, or as jobs of a SLURM array."""

import contextlib
import getpass
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.run import configuration
from thermo_ebm.sweep.cells import CatchInterrupts, Cell, run_cell

FOLDER = ".jobs"  # in the sweep's folder: each job's output
_SUBMITTED = "submitted.json"  # maps cells to SLURM jobs


class Job(NamedTuple):
    """A cell that was started."""

    is_over: Callable[[], bool]
    failure: Callable[[], str]  # of a job that is over: one line, empty if the job succeeded
    stop: Callable[[], None]  # returns when the cell is saved and has ended; SLURM jobs continue


class Executor(NamedTuple):
    """Where the cells of a sweep run. Jobs are listed by the names of their cells."""

    submitted: Callable[[], dict[str, Job]]  # jobs of an earlier start that still wait or run
    start: Callable[[list[Cell], Mapping[str, Job]], dict[str, Job]]  # (waiting, running) -> new
    queues: bool  # whether a job that was started may wait before it runs


def encode(root: Path, cell: Cell, settings: MetricSettings) -> str:
    """A cell and the settings of its evaluation as JSON, for another process."""
    config = configuration.as_json(cell.config)
    content = {"root": str(root), "name": cell.name, "config": config, "budget": cell.budget}
    return json.dumps(content | {"settings": settings._asdict()}, indent=2) + "\n"


def decode(encoded: str) -> tuple[Path, Cell, MetricSettings]:
    """The arguments of `encode`.

    Raises:
      UserError: the text is not what `encode` returned.
    """
    try:
        content = json.loads(encoded)
        cell = Cell(content["name"], ConfigDict(content["config"]), content["budget"])
        return Path(content["root"]), cell, MetricSettings(**content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("cell: is not a cell that launch.sweep wrote") from error


def run_encoded(encoded: str, catch: CatchInterrupts) -> int:
    """Trains and evaluates the cell that `encode` was given; returns the exit code."""
    return run_cell(*decode(encoded), catch).value


def one_at_a_time(root: Path, settings: MetricSettings, program: str) -> Executor:
    """Runs cells as processes of the module `program` on this machine, one after another."""

    def start(cells: list[Cell], running: Mapping[str, Job]) -> dict[str, Job]:
        return (
            {}
            if running
            else {cell.name: _process(root, cell, settings, program) for cell in cells[:1]}
        )

    return Executor(dict, start, queues=False)


def _process(root: Path, cell: Cell, settings: MetricSettings, program: str) -> Job:
    """Starts a cell as a process, whose output goes to the sweep's folder.

    The process is detached from the terminal: Ctrl-C reaches only the sweep, which stops the cell.

    Raises:
      UserError: the folder cannot be written.
    """
    log, encoded = (root / FOLDER / f"{cell.name}.{suffix}" for suffix in ("log", "json"))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(encoded, encode(root, cell, settings))
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", program, f"--cell={encoded}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    except OSError as error:
        raise UserError(f"workdir={root}: cannot be written: {error.strerror}") from error

    def stop() -> None:
        try:
            process.terminate()
            process.wait()
        except KeyboardInterrupt:  # requested twice: files on disk survive this too
            process.kill()
            process.wait()

    return Job(lambda: process.poll() is not None, lambda: failure(process.wait(), log), stop)


def failure(code: int, log: Path) -> str:
    """Why a process with this exit code failed, as one line; empty if the process succeeded."""
    if code == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].strip().removeprefix("error: ") if lines else "no output"
    return f"{_meaning(code) or last} (see {log})"


def _meaning(code: int) -> str:
    """The meaning of a cell's exit code; empty if the code does not say why the cell failed."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return {
        3: "interrupted; checkpoints are written",
        4: "a repetition diverged and was given up; see its rollbacks.json",
    }.get(code, "")


# SLURM, through submitit, which takes half a second to import and is imported only where it is used


class Resources(NamedTuple):
    """What each SLURM job asks for."""

    partition: str | None
    gpus: int
    cpus: int
    hours: float
    at_once: int
    signal_seconds: int  # before the time limit
    further: Mapping[str, str]  # other options of sbatch


class CellJob:
    """A callable that trains and evaluates a cell; when requeued, it continues from checkpoints.

    A class, because submitit needs a method `checkpoint` besides the call.
    """

    def __call__(self, encoded: str) -> None:
        """Runs what `encode` returned. sbatch exports JAX's environment, which `launch` has set.

        Raises:
          RuntimeError: the cell diverged or was interrupted.
        """
        logging.set_verbosity(logging.WARNING)
        if code := run_encoded(encoded, save_before_requeue):
            raise RuntimeError(_meaning(code))

    def checkpoint(self, encoded: str) -> Any:
        """The job that submitit queues at the time limit: the same job again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(CellJob(), encoded)


@contextlib.contextmanager
def save_before_requeue() -> Iterator[Callable[[], bool]]:
    """While open, SLURM's signals only make the yielded function return True.

    Training then writes its checkpoints and ends. After that submitit's own handler gets the signal
    that SLURM sends before the time is up: it queues the job again and exits. (Submitit alone
    would do so at once, and the training since the last checkpoint would be lost.)
    """
    import submitit

    requeue = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (requeue, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda signum, frame: received.append(signum))
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if requeue in received:
        signal.raise_signal(requeue)


def check_slurm() -> None:
    """Checks that jobs can be submitted from this machine; writes nothing.

    Raises:
      UserError: SLURM is not there, or the package that submits to it.
    """
    if importlib.util.find_spec("submitit") is None:
        raise UserError("executor=slurm: needs the package submitit: pip install submitit")
    missing = [name for name in ("srun", "sbatch") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"executor=slurm: there is no {' and no '.join(missing)} on this machine; start the "
            "sweep on a machine of a SLURM cluster"
        )


def job_array(root: Path, settings: MetricSettings, resources: Resources) -> Executor:
    """Runs cells as SLURM jobs, which are all submitted at once.

    Raises:
      UserError: SLURM is not installed or refuses the jobs (when they are started).
    """

    def start(cells: list[Cell], running: Mapping[str, Job]) -> dict[str, Job]:
        del running
        return _submit(root, cells, settings, resources) if cells else {}

    return Executor(lambda: submitted(root, queued_jobs), start, queues=True)


def submitted(root: Path, queue: Callable[[], set[str] | None]) -> dict[str, Job]:
    """The jobs of an earlier start that still wait or run, by the names of their cells.

    Args:
      root: the sweep's folder.
      queue: `queued_jobs`.
    """
    queued = queue()
    return {
        name: _slurm_job(root, number, queue)
        for name, number in _submitted_numbers(root).items()
        if queued is None or number in queued
    }


def queued_jobs() -> set[str] | None:
    """The user's jobs that wait or run, array jobs one by one; None if SLURM does not answer.

    Uses `squeue` rather than `sacct` (as submitit does), which needs SLURM's accounting.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _submit(
    root: Path, cells: list[Cell], settings: MetricSettings, resources: Resources
) -> dict[str, Job]:
    """Submits cells as a SLURM job array and records the job of each cell, for `submitted`."""
    executor = _submitit_executor(root, resources)
    encoded_cells = [encode(root, cell, settings) for cell in cells]
    try:
        with executor.batch():
            new = [executor.submit(CellJob(), encoded) for encoded in encoded_cells]
        numbers = {cell.name: job.job_id for cell, job in zip(cells, new, strict=True)}
    except Exception as error:  # submitit raises many kinds
        raise UserError(f"executor=slurm: not submitted: {one_line(error)[-300:]}") from error
    files.write_json(root / FOLDER / _SUBMITTED, _submitted_numbers(root) | numbers)
    return {name: _slurm_job(root, number, queued_jobs) for name, number in numbers.items()}


def _submitted_numbers(root: Path) -> dict[str, str]:
    """The number of the SLURM job of each cell that was ever submitted."""
    path = root / FOLDER / _SUBMITTED
    return files.read_json(path) if path.exists() else {}


def _submitit_executor(root: Path, resources: Resources) -> Any:
    import submitit

    parameters: dict[str, Any] = {
        "name": "thermo_ebm",
        "cpus_per_task": resources.cpus,
        "timeout_min": max(round(60 * resources.hours), 1),
        "slurm_array_parallelism": resources.at_once,
        "slurm_signal_delay_s": resources.signal_seconds,
        "slurm_additional_parameters": dict(resources.further),
    }
    if resources.partition:
        parameters["slurm_partition"] = resources.partition
    if resources.gpus:
        parameters["gpus_per_node"] = resources.gpus
    try:
        # A run may take many times the time limit of a job.
        executor = submitit.AutoExecutor(
            root / FOLDER, cluster="slurm", slurm_max_num_timeout=10_000
        )
        executor.update_parameters(**parameters)
    except OSError as error:
        raise UserError(f"workdir={root}: cannot be written: {error.strerror}") from error
    except RuntimeError as error:
        raise UserError(f"executor=slurm: {error}") from error
    return executor


def _slurm_job(root: Path, number: str, queue: Callable[[], set[str] | None]) -> Job:
    import submitit

    job: Any = submitit.SlurmJob(folder=root / FOLDER, job_id=number)

    def is_over() -> bool:
        queued = queue()
        return queued is not None and number not in queued

    return Job(is_over, partial(_slurm_failure, job), lambda: None)


def _slurm_failure(job: Any) -> str:
    """Why a job that left the queue failed, as one line; empty if the job succeeded."""
    where = f"(see {job.paths.stderr})"
    if not job.paths.result_pickle.exists():
        return f"ended with no message: killed or cancelled {where}"
    try:
        error = job.exception()
    except Exception as lost:
        error = lost
    if error is None:
        return ""
    # submitit puts the job's traceback between two rules; its last line says what happened.
    trace = str(error).split("-" * 22)
    lines = trace[1 if len(trace) > 1 else 0].strip().splitlines()
    return f"{lines[-1].strip() if lines else type(error).__name__} {where}"
