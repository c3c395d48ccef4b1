"""The sweep program: a grid to its end, a failing cell, whatever stops it, and bad input."""

import csv
import os
import re
import shutil
import signal
import subprocess

import pytest
from programs import wait_until
from tiny_sweep import command

from thermo_ebm.run import lock

GRID = """
def get_cells():
    return [{"loss.name": "vanilla"}, {"loss.power": 1.0}, {"loss.power": 3.0, "num_epochs": 2}]
"""
SINGLE = """
def get_cells(config):
    assert config.data.num_val == 40
    return [{"loss.name": "vanilla"}]
"""


DRY = ([], ["--dry_run"])  # with and without work


def names(programs, arguments):
    code, out, err = programs.run("sweep", *arguments, "--dry_run")
    assert (code, err) == (0, "")
    return [line.split()[0].removesuffix(":") for line in out.splitlines()[:-1]]


def column(path, name):
    with open(path, encoding="utf-8") as file:
        return [row[name] for row in csv.DictReader(file)]


def last_table(out):
    """The newest table: states by the cells' names, and the line below them."""
    lines = out.splitlines()
    rows = [line.split() for line in lines[:-1] if line.startswith("  ")]
    return {name: state for state, name in rows}, lines[-1]


def test_dry_run_prints_the_cells_and_writes_nothing(programs, tmp_path):
    code, out, _ = programs.run("sweep", *command(tmp_path, GRID), "--dry_run")
    assert code == 0
    lines = out.splitlines()
    assert [line.partition(": ")[0].split()[1:] for line in lines[:-1]] == [
        ["loss.name=vanilla"],
        ["loss.power=1.0"],
        ["loss.power=3.0", "num_epochs=2"],
    ]
    assert re.fullmatch(r"digits_loss\.name=vanilla_[0-9a-f]{8}", lines[0].split()[0])
    cost = r": 1,222 parameters, .*FLOP per step, about .* on each device, (\d+) steps, .*\((.*)\)"
    costs = [re.search(cost, line).groups() for line in lines[:-1]]
    assert [int(steps) for steps, _ in costs] == [10, 10, 20]
    flops = sum(int(number.replace(",", "")) for _, number in costs)
    assert re.fullmatch(rf"total: 3 cells, 40 steps, .*FLOP \({flops:,}\)", lines[-1])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_failed_cells_do_not_stop_others_and_can_be_repaired(programs, tmp_path):
    arguments = command(tmp_path, GRID)
    cells, runs = names(programs, arguments), tmp_path / "runs"
    (runs / cells[1]).mkdir(parents=True)
    (runs / cells[1] / "file").write_text("of somebody else")

    code, out, err = programs.run("sweep", *arguments)
    assert code == 1
    states, line = last_table(out)
    assert states == dict(zip(cells, ["done", "failed", "done"], strict=True))
    assert line.endswith("2 done, 0 running, 1 failed, 0 waiting")
    log = runs / ".jobs" / f"{cells[1]}.log"
    assert err.startswith(
        f"failed: {cells[1]}: workdir={runs / cells[1]}: neither empty nor a run directory"
    )
    assert err.endswith(f"(see {log})\n")
    assert err.count("\n") == 1
    assert "minutes left" in out
    for name, epochs in ((cells[0], 1), (cells[2], 2)):
        folder = runs / name / "rep_00"
        assert column(folder / "readings.csv", "epoch") == [str(i + 1) for i in range(epochs)]
        assert column(folder / "eval.csv", "epoch") == [str(epochs)]
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.csv")}

    (runs / cells[1] / "file").unlink()
    code, out, err = programs.run("sweep", *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"  done     {cells[0]}"
    assert set(last_table(out)[0].values()) == {"done"}
    assert column(runs / cells[1] / "rep_00/eval.csv", "epoch") == ["1"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_sweep_continues_after_signals_and_kills(programs, tmp_path):
    """Ctrl-C saves the cell; after SIGKILL the cell goes on, and the next sweep waits for it."""
    arguments = command(tmp_path, SINGLE, num_epochs=150, checkpoint__every_epochs=1000)
    (name,) = names(programs, arguments)
    folder = tmp_path / "runs" / name
    readings = folder / "rep_00/readings.csv"

    def epochs():
        return len(column(readings, "epoch")) if readings.exists() else 0

    process = programs.start("sweep", *arguments)
    wait_until(lambda: epochs() > 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, _, err = process.wait()
    assert code == 3
    assert err == "interrupted: the same command continues\n"
    assert not lock.is_held(folder)
    reached = epochs()
    assert 3 < reached < 150
    saved = [int(path.name) for path in (folder / "rep_00/checkpoints").iterdir()]
    assert max(saved) >= 10 * reached

    process = programs.start("sweep", *arguments)
    wait_until(lambda: epochs() > reached + 3)
    process.kill(signal.SIGKILL)
    assert lock.is_held(folder)
    code, out, err = programs.run("sweep", *arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"  running  {name}\n")
    assert column(readings, "epoch") == [str(i + 1) for i in range(150)]
    assert column(folder / "rep_00/eval.csv", "epoch") == ["150"]
    log = (tmp_path / "runs/.jobs" / f"{name}.log").read_text()
    assert log.count("interrupted after step") == 1


def test_bad_input_is_one_line_and_exit_code_2(programs, tmp_path):
    arguments = command(tmp_path, SINGLE)
    for name, text in {
        "value": "def get_cells():\n    return [{'loss.power': -1.0}]\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    file = tmp_path / "file"
    file.write_text("")
    missing = shutil.which("srun") is None
    cases = [
        (["--experiment=/nowhere.py"], "experiment=/nowhere.py: there is no such file"),
        ([f"--experiment={tmp_path}/value.py"], "loss.power=-1.0: must be positive"),
        (["--features=vgg"], "features=vgg: must be one of"),
        (
            ["--features=inception_v3", f"--cache_dir={tmp_path}"],
            "the weights .* are not in .*fetch_weights.*--weights=PATH",
        ),
        (["--num_images=50"], "num_images=50: more than the 40 validation images"),
        (["--executor=cloud"], "executor=cloud"),
        ([f"--workdir={file}"], f"workdir={file}: cannot be written: Not a directory"),
        (["--bogus=1"], "--bogus: there is no such flag; --help describes all flags"),
        (["stray"], "unknown argument 'stray'; flags start with --"),
        (["--slurm=account"], "--slurm=account: must be NAME=VALUE"),
        (["--hours=0"], "--hours=0.0: must be positive"),
        (["--gpus=-1"], "--gpus=-1: must be 0 or a positive integer"),
        *(
            [(["--executor=slurm", *dry], "executor=slurm: there is no srun") for dry in DRY]
            if missing
            else []
        ),
    ]
    for further, message in cases:
        code, out, err = programs.run("sweep", *arguments, *further)
        assert (code, out) == (2, ""), (further, out, err)
        assert re.search(message, err), (further, err)
        assert err.startswith("error: "), (further, err)
        assert err.count("\n") == 1, (further, err)
    assert not (tmp_path / "runs").exists()


def test_cell_program_refuses_missing_files(programs, tmp_path):
    (tmp_path / "cell.json").write_text("{}")
    for argv, message in [
        ([], "--cell is missing; --help describes all flags"),
        ([f"--cell={tmp_path}/cell.json"], "cell: is not a cell that launch.sweep wrote"),
        (["--cell=/nowhere"], "--cell=/nowhere: No such file or directory"),
    ]:
        code, out, err = programs.run("cell", *argv)
        assert (code, out, err) == (2, "", f"error: {err.removeprefix('error: ')}")
        assert message in err


def slurm_answers():
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no SLURM here")
def test_slurm_job_array_continues_and_reports_failures(programs, tmp_path):
    """A failing cell beside others; a sweep that is stopped and started again submits no more."""
    arguments = command(tmp_path, GRID, "--executor=slurm", "--cpus=1", "--hours=0.2")
    cells, runs = names(programs, arguments), tmp_path / "runs"
    (runs / cells[1]).mkdir(parents=True)
    (runs / cells[1] / "file").write_text("of somebody else")
    process = programs.start("sweep", *arguments)
    submitted = runs / ".jobs/submitted.json"
    wait_until(submitted.exists)
    before = submitted.read_text()
    code, _, err = process.kill(signal.SIGINT)
    assert code == 3
    assert err == "interrupted; its SLURM jobs continue: the same command continues\n"
    code, out, err = programs.run("sweep", *arguments)
    assert code == 1
    assert last_table(out)[0] == dict(zip(cells, ["done", "failed", "done"], strict=True))
    assert submitted.read_text() == before
    assert re.match(rf"failed: {re.escape(cells[1])}: .*neither empty nor a run directory", err)
    assert len(list((runs / ".jobs").glob("*_submission.sh"))) == 1
