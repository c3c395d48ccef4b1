"""A model of `configs/digits.py` reaches the score that its configuration states."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import digits

ROOT = Path(__file__).resolve().parents[2]
STATED = re.compile(r"KID ([\d.]+) \+- ([\d.]+)")


def run(*command):
    """Compiled as for users: the tests' flags save compiling and would train for half an hour."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_score_is_the_stated_one_within_its_error(tmp_path):
    """Within 3 standard errors of the difference; other machines round in other ways."""
    score, error = map(float, STATED.search(digits.__doc__).groups())
    folder = tmp_path / "run"
    run("launch.train", "--config=configs/digits.py", f"--workdir={folder}")
    run("launch.eval", f"--workdir={folder}", "--newest_only")
    with open(folder / "rep_00" / "eval.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    measured, measured_error = (
        float(row[f"efficientnet_lite0_kid{name}"]) for name in ("", "_stderr")
    )
    assert abs(measured - score) <= 3 * (error**2 + measured_error**2) ** 0.5
