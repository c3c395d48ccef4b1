"""Figures of experiments on the gradient's noise: the metric against it, and it against each knob.

Each function takes the readings of one data set and origin and returns a figure, or None where they
hold no such experiment. Error bars are standard deviations over repetitions (n - 1).
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.claims.noise import NOISE, variant_names
from study.figures import style
from study.knobs import KNOBS, Family, families
from study.names import UPDATE_NOISE, reading_title
from study.readings import final
from study.settings import VANILLA, Settings, cells_of

_COLORS = dict(zip(KNOBS, style.VARIANT_COLORS, strict=False))
_VANILLA_COLOR = style.REGIME_COLORS["vanilla"]
_MARKERS = ("o", "s", "^", "D", "v", "P")


def metric_by_noise(frame: pd.DataFrame, metric: str) -> Figure | None:
    """A metric or reading against the noise of the update, one colour per knob.

    One panel per variant of the loss, all with the same scales. If noise alone decides the metric,
    the lines of a panel lie on each other.
    """
    found, last = _measured(frame, metric)
    if not found:
        return None
    figure, axes = style.new_grid(len(found), 3, style.panel_size(len(found)))
    for axis, family, name in zip(axes, found, variant_names(found), strict=True):
        for knob, cells in family.levels.items():
            x, y = _moments(last, cells, NOISE), _moments(last, cells, metric)
            axis.errorbar(x["mean"], y["mean"], y["std"], x["std"], label=KNOBS[knob].title,
                          color=_COLORS[knob], marker=".", linewidth=1.1, elinewidth=0.5,
                          capsize=2)  # fmt: skip
            _annotate(axis, family, knob, x["mean"], y["mean"])
        _mark_centre(axis, last, family, metric)
        style.use_log_scale(axis, "x")
        axis.set_title(style.wrapped(name), fontsize=9)
        axis.set_xlabel(UPDATE_NOISE, fontsize=9)
    style.label_rows(axes, reading_title(metric))
    style.outside_legend(figure, axes)
    title = f"{reading_title(metric)} against the noise"
    note = "Means and standard deviations over repetitions. Numbers: the knob's extreme values."
    return style.finish_section(figure, _settings(last, found), title, note)


def noise_by_knob(frame: pd.DataFrame) -> Figure | None:
    """The noise of the update against each knob, one line per variant of the loss."""
    found, last = _measured(frame, NOISE)
    if not found:
        return None
    knobs = [knob for knob in KNOBS if any(knob in family.levels for family in found)]
    figure, axes = style.new_grid(len(knobs), 3, (2.9, 2.6), share=False)
    names = variant_names(found)
    for axis, knob in zip(axes, knobs, strict=True):
        for number, (family, name) in enumerate(zip(found, names, strict=True)):
            if knob not in family.levels:
                continue
            cells = family.levels[knob]
            y = _moments(last, cells, NOISE)
            others = [color for color in style.VARIANT_COLORS if color != _VANILLA_COLOR]
            color = others[number % len(others)]
            if family.settings.loss == VANILLA:
                color = _VANILLA_COLOR
            axis.errorbar(list(cells.values()), y["mean"], y["std"], label=name, capsize=2,
                          color=color,
                          marker=_MARKERS[number % len(_MARKERS)], markersize=4,
                          linewidth=1.1)  # fmt: skip
        style.use_log_scale(axis, "xy")
        ticks = sorted(
            {value for family in found for value in family.levels.get(knob, {}).values()}
        )
        axis.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axis.minorticks_off()
        axis.set_xlabel(KNOBS[knob].title, fontsize=9)
    style.label_rows(axes, UPDATE_NOISE)
    style.outside_legend(figure, axes)
    note = "Means and standard deviations over repetitions, last epoch."
    return style.finish_section(figure, _settings(last, found), f"{UPDATE_NOISE} by knob", note)


def _measured(frame: pd.DataFrame, metric: str) -> tuple[list[Family], pd.DataFrame]:
    """The families whose cells have the metric and the noise, and their last epochs."""
    last = final(frame)
    if NOISE not in last or metric not in last:
        return [], last
    last = last[last[NOISE].notna() & last[metric].notna()]
    return families(cells_of(last)), last


def _moments(last: pd.DataFrame, cells: dict[str, float], reading: str) -> pd.DataFrame:
    """Mean and standard deviation of a reading in each cell; a single repetition has none."""
    found = last.groupby("cell")[reading].agg(["mean", "std"]).reindex(list(cells))
    return found.assign(std=found["std"].fillna(0.0))


def _annotate(axis: Axes, family: Family, knob: str, x: pd.Series, y: pd.Series) -> None:
    """Writes the knob's smallest and largest value beside their cells, but not at the centre."""
    levels = family.levels[knob]
    for key in (min(levels, key=levels.__getitem__), max(levels, key=levels.__getitem__)):
        if key != family.centre:
            axis.annotate(f"{levels[key]:g}", (x[key], y[key]), (3, 3), textcoords="offset points",
                          fontsize=6, color=_COLORS[knob])  # fmt: skip


def _mark_centre(axis: Axes, last: pd.DataFrame, family: Family, metric: str) -> None:
    centre = last.loc[last["cell"] == family.centre, [NOISE, metric]].mean()
    axis.plot(*centre, "*", color="black", markersize=9, zorder=5, label="centre")


def _settings(last: pd.DataFrame, found: list[Family]) -> dict[str, Settings]:
    cells = cells_of(last)
    return {key: cells[key] for family in found for key in family.cells}
