"""All figures of a report, in its order, each with the paper's number for it."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from study.figures import boxes, curves, integral, metric, noise
from study.figures.cost import cost
from study.figures.samples import newest_samples, sample_grids
from study.names import ENTRY_VARIANCE, LIKELIHOOD, reading_title
from study.readings import Readings, final
from study.settings import Settings, cells_of


class Entry(NamedTuple):
    """One figure of the report: its file's name, what it shows, and how to make it."""

    name: str
    title: str
    make: Callable[[], Figure | None]


# Readings that have a figure over training wherever they are there, by file name.
CURVES = {
    "variance_curves": "train_grad_var",
    "noise_curves": "train_update_noise",
    "likelihood_curves": LIKELIHOOD,
    "objective_curves": "val_loss",
}


def catalogue(frame: pd.DataFrame, readings: Readings, network: str | None) -> Iterator[Entry]:
    """Yields every figure of one data set and origin; those without data make None."""
    yield from _of_last_epochs(frame, f"{network}_kid_inf", f"{network}_fid_inf")
    yield from _of_training(frame, readings, f"{network}_kid_inf")


def _of_last_epochs(frame: pd.DataFrame, kid: str, fid: str) -> Iterator[Entry]:
    yield Entry(
        "variance_by_batch",
        f"last {ENTRY_VARIANCE} by batch size (the paper's figures 8, 16)",
        lambda: boxes.variance_by_batch(frame),
    )
    yield Entry(
        "variance_by_power",
        f"last {ENTRY_VARIANCE} by power p (the paper's figures 9, 17)",
        lambda: boxes.variance_by_power(frame),
    )
    yield Entry(
        "kid_by_variance",
        f"KID against {ENTRY_VARIANCE} (the paper's figures 10, 18)",
        lambda: metric.metric_by_variance(frame, kid),
    )
    yield Entry(
        "kid_by_regime",
        f"KID against {ENTRY_VARIANCE} in each regime (the paper's figures 11, 19)",
        lambda: metric.metric_by_variance_regimes(frame, kid),
    )
    yield Entry(
        "fid_by_variance",
        f"FID against {ENTRY_VARIANCE} (the paper's figures 22, 23)",
        lambda: metric.metric_by_variance(frame, fid),
    )
    yield Entry(
        "kid_by_power",
        "KID by power p for each variant of the loss",
        lambda: metric.metric_by_power(frame, kid),
    )
    yield Entry(
        "likelihood_by_power",
        "held-out log-likelihood by power p for each variant of the loss",
        lambda: metric.metric_by_power(frame, LIKELIHOOD),
    )
    yield from _of_noise(frame, kid)
    yield Entry(
        "changes_over_powers",
        "experiment 2 over experiment 1 (the paper's figure 12)",
        lambda: metric.changes_over_powers(frame, kid),
    )


def _of_noise(frame: pd.DataFrame, kid: str) -> Iterator[Entry]:
    yield Entry(
        "kid_by_noise",
        "KID against the gradient's noise, by the knob that sets it",
        lambda: noise.metric_by_noise(frame, kid),
    )
    yield Entry(
        "likelihood_by_noise",
        "held-out log-likelihood against the gradient's noise, by the knob that sets it",
        lambda: noise.metric_by_noise(frame, LIKELIHOOD),
    )
    yield Entry(
        "noise_by_knob",
        "the gradient's noise by each knob",
        lambda: noise.noise_by_knob(frame),
    )


def _of_training(frame: pd.DataFrame, readings: Readings, kid: str) -> Iterator[Entry]:
    cells = cells_of(final(frame))
    yield Entry(
        "training_loss",
        "training loss, centred (the paper's figure 21)",
        lambda: curves.training_curves(frame),
    )
    for name, reading in CURVES.items():
        title = f"{reading_title(reading)} over training"
        yield Entry(name, title, functools.partial(curves.reading_curves, frame, reading))
    yield Entry("kid_curves", "KID over training", lambda: curves.reading_curves(frame, kid))
    yield Entry(
        "temperature_schedules",
        "temperature schedules (the paper's figure 5)",
        lambda: integral.temperature_schedules(frame),
    )
    yield Entry(
        "integral",
        "the thermodynamic integral",
        lambda: integral.integral(frame, readings.temperatures),
    )
    yield Entry(
        "cost",
        "training time and counted FLOPs (the paper's figures 14, 15)",
        lambda: cost(frame),
    )
    yield Entry(
        "samples",
        "samples (the paper's figures 13, 20)",
        lambda: sample_grids(_pictures(readings, cells), cells),
    )


def _pictures(readings: Readings, cells: dict[str, Settings]) -> dict[str, Path]:
    by_settings = {settings: key for key, settings in cells.items()}
    pictures: dict[str, Path] = {}
    for run in readings.runs:
        key = by_settings.get(run.settings)
        path = newest_samples(run.folder)
        if key is not None and path is not None:
            pictures.setdefault(key, path)
    return pictures
