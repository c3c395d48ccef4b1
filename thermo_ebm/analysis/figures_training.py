"""Figures of training: curves, temperature schedules, the integral, cost, and sample grids.

Each function returns a figure, or None where there is nothing to draw.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import MaxNLocator

from thermo_ebm.analysis import style
from thermo_ebm.analysis.readings import EVERY_EPOCH, metric_title
from thermo_ebm.analysis.settings import (
    THERMODYNAMIC,
    Settings,
    cells_of,
    provenance,
    regime,
    section_title,
    short_labels,
)
from thermo_ebm.analysis.tables import reading_title

MAX_PANELS = 40
# Pictures in a samples folder that are no grid of samples.
NOT_SAMPLES = re.compile(r"real|strip|recon|interpol|latent", re.IGNORECASE)


class TrapeziumSums(NamedTuple):
    """The thermodynamic integral by each rule, nats an image."""

    left: float  # a lower bound on log p(x), as E_t rises with t
    trapezium: float
    right: float  # an upper bound
    corrected: float  # the trapezium and half the differences of the KL divergences; NaN without


def training_curves(frame: pd.DataFrame) -> Figure | None:
    """The training loss, centred over each repetition, a panel a cell (21)."""
    if "train_loss" not in frame or not frame["train_loss"].notna().any():
        return None
    keys = ["cell", "run", "repetition"]
    centered = frame["train_loss"] - frame.groupby(keys)["train_loss"].transform("mean")
    title = "training loss, centred over each repetition"
    note = (
        "One line a repetition; the loss less its mean over the repetition's epochs. The axis "
        "leaves out the highest 1.5 % (the first epochs)."
    )
    figure = _curves(
        frame.assign(shown=centered), "shown", "loss less its mean (nats)", title, note
    )
    if figure is not None:
        _limit_to_bulk(figure.axes, centered)
    return figure


def reading_curves(frame: pd.DataFrame, reading: str) -> Figure | None:
    """Any reading over training, a panel a cell, a line a repetition.

    A metric that no repetition has of two epochs makes no line: there is nothing to draw.
    """
    if reading not in frame or not frame[reading].notna().any():
        return None
    counts = frame.groupby(["cell", "run", "repetition"])[reading].count()
    if reading not in EVERY_EPOCH and counts.max() < 2:
        return None
    logarithmic = reading.startswith(("train_grad_var", "grad_noise"))
    name = metric_title(reading) if reading_title(reading) == reading else reading_title(reading)
    title = f"{name} over training"
    return _curves(frame, reading, name, title, "One line a repetition.", logarithmic)


def temperature_schedules(frame: pd.DataFrame) -> Figure | None:
    """The schedules t_i = (i/N_t)^p of the thermodynamic cells (5)."""
    cells = [s for s in cells_of(frame).values() if s.loss == THERMODYNAMIC and s.power]
    pairs = sorted({(s.power, s.num_temperatures) for s in cells if s.power and s.num_temperatures})
    if not pairs:
        return None
    figure, (axis,) = style.new_figure(width=6.4, height=4.0)
    colors = style.power_colors([power for power, _ in pairs])
    usual = max({n for _, n in pairs}, key=[n for _, n in pairs].count)
    others = sorted({n for _, n in pairs} - {usual})
    for power, count in pairs:
        index = np.arange(int(count) + 1) / count
        several = count != usual
        label = f"p = {power:g}, N_t = {count:g}" if several else f"p = {power:g}"
        line = ("--", ":", "-.")[others.index(count) % 3] if several else "-"
        axis.plot(index, index**power, line, marker="o", markersize=3.5, linewidth=1.2,
                  color=colors[power], label=label)  # fmt: skip
    axis.set_xlabel("i / N_t", fontsize=9)
    axis.set_ylabel("temperature t_i", fontsize=9)
    axis.legend(fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    title = f"{section_title(cells[0])}: temperature schedules"
    note = f"t_i = (i / N_t)^p; N_t = {usual:g} where not said otherwise."
    return style.finish(figure, title, f"{note} {provenance(cells)}")


def trapezium_sums(table: pd.DataFrame) -> TrapeziumSums:
    """Sums the integral of one table of temperatures by every rule.

    Args:
      table: one row a temperature, in order: temperature, expected_log_likelihood, kl_forward and
        kl_backward (between a row and the next; the last row's are not used).
    """
    t = table["temperature"].to_numpy(float)
    e = table["expected_log_likelihood"].to_numpy(float)
    steps = np.diff(t)
    left, right = float(np.sum(steps * e[:-1])), float(np.sum(steps * e[1:]))
    trapezium = (left + right) / 2.0
    difference = (table["kl_forward"] - table["kl_backward"]).to_numpy(float)[:-1]
    return TrapeziumSums(left, trapezium, right, trapezium + float(np.sum(difference)) / 2.0)


def integral(frame: pd.DataFrame, temperatures: pd.DataFrame) -> Figure | None:
    """E_t against t with the trapezia of each cell's schedule: how p moves the integral's error.

    Args:
      frame: the readings.
      temperatures: rows of the last epoch of temperatures.csv with `cell`; averaged over
        repetitions.
    """
    if temperatures.empty:
        return None
    cells = {k: s for k, s in cells_of(frame).items() if k in set(temperatures["cell"])}
    cells = dict(list(cells.items())[:MAX_PANELS])
    if not cells:
        return None
    labels = short_labels(cells_of(frame))
    figure, axes = style.new_grid(len(cells), 4, (2.7, 2.5))
    columns = ["temperature", "expected_log_likelihood", "kl_forward", "kl_backward"]
    for axis, key in zip(axes, cells, strict=True):
        rows = temperatures[temperatures["cell"] == key]
        table = rows.groupby("index")[columns].mean().sort_index()
        _draw_integral(axis, table, style.REGIME_COLORS[regime(cells[key])])
        axis.set_title(_broken(labels[key]), fontsize=8)
    _outer_labels(figure, axes, "temperature t", "E_t (nats)")
    settings = list(cells.values())
    note = (
        "E_t on validation images at the last epoch, mean over repetitions; shaded: the trapezia. "
        "L, T, R: left, trapezium and right sums; KL: the trapezium with its KL correction; nats."
    )
    title = f"{section_title(settings[0])}: the thermodynamic integral"
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def cost(frame: pd.DataFrame) -> Figure | None:
    """Training time and counted FLOPs of each cell (14 and 15)."""
    keys = ["cell", "run", "repetition"]
    parts = []
    if "seconds" in frame and frame["seconds"].notna().any():
        seconds = frame.groupby(keys)["seconds"].sum()
        hours = seconds.max() > 1800.0
        unit = ("training time (h)", 3600.0) if hours else ("training time (min)", 60.0)
        parts.append((unit[0], seconds / unit[1]))
    if "flops_per_step" in frame and (frame["flops_per_step"] > 0.0).any():
        steps = frame.groupby(keys)["step"].max() if "step" in frame else None
        flops = frame.groupby(keys)["flops_per_step"].last()
        if steps is not None:
            work = flops * steps
            prefix, scale = ("P", 1e15) if work.max() > 1e14 else ("G", 1e9)
            parts.append((f"counted work of training ({prefix}FLOP)", work / scale))
        else:
            parts.append(("counted work of a step (GFLOP)", flops / 1e9))
    if not parts:
        return None
    cells = cells_of(frame)
    labels = short_labels(cells)
    height = 1.3 + 0.24 * len(cells)
    figure, axes = style.new_figure(1, len(parts), 2.2 + 3.4 * len(parts), height, share_y=True)
    for axis, (title, values) in zip(axes, parts, strict=True):
        mean = values.groupby("cell").mean().reindex(list(cells))
        error = values.groupby("cell").std().reindex(list(cells)).fillna(0.0)
        colors = [style.REGIME_COLORS[regime(s)] for s in cells.values()]
        axis.barh(range(len(cells)), mean, xerr=error, color=colors, alpha=0.75,
                  error_kw={"elinewidth": 0.9})  # fmt: skip
        axis.set_xlabel(title, fontsize=9)
        axis.set_yticks(range(len(cells)), list(labels.values()), fontsize=7.5)
        axis.set_ylim(len(cells) - 0.4, -0.6)
    settings = list(cells.values())
    note = "Means over repetitions; FLOPs counted from the program, loops by their trip counts."
    title = f"{section_title(settings[0])}: cost of training"
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def sample_grids(pictures: Mapping[str, Path], cells: Mapping[str, Settings]) -> Figure | None:
    """The newest grid of samples of each cell's first repetition, side by side (13 and 20)."""
    read = [(key, _picture(pictures[key])) for key in cells if key in pictures]
    shown = [(key, picture) for key, picture in read if picture is not None][:MAX_PANELS]
    if not shown:
        return None
    labels = short_labels(cells)
    figure, axes = style.new_grid(len(shown), 3, (4.2, 2.6), share=False)
    for axis, (key, picture) in zip(axes, shown, strict=True):
        axis.imshow(
            picture, cmap="gray" if picture.ndim == 2 else None, interpolation="antialiased"
        )
        axis.set_axis_off()
        axis.set_title(_broken(labels[key]), fontsize=8)
    settings = [cells[key] for key, _ in shown]
    title = f"{section_title(settings[0])}: samples"
    note = "Newest grid of samples of each cell's first repetition."
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def newest_samples(folder: Path) -> Path | None:
    """Returns the newest (by its name's numbers) grid of samples in a run's first repetition."""
    paths = [
        path for path in folder.glob("rep_*/samples/*.png") if not NOT_SAMPLES.search(path.stem)
    ]
    if not paths:
        return None
    first = min(path.parent.parent.name for path in paths)
    return max(
        (path for path in paths if path.parent.parent.name == first),
        key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.stem),
    )


