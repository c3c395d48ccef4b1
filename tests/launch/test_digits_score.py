"""The quick start's model reaches the score that its configuration states."""

import csv
import re

import pytest

from configs import digits

STATED = re.compile(r"KID ([\d.]+) \+- ([\d.]+)")


@pytest.mark.slow
def test_the_score_is_the_stated_one_within_its_error(programs, tmp_path):
    """Within 3 standard errors of the difference; other machines round in other ways."""
    score, error = map(float, STATED.search(digits.__doc__).groups())
    run = tmp_path / "run"
    assert programs.run("train", "--config=configs/digits.py", f"--workdir={run}").code == 0
    done = programs.run("eval", f"--workdir={run}", "--newest_only")
    assert done.code == 0, done.err
    with open(run / "rep_00" / "eval.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    found, its = (float(row[f"efficientnet_lite0_kid{name}"]) for name in ("", "_stderr"))
    assert abs(found - score) <= 3 * (error**2 + its**2) ** 0.5
