"""Figures of image metrics: against the variance over entries, by power, and experiment 2.

Each function takes the readings of one data set and origin and returns a figure, or None where they
hold fewer than two cells to compare. Error bars are standard deviations over repetitions (n - 1).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.figures import style
from study.figures.labels import annotate
from study.figures.style import finish_section
from study.names import ENTRY_VARIANCE, reading_title
from study.readings import final
from study.settings import (
    SYMBOLS,
    THERMODYNAMIC,
    VANILLA,
    Settings,
    cells_of,
    describe,
    group_cells,
    short_labels,
    varied,
)
from study.tables import quadratic_fit, regime_groups

CHANGED = ("num_temperatures", "posterior_steps", "kl_weight", "prior_steps")


def metric_by_variance(frame: pd.DataFrame, metric: str) -> Figure | None:
    """An image metric against the variance over entries, all regimes (10, 18, 22, 23).

    One panel per variant of the thermodynamic loss, the vanilla model in each.
    """
    last = final(frame)
    variants = _variants(last)
    if not _comparable(last, metric) or not variants:
        return None
    figure, axes = style.new_grid(len(variants), 3, style.panel_size(len(variants)))
    names = _variant_names(cells_of(last))
    curves: list[int] = []
    for axis, (settings, group) in zip(axes, variants, strict=True):
        curves += _draw_regimes(axis, last, group, metric)
        if len(variants) > 1:
            axis.set_title(style.wrapped(describe(settings, names)), fontsize=8)
        axis.set_xlabel(ENTRY_VARIANCE, fontsize=9)
    style.label_rows(axes, reading_title(metric))
    style.outside_legend(figure, axes)
    cells = _members(variants)
    title = f"{reading_title(metric)} against {ENTRY_VARIANCE}"
    return finish_section(figure, cells, title, _note(last, cells, metric, curves))


def metric_by_variance_regimes(frame: pd.DataFrame, metric: str) -> Figure | None:
    """An image metric against the variance over entries, one panel per regime (11 and 19).

    All panels have the same scales, so that the regimes can be compared.
    """
    last = final(frame)
    variants = _variants(last)
    if not _comparable(last, metric) or not variants:
        return None
    cells = _members(variants)
    groups = [group for group in regime_groups(cells) if _points_of(last, group[2], metric)]
    figure, axes = style.new_grid(len(groups), 3, (3.3, 3.0))
    names = _variant_names(cells)
    several = len(groups) > len({name for name, _, _ in groups})
    curves: list[int] = []
    for axis, (name, settings, group) in zip(axes, groups, strict=True):
        curves += _draw_group(axis, last, group, metric, name)
        axis.margins(x=0.18, y=0.12)
        extra = describe(settings, names) if several and settings.loss != VANILLA else ""
        axis.set_title(style.wrapped(f"{name}{', ' if extra else ''}{extra}"), fontsize=9)
        axis.set_xlabel(ENTRY_VARIANCE, fontsize=9)
        axis.locator_params(nbins=5)
    for axis, (_, settings, group) in zip(axes, groups, strict=True):  # once the scales are known
        shown = "batch_size" if settings.loss == VANILLA else "power"
        annotate(axis, last, {key: describe(s, (shown,)) for key, s in group.items()}, metric)
    style.label_rows(axes, reading_title(metric))
    title = f"{reading_title(metric)} by regime"
    return finish_section(figure, cells, title, _note(last, cells, metric, curves))


def metric_by_power(frame: pd.DataFrame, metric: str) -> Figure | None:
    """A metric or reading by p, one line per variant of the loss; the vanilla model as a level.

    This figure, which the paper does not have, shows whether another gradient or quadrature
    improves small p.
    """
    last = final(frame)
    cells = cells_of(last)
    vanilla, groups = _power_variants(cells)
    groups = [(first, group) for first, group in groups if _points_of(last, group, metric) > 1]
    if not groups:
        return None
    figure, (axis,) = style.new_figure(width=7.6, height=4.4)
    names = _variant_names(_members(groups))
    for index, (first, group) in enumerate(groups):
        shift = 1.0 + 0.025 * (index - (len(groups) - 1) / 2)  # so that bars stand side by side
        ordered = sorted(group, key=lambda key: group[key].power or 0.0)
        parts = [last.loc[last["cell"] == key, metric] for key in ordered]
        powers = [shift * (group[key].power or 0.0) for key in ordered]
        axis.errorbar(powers, [p.mean() for p in parts], [p.std() for p in parts], marker="o",
                      markersize=4, linewidth=1.1, elinewidth=0.9, capsize=2,
                      color=style.VARIANT_COLORS[index % len(style.VARIANT_COLORS)],
                      label=describe(first, names) or "TI")  # fmt: skip
    level = _vanilla_level(axis, last, vanilla, groups[0][0].batch_size, metric)
    ticks = sorted({s.power for _, group in groups for s in group.values() if s.power})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{power:g}" for power in ticks])
    axis.minorticks_off()
    axis.set_xlabel("power p", fontsize=9)
    axis.set_ylabel(reading_title(metric), fontsize=9)
    style.outside_legend(figure, [axis], 7.5)
    members = {**level, **_members(groups)}
    note = f"{_spread_note(last, members)}{' Dashed: the vanilla model.' if level else ''}"
    return finish_section(figure, members, f"{reading_title(metric)} by p", note)


def changes_over_powers(frame: pd.DataFrame, metric: str) -> Figure | None:
    """The changed N_t, K, K_z and eta over the first experiment's cells (12)."""
    last = final(frame)
    cells = cells_of(last)
    changed = _changed(cells)
    if not _comparable(last, metric) or not changed:
        return None
    base = {key: s for key, s in cells.items() if key not in changed}
    figure, (axis,) = style.new_figure(width=7.6, height=4.8)
    curves = _draw_regimes(axis, last, base, metric)
    labels = short_labels(cells)
    for index, key in enumerate(changed):
        color = style.CHANGE_COLORS[index % len(style.CHANGE_COLORS)]
        _points(axis, last, [key], metric, color, "D", labels[key])
    numbers = {k: s.batch_size if s.loss == VANILLA else s.power for k, s in base.items()}
    for _, _, group in regime_groups(base):
        annotate(axis, last, {key: f"{numbers[key]:g}" for key in group}, metric)
    axis.set_xlabel(ENTRY_VARIANCE, fontsize=9)
    axis.set_ylabel(reading_title(metric), fontsize=9)
    style.outside_legend(figure, [axis], 7.5)
    beside = "Numbers beside points: batch size (vanilla) or p (TI)."
    several = [SYMBOLS[name] for name in CHANGED if name in changed.values()]
    listed = " and ".join(filter(None, [", ".join(several[:-1]), several[-1]]))
    title = f"{reading_title(metric)}: changes to {listed} over the first experiment"
    note = f"{_note(last, cells, metric, curves)} {beside}"
    return finish_section(figure, cells, title, note)


