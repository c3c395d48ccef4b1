"""The parts of a report on one data set: tables, claims and figures."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from study import noise_tables, tables
from study.claims import decide
from study.figures.catalogue import catalogue
from study.names import LIKELIHOOD, reading_title
from study.readings import Readings, final, networks
from study.report import page
from study.report.verdicts import claim_parts, summarise
from study.settings import (
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

DPI = 110
RECENT_EPOCHS = 5  # as the columns' suffix says
MAX_READINGS = 8  # columns of the cells' table on the page; the file has all
PUBLISHED_NOTE = (
    "Published readings: what the files do not say is taken from the paper's tables 4 and 5 (there "
    "is none for SVHN, so its K is left open). The published code detaches its chains whatever its "
    "switch says, so the prior's gradient is 'none'. The KL term is the sum that the paper prints, "
    "and KID has the RBF kernel of the paper's text. The last epoch is epoch 50."
)
KNOB_TITLES = {
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
NO_CLAIMS = "No claim can be tested: there are no evaluations, or too few cells or repetitions."


class Section(NamedTuple):
    """What one data set and origin adds to a report."""

    title: str
    dataset: str
    origin: str
    num_cells: int
    num_repetitions: int
    num_epochs: float
    best: str  # the cell with the lowest metric and its value; empty without evaluations
    parts: list[page.Part]
    tables: dict[str, pd.DataFrame]  # by file name
    files: list[Path]  # the figures written


def make_section(
    readings: Readings, frame: pd.DataFrame, anchor: str, figures: Path, features: str | None
) -> Section:
    """Makes one data set's parts and writes its figures.

    Args:
      readings: all readings.
      frame: those of one data set and origin.
      anchor: begins the figures' file names, and is the section's target for links.
      figures: the folder of the figures.
      features: the network whose metrics decide, where the readings have it.
    """
    found = networks(frame)
    network = features if features in found else next(iter(found), None)
    settings = list(cells_of(frame).values())
    made = _tables(frame, network)
    parts: list[page.Part] = [page.Heading(2, section_title(settings[0]), anchor)]
    parts.append(page.Paragraph(_used(settings)))
    if settings[0].origin == PUBLISHED:
        parts.append(page.Paragraph(PUBLISHED_NOTE, note=True))
    parts += _summary(made, network)
    parts += _claims(made, network)
    parts += _cells(made, network)
    pictures, written = _figures(readings, frame, anchor, figures, network)
    return Section(
        section_title(settings[0]),
        settings[0].dataset,
        settings[0].origin,
        len(settings),
        len(made["repetitions"]),
        float(frame["epoch"].max()),
        _best(made["cells"], network),
        parts + pictures,
        made,
        written,
    )


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure as PNG and SVG; the same readings give the same bytes."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    figure.savefig(paths[0], dpi=DPI)
    figure.set_layout_engine("none")  # computed once: most of a figure's time
    with rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _tables(frame: pd.DataFrame, network: str | None) -> dict[str, pd.DataFrame]:
    """Returns the tables of one data set by file name; those without rows are left out."""
    made = {"repetitions": tables.repetitions(frame), "cells": tables.cells_table(frame)}
    names = {"KID": f"{network}_kid_inf", "FID": f"{network}_fid_inf"}
    metrics = {title: column for title, column in names.items() if column in frame}
    if metrics:
        made["claims"] = _decided(frame, metrics)
        fits = [tables.fits_table(frame, column) for column in metrics.values()]
        made["quadratic_fits"] = pd.concat(fits, ignore_index=True)
        made["noise_cells"] = noise_tables.quality_table(frame, str(network))
        made["noise_knobs"] = noise_tables.knobs_table(frame, next(iter(metrics.values())))
    return {name: part for name, part in made.items() if len(part)}


def _decided(frame: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """Decides the claims by the last epoch, and again by the mean over the last five beside it."""
    part = decide(final(frame), metrics)
    if frame["epoch"].max() < 2 * RECENT_EPOCHS:
        return part
    again = decide(final(frame, RECENT_EPOCHS), metrics)
    same = ["table", "claim", "variant"]
    again = again[[*same, "effect", "ci_low", "ci_high", "p_holm", "verdict"]]
    return part.merge(again, on=same, how="left", suffixes=("", "_last_5"), validate="1:1")


def _summary(made: dict[str, pd.DataFrame], network: str | None) -> list[page.Part]:
    lines = [line for line in (_range_told(made["cells"], network), *_likelihood(made)) if line]
    if "claims" in made:
        lines += summarise(made["claims"])
    return [page.Heading(3, "Summary"), page.Items(lines)] if lines else []


def _range_told(cells: pd.DataFrame, network: str | None) -> str:
    best = _best(cells, network)
    column = f"{network}_kid_inf_mean"
    if not best or len(cells) < 2:
        return best and f"{best}."
    worst = cells.loc[cells[column].idxmax()]
    return f"Lowest {best}; highest {worst[column]:.4g} ({worst['cell']})."


def _likelihood(made: dict[str, pd.DataFrame]) -> list[str]:
    cells, column = made["cells"], f"{LIKELIHOOD}_mean"
    if column not in cells:
        return []
    best = cells.loc[cells[column].idxmax()]
    return [f"Highest {reading_title(LIKELIHOOD)}: {best[column]:.4g} ({best['cell']})."]


def _best(cells: pd.DataFrame, network: str | None) -> str:
    """Names the cell with the lowest KID."""
    column = f"{network}_kid_inf"
    if f"{column}_mean" not in cells:
        return ""
    row = cells.loc[cells[f"{column}_mean"].idxmin()]
    shown = page.plus_minus(row[f"{column}_mean"], row[f"{column}_sd"])
    return f"{reading_title(column)}: {shown.text if shown else ''} ({row['cell']})"


def _claims(made: dict[str, pd.DataFrame], network: str | None) -> list[page.Part]:
    parts: list[page.Part] = [page.Heading(3, "Claims of tables 2 and 3")]
    if "claims" not in made:
        return [*parts, page.Paragraph(NO_CLAIMS)]
    titled = reading_title(f"{network}_kid_inf")
    parts.append(page.Paragraph(f"Metrics: {titled} and FID∞ of the same network.", note=True))
    return parts + claim_parts(made["claims"])


def _cells(made: dict[str, pd.DataFrame], network: str | None) -> list[page.Part]:
    cells, repetitions = made["cells"], made["repetitions"].drop(columns=["dataset", "origin"])
    readings = [n.removesuffix("_mean") for n in cells.columns if n.endswith("_mean")]
    chosen = _chosen(readings, network)
    parts: list[page.Part] = [page.Heading(3, "Cells: means ± standard deviations, last epoch")]
    parts.append(page.table(_cells_on_page(cells, chosen)))
    if len(chosen) < len(readings):
        every = page.table(_cells_on_page(cells, readings))
        parts.append(page.Details(f"All {len(readings)} readings of every cell", [every]))
    table = page.table(repetitions, tables.setting_titles(repetitions))
    parts.append(page.Details(f"Every repetition ({len(repetitions)})", [table]))
    if "noise_knobs" in made:
        knobs = made["noise_knobs"].rename(columns=KNOB_TITLES)
        parts.append(page.Heading(3, "Knobs of the noise, side by side"))
        parts.append(page.table(knobs))
    if "quadratic_fits" in made:
        parts.append(page.Heading(3, "Quadratic fits through the cells' means"))
        parts.append(page.table(_fits_on_page(made["quadratic_fits"])))
    return parts


def _chosen(readings: list[str], network: str | None) -> list[str]:
    """Returns the readings that fit beside each other on a page, in their order."""
    metrics = ("kid_inf", "fid_inf", "precision", "recall", "coverage")
    first = ["train_grad_var", f"{network}_kid_inf", LIKELIHOOD, "train_grad_noise"]
    first += [f"{network}_{metric}" for metric in metrics] + ["val_loss", "train_loss", "hours"]
    ranked = [name for name in dict.fromkeys(first) if name in readings][:MAX_READINGS]
    return [name for name in readings if name in ranked]


def _cells_on_page(cells: pd.DataFrame, readings: list[str]) -> pd.DataFrame:
    """Joins means and deviations; a cell's label names its settings."""
    shown: dict[str, object] = {"cell": cells["cell"], "repetitions": cells["repetitions"]}
    for name in readings:
        pairs = zip(cells[f"{name}_mean"], cells[f"{name}_sd"], strict=True)
        shown[reading_title(name)] = [page.plus_minus(mean, sd) for mean, sd in pairs]
    return pd.DataFrame(shown)


