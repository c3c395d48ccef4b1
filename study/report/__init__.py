"""Puts the report together: one page, the figures as PNG and SVG, the tables as CSV.

`section` makes the parts of one data set, `claims` those on its claims, and `page` the HTML.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from study.claims.verdicts import RULES
from study.readings import Readings, networks, sections
from study.report import page
from study.report.claims import count_verdicts
from study.report.section import Choices, SectionReport, report_section
from study.runs import StudyRun, describe_change
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import DIAGNOSTICS
from thermo_ebm.run.tables import read_columns

DIAGNOSTIC_TITLES = {
    "num_steps": "K",
    "temperature": "t",
    "ess": "ESS of l, per chain",
    "ess_latents": "ESS of the worst latent",
    "r_hat": "R-hat of l",
    "r_hat_latents": "R-hat of the worst latent",
    "r_hat_worst": "R-hat of the worst image",
    "share_agreeing": "share of images that agree",
    "expected_log_likelihood": "E_t, nats",
    "offset": "from long chains, nats",
    "offset_stderr": "standard error",
    "acceptance": "acceptance",
    "swap_rate": "swaps with the next t",
    "round_trips": "round trips per image",
}
_DIAGNOSTICS_NOTE = (
    "Chains of training's kind from p0, by their number of steps K: effective sample size and "
    "rank-normalised split R-hat (Vehtari et al. 2021), medians over images where no other is "
    "named; E_t over the chains' ends, and how far it is from that of the longest chains. Chains "
    "of an image agree if their R-hats are at most 1.01. Acceptance and swaps are what Metropolis "
    "and exchange accept, or would."
)


def write_report(
    readings: Readings,
    output: Path,
    choices: Choices = Choices(),  # noqa: B008
) -> list[Path]:
    """Writes report.html, figures/ and tables/ into `output`.

    Args:
      readings: what `readings.load` returns.
      output: a folder, created if needed.
      choices: the network whose KID and FID decide the claims, by default InceptionV3 if any, and
        whether there are claims.

    Returns:
      The files written, report.html first.

    Raises:
      UserError: for a network that no readings are of, or a folder that cannot be written.
    """
    present = networks(readings.frame)
    features = choices.features
    if features is not None and features not in present:
        raise UserError(
            f"features={features}: no readings with it, only with {', '.join(present) or 'none'}"
        )
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        (output / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error.strerror})") from error
    try:
        return _write(readings, output, choices)
    except OSError as error:
        path, reason = error.filename or output, error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _write(readings: Readings, output: Path, choices: Choices) -> list[Path]:
    reports: dict[str, SectionReport] = {}
    for section in sections(readings):
        anchor = _anchor(f"{section.dataset}-{section.origin}", reports)
        reports[anchor] = report_section(readings, section, output / "figures", anchor, choices)
    files = [path for report in reports.values() for path in report.files]
    files += _write_tables(list(reports.values()), output / "tables")
    links = {anchor: report.section.title for anchor, report in reports.items()}
    body = _opening(readings, list(reports.values()))
    body += [part for report in reports.values() for part in report.parts]
    if chains := diagnostics_parts([run.folder for run in readings.runs]):
        links["chains"] = "Chains"
        body += chains
    if readings.runs:
        links["configurations"] = "Configurations"
        body.append(page.heading(2, "Configurations", "configurations"))
        for run in readings.runs:
            words = json.dumps(run.config, indent=1, ensure_ascii=False, default=str)
            body.append(page.details(str(run.folder), [page.preformatted(words)]))
    report = output / "report.html"
    report.write_text(page.render("ThermoEBM report", body, links), encoding="utf-8")
    return [report, *files]


def _anchor(name: str, taken: Mapping[str, SectionReport]) -> str:
    """Returns a name for files and links that no other data set has."""
    plain = re.sub(r"[^\w-]", "_", name)
    anchor, number = plain, 2
    while anchor in taken:
        anchor, number = f"{plain}_{number}", number + 1
    return anchor


def _write_tables(reports: Sequence[SectionReport], folder: Path) -> list[Path]:
    """Writes each table of all data sets as one CSV file."""
    files = []
    for name in dict.fromkeys(name for report in reports for name in report.tables):
        parts = []
        for report in reports:
            if name in report.tables:
                part = report.tables[name].copy()
                part.insert(0, "dataset", report.section.dataset)
                part.insert(1, "origin", report.section.origin)
                parts.append(part)
        files.append(folder / f"{name}.csv")
        table = pd.concat(parts, ignore_index=True)
        table.to_csv(files[-1], index=False, float_format="%.6g")
    return files


def _opening(readings: Readings, reports: Sequence[SectionReport]) -> list[Markup]:
    num_cells = sum(len(report.section.cells) for report in reports)
    num_repetitions = sum(len(report.section.last) for report in reports)
    counts = f"Cells: {num_cells}; repetitions: {num_repetitions}."
    parts = [
        page.paragraph(f"{counts} Click on a column's title to sort a table by it."),
        page.table(pd.DataFrame([_overview(report) for report in reports])),
    ]
    if any("claims" in report.tables for report in reports):
        parts.append(page.details("How a claim is decided", [page.terms(RULES)]))
    if any(run.changes for run in readings.runs):
        table = page.table(_changes_table(readings.runs))
        parts += [page.heading(3, "Changes of configuration"), table]
    if readings.notes:
        parts += [page.heading(3, "Remarks on the readings"), page.items(readings.notes)]
    return parts


def _overview(report: SectionReport) -> dict[str, object]:
    section = report.section
    row: dict[str, object] = {
        "data set": section.title,
        "cells": len(section.cells),
        "repetitions": len(section.last),
        "epochs": float(section.frame["epoch"].max()),
    }
    if "claims" in report.tables:
        row |= count_verdicts(report.tables["claims"]["verdict"])
    return row | {"best": report.best}


def _changes_table(runs: Sequence[StudyRun]) -> pd.DataFrame:
    rows = [
        {
            "run": str(run.folder),
            "after epoch": change.epoch,
            "after step": change.step,
            "change": describe_change(change).rpartition(" after ")[0],
            "in the readings": "no: left out" if run.mixing_changes else "yes",
        }
        for run in runs
        for change in run.changes
    ]
    return pd.DataFrame(rows)


def diagnostics_parts(folders: Sequence[Path]) -> list[Markup]:
    """Returns the part on chains: what `launch.tempered --diagnostics` left in runs' folders.

    Args:
      folders: of runs.

    Returns:
      A heading and one table for each repetition with diagnostics; nothing without any.

    Raises:
      UserError: naming the file and the line of what cannot be read.
    """
    parts = []
    for folder in folders:
        for path in sorted(folder.glob(f"rep_[0-9]*/{DIAGNOSTICS}")):
            columns = read_columns(path, tuple(DIAGNOSTIC_TITLES), ("kernel",), allow_empty=True)
            frame = pd.DataFrame(columns.columns)[list(DIAGNOSTIC_TITLES)]
            table = page.table(frame, DIAGNOSTIC_TITLES)
            parts.append(page.details(f"{folder}, {path.parent.name}", [table]))
    if not parts:
        return []
    heading = page.heading(2, "Chains: is K enough?", "chains")
    return [heading, page.paragraph(_DIAGNOSTICS_NOTE, note=True), *parts]
