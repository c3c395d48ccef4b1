"""Writes docs/study/steps: noise at an unchanged step size, shorter steps without noise, and both.

python -m study.pages.step_study runs/noise_or_step/linear runs/noise_or_step/prior

The folders hold the results of `study.measurements.noise_or_step`. Every number on the page is read
from them.
"""

if not __package__:
    __import__("not_a_script")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from docs.tools.markdown import table
from study import steps
from study.figures import style
from study.pages.page_program import path_argument, print_all
from study.report.section import DPI

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "study" / "steps"
NAMES = {
    "linear": "the linear reference (one chain per image, two trajectories of `hmc`)",
    "prior": "the prior's ladder (p = 1, N_t = 4, M = 2, `ula`)",
}

OPENING = """# Noise or steps?

![Differences of KID and log p(x) from the centre, by arm](figures/effects.png)

*KID and held-out log p(x) less those of the same seeds without amplification (the centre), with
95 % intervals.*

{findings}

This page is written by `python -m study.pages.step_study`; its numbers come from the runs.
Amplification multiplies the noise of the learning gradient by c. Where the amplified gradient also
enters Adam's second moment, it shortens the steps as well
([why](../../mathematics.md#noise-control)). Three arms tell the two apart:

| arm | noise | steps |
| --- | --- | --- |
| noise, steps unchanged (`second_moment="plain"`) | c times | as without amplification |
| shorter steps, no noise added (`"alone"`) | as without | shorter: c times the noise in `v` alone |
| both (`"amplified"`) | c times | shorter: Adam as published |

Networks, images, numbers of updates, (constant) learning rates and seeds are equal in all cells of
a table. *Noise* and *step* are ratios to the centre's: the variance of the first moment's gradient
per parameter, and the norm of the mean displacement per update relative to the parameters
(`train_update_noise`, `train_step_size`).
"""

LIMITS = """## How to read it

Differences are means over pairs of equal seeds with 95 % intervals (Student's t). A verdict needs
p < 0.05 after Holm's adjustment over all comparisons of one metric on this page, so that
"undecided" can stand beside an interval without 0: it excludes effects outside the interval, and
does not mean that there is none. The tables of all comparisons have the p-values.
A repetition is *unstable* if its KID is more than {unstable:g} times the centre's, a result is not
finite or an update was skipped. Unstable repetitions stay in the means.

The models and images are small and training is short (digits of 8 x 8 pixels, {updates} updates):
rely on directions, not on sizes.
"""


def main(argv: Sequence[str]) -> int:
    """Reads the results and writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes docs/study/steps.")
    parser.add_argument("folders", type=path_argument, nargs="+")
    parser.add_argument("--output", type=path_argument, default=OUTPUT)
    values = parser.parse_args(argv)
    return print_all(lambda: write(values.folders, values.output))


def write(folders: Sequence[Path], output: Path) -> list[Path]:
    """Writes the page, its tables and its figure; returns their paths.

    Raises:
      UserError: a folder has no results.
    """
    frame = steps.load(folders)
    cells, compared = steps.cells(frame), steps.comparisons(frame)
    for folder in (output / "tables", output / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [output / "tables" / "cells.csv", output / "tables" / "comparisons.csv"]
    for path, content in zip(paths, (cells, compared), strict=True):
        content.to_csv(path, index=False, float_format="%.6g")
    paths += [output / "figures" / "effects.png", output / "index.md"]
    _figure(compared).savefig(paths[2], dpi=DPI)
    paths[3].write_text(page(frame, cells, compared), encoding="utf-8")
    return paths


def page(frame: pd.DataFrame, cells: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The text of the page."""
    largest = _largest(cells)
    findings = [_finding(str(name), compared, largest) for name in cells["reference"].unique()]
    blocks = [OPENING.format(findings=" ".join(findings))]
    for reference, of_reference in cells.groupby("reference"):
        rows = compared[compared["reference"] == reference]
        blocks.append(_section(str(reference), of_reference, rows))
    blocks.append(LIMITS.format(unstable=steps.UNSTABLE, updates=f"{frame['updates'].max():,}"))
    blocks.append(_commands(cells.groupby("reference").size()))
    return "\n".join(blocks)


def _largest(cells: pd.DataFrame) -> str:
    """How the labels of the cells with the largest amplification begin."""
    return f"c = {cells['amplification'].max():g}"


