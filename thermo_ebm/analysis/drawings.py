"""All figures of a report, in its order, each with the paper's number for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from thermo_ebm.analysis import figures_metric, figures_training, figures_variance
from thermo_ebm.analysis.readings import Readings, final
from thermo_ebm.analysis.settings import Settings, cells_of


class Drawing(NamedTuple):
    """One figure to draw: its file's name, what it shows, and how to make it."""

    name: str
    title: str
    draw: Callable[[], Figure | None]


def drawings(frame: pd.DataFrame, readings: Readings, network: str | None) -> Iterator[Drawing]:
    """Yields every figure of one data set and origin; those without data return None."""
    yield from _of_last_epochs(frame, f"{network}_kid_inf", f"{network}_fid_inf")
    yield from _of_training(frame, readings, f"{network}_kid_inf")


def _of_last_epochs(frame: pd.DataFrame, kid: str, fid: str) -> Iterator[Drawing]:
    variance, metric = figures_variance, figures_metric
    yield Drawing(
        "variance_by_batch",
        "last gradient variance by batch size (the paper's figures 8, 16)",
        lambda: variance.variance_by_batch(frame),
    )
    yield Drawing(
        "variance_by_power",
        "last gradient variance by power p (the paper's figures 9, 17)",
        lambda: variance.variance_by_power(frame),
    )
    yield Drawing(
        "kid_by_variance",
        "KID against gradient variance (the paper's figures 10, 18)",
        lambda: metric.metric_by_variance(frame, kid),
    )
    yield Drawing(
        "kid_by_regime",
        "KID against gradient variance, each regime (the paper's figures 11, 19)",
        lambda: metric.metric_by_variance_regimes(frame, kid),
    )
    yield Drawing(
        "fid_by_variance",
        "FID against gradient variance (the paper's figures 22, 23)",
        lambda: metric.metric_by_variance(frame, fid),
    )
    yield Drawing(
        "kid_by_power",
        "KID by power p, each variant of the loss",
        lambda: metric.metric_by_power(frame, kid),
    )
    yield Drawing(
        "changes_over_powers",
        "experiment 2 over experiment 1 (the paper's figure 12)",
        lambda: metric.changes_over_powers(frame, kid),
    )


def _of_training(frame: pd.DataFrame, readings: Readings, kid: str) -> Iterator[Drawing]:
    training = figures_training
    cells = cells_of(final(frame))
    yield Drawing(
        "training_loss",
        "training loss, centred (the paper's figure 21)",
        lambda: training.training_curves(frame),
    )
    yield Drawing(
        "variance_curves",
        "gradient variance over training",
        lambda: training.reading_curves(frame, "train_grad_var"),
    )
    yield Drawing("kid_curves", "KID over training", lambda: training.reading_curves(frame, kid))
    yield Drawing(
        "temperature_schedules",
        "temperature schedules (the paper's figure 5)",
        lambda: training.temperature_schedules(frame),
    )
    yield Drawing(
        "integral",
        "the thermodynamic integral",
        lambda: training.integral(frame, readings.temperatures),
    )
    yield Drawing(
        "cost",
        "training time and counted FLOPs (the paper's figures 14, 15)",
        lambda: training.cost(frame),
    )
    yield Drawing(
        "samples",
        "samples (the paper's figures 13, 20)",
        lambda: training.sample_grids(_pictures(readings, cells), cells),
    )


def _pictures(readings: Readings, cells: dict[str, Settings]) -> dict[str, Path]:
    by_settings = {settings: key for key, settings in cells.items()}
    pictures: dict[str, Path] = {}
    for run in readings.runs:
        key = by_settings.get(run.settings)
        path = figures_training.newest_samples(run.folder)
        if key is not None and path is not None:
            pictures.setdefault(key, path)
    return pictures
