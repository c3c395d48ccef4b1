"""The training program: its output, its exit codes, and its answers to bad input."""

import os
import re
import signal
import time

import numpy as np
import pytest
import tiny_training as tiny
from patience import PATIENCE
from train_program import start

from thermo_ebm.run import lock

GET_DIGITS = (
    "from thermo_ebm.configs import digits\n\n\n"
    "def get_config():\n    config = digits.get_config()\n"
)
# Name of the case: (content of a configuration's file, the message; {folder} is the file's folder).
FILES = {
    "syntax": ("def get_config():\n    return (\n", "{folder}/syntax.py:2: '(' was never closed"),
    "nothing": ("x = 1\n", "{folder}/nothing.py: has no function get_config()"),
    "name": (
        "def get_config():\n    return undefined\n",
        "--config: {folder}/name.py:2: NameError: name 'undefined' is not defined",
    ),
    "value": ("def get_config():\n    return int('x')\n", "--config: ValueError: invalid literal"),
    "ends": ("import sys\nsys.exit(0)\n", "--config: {folder}/ends.py:2: SystemExit: 0"),
    "dict": (
        "def get_config():\n    return {'a': 1}\n",
        "{folder}/dict.py:1: get_config() returns a value of type dict; it must end with",
    ),
    "unfinished": (
        GET_DIGITS,
        "{folder}/unfinished.py:4: get_config() returns nothing; it must end with `return config`",
    ),
    "former": (
        GET_DIGITS + "    config.dial.amplification = 4.0\n    return config\n",
        "--config: dial: there is no such group; dial.amplification was renamed gradient_noise.amp",
    ),
    "lacking": (
        GET_DIGITS + "    del config.loss.power\n    return config\n",
        "config.loss.power: is missing",
    ),
}

# Flags after a good configuration and a new folder, and the message.
FLAGS = {
    "--config.foo=1": "--config.foo: there is no such field",
    "--config.batchsize=3": "--config.batchsize: there is no such field; did you mean batch_size?",
    "--config.dial.target_noise=1": "--config.dial.target_noise: was renamed gradient_noise.target",
    "--config.logging.every_seconds=1": "--config.logging.every_seconds: was removed: it is alway",
    "--config.batch_size=abc": "--config.batch_size=abc: must be an integer",
    "--config.model=3": "--config.model=3: Failed to parse '3' as a ConfigDict",
    "--config.loss.name=ti": "loss.name='ti': must be thermodynamic, vanilla, elbo or ",
    "--config.data.name=mnist": "data.name='mnist': choose one of digits, ",
    "--num_epochs=3": "--num_epochs: there is no such flag; did you mean --config.num_epochs?",
    "--features=3": "--features: there is no such flag; did you mean "
    "--config.model.prior.features or --config.model.generator.features?",
    "--bogus=1": "--bogus: there is no such flag; --help describes all flags",
    "stray": "unknown argument 'stray'; flags start with --",
    "--allow_config_change=foo": "allow_config_change=foo: there is no such field",
    "--init_from=/nowhere": "init_from=/nowhere: /nowhere/config.json: not found; /nowhere is",
    "--init_from=runs:x": "init_from=runs:x: must be RUN[:REPETITION[:STEP]], STEP a number or",
    "--profile_steps=3": "profile_steps=3: must be A,B, the first and the last step",
    "--profile_steps=1,9999999": "profile_steps=1,9999999: must rise within 1 to ",
    "--coordinator=here:1": "--coordinator, --num_processes and --process_id need --distributed",
    "--distributed": "distributed: coordinator_address should be defined. (outside SLURM, ",
}


def cases(folder):
    """(argv, message) by name; {folder} holds what they need."""
    images = folder / "images"
    for name, (_, message) in FILES.items():
        file = folder / f"{name}.py"
        yield name, [f"--config={file}", f"--workdir={folder}/new"], message.format(folder=folder)
    for flag, message in FLAGS.items():
        yield flag, ["--config=configs/digits.py", f"--workdir={folder}/new", flag], message
    digits = "--config=configs/digits.py"
    data = [f"--config.data.{x}" for x in (f"data_dir={images}", "num_train=3", "num_val=2")]
    new = f"--workdir={folder}/new"
    yield from (
        ("no config", [new], "--config is missing; --help describes all flags"),
        ("neither", [], "--config and --workdir are missing; --help describes all flags"),
        ("no workdir", [digits], "--workdir is missing; --help describes all flags"),
        ("no file", ["--config=nosuch.py", new], "--config=nosuch.py: there is no such file"),
        (
            "no file, a field",
            ["--config=nosuch.py", "--config.num_epochs=3", new],
            "--config=nosuch.py: there is no such file",
        ),
        ("a folder", ["--config=configs", new], "--config=configs: it cannot be read as a file"),
        (
            "not prepared",
            ["--config=configs/celeb_a.py", new, f"--config.data.data_dir={folder}"],
            f"data.data_dir: celeb_a is not prepared in {folder}; prepare it with `tfds build",
        ),
        (
            "unreadable image",
            [digits, new, "--config.data.name=folder", "--config.batch_size=2", *data],
            "data.data_dir: cannot read 5 images: ",
        ),
        (
            "a file as workdir",
            [digits, f"--workdir={folder}/dict.py"],
            f"workdir={folder}/dict.py: the folder cannot be created",
        ),
        (
            "inside the images",
            [
                *(digits, f"--workdir={images}/run", "--config.data.name=folder"),
                *("--config.batch_size=2", *data),
            ],
            f"workdir={images}/run: lies inside data.data_dir={images}, all of whose folders are",
        ),
        (
            "somebody else's folder",
            [digits, f"--workdir={images}"],
            f"workdir={images}: neither empty nor a run directory (no config.json)",
        ),
        (
            "coordinator without port",
            [digits, new, "--distributed", "--coordinator=here"],
            "coordinator=here: must be HOST:PORT",
        ),
        (
            "process beyond the number",
            [
                *(digits, new, "--distributed", "--coordinator=here:1"),
                *("--num_processes=2", "--process_id=2"),
            ],
            "distributed: process_id and num_processes must be nonnegative",
        ),
    )


