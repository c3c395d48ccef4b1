"""Kills a real training run repeatedly, and compares its final state with an uninterrupted run's.

python -m benchmarks.crash_test --kills=24 --seed=0

Each attempt runs `python -m launch.train` and is ended by a SIGKILL at a random time: during
start-up (imports, restoring, compiling), during training, or a few milliseconds into a save. At the
end the parameters, optimisers, readings, temperatures and pictures must be identical. The exit code
is 1 if anything differs. `in_saves` counts the kills that left an unfinished checkpoint which was
not there before the attempt.
"""

if not __package__:
    __import__("not_a_script")

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from launch import program
from launch.path_flags import DEFINE_path

FLAGS = {
    "data.num_train": 150,
    "data.num_val": 40,
    "batch_size": 15,
    "model.generator.features": 4,
    "model.latent_dim": 4,
    "model.prior.features": 8,
    "sampler.prior.num_steps": 3,
    "sampler.posterior.num_steps": 2,
    "loss.num_temperatures": 3,
    "checkpoint.every_steps": 4,
    "checkpoint.keep_every_epochs": 0,
    "logging.pictures_every_epochs": 2,
}
KINDS = ("start", "training", "save", "save")  # in turn
EPOCHS_A_KILL = 3
TIMES = ("seconds", "images_per_second")
PATIENCE = 600  # largest number of seconds for one attempt


class Kill(NamedTuple):
    """One SIGKILL, and the state that it left on disk."""

    kind: str
    after: float  # seconds from the process's start
    newest: int  # step of the newest complete checkpoint
    in_save: bool  # this attempt left an unfinished checkpoint
    rows: int  # of the readings


class Report(NamedTuple):
    """The result of the test."""

    kills: list[Kill]
    differences: list[str]  # between the killed and the uninterrupted run; should be empty
    epochs: int


def crash(folder: Path, kills: int, seed: int, say=print) -> Report:
    """Trains once without and once with kills in `folder`, and compares the two runs.

    Raises:
      RuntimeError: an attempt failed, or did not reach its kill or its end in time.
    """
    chance = random.Random(seed)
    epochs = EPOCHS_A_KILL * kills
    uninterrupted, killed = folder / "uninterrupted", folder / "killed"
    started = time.monotonic()
    _finish(_start(uninterrupted, epochs))
    say(f"uninterrupted: {epochs} epochs in {time.monotonic() - started:.1f} s")
    record, start_seconds = [], 5.0
    for number in range(kills):
        kill, start_seconds = _attempt(
            killed, epochs, KINDS[number % len(KINDS)], chance, start_seconds
        )
        record.append(kill)
        what = ", in a save" if kill.in_save else ""
        say(
            f"kill {number + 1:2d} ({kill.kind}): after {kill.after:.2f} s, checkpoint of step "
            f"{kill.newest}, {kill.rows} rows{what}"
        )
    _finish(_start(killed, epochs))
    return Report(record, differences(uninterrupted, killed), epochs)


