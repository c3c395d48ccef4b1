"""The parts of a report on one data set: tables, claims and figures."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from study import noise, tables
from study.cells import PROVENANCE, SYMBOLS, describe, provenance, varied
from study.claims import decide
from study.figures import report_figures
from study.readings import PUBLISHED, Readings, Section, final, networks
from study.report import page
from study.report.claims import claim_parts, summarise
from study.titles import LIKELIHOOD, reading_title
from thermo_ebm import files
from thermo_ebm.errors import counted
from thermo_ebm.likelihood.verdict import Verdict
from thermo_ebm.run.layout import LIKELIHOOD_SUMMARY

DPI = 110
RECENT_EPOCHS = 5  # as the columns' suffix says
MAX_READINGS = 8  # columns of the cells' table on the page; the file has all
PUBLISHED_NOTE = (
    "Published readings: what the files do not say is taken from the paper's tables 4 and 5 (there "
    "is none for SVHN, so its K is left open). The published code detaches its chains whatever its "
    "switch says, so the prior's gradient is 'none'. The KL term is the sum that the paper prints, "
    "and KID has the RBF kernel of the paper's text. The last epoch is epoch 50."
)
FACTOR_TITLES = {
    "lowest_noise": "lowest noise",
    "highest_noise": "highest noise",
    "range": "highest / lowest",
    "relative_sd": "sd of the noise over repetitions, relative",
    "cost": "time per update, costliest / centre",
    "slope": "KID per doubling of the noise",
    "ci_low": "from",
    "ci_high": "to",
    "r_squared": "R²",
}
# Figures that a report of one cell begins with.
FIRST_FIGURES = ("samples", "likelihood_curves", "noise_curves", "training_loss")
NO_CLAIMS = "No claim can be tested: there are no evaluations, or too few cells or repetitions."


class Choices(NamedTuple):
    """What the user of a report chooses."""

    features: str | None = None  # the network whose metrics decide, where the readings have it
    claims: bool | None = None  # None: where the cells allow a test


class SectionReport(NamedTuple):
    """What one data set and origin adds to a report."""

    section: Section
    best: str  # the cell with the lowest metric and its value; empty without evaluations
    parts: list[Markup]
    tables: dict[str, pd.DataFrame]  # by file name
    files: list[Path]  # the figures written


def report_section(
    readings: Readings,
    section: Section,
    figures: Path,
    anchor: str,
    choices: Choices,
) -> SectionReport:
    """Makes one data set's parts and writes its figures.

    The report of one cell begins with samples, curves and log p(x).

    Args:
      readings: all readings.
      section: those of one data set and origin.
      figures: the folder of the figures.
      anchor: begins the figures' file names, and is the section's target for links.
      choices: of the user.
    """
    present = networks(section.frame)
    network = choices.features if choices.features in present else next(iter(present), None)
    section_tables = _tables(section, network, choices.claims)
    written: list[Path] = []
    pictures: dict[str, Markup] = {}
    for name, title, figure in report_figures(section, readings, network):
        written += save_figure(figure, figures / f"{anchor}-{name}")
        pictures[name] = page.picture(written[-2].read_bytes(), title)
    of_one_cell = FIRST_FIGURES if len(section.cells) == 1 else ()
    first = [pictures.pop(name) for name in of_one_cell if name in pictures]
    parts = [
        page.heading(2, section.title, anchor),
        page.paragraph(_fields_used(section.cells)),
        *([page.paragraph(PUBLISHED_NOTE, note=True)] if section.origin == PUBLISHED else []),
        *first,
        *_summary(section_tables, network, _measured_likelihoods(section, readings)),
        *_claims(section_tables, network, choices.claims),
        *_cells(section_tables, network),
        *([page.heading(3, "Figures")] if pictures else []),
        *pictures.values(),
    ]
    return SectionReport(
        section, _best(section_tables["cells"], network), parts, section_tables, written
    )


def _measured_likelihoods(section: Section, readings: Readings) -> list[str]:
    """What `launch.likelihood` has found of the section's repetitions, a sentence each."""
    folders = [run.folder for run in readings.runs if str(run.folder) in set(section.last["run"])]
    lines = []
    for folder in folders:
        for path in sorted(folder.glob(f"rep_[0-9]*/{LIKELIHOOD_SUMMARY}")):
            summary = files.read_json(path)
            mean, verdict = summary.get("validation"), summary.get("verdict")
            if mean is None or verdict is None:
                continue
            lines.append(
                f"Held-out log p(x), {summary['where']}: {mean['log_marginal_likelihood']:.4g} "
                f"nats (95 % interval over {counted(mean['num_images'], 'image')} "
                f"{mean['low']:.4g} to {mean['high']:.4g}, error of the estimate "
                f"{mean['stderr']:.2g}); {Verdict(**verdict).sentence()}"
            )
    return lines


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and SVG; the same readings give the same bytes."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(paths[0], dpi=DPI)
    figure.set_layout_engine("none")  # computed once: most of a figure's time
    with rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _tables(section: Section, network: str | None, claims: bool | None) -> dict[str, pd.DataFrame]:
    """Returns the tables of one data set by file name; those without rows are left out."""
    result = {
        "repetitions": tables.repetitions(section),
        "cells": tables.cells_table(section),
    }
    names = {"KID": f"{network}_kid_inf", "FID": f"{network}_fid_inf"}
    metrics = {title: column for title, column in names.items() if column in section.last}
    if metrics and claims is not False:
        result["claims"] = _decided(section, metrics)
    if metrics:
        fits = [tables.fits_table(section, column) for column in metrics.values()]
        result["quadratic_fits"] = pd.concat(fits, ignore_index=True)
        result["noise_cells"] = noise.noise_cells_table(section, str(network))
        result["noise_factors"] = noise.factors_table(section, next(iter(metrics.values())))
    return {name: table for name, table in result.items() if len(table)}


