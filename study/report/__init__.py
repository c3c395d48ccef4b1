"""Puts the report together: one page, the figures as PNG and SVG, the tables as CSV.

`dataset` makes the parts of one data set, `verdicts` those on its claims, and `page` the HTML.
"""

import json
import re
from pathlib import Path

import pandas as pd

from study.changes import describe_change, mixing
from study.claims.verdicts import RULES
from study.readings import Readings, final, networks, section, sections
from study.report import page
from study.report.dataset import Section, make_section, save_figure
from study.report.diagnostics import diagnostics_parts
from study.report.verdicts import count_verdicts
from study.run_settings import Run
from thermo_ebm.errors import UserError
from thermo_ebm.run.changes import Change

__all__ = ["save_figure", "write_report"]


def write_report(readings: Readings, output: Path, features: str | None = None) -> list[Path]:
    """Writes report.html, figures/ and tables/ into `output`.

    Args:
      readings: what `readings.load` returns.
      output: a folder, made if needed.
      features: the network whose KID and FID decide the claims; by default InceptionV3 if any.

    Returns:
      The files written, report.html first.

    Raises:
      UserError: for a network that no readings are of, or a folder that cannot be written.
    """
    known = networks(readings.frame)
    if features is not None and features not in known:
        raise UserError(
            f"features={features}: no readings with it, only with {', '.join(known) or 'none'}"
        )
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        (output / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error.strerror})") from error
    try:
        return _write(readings, output, features)
    except OSError as error:
        path, reason = error.filename or output, error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _write(readings: Readings, output: Path, features: str | None) -> list[Path]:
    made: dict[str, Section] = {}
    for dataset, origin in sections(readings.frame):
        frame = section(readings.frame, dataset, origin)
        anchor = _anchor(f"{dataset}-{origin}", made)
        made[anchor] = make_section(readings, frame, anchor, output / "figures", features)
    written = [path for one in made.values() for path in one.files]
    written += _write_tables(list(made.values()), output / "tables")
    links = {anchor: one.title for anchor, one in made.items()}
    body = [*_opening(readings, made), *(part for one in made.values() for part in one.parts)]
    if chains := diagnostics_parts([run.folder for run in readings.runs]):
        links["chains"] = "Chains"
        body += chains
    if readings.runs:
        links["configurations"] = "Configurations"
        body += _configurations(readings.runs)
    report = output / "report.html"
    report.write_text(page.render("ThermoEBM report", body, links), encoding="utf-8")
    return [report, *written]


def _anchor(name: str, taken: dict[str, Section]) -> str:
    """Returns a name for files and links that no other data set has."""
    plain = re.sub(r"[^\w-]", "_", name)
    anchor, number = plain, 2
    while anchor in taken:
        anchor, number = f"{plain}_{number}", number + 1
    return anchor


def _write_tables(made: list[Section], folder: Path) -> list[Path]:
    """Writes each table of all data sets as one CSV file."""
    written = []
    for name in dict.fromkeys(name for one in made for name in one.tables):
        parts = [
            one.tables[name].assign(dataset=one.dataset, origin=one.origin)
            for one in made
            if name in one.tables
        ]
        whole = pd.concat(parts, ignore_index=True)
        first = ["dataset", "origin"]
        whole = whole[[*first, *(column for column in whole.columns if column not in first)]]
        path = folder / f"{name}.csv"
        whole.to_csv(path, index=False, float_format="%.6g")
        written.append(path)
    return written


def _opening(readings: Readings, made: dict[str, Section]) -> list[page.Part]:
    last = final(readings.frame)
    cells = last["cell"].nunique()
    counts = f"Cells: {cells}; repetitions: {len(last)}."
    parts: list[page.Part] = [
        page.Paragraph(f"{counts} Click on a column's title to sort a table by it."),
        page.table(pd.DataFrame([_overview(one) for one in made.values()])),
        page.Details("How a claim is decided", [page.Terms(RULES)]),
    ]
    changed = [(run, change) for run in readings.runs for change in run.changes]
    if changed:
        parts += [page.Heading(3, "Changes of configuration"), _changes_table(changed)]
    if readings.notes:
        parts += [page.Heading(3, "Remarks on the readings"), page.Items(readings.notes)]
    return parts


def _overview(one: Section) -> dict[str, object]:
    row: dict[str, object] = {"data set": one.title}
    row |= {"cells": one.num_cells, "repetitions": one.num_repetitions, "epochs": one.num_epochs}
    if "claims" in one.tables:
        row |= count_verdicts(one.tables["claims"]["verdict"])
    return row | {"best": one.best}


def _changes_table(changed: list[tuple[Run, Change]]) -> page.Table:
    rows = [
        {
            "run": str(run.folder),
            "after epoch": change.epoch,
            "after step": change.step,
            "change": describe_change(change).rpartition(" after ")[0],
            "in the readings": "no: left out" if mixing(run.changes) else "yes",
        }
        for run, change in changed
    ]
    return page.table(pd.DataFrame(rows))


def _configurations(runs: list[Run]) -> list[page.Part]:
    parts: list[page.Part] = [page.Heading(2, "Configurations", "configurations")]
    for run in runs:
        words = json.dumps(run.config, indent=1, ensure_ascii=False, default=str)
        parts.append(page.Details(str(run.folder), [page.Text(words)]))
    return parts
