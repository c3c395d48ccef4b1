"""Figures of the thermodynamic integral: temperature schedules, and E_t with each cell's estimate.

Each function returns a figure, or None where there is nothing to draw.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.cells import THERMODYNAMIC, regimes, with_loss
from study.figures import style
from study.readings import Section
from thermo_ebm.plots import new_figure
from thermo_ebm.thermo.integral import (
    quadrature_correction,
    quadrature_weights,
    thermodynamic_integral,
    trapezium_weights,
)
from thermo_ebm.thermo.schedule import Schedule, power_schedule
from thermo_ebm.types import Array

RULES = {"left": "L", "trapezium": "T", "right": "R"}


class IntegralEstimate(NamedTuple):
    """What a run's configuration makes of a table of temperatures."""

    label: str  # such as "T + KL": the trapezium and its correction
    value: float  # nats per image


def temperature_schedules(section: Section) -> Figure | None:
    """The schedules t_i = (i/N_t)^p of the thermodynamic cells (5)."""
    cells = with_loss(section.cells, THERMODYNAMIC)
    pairs = sorted(
        set(cells[["loss.power", "loss.num_temperatures"]].itertuples(index=False, name=None))
    )
    if not pairs:
        return None
    figure, (axis,) = new_figure(width=5.6, height=4.0)
    powers = sorted({power for power, _ in pairs})
    shades = colormaps["viridis"](np.linspace(0.05, 0.85, len(powers)))  # dark (low) to light
    colors = dict(zip(powers, shades, strict=True))
    numbers = [number for _, number in pairs]
    usual = max(set(numbers), key=numbers.count)
    unusual = sorted(set(numbers) - {usual})
    for power, number in pairs:
        deviates = number != usual
        label = f"p = {power:g}, N_t = {number:g}" if deviates else f"p = {power:g}"
        line = ("--", ":", "-.")[unusual.index(number) % 3] if deviates else "-"
        index = np.arange(int(number) + 1) / number
        axis.plot(index, power_schedule(int(number), power), line, marker="o", markersize=3.5,
                  linewidth=1.2, color=colors[power], label=label)  # fmt: skip
    axis.set_xlabel("i / N_t", fontsize=9)
    axis.set_ylabel("temperature t_i", fontsize=9)
    style.outside_legend(figure, [axis])
    note = f"t_i = (i / N_t)^p; N_t = {usual:g}{' where not said otherwise' if unusual else ''}."
    return style.finish_section(figure, section, cells, "temperature schedules", note)


def sums(table: pd.DataFrame) -> dict[str, float]:
    """Sums the integral of one table of temperatures by each of `RULES`, nats per image.

    Args:
      table: one row per temperature, in order: temperature and expected_log_likelihood.
    """
    temperatures, expected = _columns(table, "temperature", "expected_log_likelihood")
    return {
        rule: float(thermodynamic_integral(temperatures, expected, quadrature=rule))
        for rule in RULES
    }


def configured_estimate(table: pd.DataFrame, cell: pd.Series) -> IntegralEstimate | None:
    """The estimate that the cell's quadrature, KL form and KL weight make (eq. 24 and 27).

    Args:
      table: as in `sums`; with kl_forward and kl_backward between a row and the next (the last
        row's are not used), and the quadrature's `weight` of each row where it is recorded.
      cell: its configuration fields.

    Returns:
      None for a quadrature whose weights are neither recorded nor among `RULES`.
    """
    quadrature = cell["loss.quadrature"]
    temperatures, expected = _columns(table, "temperature", "expected_log_likelihood")
    schedule = Schedule(temperatures, temperatures)  # slopes are not used
    weights = configured_weights(table, quadrature)
    if weights is None:
        return None
    value = float(jnp.sum(weights * expected))
    label = RULES.get(quadrature, quadrature)
    divergences = table.reindex(columns=["kl_forward", "kl_backward"]).iloc[:-1]
    has_kl = cell["loss.kl_form"] in ("difference", "sum") and np.isfinite(divergences).all(
        axis=None
    )
    if not has_kl:
        return IntegralEstimate(label, value)
    of_rule = quadrature if quadrature in RULES else "trapezium"
    forward, backward = _columns(divergences, "kl_forward", "kl_backward")
    correction = quadrature_correction(
        schedule, expected, forward, backward, cell["loss.kl_form"], of_rule
    )
    if of_rule != quadrature:  # first to the trapezium
        correction += jnp.sum((trapezium_weights(schedule) - weights) * expected)
    eta = 1.0 if np.isnan(cell["loss.kl_weight"]) else cell["loss.kl_weight"]
    words = " (sum)" if cell["loss.kl_form"] == "sum" else ""
    label += f" + {'' if eta == 1.0 else f'{eta:g} '}KL{words}"
    return IntegralEstimate(label, value + eta * float(correction))