def _fits_on_page(fits: pd.DataFrame) -> pd.DataFrame:
    ends = zip(fits["variance_at_minimum"], fits["ci_low"], fits["ci_high"], strict=True)
    spans = zip(fits["lowest_variance"], fits["highest"], strict=True)
    shown = {
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
    return pd.DataFrame(shown)


def _figures(
    readings: Readings, frame: pd.DataFrame, anchor: str, folder: Path, network: str | None
) -> tuple[list[page.Part], list[Path]]:
    parts: list[page.Part] = [page.Heading(3, "Figures")]
    written: list[Path] = []
    for entry in catalogue(frame, readings, network):
        figure = entry.make()
        if figure is not None:
            paths = save_figure(figure, folder / f"{anchor}-{entry.name}")
            written += paths
            parts.append(page.picture(paths[0].read_bytes(), entry.title))
    return parts, written


def _used(settings: list[Settings]) -> str:
    differing = {"loss", *varied(settings), *PROVENANCE}
    fixed = [name for name in SYMBOLS if name not in differing]
    common = describe(settings[-1], fixed)  # a thermodynamic cell, if there is one
    several = len(settings) > 1
    same = f" {'The same in all' if several else 'Settings'}: {common}." if common else ""
    cells = f"{len(settings)} cells" if several else "1 cell"
    return f"{cells}. {provenance(settings)}{same}"