def _finding(reference: str, compared: pd.DataFrame, largest: str) -> str:
    """What the largest amplification does at an unchanged step, and what shorter steps do."""
    rows = compared[compared["reference"] == reference]
    effects = []
    for arm in ("plain", "alone"):
        parts = []
        for metric, unit in (("kid", "KID"), ("log_marginal_likelihood", "log p(x)")):
            row = _find(rows, f"{largest}: {steps.ARMS[arm]}", "centre", metric)
            if row is not None:
                parts.append(f"{unit} by {_difference(row)} ({steps.verdict(row)})")
        if parts:
            effects.append(f"{largest}, {steps.ARMS[arm]}: {' and '.join(parts)}")
    return f"With {NAMES.get(reference, reference)}, against the centre: {'; '.join(effects)}."


def _section(reference: str, cells: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The table of one reference, and what follows from it."""
    titles = ["cell", "noise", "step", *steps.METRICS.values(), "unstable"]
    rows = []
    for _, cell in cells.iterrows():
        row = [cell["cell"], f"{cell['train_update_noise_ratio']:.2f}"]
        row.append(f"{cell['train_step_size_ratio']:.2f}")
        for metric in steps.METRICS:
            difference = _find(compared, cell["cell"], "centre", metric)
            row.append(f"{cell[metric]:.4g}" if difference is None else _difference(difference))
        rows.append([*row, f"{int(cell['unstable'])} of {int(cell['repetitions'])}"])
    text = f"## With {NAMES.get(reference, reference)}\n\n"
    text += "The centre's means, and the differences from it:\n\n" + table(titles, rows)
    sentences = []
    for _, cell in cells.iterrows():
        alone = cell["cell"].replace(steps.ARMS["amplified"], steps.ARMS["alone"])
        if alone != cell["cell"]:
            sentences.append(_sentence(compared, cell, alone))
    return text + "\n" + "".join(f"- {sentence}\n" for sentence in sentences if sentence)


def _find(compared: pd.DataFrame, cell: str, against: str, metric: str) -> pd.Series | None:
    rows = compared[
        (compared["cell"] == cell)
        & (compared["against"] == against)
        & (compared["metric"] == metric)
    ]
    return None if rows.empty else rows.iloc[0]


def _difference(row: pd.Series) -> str:
    text = f"{row['difference']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    decided = steps.verdict(row)
    return text if decided == "undecided" else f"**{text}**"


def _sentence(compared: pd.DataFrame, cell: pd.Series, against: str) -> str:
    """The difference of KID from another cell than the centre."""
    row = _find(compared, cell["cell"], against, "kid")
    if row is None:
        return ""
    return (
        f"{cell['cell']}, against {against.partition(': ')[2]}: {steps.METRICS['kid']} "
        f"{_difference(row)}, {steps.verdict(row)} (p = {row['p_holm']:.2g} after Holm's "
        "adjustment)."
    )


def _figure(compared: pd.DataFrame) -> Figure:
    """KID and log p(x) of every cell less those of the centre, one row per reference."""
    rows = compared[compared["against"] == "centre"]
    panels = [
        (f"{reference}: {name}", group[group["metric"] == metric])
        for reference, group in rows.groupby("reference")
        for metric, name in (("kid", "KID"), ("log_marginal_likelihood", "log p(x), nats"))
    ]
    titles = [title for title, _ in panels]
    figure, axes = style.new_titled_grid(titles, 2, (4.4, 2.8), share=False)
    for axis, (_, group) in zip(axes, panels, strict=True):
        places = range(len(group))
        errors = [group["difference"] - group["low"], group["high"] - group["difference"]]
        axis.errorbar(group["difference"], places, xerr=errors, fmt="o", capsize=3, markersize=4)
        axis.axvline(0.0, color="grey", linewidth=0.8)
        axis.set_yticks(list(places), group["cell"], fontsize=6)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel("difference from the centre", fontsize=8)
    return figure


def _commands(num_cells: pd.Series) -> str:
    """The commands that repeat the page, from the number of cells of each reference."""
    configs = {"linear": "digits_small_linear", "prior": "digits_small"}
    references = [str(name) for name in num_cells.index]
    lines = [
        f"    python -m study.measurements.noise_or_step --output=runs/noise_or_step/{name} "
        f"--config=configs/{configs.get(name, 'CONFIG')}.py --config.num_epochs=9 "
        f"--cells={num_cells[name]}"
        for name in references
    ]
    folders = " ".join(f"runs/noise_or_step/{name}" for name in references)
    lines.append(f"    python -m study.pages.step_study {folders}")
    return (
        "## Reproducing this page\n\n" + "\n".join(lines) + "\n\n"
        "Tables: [cells.csv](tables/cells.csv), [comparisons.csv](tables/comparisons.csv).\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