def _decided(section: Section, metrics: dict[str, str]) -> pd.DataFrame:
    """Decides the claims by the last epoch, and again by the mean over the last five beside it."""
    claims = decide(section.cells, section.last, metrics)
    if section.frame["epoch"].max() < 2 * RECENT_EPOCHS:
        return claims
    recent = decide(section.cells, final(section.frame, RECENT_EPOCHS), metrics)
    same = ["table", "claim", "variant"]
    recent = recent[[*same, "effect", "ci_low", "ci_high", "p_holm", "verdict"]]
    return claims.merge(recent, on=same, how="left", suffixes=("", "_last_5"), validate="1:1")


def _fields_used(cells: pd.DataFrame) -> str:
    differing = {"loss.name", *varied(cells), *PROVENANCE}
    fixed = [name for name in SYMBOLS if name not in differing]
    common = describe(cells.iloc[-1], fixed)  # a thermodynamic cell, if there is one
    several = len(cells) > 1
    same = f" {'The same in all' if several else 'Settings'}: {common}." if common else ""
    return f"{len(cells)} cell{'s' if several else ''}. {provenance(cells)}{same}"


def _summary(
    section_tables: dict[str, pd.DataFrame], network: str | None, likelihoods: list[str]
) -> list[Markup]:
    cells, kid = section_tables["cells"], f"{network}_kid_inf_mean"
    likelihood = f"{LIKELIHOOD}_mean"
    lines = []
    if (best := _best(cells, network)) and len(cells) > 1:
        highest = cells.loc[cells[kid].idxmax()]
        lines.append(f"Lowest {best}; highest {highest[kid]:.4g} ({highest['cell']}).")
    elif best:
        lines.append(f"{best}.")
    if likelihood in cells:
        highest = cells.loc[cells[likelihood].idxmax()]
        title = reading_title(LIKELIHOOD)
        share = highest.get(f"{LIKELIHOOD}_reliable_mean")
        verdict = (
            f", reliable for {100 * share:.0f} % of the images"
            if share is not None and share >= 0
            else ""
        )
        lines.append(f"Highest {title}: {highest[likelihood]:.4g} ({highest['cell']}){verdict}.")
    lines += likelihoods
    if "claims" in section_tables:
        lines += summarise(section_tables["claims"])
    return [page.heading(3, "Summary"), page.items(lines)] if lines else []


