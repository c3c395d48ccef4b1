"""Figures of training: readings by epoch, what training cost, and grids of samples.

Each function returns a figure, or None where there is nothing to draw.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import MaxNLocator

from study.cells import regimes
from study.figures import style
from study.readings import REPETITION, Section
from study.titles import reading_title
from thermo_ebm.errors import counted
from thermo_ebm.plots import new_figure

_LOGARITHMIC = ("train_grad_var", "grad_noise", "train_grad_noise", "train_update_noise")
_COST_CHARACTERS = 48  # in a line of a bar's label
_BULK = (0.005, 0.985)  # quantiles of the centred loss that its axis shows
# Pictures in a samples folder that are not grids of samples.
_NOT_SAMPLES = re.compile(r"real|strip|recon|interpol|latent", re.IGNORECASE)


# Readings by epoch.


def training_curves(section: Section) -> Figure | None:
    """The training loss, centred over each repetition, one panel per cell (21)."""
    frame = section.frame
    if not _has_curve(frame, "train_loss"):
        return None
    loss = frame["train_loss"]
    centred = loss - frame.groupby(REPETITION)["train_loss"].transform("mean")
    note = f"{_lines_note(section)} The loss less its mean over the repetition's epochs."
    limits = _bulk(centred)
    if limits is not None:
        note += " The axis leaves out the highest 1.5 % of the values (the first epochs)."
    title = "training loss, centred over each repetition"
    figure = _curves(section, centred, ("loss less its mean (nats)", title, note))
    if limits is not None:
        figure.axes[0].set_ylim(*limits)
    return figure


def reading_curves(section: Section, reading: str) -> Figure | None:
    """Any reading over training, one panel per cell, one line per repetition."""
    if not _has_curve(section.frame, reading):
        return None
    values, name = section.frame[reading], reading_title(reading)
    logarithmic = reading.startswith(_LOGARITHMIC) and bool((values.dropna() > 0.0).all())
    words = (name, f"{name} over training", _lines_note(section))
    return _curves(section, values, words, logarithmic)


def _has_curve(frame: pd.DataFrame, reading: str) -> bool:
    """Whether a repetition has the reading at two epochs: one makes no curve."""
    return reading in frame and frame.groupby(REPETITION)[reading].count().max() > 1


def _lines_note(section: Section) -> str:
    single = len(section.last) == len(section.cells)
    return "One repetition per cell." if single else "One line per repetition."


def _bulk(values: pd.Series) -> tuple[float, float] | None:
    """Limits that keep the first epochs' peak from flattening all curves; None without a peak."""
    low, high = values.quantile(_BULK)
    margin = 0.15 * (high - low)
    if not np.isfinite([low, high]).all() or values.max() <= high + margin:
        return None
    return float(low - margin), float(high + margin)


def _curves(
    section: Section, values: pd.Series, words: tuple[str, str, str], logarithmic: bool = False
) -> Figure:
    """One panel per cell.

    Args:
      section: the readings.
      values: drawn for each row of its frame.
      words: label of the y axis, title, note.
      logarithmic: whether the y axis is.
    """
    label, title, note = words
    frame = section.frame.assign(drawn=values).dropna(subset="drawn")
    most = frame.groupby(["cell", *REPETITION])["drawn"].count().groupby("cell").max()
    with_curve = section.cells[section.cells.index.isin(most.index[most > 1])]
    cells = with_curve.iloc[: style.MAX_PANELS]
    colors = regimes(cells).map(style.REGIME_COLORS)
    figure, axes = style.new_titled_grid(list(cells.index), 4, (2.4, 1.9))
    for axis, cell in zip(axes, cells.index, strict=True):
        for _, line in frame[frame["cell"] == cell].groupby(REPETITION):
            marker = "." if len(line) < 3 else ""
            axis.plot(line["epoch"], line["drawn"], marker=marker, linewidth=0.9,
                      color=colors[cell], alpha=0.7)  # fmt: skip
        if logarithmic:
            style.use_log_scale(axis, "y")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.outer_labels(figure, axes, "epoch", label)
    note += style.panels_note(len(with_curve))
    if left_out := len(section.cells) - len(with_curve):
        note += f" Left out: {counted(left_out, 'cell')} with values at fewer than two epochs."
    return style.finish_section(figure, section, cells, title, note)


# Cost.


