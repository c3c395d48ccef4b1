"""Differences between two cells, paired by seed."""

import pandas as pd
import pytest

from study.pages import paired
from study.readings import Section
from thermo_ebm.errors import UserError


def section(cells):
    rows = [
        {"cell": cell, "seed": seed, "val_loss": 10.0 * seed + offset + 0.1 * (seed % 2)}
        for cell, offset in cells.items()
        for seed in range(4)
    ]
    frame = pd.DataFrame(rows)
    return Section("digits", "runs", frame, frame, pd.DataFrame(index=list(cells)))


def test_seeds_are_paired():
    text = paired.paired_table(section({"a": 0.0, "b": 2.0}))
    assert text.splitlines()[0] == "|  | a | b | difference [95 %] |"
    # The seeds differ by 10, the cells of each seed by 2 exactly.
    assert text.splitlines()[2].endswith("| 15.05 (13) | 17.05 (13) | 2 [2, 2] |")


def test_other_than_two_cells_are_refused():
    with pytest.raises(UserError, match="3 cells; a pair has two"):
        paired.paired_table(section({"a": 0.0, "b": 1.0, "c": 2.0}))
