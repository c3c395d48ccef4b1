"""The command `thermo-ebm`: in a clone, and installed from the wheel, outside the clone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wheel
from patience import PATIENCE
from PIL import Image

from launch import command, program
from thermo_ebm.config import shipped
from thermo_ebm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, options=(), folder=ROOT, **environment):
    code = "import sys; from thermo_ebm.launch import command; sys.exit(command.main())"
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_programs_are_listed_before_anything_is_imported(arguments, tmp_path):
    code, out, err = run(*arguments, options=("-X", "importtime"), folder=tmp_path)
    assert code == 0
    assert all(f"\n  {name} " in out for name in command.PROGRAMS)
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "thermo_ebm.launch.command" in imported
    assert not imported & {"jax", "numpy", "absl", "ml_collections"}


def test_programs_are_those_of_the_folder():
    programs = {
        path.stem for path in (ROOT / "launch").glob("*.py") if "__main__" in path.read_text()
    }
    assert programs - {"cell"} == set(command.PROGRAMS)


def test_an_unknown_program_is_one_line():
    for name, advice in (("tran", "did you mean train?"), ("zzz", "thermo-ebm --help lists all")):
        code, out, err = run(name)
        assert (code, out) == (2, "")
        assert err == f"error: thermo-ebm {name}: there is no such program; {advice}\n"


def test_help_is_that_of_the_program_in_the_words_of_the_command(tmp_path):
    code, out, err = run("fetch-weights", "--help", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "\n  thermo-ebm fetch_weights --network=dinov2_vitl14" in out
    assert "\nthermo-ebm fetch_weights:\n  --cache_dir: " in out
    assert "launch." not in out


def test_an_error_is_in_the_words_of_the_command(monkeypatch, capsys):
    def fail(argv):
        raise UserError("run python -m launch.train, see configs/digits.py")

    for name, message in (
        ("launch/eval.py", "run python -m launch.train, see configs/digits.py"),
        ("thermo-ebm eval", "run thermo-ebm train, see digits"),
    ):
        monkeypatch.setattr(sys, "argv", [name])
        assert program.exit_code(fail, [name]) == program.BAD_INPUT
        assert capsys.readouterr().err == f"error: {message}\n"


def test_a_name_finds_a_shipped_configuration(programs, tmp_path):
    refused = ("--config.loss.name=ti", f"--workdir={tmp_path}/run")
    result = programs.run("train", "--config=digits_small", *refused)
    assert result.err.startswith("error: loss.name='ti': must be"), result.err
    result = programs.run("train", "--config=digits_smal", *refused)
    message = "--config=digits_smal: there is no such file; did you mean digits_small?"
    assert result == (2, "", f"error: {message}\n")
    result = programs.run("sweep", "--experiment=experiment9", f"--workdir={tmp_path}/runs")
    assert result.err.startswith(
        "error: experiment=experiment9: there is no such file; did you mean experiment"
    )


def test_a_file_comes_before_a_shipped_configuration_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find("digits") == str(ROOT / "configs" / "digits.py")
    Path("digits").write_text("")
    assert [shipped.find(name) for name in ("digits", "mine/digits.py")] == [
        "digits",
        "mine/digits.py",
    ]
    assert "digits_small, experiment" not in shipped.suggest("nothing", "get_config")
    assert ": celeb_a, " in shipped.suggest("nothing", "get_config")


def write_images(folder, seed):
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (30, 8, 8, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")


@pytest.mark.slow
def test_the_installed_command_compares_trains_and_evaluates(tmp_path):
    _, file = wheel.build(tmp_path)
    bin_folder = wheel.install(file, tmp_path / "venv")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        write_images(folder / name, seed)

    def thermo_ebm(*arguments):
        done = subprocess.run(
            [bin_folder / "thermo-ebm", *arguments],
            cwd=folder,
            env=wheel.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr

    where = "import thermo_ebm.launch.command as c, thermo_ebm.configs.base as b"
    where += "; print(c.__file__, b.__file__)"
    found = subprocess.run(
        [bin_folder / "python", "-c", where],
        cwd=folder,
        env=wheel.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.count(str(tmp_path / "venv")) == 2
    code, out, err = thermo_ebm("compare", "a", "b", "--num_sizes=3")
    assert code == 0, err
    assert "\nkid " in out
    sizes = ("--config.num_epochs=2", "--config.data.num_train=200", "--config.data.num_val=64")
    train = ("train", "--config=digits_small", "--workdir=run", *sizes)
    code, out, err = thermo_ebm(*train, "--config.num_repetitions=1")
    assert code == 0, err
    code, out, err = thermo_ebm("eval", "--workdir=run", "--num_sizes=3", "--newest_only")
    assert code == 0, err
    assert "1 checkpoint evaluated" in out
    sweep = ("sweep", "--experiment=precision_pair", "--config=digits_small", "--workdir=runs")
    code, out, err = thermo_ebm(*sweep, *sizes, "--dry_run")
    assert code == 0, err
    code, out, err = thermo_ebm("report", "--runs=run", "--output=report")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "needs a clone" in err
