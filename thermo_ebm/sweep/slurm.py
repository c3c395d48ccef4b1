"""Cells of a sweep as jobs of a SLURM array, through submitit."""

import contextlib
import getpass
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from thermo_ebm import files, runtime
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.sweep import jobs
from thermo_ebm.sweep.jobs import FOLDER, Job

if TYPE_CHECKING:
    from thermo_ebm.evaluation.evaluate import Settings
    from thermo_ebm.sweep.cells import Cell

_SUBMITTED = "submitted.json"  # maps cells to jobs


class Resources(NamedTuple):
    """What each SLURM job asks for."""

    partition: str | None
    gpus: int
    cpus: int
    hours: float
    at_once: int
    signal_seconds: int  # before the time limit
    further: Mapping[str, str]  # of sbatch


class CellJob:
    """A callable that trains and evaluates one cell; when requeued, it continues from checkpoints.

    A class, because submitit needs a method `checkpoint` besides the call.
    """

    def __call__(self, encoded: str) -> None:
        """Sets up JAX in the new process, then runs what `jobs.encode` gave.

        Raises:
          RuntimeError: the cell diverged or was interrupted.
        """
        runtime.prepare_jax()
        from absl import logging

        logging.set_verbosity(logging.WARNING)
        if code := jobs.run(encoded, save_before_requeue):
            raise RuntimeError(jobs.describe(code))

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


def job_array(root: Path, settings: "Settings", resources: Resources) -> jobs.Executor:
    """Cells as SLURM jobs, all of them submitted at once."""

    def start(cells: "list[Cell]", running: Mapping[str, Job]) -> dict[str, Job]:
        del running
        return submit(root, cells, settings, resources) if cells else {}

    return jobs.Executor(lambda: submitted(root), start, queues=True)


def submit(
    root: Path, cells: "list[Cell]", settings: "Settings", resources: Resources
) -> dict[str, Job]:
    """Submits cells as one SLURM job array; returns the jobs by the cells' names.

    Which cell is which job is kept in the sweep's folder, for `submitted`.

    Raises:
      UserError: SLURM is not installed, or refuses the jobs.
    """
    executor = _executor(root, resources)
    encoded = [jobs.encode(root, cell, settings) for cell in cells]
    try:
        with executor.batch():
            new = [executor.submit(CellJob(), one) for one in encoded]
        numbers = {cell.name: job.job_id for cell, job in zip(cells, new, strict=True)}
    except Exception as error:  # submitit raises many kinds
        raise UserError(f"executor=slurm: not submitted: {one_line(error)[-300:]}") from error
    files.write_json(root / FOLDER / _SUBMITTED, _numbers(root) | numbers)
    return {name: _slurm_job(root, number) for name, number in numbers.items()}


def submitted(root: Path) -> dict[str, Job]:
    """The jobs of an earlier `submit` that still wait or run, by the cells' names."""
    queued = _queue()
    return {
        name: _slurm_job(root, number)
        for name, number in _numbers(root).items()
        if queued is None or number in queued
    }


def _numbers(root: Path) -> dict[str, str]:
    path = root / FOLDER / _SUBMITTED
    return files.read_json(path) if path.exists() else {}


def _executor(root: Path, resources: Resources) -> Any:
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


def _slurm_job(root: Path, number: str) -> Job:
    import submitit

    job: Any = submitit.SlurmJob(folder=root / FOLDER, job_id=number)
    return Job(partial(_has_left_queue, number), partial(_slurm_failure, job), lambda: None)


def _has_left_queue(number: str) -> bool:
    queued = _queue()
    return queued is not None and number not in queued


def _queue() -> set[str] | None:
    """The user's jobs that wait or run, array jobs one by one; None where SLURM does not answer.

    Uses `squeue` rather than `sacct` (as submitit does), which needs SLURM's accounting.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _slurm_failure(job: Any) -> str:
    """The reason why a job that left the queue failed, in one line; empty if it did not fail."""
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
