"""The project's wheel, built and installed as `pip install .` does, without a download."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("thermo_ebm", "configs", "launch", "examples", "benchmarks", "tests/support")


def build(folder):
    """Builds the wheel from a copy of the sources; returns the copy's folder and the wheel."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    _run([sys.executable, "-c", code], source)
    return source, next(folder.glob("*.whl"))


def install(file, folder):
    """Installs the wheel into an environment that has the packages of this one; returns its bin."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(purelib, "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    _run([*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(file)], folder)
    return folder / "bin"


def environment():
    """The environment of a user, who is not in a clone."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _run(command, folder):
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
