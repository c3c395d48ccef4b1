"""Writes docs/study/noise: the page, tables and figures of the study of the gradient's noise.

python -m study.pages.noise_study runs/noise [--settings=runs/settings] [--made_by=COMMAND ...]

The first folder holds the runs of `configs/experiment3.py` (or its short form) on one data set or
several; the second those of `configs/settings_study.py`. Every number on the page is read from the
runs; the experiments that it names and its commands are those of `--made_by`. The page is in the
site once mkdocs.yml and docs/study/index.md name it.
"""

if not __package__:
    __import__("not_a_script")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from study.cells import THERMODYNAMIC, with_loss
from study.claims import decide
from study.figures import by_noise, training
from study.noise import factors_table, noise_cells_table
from study.pages import noise_page
from study.pages.page_program import path_argument, print_all
from study.pages.settings_table import SettingsStudy
from study.readings import Section, load, networks, sections
from study.report.section import DPI
from study.tables import cells_table
from study.titles import LIKELIHOOD, NOISE
from thermo_ebm.errors import UserError

DOCS = Path(__file__).resolve().parents[2] / "docs"
OUTPUT = DOCS / "study" / "noise"
PUBLISHED = DOCS / "study" / "published" / "tables" / "claims.csv"


def main(argv: Sequence[str]) -> int:
    """Reads the runs and writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes docs/study/noise.")
    parser.add_argument(
        "runs", type=path_argument, help="folder of the runs of configs/experiment3.py"
    )
    parser.add_argument(
        "--settings", type=path_argument, help="of the runs of configs/settings_study.py"
    )
    parser.add_argument("--output", type=path_argument, default=OUTPUT, help="folder to write")
    parser.add_argument("--made_by", action="append", default=[], metavar="COMMAND",
                        help="a command that made the runs; can be repeated")  # fmt: skip
    flags = parser.parse_args(argv)
    return print_all(lambda: write(flags.runs, flags.settings, flags.output, flags.made_by))


def write(
    runs: Path, settings: Path | None, output: Path, commands: Sequence[str] = ()
) -> list[Path]:
    """Writes the page, the tables and the figures; returns their paths.

    Args:
      runs: folder of the runs of the experiment on the noise.
      settings: folder of those of the study of settings, if it was run.
      output: the folder to write.
      commands: that made the runs, which the page prints.

    Raises:
      UserError: no such folder, no such experiment in it, or runs that were not evaluated.
    """
    readings = load(runs, None)
    datasets = [_results(section) for section in sections(readings)]
    study = _settings_study(settings) if settings is not None else None
    for folder in (output / "tables", output / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    files = [path for dataset in datasets for path in _figures(dataset, output / "figures")]
    files += _tables(datasets, study, output / "tables")
    page = output / "index.md"
    published = pd.read_csv(PUBLISHED)
    text = noise_page.page(datasets, study, published, readings.notes, commands)
    page.write_text(text, encoding="utf-8")
    return [page, *files]


def _results(section: Section) -> noise_page.DataSet:
    """Everything that the page says about one data set.

    Raises:
      UserError: no evaluations, no such experiment, or cells of which what the page says of the
        design is not true: a thermodynamic cell with other gradients, or planned numbers of updates
        that differ. Repetitions that ended early are among the remarks on the readings.
    """
    name, cells = section.dataset, section.cells
    network = next(iter(networks(section.frame)), None)
    if network is None:
        raise UserError(f"runs: {name} has no evaluations; run launch.sweep to its end")
    kid, fid = f"{network}_kid_inf", f"{network}_fid_inf"
    factors = factors_table(section, kid)
    if factors.empty:
        raise UserError(f"runs: {name} has no experiment on the noise (configs/experiment3.py)")
    pairs = with_loss(cells, THERMODYNAMIC)[["loss.prior_gradient", "loss.generator_gradient"]]
    gradients = sorted(set(pairs.itertuples(index=False, name=None)))
    if set(gradients) - {("contrastive", "reweighted")}:
        named = "; ".join(", ".join(pair) for pair in gradients)
        raise UserError(
            f"runs: {name} has the gradients {named}; the page is of contrastive, reweighted"
        )
    if "num_epochs" in cells:
        raise UserError(f"runs: {name} has cells with different numbers of updates")
    return noise_page.DataSet(
        section=section,
        network=network,
        cells=noise_cells_table(section, network),
        factors=factors,
        likelihoods=factors_table(section, LIKELIHOOD),
        claims=decide(cells, section.last, {"KID": kid, "FID": fid}),
        figures=[],
    )


def _settings_study(folder: Path) -> SettingsStudy:
    """The cells of the study of settings, one row each, of all data sets."""
    readings = load(folder, None)
    tables = []
    for section in sections(readings):
        tables.append(cells_table(section))
        tables[-1].insert(0, "dataset", section.dataset)
    table = pd.concat(tables, ignore_index=True)
    return SettingsStudy(table, [name for name in readings.fields if name in table])


def _figures(dataset: noise_page.DataSet, folder: Path) -> list[Path]:
    """Writes the figures of one data set as PNG; those without data are left out."""
    section, network = dataset.section, dataset.network
    figures = {
        "kid_by_noise": by_noise.metric_by_noise(section, f"{network}_kid_inf"),
        "likelihood_by_noise": by_noise.metric_by_noise(section, LIKELIHOOD),
        "recall_by_noise": by_noise.metric_by_noise(section, f"{network}_recall"),
        "noise_by_factor": by_noise.noise_by_factor(section),
        "noise_curves": training.reading_curves(section, NOISE),
        "likelihood_curves": training.reading_curves(section, LIKELIHOOD),
    }
    files = []
    for name, figure in figures.items():
        if figure is not None:
            files.append(folder / f"{dataset.anchor}-{name}.png")
            figure.savefig(files[-1], dpi=DPI)
            dataset.figures.append(files[-1].name)
    return files


def _tables(
    datasets: Sequence[noise_page.DataSet], study: SettingsStudy | None, folder: Path
) -> list[Path]:
    tables = {}
    for name in ("cells", "factors", "claims"):
        parts = [getattr(dataset, name).copy() for dataset in datasets]
        for part, dataset in zip(parts, datasets, strict=True):
            part.insert(0, "dataset", dataset.section.dataset)
        tables[name] = pd.concat(parts, ignore_index=True)
    if study is not None:
        tables["settings"] = study.cells
    files = []
    for name, table in tables.items():
        files.append(folder / f"{name}.csv")
        table.to_csv(files[-1], index=False, float_format="%.6g")
    return files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
