"""Prints the differences between two cells, paired by seed.

python -m study.pages.paired runs/gradients

The folder holds the runs of two cells (`configs/gradient_pair.py`, `configs/precision_pair.py`).
Each row is a reading of the last epoch: means with standard deviations over repetitions, and the
mean of the second cell less the first over pairs of equal seeds, with its 95 % interval (Student).
"""

if not __package__:
    __import__("not_a_script")

import argparse
import sys
from collections.abc import Sequence

from docs.tools.markdown import table
from study import statistics
from study.pages.page_program import path_argument, print_all
from study.readings import Section, load, sections
from study.titles import reading_columns, reading_title
from thermo_ebm.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Reads the runs and prints a table for each data set; returns the exit code."""
    parser = argparse.ArgumentParser(description="Differences between two cells by seed.")
    parser.add_argument("runs", type=path_argument)
    runs = parser.parse_args(argv).runs
    return print_all(
        lambda: (f"{one.title}\n\n{paired_table(one)}" for one in sections(load(runs, None)))
    )


def paired_table(section: Section) -> str:
    """The table of one data set, in Markdown.

    Raises:
      UserError: there are not two cells, or fewer than two seeds in common.
    """
    names = list(section.cells.index)
    if len(names) != 2:
        raise UserError(f"{section.title}: {len(names)} cells; a pair has two")
    first, second = (section.last[section.last["cell"] == name].set_index("seed") for name in names)
    if len(first.index.intersection(second.index)) < 2:
        raise UserError(f"{section.title}: the cells share fewer than two seeds")
    rows = []
    for column in reading_columns(section.last.columns):
        pairs = (second[column] - first[column]).dropna().to_numpy()
        if len(pairs) > 1:
            estimate = statistics.contrast([pairs], [1.0])
            means = [
                f"{cell[column].mean():.4g} ({cell[column].std():.2g})" for cell in (first, second)
            ]
            interval = f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
            rows.append([reading_title(column), *means, interval])
    return table(["", *names, "difference [95 %]"], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
