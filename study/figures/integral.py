"""Figures of the thermodynamic integral: temperature schedules, and E_t with each cell's estimate.

Each function returns a figure, or None where there is nothing to draw.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures import style
from study.settings import (
    THERMODYNAMIC,
    Settings,
    cells_of,
    provenance,
    regime,
    section_title,
    short_labels,
)

_LETTERS = {"left": "L", "trapezium": "T", "right": "R"}
_STEPS: dict[str, Literal["pre", "post"]] = {
    "left": "post",
    "right": "pre",
}  # where the sum's rectangles stand
_KL_SIGNS = {"difference": -1.0, "sum": 1.0}  # of KL(p_(i+1), p_i) beside KL(p_i, p_(i+1))


class Sums(NamedTuple):
    """The thermodynamic integral by three rules, nats per image."""

    left: float  # a lower bound on log p(x), as E_t rises with t
    trapezium: float
    right: float  # an upper bound


class Estimate(NamedTuple):
    """What a run's configuration makes of a table of temperatures."""

    label: str  # such as "T + KL": the trapezium and its correction
    value: float  # nats per image


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
    style.outside_legend(figure, [axis])
    title = f"{section_title(cells[0])}: temperature schedules"
    note = f"t_i = (i / N_t)^p; N_t = {usual:g}{' where not said otherwise' if others else ''}."
    return style.finish(figure, title, f"{note} {provenance(cells)}")


def sums(table: pd.DataFrame) -> Sums:
    """Sums the integral of one table of temperatures by each rule.

    Args:
      table: one row per temperature, in order: temperature and expected_log_likelihood.
    """
    steps = np.diff(table["temperature"].to_numpy(float))
    e = table["expected_log_likelihood"].to_numpy(float)
    left, right = float(np.sum(steps * e[:-1])), float(np.sum(steps * e[1:]))
    return Sums(left, (left + right) / 2.0, right)


def configured_estimate(table: pd.DataFrame, settings: Settings) -> Estimate | None:
    """The estimate that the cell's quadrature, KL form and KL weight make (eq. 24 and 27).

    sum_i w_i E_i + eta / 2 sum_i [KL(p_i, p_(i+1)) -+ KL(p_(i+1), p_i)] for the trapezium;
    left + eta sum_i KL(p_i, p_(i+1)) and right - eta sum_i KL(p_(i+1), p_i) for the other two.

    Args:
      table: as in `sums`; with kl_forward and kl_backward between a row and the next (the last
        row's are not used), and the quadrature's `weight` of each row where it is recorded.
      settings: of the cell.

    Returns:
      None for a quadrature whose weights are neither recorded nor known here.
    """
    name = settings.quadrature or ""
    if "weight" in table and table["weight"].notna().all():
        value = float(np.sum(table["weight"] * table["expected_log_likelihood"]))
    elif name in _LETTERS:
        value = getattr(sums(table), name)
    else:
        return None
    correction = _correction(table, settings)
    label = _LETTERS.get(name, name)
    if correction is None:
        return Estimate(label, value)
    weight = settings.kl_weight if settings.kl_weight is not None else 1.0
    words = " (sum)" if settings.kl_form == "sum" else ""
    factor = "" if weight == 1.0 else f"{weight:g} "
    return Estimate(f"{label} + {factor}KL{words}", value + weight * correction)


def integral(frame: pd.DataFrame, temperatures: pd.DataFrame) -> Figure | None:
    """E_t against t with the areas that each cell's quadrature sums: how p moves its error.

    Args:
      frame: the readings.
      temperatures: rows of the last epoch of temperatures.csv with `cell`; averaged over
        repetitions.
    """
    if temperatures.empty:
        return None
    cells = {k: s for k, s in cells_of(frame).items() if k in set(temperatures["cell"])}
    total = len(cells)
    cells = dict(list(cells.items())[: style.MAX_PANELS])
    if not cells:
        return None
    labels = short_labels(cells_of(frame))
    figure, axes = style.new_grid(len(cells), 4, (2.7, 2.5))
    names = ("temperature", "expected_log_likelihood", "kl_forward", "kl_backward", "weight")
    columns = [name for name in names if name in temperatures]
    drawn = []
    for axis, key in zip(axes, cells, strict=True):
        rows = temperatures[temperatures["cell"] == key]
        table = rows.groupby("index")[columns].mean().sort_index()
        drawn.append(_draw_integral(axis, table, cells[key]))
        axis.set_title(style.in_pairs(labels[key]), fontsize=8)
    style.outer_labels(figure, axes, "temperature t", "E_t (nats)")
    settings = list(cells.values())
    several = temperatures.groupby("cell")["repetition"].nunique().max() > 1
    title = f"{section_title(settings[0])}: the thermodynamic integral"
    note = _caption([estimate for estimate in drawn if estimate is not None], several)
    note += style.panels_note(total)
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def _correction(table: pd.DataFrame, settings: Settings) -> float | None:
    """The KL correction of the cell's quadrature at weight 1, nats; None where there is none."""
    sign = _KL_SIGNS.get(settings.kl_form or "")
    if sign is None or not {"kl_forward", "kl_backward"} <= set(table.columns):
        return None
    forward, backward = (float(table[f"kl_{way}"].iloc[:-1].sum(skipna=False))
                         for way in ("forward", "backward"))  # fmt: skip
    if not np.isfinite([forward, backward]).all():
        return None
    if settings.quadrature == "left":
        return forward
    return -backward if settings.quadrature == "right" else (forward + sign * backward) / 2.0


def _caption(estimates: list[Estimate], several: bool) -> str:
    mean = ", mean over repetitions" if several else ""
    note = (
        f"E_t on validation images at the last epoch{mean}; L, T, R: left, trapezium and right sum"
    )
    if estimates:
        note += "; shaded: the area that the run's own quadrature sums; bold: its estimate"
    if any("KL" in estimate.label for estimate in estimates):
        note += " with the KL correction of its own form and weight"
    return f"{note}; all in nats per image."


def _draw_integral(axis: Axes, table: pd.DataFrame, settings: Settings) -> Estimate | None:
    color = style.REGIME_COLORS[regime(settings)]
    t = table["temperature"].to_numpy(float)
    e = table["expected_log_likelihood"].to_numpy(float)
    base = min(e.min(), 0.0)
    if settings.quadrature in _LETTERS:
        axis.fill_between(t, e, np.full_like(e, base), color=color, alpha=0.18, linewidth=0,
                          step=_STEPS.get(settings.quadrature or ""))  # fmt: skip
    axis.vlines(t, base, e, color=color, linewidth=0.7)
    axis.plot(t, e, marker="o", markersize=3, linewidth=1.1, color=color)
    by_rule = sums(table)
    estimate = configured_estimate(table, settings)
    text = f"L {by_rule.left:.4g}\nT {by_rule.trapezium:.4g}\nR {by_rule.right:.4g}"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    place: dict[str, Any] = {
        "transform": axis.transAxes,
        "fontsize": 7,
        "ha": "right",
        "va": "bottom",
    }
    if estimate is not None:
        shown = f"{estimate.label} {estimate.value:.4g}"
        axis.text(0.97, 0.04, shown, fontweight="bold", bbox=box, **place)
    axis.text(0.97, 0.17, text, bbox=box, **place)
    return estimate