def _best(cells: pd.DataFrame, network: str | None) -> str:
    """Names the cell with the lowest KID."""
    column = f"{network}_kid_inf"
    if f"{column}_mean" not in cells:
        return ""
    row = cells.loc[cells[f"{column}_mean"].idxmin()]
    value = page.plus_minus(row[f"{column}_mean"], row[f"{column}_sd"])
    return f"{reading_title(column)}: {value.text if value else ''} ({row['cell']})"


def _claims(
    section_tables: dict[str, pd.DataFrame], network: str | None, asked: bool | None
) -> list[Markup]:
    heading = page.heading(3, "Claims of tables 2 and 3")
    if "claims" not in section_tables:
        return [heading, page.paragraph(NO_CLAIMS)] if asked else []
    metrics = f"Metrics: {reading_title(f'{network}_kid_inf')} and FID∞ of the same network."
    return [heading, page.paragraph(metrics, note=True), *claim_parts(section_tables["claims"])]


def _cells(section_tables: dict[str, pd.DataFrame], network: str | None) -> list[Markup]:
    cells, repetitions = section_tables["cells"], section_tables["repetitions"]
    readings = [name.removesuffix("_mean") for name in cells.columns if name.endswith("_mean")]
    first = _first_readings(readings, network)
    parts = [
        page.heading(3, "Cells: means ± standard deviations, last epoch"),
        page.table(_cells_on_page(cells, first)),
    ]
    if len(first) < len(readings):
        complete = page.table(_cells_on_page(cells, readings))
        parts.append(page.details(f"All {len(readings)} readings of every cell", [complete]))
    table = page.table(repetitions, tables.column_titles(repetitions))
    parts.append(page.details(f"Every repetition ({len(repetitions)})", [table]))
    if "noise_factors" in section_tables:
        parts.append(page.heading(3, "Factors of the noise, side by side"))
        parts.append(page.table(section_tables["noise_factors"], FACTOR_TITLES))
    if "quadratic_fits" in section_tables:
        parts.append(page.heading(3, "Quadratic fits through the cells' means"))
        parts.append(page.table(_fits_on_page(section_tables["quadratic_fits"])))
    return parts


def _first_readings(readings: list[str], network: str | None) -> list[str]:
    """Returns the readings that fit beside each other on a page, in their order."""
    metrics = ("kid_inf", "fid_inf", "precision", "recall", "coverage")
    first = ["train_grad_var", f"{network}_kid_inf", LIKELIHOOD, "train_grad_noise"]
    first += [f"{network}_{metric}" for metric in metrics] + ["val_loss", "train_loss", "hours"]
    ranked = [name for name in dict.fromkeys(first) if name in readings][:MAX_READINGS]
    return [name for name in readings if name in ranked]


def _cells_on_page(cells: pd.DataFrame, readings: list[str]) -> pd.DataFrame:
    """Joins means and deviations; a cell's label names its fields."""
    columns: dict[str, object] = {"cell": cells["cell"], "repetitions": cells["repetitions"]}
    for name in readings:
        pairs = zip(cells[f"{name}_mean"], cells[f"{name}_sd"], strict=True)
        columns[reading_title(name)] = [page.plus_minus(mean, sd) for mean, sd in pairs]
    return pd.DataFrame(columns)


def _fits_on_page(fits: pd.DataFrame) -> pd.DataFrame:
    ends = zip(fits["variance_at_minimum"], fits["ci_low"], fits["ci_high"], strict=True)
    spans = zip(fits["lowest_variance"], fits["highest"], strict=True)
    columns = {
        "regime": fits["regime"],
        "metric": fits["metric"],
        "cells": fits["members"],
        "least at variance [95 % interval]": [
            page.between(*values) if values[0] == values[0] else None for values in ends
        ],
        "measured variances": [f"{low:.3g} to {high:.3g}" for low, high in spans],
        "resamples with a minimum inside": fits["share_with_minimum"],
        "R²": fits["r_squared"],
    }
    return pd.DataFrame(columns)