def launch_many(programs, commands):
    """Exit code, standard output and standard error of each."""
    return [programs.run("train", *argv) for argv in commands]


def test_bad_input_is_one_line_and_exit_code_2(programs, tmp_path):
    for name, (content, _) in FILES.items():
        (tmp_path / f"{name}.py").write_text(content)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        (images / f"{number}.png").write_bytes(b"no image")
    wrong = {}
    for name, argv, message in cases(tmp_path):
        code, stdout, stderr = programs.run("train", *argv)
        lines = stderr.count("\n")
        if (code, stdout, lines) != (2, "", 1) or not stderr.startswith(f"error: {message}"):
            wrong[name] = (message, code, stdout, stderr)
    assert wrong == {}
    assert not list(tmp_path.glob("new/rep_*"))
    assert sorted(path.name for path in images.iterdir()) == [f"{n}.png" for n in range(5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, programs):
    """A finished run of one epoch: its folder, and the program's output."""
    workdir = tmp_path_factory.mktemp("run") / "digits"
    code, stdout, stderr = programs.run("train", *ask(workdir))
    assert code == 0, stderr
    return workdir, stdout, stderr


def test_progress_and_written_files_are_printed(run):
    workdir, stdout, stderr = run
    assert "rep 00 epoch 1/1 done, loss" in stderr
    assert "Traceback" not in stderr
    lines = stderr.splitlines()
    assert lines[0] == f"run         {workdir}"
    assert lines[1].startswith("devices     1 (cpu, ")
    assert lines[2:4] == [
        "data        digits: 150 training and 40 validation images, 8 x 8 x 1",
        "parameters  121 of the prior, 1,101 of the generator",
    ]
    assert re.fullmatch(r"step        [\d.]+ [kM]FLOP per repetition", lines[4])
    assert re.fullmatch(r"memory      about [\d.]+ MiB on each device, of .* may be used", lines[5])
    assert lines[6] == "training    1 model (repetition 0): 10 steps each (1 epoch of 10)"
    for word in ("compiling", "validating", "drawing"):
        assert f"rep 00 {word}\n" in stderr
    assert stdout.splitlines() == [
        f"done: {workdir}",
        f"  checkpoints  {workdir}/rep_00/checkpoints",
        f"  readings     {workdir}/rep_00/readings.csv",
        f"  samples      {workdir}/rep_00/samples/epoch_0001.png",
    ]
    names = {"readings.csv", "temperatures.csv", "checkpoints", "samples"}
    assert names == {path.name for path in (workdir / "rep_00").iterdir()}
    assert {"config.json", "versions.json"} <= {path.name for path in workdir.iterdir()}


def ask(workdir, *changes, **fields):
    """Arguments that train one epoch of the tiny configuration."""
    fields = {"num_epochs": 1, "logging__pictures_every_epochs": 1} | fields
    return [*tiny.flags(**fields), *changes, f"--workdir={workdir}"]


def contents(workdir):
    return {
        path: path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and path.name not in (".lock", "versions.json")
    }


def test_finished_runs_are_not_changed(run, programs):
    workdir, *_ = run
    before = contents(workdir)
    again, changed, partly = launch_many(
        programs,
        [
            ask(workdir),
            ask(workdir, loss__power=2.0, loss__kl_weight=2.0),
            ask(
                workdir,
                "--allow_config_change=loss.kl_weight",
                loss__power=2.0,
                loss__kl_weight=2.0,
            ),
        ],
    )
    assert again[0] == 0
    assert again[2] == "repetition 0 is done: skipped\n"
    assert changed[0] == partly[0] == 2
    assert changed[2].splitlines() == [
        f"error: workdir={workdir}: the run was started with another configuration:",
        "  field           in the run  asked for",
        "  loss.kl_weight  1.0         2.0",
        "  loss.power      1.0         2.0",
        "Use another folder, or continue anyway with allow_config_change=loss.kl_weight,loss.power",
    ]
    assert "kl_weight" not in partly[2]
    assert "allow_config_change=loss.power" in partly[2]
    with lock.hold(workdir):
        code, _, stderr = programs.run("train", *ask(workdir))
    assert code == 2
    assert f"workdir={workdir}: in use by process {os.getpid()} on " in stderr
    assert contents(workdir) == before


def test_dry_run_prints_the_summary_and_writes_nothing(run, tmp_path, programs):
    """A new run has the summary of the trained run; a finished run has no steps left."""
    workdir, _, stderr = run
    before = contents(workdir)
    asked = [ask(tmp_path / "new"), ask(workdir), ask(workdir, loss__power=2.0)]
    asked.append(ask(tmp_path / "new", "--config.data.name=npz", "--config.data.data_dir=gone.npz"))
    asked.append(ask(tmp_path / "file" / "new"))
    (tmp_path / "file").write_text("")
    new, done, other, gone, file = launch_many(programs, [[*argv, "--dry_run"] for argv in asked])
    assert (new[0], new[2]) == (done[0], done[2]) == (0, "")
    assert new[1].splitlines()[1:7] == stderr.splitlines()[1:7]
    assert re.fullmatch(r"total       10 steps, .*FLOP \([\d,]+\)", new[1].splitlines()[7])
    measured = r"time        about \S+ s per step here, 10 steps: .*; 1 repetition"
    assert re.fullmatch(measured, new[1].splitlines()[8])
    assert len(done[1].splitlines()) == 9
    assert done[1].splitlines()[6].startswith("training    no repetition is left: 10 steps each")
    assert done[1].splitlines()[8] == "left        0 steps, 0 FLOP (0)"
    for (code, stdout, error), message in (
        (other, "the run was started with another configuration"),
        (gone, "gone.npz"),
        (file, f"workdir={tmp_path}/file/new: the folder cannot be created"),
    ):
        assert (code, stdout) == (2, "")
        assert message in error
    with lock.hold(workdir):
        code, _, error = programs.run("train", *ask(workdir), "--dry_run")
    assert code == 2
    assert f"workdir={workdir}: in use by process {os.getpid()} on " in error
    assert contents(workdir) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_finished_runs_with_missing_or_other_data_are_refused(run, tmp_path, programs):
    workdir, *_ = run
    before = contents(workdir)
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images)
    moved = ["--allow_config_change=data.name"]
    gone, other = launch_many(
        programs,
        [
            ask(workdir, *moved, data__name="npz", data__data_dir=tmp_path / name)
            for name in ("gone.npz", "other.npz")
        ],
    )
    for (code, stdout, stderr), message in (
        (gone, f"no file '{tmp_path}/gone.npz'"),
        (other, "its training images are not those that the run was started with"),
    ):
        assert (code, stdout) == (2, "")
        assert stderr.splitlines()[0] == "repetition 0 is done: skipped"
        assert message in stderr.splitlines()[1]
        assert stderr.count("\n") == 2
    assert contents(workdir) == before


