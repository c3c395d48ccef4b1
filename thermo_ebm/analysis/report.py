"""Puts the report together: one page, the figures as PNG and SVG, the tables as CSV."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from thermo_ebm.analysis import claims, evidence, page, tables
from thermo_ebm.analysis.drawings import drawings
from thermo_ebm.analysis.readings import (
    Readings,
    final,
    metric_title,
    networks,
    section,
    sections,
)
from thermo_ebm.analysis.settings import (
    PROVENANCE,
    PUBLISHED,
    SYMBOLS,
    Settings,
    cells_of,
    describe,
    provenance,
    section_title,
    varied,
)
from thermo_ebm.errors import UserError

DPI = 110
RECENT_EPOCHS = 5  # as the columns' suffix says
PUBLISHED_NOTE = (
    "Published readings: what the files do not say is taken from the paper's tables 4 and 5 (none "
    "for SVHN, so its K is left open); the published code detaches its chains whatever its switch "
    "says, so its prior has gradient 'none'; the KL term is the sum that the paper prints; KID is "
    "the RBF form by the paper's text. The last epoch is epoch 50."
)


class SectionReport(NamedTuple):
    """What one data set and origin adds: the page's parts, and rows of the tables by file name."""

    parts: list[str]
    rows: dict[str, pd.DataFrame]


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
        raise UserError(f"--features={features}: the readings are of {', '.join(known) or 'none'}")
    try:
        (output / "figures").mkdir(parents=True, exist_ok=True)
        (output / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output}: cannot be written ({error.strerror})") from error
    try:
        return _write(readings, output, features)
    except OSError as error:
        path, reason = error.filename or output, error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _write(readings: Readings, output: Path, features: str | None) -> list[Path]:
    body: list[str] = _opening(readings)
    links: dict[str, str] = {}
    rows: dict[str, list[pd.DataFrame]] = {}
    written: list[Path] = []
    for dataset, origin in sections(readings.frame):
        frame = section(readings.frame, dataset, origin)
        anchor = re.sub(r"[^\w-]", "_", f"{dataset}-{origin}")
        links[anchor] = section_title(_first(frame))
        one = _section(readings, frame, anchor, output, features, written)
        body += one.parts
        for name, part in one.rows.items():
            rows.setdefault(name, []).append(part.assign(dataset=dataset, origin=origin))
    for name, parts in rows.items():
        path = output / "tables" / f"{name}.csv"
        _dataset_first(pd.concat(parts, ignore_index=True)).to_csv(
            path, index=False, float_format="%.6g"
        )
        written.append(path)
    report = output / "report.html"
    body += _configs(readings)
    report.write_text(page.page("ThermoEBM report", body, links), encoding="utf-8")
    return [report, *written]


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and SVG; the same readings give the same bytes."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(paths[0], dpi=DPI)
    with rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _section(
    readings: Readings,
    frame: pd.DataFrame,
    anchor: str,
    output: Path,
    features: str | None,
    written: list[Path],
) -> SectionReport:
    found = networks(frame)
    network = features if features in found else next(iter(found), None)
    settings = list(cells_of(frame).values())
    parts = [page.heading(2, section_title(settings[0]), anchor), page.paragraph(_used(settings))]
    if settings[0].origin == PUBLISHED:
        parts.append(page.paragraph(PUBLISHED_NOTE, note=True))
    rows = _section_tables(frame, network)
    parts += _table_parts(rows, network)
    missing = []
    for drawing in drawings(frame, readings, network):
        figure = drawing.draw()
        if figure is None:
            missing.append(drawing.title)
            continue
        paths = save_figure(figure, output / "figures" / f"{anchor}-{drawing.name}")
        written += paths
        parts.append(page.image(paths[0].read_bytes(), drawing.title))
    if missing:
        parts.append(page.paragraph(f"Left out for want of readings: {'; '.join(missing)}.", True))
    return SectionReport(parts, rows)


def _section_tables(frame: pd.DataFrame, network: str | None) -> dict[str, pd.DataFrame]:
    """Returns the tables of one section by file name."""
    rows = {"repetitions": tables.repetitions(frame), "cells": tables.cells_table(frame)}
    if network is None:
        return rows
    last = final(frame)
    decided: list[pd.DataFrame] = []
    fits: list[pd.DataFrame] = []
    for metric in (f"{network}_kid_inf", f"{network}_fid_inf"):
        if metric not in last:
            continue
        part = _decided(frame, metric, "KID" if metric.endswith("kid_inf") else "FID")
        if decided:  # the claims on the variance stand in the first part
            part = part[part["reading"] != claims.VARIANCE]
        decided.append(part)
        fits.append(tables.fits_table(frame, metric))
    rows["claims"] = pd.concat(decided, ignore_index=True)
    rows["quadratic_fits"] = pd.concat(fits, ignore_index=True)
    return {name: part for name, part in rows.items() if len(part)}