def configured_weights(table: pd.DataFrame, quadrature: str) -> Array | None:
    """The quadrature's weight of each row, recorded or of one of `RULES`; None if unknown."""
    if "weight" in table and table["weight"].notna().all():
        return _columns(table, "weight")[0]
    if quadrature not in RULES:
        return None
    (temperatures,) = _columns(table, "temperature")
    return quadrature_weights(quadrature, Schedule(temperatures, temperatures))


def integral(section: Section, temperatures: pd.DataFrame) -> Figure | None:
    """E_t against t with the areas that each cell's quadrature sums: how p moves its error.

    Args:
      section: the readings.
      temperatures: rows of the last epoch of temperatures.csv with `cell`; averaged over
        repetitions.
    """
    if temperatures.empty:
        return None
    temperatures = temperatures[temperatures["run"].isin(section.last["run"])]
    cells = section.cells[section.cells.index.isin(temperatures["cell"])]
    total = len(cells)
    cells = cells.iloc[: style.MAX_PANELS]
    if cells.empty:
        return None
    figure, axes = style.new_titled_grid([str(cell) for cell in cells.index], 4, (2.7, 2.5))
    names = ("temperature", "expected_log_likelihood", "kl_forward", "kl_backward", "weight")
    columns = [name for name in names if name in temperatures]
    colors = regimes(cells).map(style.REGIME_COLORS)
    estimates = []
    for axis, (label, cell) in zip(axes, cells.iterrows(), strict=True):
        rows = temperatures[temperatures["cell"] == label]
        table = rows.groupby("index")[columns].mean().sort_index()
        estimates.append(_draw_integral(axis, table, cell, colors[label]))
    style.outer_labels(figure, axes, "temperature t", "E_t (nats)")
    several = temperatures.groupby("cell")["repetition"].nunique().max() > 1
    note = _caption([estimate for estimate in estimates if estimate is not None], several)
    note += style.panels_note(total)
    return style.finish_section(figure, section, cells, "the thermodynamic integral", note)


def _columns(table: pd.DataFrame, *names: str) -> list[jnp.ndarray]:
    return [jnp.asarray(table[name].to_numpy(float)) for name in names]


def _caption(estimates: list[IntegralEstimate], several: bool) -> str:
    mean = ", mean over repetitions" if several else ""
    note = (
        f"E_t on validation images at the last epoch{mean}; L, T, R: left, trapezium and right sum"
    )
    if estimates:
        note += (
            "; shaded: the area that the run's own quadrature sums, for rules other than the "
            "trapezium in t each E_t as wide as its weight; bold: its estimate"
        )
    if any("KL" in estimate.label for estimate in estimates):
        note += " with the KL correction of its own form and weight"
    return f"{note}; all in nats per image."


def _draw_integral(
    axis: Axes, table: pd.DataFrame, cell: pd.Series, color: str
) -> IntegralEstimate | None:
    t = table["temperature"].to_numpy(float)
    e = table["expected_log_likelihood"].to_numpy(float)
    base = min(e.min(), 0.0)
    weights = configured_weights(table, cell["loss.quadrature"])
    if cell["loss.quadrature"] == "trapezium":
        x, y = t, e
    elif weights is not None:
        x = np.repeat(np.append(0.0, np.cumsum(weights)), 2)[1:-1]
        y = np.repeat(e, 2)
    else:
        x, y = np.empty(0), np.empty(0)
    axis.fill_between(x, y, np.full_like(y, base), color=color, alpha=0.18, linewidth=0)
    axis.vlines(t, base, e, color=color, linewidth=0.7)
    axis.plot(t, e, marker="o", markersize=3, linewidth=1.1, color=color)
    text = "\n".join(f"{RULES[rule]} {value:.4g}" for rule, value in sums(table).items())
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    place: dict[str, Any] = {
        "transform": axis.transAxes,
        "fontsize": 7,
        "ha": "right",
        "va": "bottom",
    }
    estimate = configured_estimate(table, cell)
    if estimate is not None:
        line = f"{estimate.label} {estimate.value:.4g}"
        axis.text(0.97, 0.04, line, fontweight="bold", bbox=box, **place)
    axis.text(0.97, 0.17, text, bbox=box, **place)
    return estimate