def _vanilla_level(
    axis: Axes, last: pd.DataFrame, vanilla: Mapping[str, Settings], batch_size: float, metric: str
) -> dict[str, Settings]:
    """Draws the vanilla model of a batch size as a level; returns the cell drawn, if any."""
    for key, settings in vanilla.items():
        values = last.loc[last["cell"] == key, metric].dropna()
        if settings.batch_size == batch_size and len(values):
            mean, sd = values.mean(), values.std()
            label = f"vanilla, batch = {batch_size:g}"
            axis.axhline(mean, color=style.GRAY, linestyle="--", label=label)
            if len(values) > 1:
                axis.axhspan(mean - sd, mean + sd, color=style.GRAY, alpha=0.12, linewidth=0)
            return {key: settings}
    return {}


def _draw_regimes(
    axis: Axes, last: pd.DataFrame, cells: Mapping[str, Settings], metric: str
) -> list[int]:
    groups = regime_groups(dict(cells))
    return [n for name, _, group in groups for n in _draw_group(axis, last, group, metric, name)]


def _draw_group(
    axis: Axes, last: pd.DataFrame, group: Mapping[str, Settings], metric: str, name: str
) -> list[int]:
    """Draws points with error bars of one regime, and the quadratic through their means.

    Returns:
      The number of cells that the curve goes through, in a list; empty without a curve.
    """
    color, marker = style.REGIME_COLORS[name], style.REGIME_MARKERS[name]
    means = _points(axis, last, group, metric, color, marker, name)
    fit = quadratic_fit([x for x, _ in means], [y for _, y in means])
    if fit is None:
        return []
    x = np.linspace(fit.low, fit.high, 100)
    y = np.polynomial.polynomial.polyval(x, fit.coefficients)
    axis.plot(x, y, color=color, linewidth=1.2, linestyle="-" if fit.num_cells > 3 else "--")
    return [fit.num_cells]