def _picture(path: Path) -> np.ndarray | None:
    """Returns a picture's pixels; None for a damaged file, which must not cost the report."""
    try:
        return imread(path)
    except (OSError, SyntaxError, ValueError):  # a SyntaxError is Pillow's for what is no PNG
        return None


def _curves(
    frame: pd.DataFrame, reading: str, label: str, title: str, note: str, logarithmic: bool = False
) -> Figure | None:
    cells = dict(list(cells_of(frame).items())[:MAX_PANELS])
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
            axis.set_yscale("log")
        axis.set_title(_broken(labels[key]), fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _outer_labels(figure, axes, "epoch", label)
    settings_list = list(cells.values())
    heading = f"{section_title(settings_list[0])}: {title}"
    return style.finish(figure, heading, f"{note} {provenance(settings_list)}")


def _limit_to_bulk(axes: Sequence[Axes], values: pd.Series) -> None:
    """Keeps the first epochs' peak from flattening all curves."""
    low, high = values.quantile([0.005, 0.985])
    if np.isfinite([low, high]).all() and high > low:
        margin = 0.15 * (high - low)
        axes[0].set_ylim(low - margin, high + margin)


def _draw_integral(axis: Axes, table: pd.DataFrame, color: str) -> None:
    t = table["temperature"].to_numpy(float)
    e = table["expected_log_likelihood"].to_numpy(float)
    base = min(e.min(), 0.0) if e.min() < 0 else 0.0
    axis.fill_between(t, e, np.full_like(e, base), color=color, alpha=0.18, linewidth=0)
    axis.vlines(t, base, e, color=color, linewidth=0.7)
    axis.plot(t, e, marker="o", markersize=3, linewidth=1.1, color=color)
    sums = trapezium_sums(table)
    text = f"L {sums.left:.4g}\nT {sums.trapezium:.4g}\nR {sums.right:.4g}"
    if np.isfinite(sums.corrected):
        text += f"\nKL {sums.corrected:.4g}"
    axis.text(0.97, 0.05, text, transform=axis.transAxes, fontsize=7, ha="right", va="bottom",
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75})  # fmt: skip


def _outer_labels(figure: Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    """Names the x axis below each column and the y axis once: the panels are small."""
    for axis in axes:
        if axis.xaxis.get_tick_params()["labelbottom"]:
            axis.set_xlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=9)


def _broken(label: str) -> str:
    parts = label.split(", ")
    return "\n".join(", ".join(parts[i : i + 2]) for i in range(0, len(parts), 2))
