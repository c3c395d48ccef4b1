"""Boxplots of the last epoch's variance over entries, by batch size and by power.

Each function takes the readings of one data set and origin and returns a figure, or None where
they hold fewer than two cells to compare.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures import style
from study.figures.style import finish_section
from study.names import reading_title
from study.readings import final
from study.settings import (
    THERMODYNAMIC,
    VANILLA,
    Settings,
    cells_of,
    describe,
    group_cells,
    regime,
    varied,
)


def variance_by_batch(frame: pd.DataFrame, reading: str = "train_grad_var") -> Figure | None:
    """Boxplots of the last variance over entries of the vanilla model by batch size (8 and 16)."""
    last = final(frame)
    cells = {k: s for k, s in cells_of(last).items() if s.loss == VANILLA}
    groups = group_cells(cells, ("batch_size",))
    return _boxplots(last, groups, "batch_size", "batch size", reading)


def variance_by_power(frame: pd.DataFrame, reading: str = "train_grad_var") -> Figure | None:
    """Boxplots of the last variance over entries of the thermodynamic model by p (9 and 17)."""
    last = final(frame)
    cells = {k: s for k, s in cells_of(last).items() if s.loss == THERMODYNAMIC}
    groups = group_cells(cells, ("power",))
    groups = [pair for pair in groups if len(pair[1]) > 1] or groups
    return _boxplots(last, groups, "power", "power p of the temperature schedule", reading)


def _boxplots(
    last: pd.DataFrame,
    groups: Sequence[tuple[Settings, Mapping[str, Settings]]],
    setting: str,
    title: str,
    reading: str,
) -> Figure | None:
    """One panel per group of cells; a box and its repetitions' points for each level."""
    measured = set(last.loc[last[reading].notna(), "cell"]) if reading in last else set()
    if len(measured & {key for _, group in groups for key in group}) < 2:
        return None
    figure, axes = style.new_grid(len(groups), 3, style.panel_size(len(groups)))
    every = {key: s for _, group in groups for key, s in group.items()}
    names = [name for name in varied(every.values()) if name not in (setting, "loss")]
    levels = sorted({getattr(one, setting) for one in every.values()})
    for axis, (first, group) in zip(axes, groups, strict=True):
        _draw_boxes(axis, last, group, setting, levels, reading)
        if len(groups) > 1:
            axis.set_title(style.wrapped(describe(first, names)), fontsize=8)
        axis.set_xlabel(title, fontsize=9)
    style.label_rows(axes, reading_title(reading))
    heading = f"last {reading_title(reading)} by {title.split(' of ')[0]}"
    single = last.loc[last["cell"].isin(set(every)), "cell"].value_counts().max() == 1
    note = (
        "One repetition per cell." if single else "Dots: repetitions. Box: quartiles; line: median."
    )
    return finish_section(figure, every, heading, note)


def _draw_boxes(
    axis: Axes,
    last: pd.DataFrame,
    group: Mapping[str, Settings],
    setting: str,
    levels: Sequence[float],
    reading: str,
) -> None:
    """A box for each cell, at the place that its level has among those of all panels."""
    ordered = sorted(group, key=lambda key: getattr(group[key], setting))
    values = [last.loc[last["cell"] == key, reading].dropna().to_numpy(float) for key in ordered]
    colors = [style.REGIME_COLORS[regime(group[key])] for key in ordered]
    boxes = axis.boxplot(
        values,
        positions=(places := [levels.index(getattr(group[key], setting)) for key in ordered]),
        manage_ticks=False,  # panels share their axis: each would add its own
        widths=0.5,
        patch_artist=True,
        showfliers=False,
        medianprops={"color": "black"},
    )
    axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    for place, box, color, repetitions in zip(places, boxes["boxes"], colors, values, strict=True):
        box.set(facecolor=color, alpha=0.35, edgecolor=color)
        spread = np.linspace(-0.12, 0.12, len(repetitions)) if len(repetitions) > 1 else [0.0]
        axis.scatter(np.add(place, spread), repetitions, s=14, color=color, zorder=3)