def _start(workdir: Path, epochs: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.train", "--config=configs/digits.py"]
    command += [f"--config.{name}={value}" for name, value in FLAGS.items()]
    command += [f"--config.num_epochs={epochs}", f"--workdir={workdir}"]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with open(workdir.with_suffix(".log"), "a") as log:
        root = Path(__file__).resolve().parents[1]
        return subprocess.Popen(command, cwd=root, stdout=log, stderr=log)


def _finish(process: subprocess.Popen) -> None:
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
    if code:
        raise RuntimeError(f"training ended with exit code {code}; see the log in the folder")


def _attempt(
    workdir: Path, epochs: int, kind: str, chance: random.Random, start_seconds: float
) -> tuple[Kill, float]:
    """Runs and kills one process; returns the seconds until training began, for the next kill."""
    folder = workdir / "rep_00" / "checkpoints"
    before, leftovers, started = _later(folder), _unfinished(folder), time.monotonic()
    process = _start(workdir, epochs)
    try:
        if kind == "start":
            time.sleep(chance.uniform(0, start_seconds))
        else:
            _wait_for(process, lambda: _later(folder) - before)
            start_seconds = time.monotonic() - started
            if kind == "training":
                time.sleep(chance.uniform(0, 0.8))
            else:
                for _ in range(chance.randint(1, 3)):
                    _wait_for(process, lambda: not _unfinished(folder))
                    _wait_for(process, lambda: _unfinished(folder))
                time.sleep(chance.uniform(0, 0.05))
        after = time.monotonic() - started
        if process.poll() is not None:
            raise RuntimeError(f"training ended before its kill, with {process.returncode}")
    finally:
        process.kill()
        process.wait()
    complete = [int(name) for name in _names(folder) if name.isdigit()]
    table = workdir / "rep_00" / "readings.csv"
    rows = len(table.read_text().splitlines()) - 1 if table.exists() else 0
    in_save = bool(_unfinished(folder) - leftovers)
    return Kill(kind, after, max(complete, default=-1), in_save, rows), start_seconds


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _later(folder: Path) -> set[str]:
    """Checkpoints after that of step 0, complete or not."""
    return {name for name in _names(folder) if name.partition(".")[0] != "0"}


def _unfinished(folder: Path) -> set[tuple[str, int]]:
    """Names and inodes of unfinished checkpoints; a save that begins again has another inode."""
    unfinished = set()
    for name in _names(folder):
        with contextlib.suppress(FileNotFoundError):  # finished or removed in the meantime
            if "tmp" in name:
                unfinished.add((name, (folder / name).stat().st_ino))
    return unfinished


def _wait_for(process: subprocess.Popen, happened) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"waited in vain; exit code {process.poll()}")
        time.sleep(0.0005)


def differences(run: Path, reference: Path) -> list[str]:
    """Differences between the first repetitions of two finished runs, bit for bit except times."""
    from thermo_ebm.run import tables

    names = []
    folders = [workdir / "rep_00" for workdir in (run, reference)]
    readings = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in tables.read(path)]
        for path in (folder / "readings.csv" for folder in folders)
    ]
    for table, folder in zip(readings, folders, strict=True):
        if [row["epoch"] for row in table] != list(range(1, len(table) + 1)):
            names.append(f"{folder}: readings lost or doubled")
    if readings[0] != readings[1]:
        names.append("readings")
    if len({(folder / "temperatures.csv").read_bytes() for folder in folders}) > 1:
        names.append("temperatures")
    pictures = [
        {path.name: path.read_bytes() for path in (folder / "samples").glob("*.png")}
        for folder in folders
    ]
    if pictures[0] != pictures[1]:
        names.append("pictures")
    arrays = [_newest_arrays(workdir) for workdir in (run, reference)]
    names += [
        name
        for name in sorted(arrays[0].keys() | arrays[1].keys())
        if not np.array_equal(arrays[0].get(name), arrays[1].get(name))
    ]
    return names


def _newest_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Parameters, both optimisers' states, sums, order and key of the newest checkpoint."""
    import jax

    from thermo_ebm.evaluation.run import load_run
    from thermo_ebm.train import checkpoint_content
    from thermo_ebm.train.state import init_state
    from thermo_ebm.train.task import make_task

    run = load_run(workdir)
    task = make_task(run.config, axis_name=None)
    shapes = jax.eval_shape(lambda: init_state(task, 0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    folder = workdir / "rep_00" / "checkpoints"
    steps = run.config.num_epochs * run.steps_per_epoch
    state = checkpoint_content.restore(folder, steps, shapes, sharding).state
    leaves = jax.tree_util.tree_leaves_with_path(state._replace(key=jax.random.key_data(state.key)))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_integer("kills", 24, "Number of SIGKILLs.")
    flags.DEFINE_integer("seed", 0, "Seed of the times of the kills.")
    DEFINE_path("folder", None, "Folder to keep the runs in; by default a temporary one.")


def main(argv: Sequence[str]) -> int:
    del argv
    folder = Path(flags.FLAGS.folder or tempfile.mkdtemp(prefix="crash_test"))
    report = crash(folder, flags.FLAGS.kills, flags.FLAGS.seed)
    if not flags.FLAGS.folder:
        shutil.rmtree(folder)
    in_saves = sum(kill.in_save for kill in report.kills)
    print(
        f"seed={flags.FLAGS.seed} kills={len(report.kills)} in_saves={in_saves} "
        f"epochs={report.epochs} differences={len(report.differences)}"
    )
    for name in report.differences:
        print(f"differs: {name}")
    return int(bool(report.differences))


if __name__ == "__main__":
    program.run(main, define_flags)
