"""Every program prints help when asked, and programs can be imported together."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "launch").glob("*.py"))
PROGRAMS = [
    name for name in MODULES if "__main__" in (ROOT / "launch" / f"{name}.py").read_text("utf-8")
]


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_programs_are_collected():
    assert {"train", "eval", "sweep", "sample", "tempered", "report", "cell"} <= set(PROGRAMS)


def test_help_prints_usage_and_flags_before_jax_is_imported():
    for name in PROGRAMS:
        code, out, err = run("-X", "importtime", "-m", f"launch.{name}", "--help")
        assert code == 0
        assert f"python -m launch.{name}" in out  # usage
        assert f"launch/{name}.py:\n  --" in out  # flags
        assert re.search(r"Exit\s+code", out)
        assert all(line.startswith("import time:") for line in err.splitlines()), err
        assert "absl.flags" in err
        assert not re.search(r"\| +jax$", err, re.MULTILINE), name


def test_help_variants_exit_zero():
    for flag in ("--helpfull", "--helpshort", "-?", "--helpxml"):
        code, out, err = run("-m", "launch.train", flag, "--config=configs/nosuch.py")
        assert (code, err) == (0, ""), flag
        assert "allow_config_change" in out


def test_help_into_a_closed_pipe_prints_no_error():
    """As with `| head`, of a pipe that is closed before anything is read."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "launch.fetch_weights", "--help"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    os.close(writer)
    assert done.returncode in (0, 1)
    assert done.stderr == ""


def test_programs_can_be_imported_together():
    for name in PROGRAMS:
        assert callable(importlib.import_module(f"launch.{name}").main)


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_missing_device_prints_one_line(tmp_path, platform):
    command = (
        "-m",
        "launch.train",
        "--config=configs/digits_paper.py",
        f"--workdir={tmp_path}/run",
    )
    code, out, err = run(*command, JAX_PLATFORMS=platform)
    assert (code, out) == (2, "")
    assert err.startswith("error: JAX finds no device: ")
    assert platform in err
    assert err.count("\n") == 1
