"""Writes docs/study/noise: the page, tables and figures of the study of the gradient's noise.

python -m study.pages.noise_study runs/noise [--settings=runs/settings] [--made_by=COMMAND ...]

The first folder holds the runs of `configs/experiment3.py` (or its short form) on one data set or
several; the second those of `configs/settings_study.py`. Every number on the page is read from the
runs; the experiments that it names and its commands are those of `--made_by`. The page is in the
site once mkdocs.yml and docs/study/index.md name it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from study import noise_tables, tables
from study.claims import decide
from study.figures import curves, noise
from study.names import LIKELIHOOD
from study.pages import noise_page
from study.readings import Readings, final, load, networks, section, sections
from study.report.dataset import DPI
from study.settings import (
    THERMODYNAMIC,
    Settings,
    cells_of,
    other_fields,
    section_title,
)
from thermo_ebm.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs"
OUTPUT = DOCS / "study" / "noise"
PUBLISHED = DOCS / "study" / "published" / "tables" / "claims.csv"


def main(argv: Sequence[str]) -> int:
    """Reads the runs and writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes docs/study/noise.")
    parser.add_argument("runs", type=Path, help="folder of the runs of configs/experiment3.py")
    parser.add_argument("--settings", type=Path, help="of the runs of configs/settings_study.py")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write")
    parser.add_argument("--made_by", action="append", default=[], metavar="COMMAND",
                        help="a command that made the runs; can be repeated")  # fmt: skip
    given = parser.parse_args(argv)
    try:
        for path in write(given.runs, given.settings, given.output, given.made_by):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(
    runs: Path, settings: Path | None, output: Path, made_by: Sequence[str] = ()
) -> list[Path]:
    """Writes the page, the tables and the figures; returns their paths.

    Args:
      runs: folder of the runs of the experiment on the noise.
      settings: folder of those of the study of settings, if it was run.
      output: the folder to write.
      made_by: the commands that made the runs, which the page shows.

    Raises:
      UserError: no such folder, no such experiment in it, or runs that were not evaluated.
    """
    readings = load(runs, None)
    parts = [_data_set(readings, *pair) for pair in sections(readings.frame)]
    chosen = _choices(settings) if settings is not None else pd.DataFrame()
    for folder in (output / "tables", output / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    written = [path for part in parts for path in _figures(part, output / "figures")]
    written += _tables(parts, chosen, output / "tables")
    published = pd.read_csv(PUBLISHED)
    page = output / "index.md"
    page.write_text(
        noise_page.page(parts, chosen, published, readings.notes, made_by), encoding="utf-8"
    )
    return [page, *written]


def _data_set(readings: Readings, dataset: str, origin: str) -> noise_page.DataSet:
    """Everything that the page says about one data set."""
    frame = section(readings.frame, dataset, origin)
    found = networks(frame)
    if not found:
        raise UserError(f"runs: {dataset} has no evaluations; run launch.sweep to its end")
    kid, fid = (f"{found[0]}_{name}_inf" for name in ("kid", "fid"))
    knobs = noise_tables.knobs_table(frame, kid)
    if knobs.empty:
        raise UserError(f"runs: {dataset} has no experiment on the noise (configs/experiment3.py)")
    last = final(frame)
    _check(dataset, list(cells_of(last).values()))
    return noise_page.DataSet(
        name=dataset,
        title=section_title(next(iter(cells_of(last).values()))).partition(",")[0],
        frame=frame,
        network=found[0],
        cells=noise_tables.quality_table(frame, found[0]),
        knobs=knobs,
        likelihoods=noise_tables.knobs_table(frame, LIKELIHOOD),
        claims=decide(last, {"KID": kid, "FID": fid}),
        hours=float(tables.repetitions(frame)["hours"].sum()) if "seconds" in frame else 0.0,
        figures=[],
    )


def _check(dataset: str, cells: Sequence[Settings]) -> None:
    """Refuses cells of which what the page says of the design is not true.

    Repetitions that ended early are among the remarks on the readings.

    Raises:
      UserError: a thermodynamic cell has other gradients, or the planned numbers of updates differ.
    """
    found = {(s.prior_gradient, s.generator_gradient) for s in cells if s.loss == THERMODYNAMIC}
    if found - {("contrastive", "reweighted")}:
        named = "; ".join(", ".join(pair) for pair in sorted(found))
        raise UserError(
            f"runs: {dataset} has the gradients {named}; the page is of contrastive, reweighted"
        )
    if any("num_epochs" in other_fields(settings) for settings in cells):
        raise UserError(f"runs: {dataset} has cells with different numbers of updates")


def _choices(folder: Path) -> pd.DataFrame:
    """The cells of the study of settings, one row each, of all data sets."""
    readings = load(folder, None)
    rows = []
    for dataset, origin in sections(readings.frame):
        frame = section(readings.frame, dataset, origin)
        rows.append(tables.cells_table(frame).drop(columns="dataset", errors="ignore"))
        rows[-1].insert(0, "dataset", dataset)
    return pd.concat(rows, ignore_index=True)


def _figures(part: noise_page.DataSet, folder: Path) -> list[Path]:
    """Writes the figures of one data set as PNG; those without data are left out."""
    made = {
        "kid_by_noise": noise.metric_by_noise(part.frame, f"{part.network}_kid_inf"),
        "likelihood_by_noise": noise.metric_by_noise(part.frame, LIKELIHOOD),
        "recall_by_noise": noise.metric_by_noise(part.frame, f"{part.network}_recall"),
        "noise_by_knob": noise.noise_by_knob(part.frame),
        "noise_curves": curves.reading_curves(part.frame, "train_update_noise"),
        "likelihood_curves": curves.reading_curves(part.frame, LIKELIHOOD),
    }
    written = []
    for name, figure in made.items():
        if figure is not None:
            written.append(folder / f"{part.anchor}-{name}.png")
            figure.savefig(written[-1], dpi=DPI)
            part.figures.append(written[-1].name)
    return written


def _tables(parts: list[noise_page.DataSet], chosen: pd.DataFrame, folder: Path) -> list[Path]:
    made = {
        name: pd.concat(
            [getattr(part, name).assign(dataset=part.name) for part in parts], ignore_index=True
        )
        for name in ("cells", "knobs", "claims")
    }
    if len(chosen):
        made["settings"] = chosen
    written = []
    for name, table in made.items():
        columns = ["dataset", *(column for column in table.columns if column != "dataset")]
        written.append(folder / f"{name}.csv")
        table[columns].to_csv(written[-1], index=False, float_format="%.6g")
    return written


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
