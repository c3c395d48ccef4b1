"""Runs a cell of a sweep as a process on this machine; `slurm` runs it as a job of an array."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError

if TYPE_CHECKING:
    from thermo_ebm.evaluation.evaluate import Settings
    from thermo_ebm.sweep.cells import CatchInterrupts, Cell

FOLDER = ".jobs"  # in the sweep's folder: each job's output


class Job(NamedTuple):
    """One running cell."""

    is_over: Callable[[], bool]
    failure: Callable[[], str]  # one line, empty where it did not fail; once it is over
    stop: Callable[[], None]  # returns when it has saved and ended; SLURM's go on


class Executor(NamedTuple):
    """Where the cells of one sweep run; cells and jobs by the cells' names."""

    submitted: "Callable[[], dict[str, Job]]"  # of an earlier start of the sweep, still under way
    # Of the cells that are to run and the jobs under way, those that it starts now.
    start: "Callable[[list[Cell], Mapping[str, Job]], dict[str, Job]]"
    queues: bool  # whether a job that was started may wait before it runs


def one_at_a_time(root: Path, settings: "Settings") -> Executor:
    """Cells as processes on this machine, one after another."""

    def start(cells: "list[Cell]", running: Mapping[str, Job]) -> dict[str, Job]:
        chosen = [] if running else cells[:1]
        return {cell.name: start_process(root, cell, settings) for cell in chosen}

    return Executor(dict, start, queues=False)


def encode(root: Path, cell: "Cell", settings: "Settings") -> str:
    """A cell and the settings of its evaluation as JSON, for another process."""
    from thermo_ebm.run import configuration

    config = configuration.as_json(cell.config)
    content = {"root": str(root), "name": cell.name, "config": config}
    return json.dumps(content | {"settings": settings._asdict()}, indent=2) + "\n"


def run(encoded: str, catch: "CatchInterrupts") -> int:
    """Trains and evaluates what `encode` gave; returns the exit code."""
    from ml_collections import ConfigDict

    from thermo_ebm.evaluation.evaluate import Settings
    from thermo_ebm.sweep import cells

    content = json.loads(encoded)
    cell = cells.Cell(content["name"], ConfigDict(content["config"]))
    settings = Settings(**content["settings"])
    return cells.run_cell(Path(content["root"]), cell, settings, catch).value


def describe(code: int) -> str:
    """The reason for which a cell with this exit code is not done; empty if the code gives none."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return {
        3: "interrupted; checkpoints are written",
        4: "a repetition diverged and was given up; see its rollbacks.json",
    }.get(code, "")


def start_process(root: Path, cell: "Cell", settings: "Settings") -> Job:
    """Starts a cell in a process of its own, with its output in the sweep's folder.

    The process is detached from the terminal: Ctrl-C reaches only the sweep, which stops the cell.

    Raises:
      UserError: nothing can be written there.
    """
    log, made = (root / FOLDER / f"{cell.name}.{kind}" for kind in ("log", "json"))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(made, encode(root, cell, settings))
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "launch.cell", f"--cell={made}"],
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

    return Job(lambda: process.poll() is not None, lambda: _why(process.wait(), log), stop)


def _why(code: int, log: Path) -> str:
    if code == 0:
        return ""
    return f"{describe(code) or _last_line(log)} (see {log})"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip().removeprefix("error: ") if lines else "it said nothing"