def test_failed_start_leaves_no_lock_and_no_folder(tmp_path, programs):
    missing = ["--config.data.name=npz", f"--config.data.data_dir={tmp_path}/gone.npz"]
    code, _, stderr = programs.run("train", *ask(tmp_path / "run", *missing))
    assert code == 2
    assert "gone.npz" in stderr
    assert list(tmp_path.iterdir()) == []


def test_state_of_another_structure_is_refused(run, programs):
    workdir, *_ = run
    before = contents(workdir)
    changed = ask(workdir, "--allow_config_change=model.latent_dim", model__latent_dim=6)
    code, _, stderr = programs.run("train", *changed)
    assert code == 2
    assert "model.latent_dim cannot change in an existing run" in stderr
    assert stderr.count("\n") == 1
    assert contents(workdir) == before


def test_damaged_configuration_record_is_named(run, tmp_path, programs):
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "rep_00").mkdir()
    code, _, stderr = programs.run("train", *ask(tmp_path))
    assert code == 2
    assert stderr.startswith(f"error: {tmp_path}/config.json: cannot be read as JSON")


@pytest.mark.slow
def test_signals_write_a_checkpoint_and_exit_with_3(tmp_path):
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        rows = len(tiny.rows(tmp_path))
        process = start(tmp_path, num_epochs=100_000, checkpoint__every_steps=0)
        until = time.monotonic() + PATIENCE
        while len(tiny.rows(tmp_path)) < rows + 2 and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 3, stderr
        assert "checkpoint written: run the same command again" in stderr
        assert stdout.startswith(f"interrupted: {tmp_path}\n")
        epochs = [row["epoch"] for row in tiny.rows(tmp_path)]
        assert epochs == list(range(1, len(epochs) + 1))
        newest = max(int(p.name) for p in (tmp_path / "rep_00" / "checkpoints").iterdir())
        assert newest >= 10 * len(epochs)
