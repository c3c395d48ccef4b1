"""The training program as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import tiny_training as tiny

ROOT = Path(__file__).resolve().parents[2]


def environment():
    # The JAX of the tests lets XLA's warnings through: they would fill a pipe that is read late.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | quiet


def start(workdir, *changes, **fields):
    command = [sys.executable, "-m", "launch.train", *tiny.flags(**fields), *changes]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
