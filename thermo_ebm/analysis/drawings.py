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
    kid, fid = f"{network}_kid_inf", f"{network}_fid_inf"
    cells = cells_of(final(frame))
    pictures = _pictures(readings, cells)
    variance, metric, training = figures_variance, figures_metric, figures_training
    table = [
        (
            "variance_by_batch",
            "last gradient variance by batch size",
            "figures 8, 16",
            lambda: variance.variance_by_batch(frame),
        ),
        (
            "variance_by_power",
            "last gradient variance by power p",
            "figures 9, 17",
            lambda: variance.variance_by_power(frame),
        ),
        (
            "kid_by_variance",
            "KID against gradient variance",
            "figures 10, 18",
            lambda: metric.metric_by_variance(frame, kid),
        ),
        (
            "kid_by_regime",
            "KID against gradient variance, each regime",
            "figures 11, 19",
            lambda: metric.metric_by_variance_regimes(frame, kid),
        ),
        (
            "fid_by_variance",
            "FID against gradient variance",
            "figures 22, 23",
            lambda: metric.metric_by_variance(frame, fid),
        ),
        (
            "kid_by_power",
            "KID by power p, each variant of the loss",
            "",
            lambda: metric.metric_by_power(frame, kid),
        ),
        (
            "changes_over_powers",
            "experiment 2 over experiment 1",
            "figure 12",
            lambda: metric.changes_over_powers(frame, kid),
        ),
        (
            "training_loss",
            "training loss, centred",
            "figure 21",
            lambda: training.training_curves(frame),
        ),
        (
            "variance_curves",
            "gradient variance over training",
            "",
            lambda: training.reading_curves(frame, "train_grad_var"),
        ),
        ("kid_curves", "KID over training", "", lambda: training.reading_curves(frame, kid)),
        (
            "temperature_schedules",
            "temperature schedules",
            "figure 5",
            lambda: training.temperature_schedules(frame),
        ),
        (
            "integral",
            "the thermodynamic integral",
            "",
            lambda: training.integral(frame, readings.temperatures),
        ),
        ("cost", "training time and counted FLOPs", "figures 14, 15", lambda: training.cost(frame)),
        ("samples", "samples", "figures 13, 20", lambda: training.sample_grids(pictures, cells)),
    ]
    for name, title, paper, draw in table:
        about = f" (the paper's {paper})" if paper else ""
        yield Drawing(name, f"{title}{about}", draw)


def _pictures(readings: Readings, cells: dict[str, Settings]) -> dict[str, Path]:
    by_settings = {settings: key for key, settings in cells.items()}
    pictures: dict[str, Path] = {}
    for run in readings.runs:
        key = by_settings.get(run.settings)
        path = figures_training.newest_samples(run.folder)
        if key is not None and path is not None:
            pictures.setdefault(key, path)
    return pictures