def _points(
    axis: Axes,
    last: pd.DataFrame,
    keys: Iterable[str],
    metric: str,
    color: str,
    marker: str,
    label: str,
) -> list[tuple[float, float]]:
    parts = [last[last["cell"] == key] for key in keys]
    x = [part["train_grad_var"].mean() for part in parts]
    y = [part[metric].mean() for part in parts]
    x_error = [part["train_grad_var"].std() for part in parts]
    y_error = [part[metric].std() for part in parts]
    axis.errorbar(
        x,
        y,
        y_error,
        x_error,
        label=label,
        color=color,
        marker=marker,
        linestyle="none",
        markersize=5,
        elinewidth=0.9,
        capsize=2,
    )
    return list(zip(x, y, strict=True))


def _variants(last: pd.DataFrame) -> list[tuple[Settings, dict[str, Settings]]]:
    """Each variant of the thermodynamic loss with several powers, and the vanilla cells with it."""
    vanilla, groups = _power_variants(cells_of(last))
    several = [(first, group) for first, group in groups if len(group) > 1] or groups
    if not several:
        return group_cells(vanilla, ("batch_size",))
    return [(first, {**vanilla, **group}) for first, group in several]


def _power_variants(
    cells: Mapping[str, Settings],
) -> tuple[dict[str, Settings], list[tuple[Settings, dict[str, Settings]]]]:
    """Returns the vanilla cells, and the thermodynamic ones grouped by all but their power."""
    vanilla = {key: s for key, s in cells.items() if s.loss == VANILLA}
    thermodynamic = {key: s for key, s in cells.items() if s.loss == THERMODYNAMIC}
    return vanilla, group_cells(thermodynamic, ("power",))


def _members(variants: Sequence[tuple[Settings, dict[str, Settings]]]) -> dict[str, Settings]:
    return {key: s for _, group in variants for key, s in group.items()}


def _changed(cells: Mapping[str, Settings]) -> dict[str, str]:
    """Returns the cells that differ from the usual N_t, K, K_z or eta alone, and in which."""
    groups = group_cells({k: s for k, s in cells.items() if s.loss == THERMODYNAMIC}, ("power",))
    largest = max((len(group) for _, group in groups), default=0)
    if largest < 2:
        return {}
    base = [settings for settings, group in groups if len(group) > 1]
    singles = [key for _, group in groups if len(group) == 1 for key in group]
    changed: dict[str, str] = {}
    for key in singles:
        for usual in base:
            names = [n for n in CHANGED if getattr(usual, n) != getattr(cells[key], n)]
            if len(names) == 1:
                changed.setdefault(key, names[0])
    return changed


def _variant_names(cells: Mapping[str, Settings]) -> list[str]:
    thermodynamic = [s for s in cells.values() if s.loss == THERMODYNAMIC]
    return [name for name in varied(thermodynamic) if name != "power"]


def _comparable(last: pd.DataFrame, metric: str) -> bool:
    """Whether at least two cells have the metric: one point alone compares nothing."""
    return _points_of(last, cells_of(last), metric) > 1


def _points_of(last: pd.DataFrame, cells: Iterable[str], metric: str) -> int:
    """Returns how many of the cells have a value of the metric to draw."""
    if metric not in last:
        return 0
    both = last[metric].notna() & last["train_grad_var"].notna()
    return len(set(last.loc[both, "cell"]) & set(cells))


def _spread_note(last: pd.DataFrame, cells: Mapping[str, Settings]) -> str:
    """Says what points and bars are: there is no deviation of a single repetition."""
    counts = sorted({len(part) for key, part in last.groupby("cell") if key in cells})
    if counts[-1] == 1:
        return "One repetition per cell."
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Means and standard deviations over {span} repetitions."


def _note(
    last: pd.DataFrame, cells: Mapping[str, Settings], metric: str, curves: Sequence[int]
) -> str:
    note = _spread_note(last, cells)
    if curves:
        note += " Curves: quadratics through the cells' means"
        three = "through three points, which any quadratic fits"
        if min(curves) > 3:
            note += "."
        elif max(curves) > 3:
            note += f" (dashed: {three})."
        else:
            note += f" (each {three})."
    missing = len(cells) - _points_of(last, cells, metric)
    return f"{note} Not evaluated: {missing} of {len(cells)} cells." if missing else note
