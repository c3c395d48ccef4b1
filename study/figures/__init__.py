"""The figures of a report, in its order, each with the paper's number for it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from study.figures import by_noise, by_variance, integral, training
from study.readings import Readings, Section
from study.titles import ENTRY_VARIANCE, LIKELIHOOD, NOISE, reading_title

# Readings that have a figure over training wherever they are there, by file name.
CURVES = {
    "variance_curves": "train_grad_var",
    "noise_curves": NOISE,
    "likelihood_curves": LIKELIHOOD,
    "objective_curves": "val_loss",
}


class ReportFigure(NamedTuple):
    """One figure of the report."""

    name: str  # of its file
    title: str
    figure: Figure


def report_figures(
    section: Section, readings: Readings, network: str | None
) -> Iterator[ReportFigure]:
    """Yields every figure of one data set and origin that the readings have data for."""
    kid, fid = f"{network}_kid_inf", f"{network}_fid_inf"
    rows: list[tuple[str, str, Callable[[Section], Figure | None]]] = [
        ("variance_by_batch", f"last {ENTRY_VARIANCE} by batch size (the paper's figures 8, 16)",
         by_variance.variance_by_batch),
        ("variance_by_power", f"last {ENTRY_VARIANCE} by power p (the paper's figures 9, 17)",
         by_variance.variance_by_power),
        ("kid_by_variance", f"KID against {ENTRY_VARIANCE} (the paper's figures 10, 18)",
         partial(by_variance.metric_by_variance, metric=kid)),
        ("kid_by_regime",
         f"KID against {ENTRY_VARIANCE} in each regime (the paper's figures 11, 19)",
         partial(by_variance.metric_by_regime, metric=kid)),
        ("fid_by_variance", f"FID against {ENTRY_VARIANCE} (the paper's figures 22, 23)",
         partial(by_variance.metric_by_variance, metric=fid)),
        ("kid_by_power", "KID by power p for each variant of the loss",
         partial(by_variance.metric_by_power, metric=kid)),
        ("likelihood_by_power", "held-out log-likelihood by power p for each variant of the loss",
         partial(by_variance.metric_by_power, metric=LIKELIHOOD)),
        ("kid_by_noise", "KID against the gradient's noise, by the factor that sets it",
         partial(by_noise.metric_by_noise, metric=kid)),
        ("likelihood_by_noise",
         "held-out log-likelihood against the gradient's noise, by the factor that sets it",
         partial(by_noise.metric_by_noise, metric=LIKELIHOOD)),
        ("noise_by_factor", "the gradient's noise by each factor", by_noise.noise_by_factor),
        ("changes_over_powers", "experiment 2 over experiment 1 (the paper's figure 12)",
         partial(by_variance.changes_over_powers, metric=kid)),
        ("training_loss", "training loss, centred (the paper's figure 21)",
         training.training_curves),
        *((name, f"{reading_title(reading)} over training",
           partial(training.reading_curves, reading=reading))
          for name, reading in CURVES.items()),
        ("kid_curves", "KID over training", partial(training.reading_curves, reading=kid)),
        ("temperature_schedules", "temperature schedules (the paper's figure 5)",
         integral.temperature_schedules),
        ("integral", "the thermodynamic integral",
         partial(integral.integral, temperatures=readings.temperatures)),
        ("cost", "training time and counted FLOPs (the paper's figures 14, 15)", training.cost),
        ("samples", "samples (the paper's figures 13, 20)",
         partial(training.sample_grids, folders=_run_folders(section, readings))),
    ]  # fmt: skip
    for name, title, draw in rows:
        figure = draw(section)
        if figure is not None:
            yield ReportFigure(name, title, figure)


def _run_folders(section: Section, readings: Readings) -> dict[str, Path]:
    """The folder of the first run with samples of each cell."""
    cells = section.last.drop_duplicates("run").set_index("run")["cell"]
    folders: dict[str, Path] = {}
    for run in readings.runs:
        cell = cells.get(str(run.folder))
        if cell is not None and training.newest_samples(run.folder) is not None:
            folders.setdefault(cell, run.folder)
    return folders