def cost(section: Section) -> Figure | None:
    """Training time and counted FLOPs of each cell (14 and 15); None for fewer than two cells."""
    cells = section.cells
    parts = [part for part in (_time(section.frame), _work(section.frame)) if part is not None]
    if not parts or len(cells) < 2:
        return None
    labels = [style.wrapped(cell, _COST_CHARACTERS) for cell in cells.index]
    lines = [line for label in labels for line in label.split("\n")]
    width = 0.4 + max(map(len, lines)) / style.characters(1.0, 7.5) + 3.2 * len(parts)
    height = 1.3 + 0.24 * len(cells) + 0.13 * (len(lines) - len(labels))
    shared = (False, True)
    figure, axes = new_figure(1, len(parts), width, height, shared)
    for axis, (title, values) in zip(axes, parts, strict=True):
        by_cell = values.groupby("cell")
        mean = by_cell.mean().reindex(cells.index)
        error = by_cell.std().reindex(cells.index).fillna(0.0)
        colors = regimes(cells).map(style.REGIME_COLORS)
        axis.barh(range(len(cells)), mean, xerr=error, color=list(colors), alpha=0.75,
                  error_kw={"elinewidth": 0.9})  # fmt: skip
        axis.set_xlabel(title, fontsize=9)
        axis.set_yticks(range(len(cells)), labels, fontsize=7.5)
        axis.set_ylim(len(cells) - 0.4, -0.6)
    single = len(section.last) == len(cells)
    note = "One repetition per cell." if single else "Means over repetitions."
    if any("FLOP" in title for title, _ in parts):
        note += " FLOPs are counted from the program, loops by their trip counts."
    return style.finish_section(figure, section, cells, "cost of training", note)


def _time(frame: pd.DataFrame) -> tuple[str, pd.Series] | None:
    """Returns the axis title and each repetition's training time."""
    if "seconds" not in frame or not frame["seconds"].notna().any():
        return None
    seconds = frame.groupby(["cell", *REPETITION])["seconds"].sum()
    if seconds.max() > 1800.0:
        return "training time (h)", seconds / 3600.0
    return "training time (min)", seconds / 60.0


def _work(frame: pd.DataFrame) -> tuple[str, pd.Series] | None:
    """Returns the axis title and the counted arithmetic of each repetition, or of one step."""
    if "flops_per_step" not in frame or not (frame["flops_per_step"] > 0.0).any():
        return None
    repetitions = frame.groupby(["cell", *REPETITION])
    flops = repetitions["flops_per_step"].last()
    if "step" not in frame:
        return "counted work of a step (GFLOP)", flops / 1e9
    work = flops * repetitions["step"].max()
    prefix, scale = ("P", 1e15) if work.max() > 1e14 else ("G", 1e9)
    return f"counted work of training ({prefix}FLOP)", work / scale


# Samples.


def sample_grids(section: Section, folders: Mapping[str, Path]) -> Figure | None:
    """The newest grid of samples of each cell's first repetition, side by side (13 and 20).

    Args:
      section: the readings.
      folders: of a run of each cell.
    """
    paths = {cell: newest_samples(folders[cell]) for cell in section.cells.index if cell in folders}
    pictures = {cell: _read_picture(path) for cell, path in paths.items() if path is not None}
    readable = {cell: picture for cell, picture in pictures.items() if picture is not None}
    if not readable:
        return None
    cells = section.cells.loc[list(readable)].iloc[: style.MAX_PANELS]
    figure, axes = style.new_titled_grid(list(cells.index), 3, (4.2, 2.6), share=False)
    for axis, cell in zip(axes, cells.index, strict=True):
        picture = readable[cell]
        gray = "gray" if picture.ndim == 2 else None
        axis.imshow(picture, cmap=gray, interpolation="antialiased")
        axis.set_axis_off()
    note = "Newest grid of samples of each cell's first repetition."
    note += style.panels_note(len(readable))
    return style.finish_section(figure, section, cells, "samples", note)


def newest_samples(folder: Path) -> Path | None:
    """Returns the newest (by its name's numbers) grid of samples in a run's first repetition."""
    paths = [
        path for path in folder.glob("rep_*/samples/*.png") if not _NOT_SAMPLES.search(path.stem)
    ]
    if not paths:
        return None
    first = min(path.parent.parent.name for path in paths)
    return max(
        (path for path in paths if path.parent.parent.name == first),
        key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.stem),
    )


def _read_picture(path: Path) -> np.ndarray | None:
    """Returns a picture's pixels; None for a damaged file, which must not cost the report."""
    try:
        return imread(path)
    except (OSError, SyntaxError, ValueError):  # a SyntaxError is Pillow's for what is no PNG
        return None
