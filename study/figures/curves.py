"""Curves of training: the loss, the variance over entries, and any other reading by epoch.

Each function returns a figure, or None where no repetition has two epochs of the reading.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from study.figures import style
from study.names import reading_title
from study.settings import (
    cells_of,
    provenance,
    regime,
    section_title,
    short_labels,
)

_KEYS = ["cell", "run", "repetition"]
_LOGARITHMIC = ("train_grad_var", "grad_noise", "train_grad_noise", "train_update_noise")
_BULK = (0.005, 0.985)  # quantiles of the centred loss that its axis shows


def training_curves(frame: pd.DataFrame) -> Figure | None:
    """The training loss, centred over each repetition, one panel per cell (21)."""
    if not _has_curve(frame, "train_loss"):
        return None
    centered = frame["train_loss"] - frame.groupby(_KEYS)["train_loss"].transform("mean")
    shown = frame.assign(shown=centered)
    note = f"{_lines(frame)} The loss less its mean over the repetition's epochs."
    limits = _bulk(centered)
    if limits is not None:
        note += " The axis leaves out the highest 1.5 % of the values (the first epochs)."
    title = "training loss, centred over each repetition"
    figure = _curves(shown, "shown", "loss less its mean (nats)", title, note)
    if limits is not None:
        figure.axes[0].set_ylim(*limits)
    return figure


def reading_curves(frame: pd.DataFrame, reading: str) -> Figure | None:
    """Any reading over training, one panel per cell, one line per repetition."""
    if not _has_curve(frame, reading):
        return None
    name = reading_title(reading)
    logarithmic = reading.startswith(_LOGARITHMIC) and bool((frame[reading].dropna() > 0.0).all())
    return _curves(frame, reading, name, f"{name} over training", _lines(frame), logarithmic)


def _has_curve(frame: pd.DataFrame, reading: str) -> bool:
    """Whether some repetition has the reading at two epochs: one makes no curve."""
    return reading in frame and frame.groupby(_KEYS)[reading].count().max() > 1


def _lines(frame: pd.DataFrame) -> str:
    single = frame.groupby(_KEYS).ngroups == frame["cell"].nunique()
    return "One repetition per cell." if single else "One line per repetition."


def _bulk(values: pd.Series) -> tuple[float, float] | None:
    """Limits that keep the first epochs' peak from flattening all curves; None without a peak."""
    low, high = values.quantile(_BULK)
    margin = 0.15 * (high - low)
    if not np.isfinite([low, high]).all() or values.max() <= high + margin:
        return None
    return float(low - margin), float(high + margin)


def _curves(
    frame: pd.DataFrame, reading: str, label: str, title: str, note: str, logarithmic: bool = False
) -> Figure:
    every = cells_of(frame)
    cells = dict(list(every.items())[: style.MAX_PANELS])
    note += style.panels_note(len(every))
    labels = short_labels(cells)
    figure, axes = style.new_grid(len(cells), 4, (2.4, 1.9))
    for axis, (key, settings) in zip(axes, cells.items(), strict=True):
        rows = frame[frame["cell"] == key].dropna(subset=[reading])
        for _, line in rows.groupby(["run", "repetition"]):
            color = style.REGIME_COLORS[regime(settings)]
            marker = "." if len(line) < 3 else ""
            axis.plot(line["epoch"], line[reading], marker=marker, linewidth=0.9, color=color,
                      alpha=0.7)  # fmt: skip
        if logarithmic:
            style.use_log_scale(axis, "y")
        axis.set_title(style.in_pairs(labels[key]), fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.outer_labels(figure, axes, "epoch", label)
    settings_list = list(cells.values())
    heading = f"{section_title(settings_list[0])}: {title}"
    return style.finish(figure, heading, f"{note} {provenance(settings_list)}")