def _decided(frame: pd.DataFrame, metric: str, title: str) -> pd.DataFrame:
    """Decides the claims by the last epoch, and again by the mean over the last five beside it."""
    part = claims.decide(final(frame), metric, title)
    if frame["epoch"].max() < 2 * RECENT_EPOCHS:
        return part
    again = claims.decide(final(frame, RECENT_EPOCHS), metric, title)
    same = ["table", "claim", "variant"]
    again = again[[*same, "effect", "ci_low", "ci_high", "p_holm", "verdict"]]
    return part.merge(again, on=same, how="left", suffixes=("", "_last_5"), validate="1:1")


def _table_parts(rows: dict[str, pd.DataFrame], network: str | None) -> list[str]:
    parts = [page.heading(3, "Cells: means ± standard deviations at the last epoch")]
    parts.append(page.table(_cells_on_page(rows["cells"])))
    parts.append(page.heading(3, "Claims of tables 2 and 3"))
    if "claims" in rows:
        titled = metric_title(f"{network}_kid_inf")
        parts.append(page.paragraph(f"Metrics: {titled} and FID∞ of the same network.", note=True))
        parts.append(page.table(_claims_on_page(rows["claims"])))
    else:
        parts.append(page.paragraph("No claim can be tested: no evaluation or too few cells."))
    if "quadratic_fits" in rows:
        parts.append(page.heading(3, "Quadratic fits through the cells' means"))
        parts.append(page.table(rows["quadratic_fits"]))
    repetitions = rows["repetitions"].drop(columns=["dataset", "origin"])
    table = page.table(repetitions, tables.setting_titles(repetitions))
    parts.append(page.details(f"Every repetition ({len(repetitions)})", table))
    parts.append(page.heading(3, "Figures"))
    return parts


def _cells_on_page(cells: pd.DataFrame) -> pd.DataFrame:
    """Joins means and deviations, and leaves out settings that all cells share."""
    shown: dict[str, object] = {"cell": cells["cell"]}
    readings = [n.removesuffix("_mean") for n in cells.columns if n.endswith("_mean")]
    for name in cells.columns:
        is_reading = name.removesuffix("_mean").removesuffix("_sd") in readings
        if name in ("repetitions", "epochs") or (
            name in Settings._fields and not is_reading and cells[name].dropna().nunique() > 1
        ):
            shown[SYMBOLS.get(name, name)] = cells[name]
    for name in readings:
        pairs = zip(cells[f"{name}_mean"], cells[f"{name}_sd"], strict=True)
        shown[tables.reading_title(name)] = [page.plus_minus(mean, sd) for mean, sd in pairs]
    return pd.DataFrame(shown)


def _claims_on_page(rows: pd.DataFrame) -> pd.DataFrame:
    """Puts the verdict first and joins each effect with its interval."""
    ends = zip(rows["effect"], rows["ci_low"], rows["ci_high"], strict=True)
    shown = {
        "table": rows["table"],
        "claim": rows["claim"],
        "verdict": rows["verdict"],
        "effect [95 % interval]": [page.between(*values) for values in ends],
        "claimed": rows["claimed"],
        "unit": rows["unit"],
        "p, Holm": rows["p_holm"],
        **({"last 5 epochs": rows["verdict_last_5"]} if "verdict_last_5" in rows else {}),
        "why": rows["reason"],
        "compared": rows["comparison"],
        "test": rows["test"],
        "variant": rows["variant"],
    }
    return pd.DataFrame(shown)


def _opening(readings: Readings) -> list[str]:
    last = final(readings.frame)
    counts = f"{len(last)} repetitions of {last['cell'].nunique()} cells"
    parts = [page.paragraph(f"{counts}; every table sorts by a click on a column's title.")]
    parts += [page.heading(3, "The rule of the verdicts"), page.paragraph(evidence.RULE)]
    if readings.notes:
        parts += [page.heading(3, "Remarks on the readings"), page.items(readings.notes)]
    return parts


def _configs(readings: Readings) -> list[str]:
    if not readings.runs:
        return []
    parts = [page.heading(2, "Configs", "configs")]
    for run in readings.runs:
        words = json.dumps(run.config, indent=1, ensure_ascii=False, default=str)
        parts.append(page.details(str(run.folder), page.preformatted(words)))
    return parts


def _used(settings: list[Settings]) -> str:
    differing = {"loss", *varied(settings), *PROVENANCE}
    fixed = [name for name in SYMBOLS if name not in differing]
    common = describe(settings[-1], fixed)  # a thermodynamic cell, if there is one
    same = f" The same in all: {common}." if common else ""
    return f"{len(settings)} cells. {provenance(settings)}{same}"


def _first(frame: pd.DataFrame) -> Settings:
    return next(iter(cells_of(frame).values()))


def _dataset_first(frame: pd.DataFrame) -> pd.DataFrame:
    first = ["dataset", "origin"]
    return frame[[*first, *(name for name in frame.columns if name not in first)]]
