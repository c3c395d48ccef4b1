"""Figures of the last epoch: the variance over entries, and metrics against it and by power.

Each function takes the readings of one data set and origin and returns a figure, or None where they
hold fewer than two cells to compare. Error bars are standard deviations over repetitions (n - 1).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from study.cells import (
    SYMBOLS,
    THERMODYNAMIC,
    VANILLA,
    agree,
    describe,
    groups_without,
    regime_groups,
    regimes,
    varied,
    with_loss,
)
from study.claims.paper import CHANGES
from study.figures import style
from study.figures.style import finish_section
from study.readings import Section
from study.tables import quadratic_fit
from study.titles import ENTRY_VARIANCE, reading_title
from thermo_ebm.plots import GRAY, new_figure

VARIANCE = "train_grad_var"
_LABEL_SIZE = 7.0  # points
_Box = tuple[float, float, float, float]  # left, bottom, right, top in points


# Boxplots.


def variance_by_batch(section: Section, reading: str = VARIANCE) -> Figure | None:
    """Boxplots of the last variance over entries of the vanilla model by batch size (8 and 16)."""
    groups = groups_without(with_loss(section.cells, VANILLA), "batch_size")
    return _boxplots(section, groups, "batch_size", "batch size", reading)


def variance_by_power(section: Section, reading: str = VARIANCE) -> Figure | None:
    """Boxplots of the last variance over entries of the thermodynamic model by p (9 and 17)."""
    groups = groups_without(with_loss(section.cells, THERMODYNAMIC), "loss.power")
    groups = _with_several(groups)
    return _boxplots(section, groups, "loss.power", "power p of the temperature schedule", reading)


def _boxplots(
    section: Section, groups: Sequence[pd.DataFrame], field: str, title: str, reading: str
) -> Figure | None:
    """One panel per group of cells; a box and its repetitions' points for each level."""
    last = section.last
    cells = pd.concat(groups) if groups else section.cells.iloc[:0]
    measured = last.loc[last[reading].notna(), "cell"] if reading in last else ()
    if cells.index.isin(measured).sum() < 2:
        return None
    names = [name for name in varied(cells) if name not in (field, "loss.name")]
    titles = [describe(group.iloc[0], names) if len(groups) > 1 else "" for group in groups]
    figure, axes = style.new_titled_grid(titles, 3, style.panel_size(len(groups)))
    levels = sorted(cells[field].unique())
    colors = regimes(cells).map(style.REGIME_COLORS)
    beside = max(group[field].value_counts().max() for group in groups)
    for axis, group in zip(axes, groups, strict=True):
        ordered = group[field].sort_values(kind="stable")
        places = ordered.groupby(ordered).cumcount() - (ordered.map(ordered.value_counts()) - 1) / 2
        for cell, level in ordered.items():
            values = last.loc[last["cell"] == cell, reading].dropna().to_numpy(float)
            place = levels.index(level) + 0.8 * places[cell] / beside
            _draw_box(axis, place, values, colors[cell], 0.5 / beside)
        axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    style.label_columns(axes, title)
    style.label_rows(axes, reading_title(reading))
    single = last[last["cell"].isin(cells.index)].groupby("cell").size().max() == 1
    note = (
        "One repetition per cell." if single else "Dots: repetitions. Box: quartiles; line: median."
    )
    if beside > 1:
        note += " Boxes side by side: cells that differ in other settings."
    heading = f"last {reading_title(reading)} by {title.split(' of ')[0]}"
    return finish_section(figure, section, cells, heading, note)


def _draw_box(axis: Axes, place: float, values: np.ndarray, color: str, width: float) -> None:
    boxes = axis.boxplot(
        [values],
        positions=[place],
        manage_ticks=False,  # panels share their axis: each would add its own
        widths=width,
        patch_artist=True,
        showfliers=False,
        medianprops={"color": "black"},
    )
    boxes["boxes"][0].set(facecolor=color, alpha=0.35, edgecolor=color)
    spread = (
        np.linspace(-0.24, 0.24, len(values)) * width if len(values) > 1 else [0.0] * len(values)
    )
    axis.scatter(np.add(place, spread), values, s=14, color=color, zorder=3)


# Metrics against the variance.


def metric_by_variance(section: Section, metric: str) -> Figure | None:
    """An image metric against the variance over entries, all regimes (10, 18, 22, 23).

    One panel per variant of the thermodynamic loss, the vanilla model in each.
    """
    variants = _variants(section.cells)
    if _num_measured(section, section.cells.index, metric) < 2 or not variants:
        return None
    names = _variant_fields(section.cells)
    titles = [describe(group.iloc[-1], names) if len(variants) > 1 else "" for group in variants]
    figure, axes = style.new_titled_grid(titles, 3, style.panel_size(len(variants)))
    curves: list[int] = []
    for axis, group in zip(axes, variants, strict=True):
        curves += _draw_regimes(axis, section, group, metric)
    style.label_columns(axes, ENTRY_VARIANCE)
    style.label_rows(axes, reading_title(metric))
    style.outside_legend(figure, axes)
    cells = _union(variants)
    title = f"{reading_title(metric)} against {ENTRY_VARIANCE}"
    return finish_section(figure, section, cells, title, _note(section, cells, metric, curves))


def metric_by_regime(section: Section, metric: str) -> Figure | None:
    """An image metric against the variance over entries, one panel per regime (11 and 19).

    All panels have the same scales, so that the regimes can be compared.
    """
    variants = _variants(section.cells)
    if _num_measured(section, section.cells.index, metric) < 2 or not variants:
        return None
    cells = _union(variants)
    groups = [
        (regime, group)
        for regime, group in regime_groups(cells)
        if _num_measured(section, group.index, metric)
    ]
    names = _variant_fields(cells)
    several = len(groups) > len({regime for regime, _ in groups})
    titles = []
    for regime, group in groups:
        of_variant = several and regime != VANILLA
        extra = describe(group.iloc[0], names) if of_variant else ""
        titles.append(f"{regime}{', ' if extra else ''}{extra}")
    figure, axes = style.new_titled_grid(titles, 3, (3.3, 3.0), size=9.0)
    curves: list[int] = []
    for axis, (_, group) in zip(axes, groups, strict=True):
        curves += _draw_regimes(axis, section, group, metric)
        axis.margins(x=0.18, y=0.12)
        axis.locator_params(nbins=5)
    style.label_columns(axes, ENTRY_VARIANCE)
    figure.draw_without_rendering()  # labels depend on where the layout puts the axes
    for axis, (regime, group) in zip(axes, groups, strict=True):  # once the scales are fixed
        field = "batch_size" if regime == VANILLA else "loss.power"
        labels = {cell: describe(fields, (field,)) for cell, fields in group.iterrows()}
        _annotate(axis, section, labels, metric)
    style.label_rows(axes, reading_title(metric))
    title = f"{reading_title(metric)} by regime"
    return finish_section(figure, section, cells, title, _note(section, cells, metric, curves))


def metric_by_power(section: Section, metric: str) -> Figure | None:
    """A metric or reading by p, one line per variant of the loss; the vanilla model as a level.

    This figure, which the paper does not have, shows whether another gradient or quadrature
    improves small p.
    """
    groups = [
        group
        for group in groups_without(with_loss(section.cells, THERMODYNAMIC), "loss.power")
        if _num_measured(section, group.index, metric) > 1
    ]
    if not groups:
        return None
    figure, (axis,) = new_figure(width=5.8, height=4.4)
    cells = pd.concat(groups)
    names = _variant_fields(cells)
    readings = section.last.groupby("cell")[metric].agg(["mean", "std"])
    for index, group in enumerate(groups):
        shift = 1.0 + 0.025 * (index - (len(groups) - 1) / 2)  # so that bars stand side by side
        powers = group["loss.power"].sort_values(kind="stable")
        values = readings.loc[powers.index]
        axis.errorbar(shift * powers, values["mean"], values["std"], marker="o", markersize=4,
                      linewidth=1.1, elinewidth=0.9, capsize=2,
                      color=style.VARIANT_COLORS[index % len(style.VARIANT_COLORS)],
                      label=describe(group.iloc[0], names) or "TI")  # fmt: skip
    level = _draw_vanilla_level(axis, section, cells["batch_size"].iloc[0], metric)
    ticks = sorted(cells["loss.power"].unique())
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{power:g}" for power in ticks])
    axis.minorticks_off()
    axis.set_xlabel("power p", fontsize=9)
    axis.set_ylabel(reading_title(metric), fontsize=9)
    style.outside_legend(figure, [axis], 7.5)
    cells = pd.concat([level, cells])
    note = _spread_note(section, cells)
    note += " Dashed: the vanilla model." if len(level) else ""
    return finish_section(figure, section, cells, f"{reading_title(metric)} by p", note)


def _draw_vanilla_level(
    axis: Axes, section: Section, batch_size: float, metric: str
) -> pd.DataFrame:
    """Draws the vanilla model of a batch size as a level; returns the cell drawn, if any."""
    vanilla = with_loss(section.cells, VANILLA)
    for cell in vanilla.index[vanilla["batch_size"] == batch_size]:
        values = section.last.loc[section.last["cell"] == cell, metric].dropna()
        if len(values):
            mean, sd = values.mean(), values.std()
            label = f"vanilla, batch = {batch_size:g}"
            axis.axhline(mean, color=GRAY, linestyle="--", label=label)
            if len(values) > 1:
                axis.axhspan(mean - sd, mean + sd, color=GRAY, alpha=0.12, linewidth=0)
            return vanilla.loc[[cell]]
    return vanilla.iloc[:0]


def changes_over_powers(section: Section, metric: str) -> Figure | None:
    """The changed N_t, K, K_z and eta over the first experiment's cells (12)."""
    changed = _changed(section.cells)
    if _num_measured(section, section.cells.index, metric) < 2 or not changed:
        return None
    base = section.cells.drop(index=list(changed))
    figure, (axis,) = new_figure(width=5.8, height=4.8)
    curves = _draw_regimes(axis, section, base, metric)
    for index, cell in enumerate(changed):
        color = style.CHANGE_COLORS[index % len(style.CHANGE_COLORS)]
        _draw_points(axis, section, [cell], metric, color=color, marker="D", label=cell)
    figure.draw_without_rendering()  # labels depend on where the layout puts the axes
    for regime, group in regime_groups(base):
        numbers = group["batch_size" if regime == VANILLA else "loss.power"]
        _annotate(axis, section, {cell: f"{value:g}" for cell, value in numbers.items()}, metric)
    axis.set_xlabel(ENTRY_VARIANCE, fontsize=9)
    axis.set_ylabel(reading_title(metric), fontsize=9)
    style.outside_legend(figure, [axis], 7.5)
    symbols = [SYMBOLS[name] for name in CHANGES if name in changed.values()]
    listed = " and ".join(filter(None, [", ".join(symbols[:-1]), symbols[-1]]))
    title = f"{reading_title(metric)}: changes to {listed} over the first experiment"
    note = _note(section, section.cells, metric, curves)
    note += " Numbers beside points: batch size (vanilla) or p (TI)."
    return finish_section(figure, section, section.cells, title, note)


def _changed(cells: pd.DataFrame) -> dict[str, str]:
    """Returns the cells that differ from the usual N_t, K, K_z or eta alone, and in which."""
    groups = groups_without(with_loss(cells, THERMODYNAMIC), "loss.power")
    usual = [group.iloc[0] for group in groups if len(group) > 1]
    changed: dict[str, str] = {}
    for group in groups:
        for reference in usual if len(group) == 1 else ():
            fields = [name for name in CHANGES if not agree(group, reference, [name]).all()]
            if len(fields) == 1:
                changed.setdefault(group.index[0], fields[0])
    return changed


# What panels are made of.


def _variants(cells: pd.DataFrame) -> list[pd.DataFrame]:
    """Each variant of the thermodynamic loss with several powers, and the vanilla cells with it."""
    vanilla = with_loss(cells, VANILLA)
    groups = groups_without(with_loss(cells, THERMODYNAMIC), "loss.power")
    variants = _with_several(groups)
    if not variants:
        return groups_without(vanilla, "batch_size")
    return [pd.concat([vanilla, group]) for group in variants]


def _with_several(groups: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The groups of several cells; where there is none, all cells together, not a panel each."""
    return [group for group in groups if len(group) > 1] or ([pd.concat(groups)] if groups else [])


def _union(variants: Sequence[pd.DataFrame]) -> pd.DataFrame:
    cells = pd.concat(variants)
    return cells[~cells.index.duplicated()]


def _variant_fields(cells: pd.DataFrame) -> list[str]:
    return [name for name in varied(with_loss(cells, THERMODYNAMIC)) if name != "loss.power"]


def _draw_regimes(axis: Axes, section: Section, cells: pd.DataFrame, metric: str) -> list[int]:
    """Draws points with error bars of each regime, and the quadratic through their means.

    Returns:
      The number of cells that each curve goes through.
    """
    numbers = []
    for regime, group in regime_groups(cells):
        color = style.REGIME_COLORS[regime]
        marker = style.REGIME_MARKERS[regime]
        means = _draw_points(
            axis, section, group.index, metric, color=color, marker=marker, label=regime
        )
        fit = quadratic_fit(means[VARIANCE], means[metric])
        if fit is not None:
            x = np.linspace(fit.low, fit.high, 100)
            y = np.polynomial.polynomial.polyval(x, fit.coefficients)
            line = "-" if fit.num_cells > 3 else "--"
            axis.plot(x, y, color=color, linewidth=1.2, linestyle=line)
            numbers.append(fit.num_cells)
    return numbers


def _draw_points(
    axis: Axes, section: Section, cells: Iterable[str], metric: str, **looks: Any
) -> pd.DataFrame:
    """Draws the means of cells with bars of one standard deviation; returns the means."""
    by_cell = section.last.groupby("cell")[[VARIANCE, metric]]
    means, deviations = (values.loc[list(cells)] for values in (by_cell.mean(), by_cell.std()))
    axis.errorbar(means[VARIANCE], means[metric], deviations[metric], deviations[VARIANCE],
                  linestyle="none", markersize=5, elinewidth=0.9, capsize=2, **looks)  # fmt: skip
    return means


def _num_measured(section: Section, cells: Iterable[str], metric: str) -> int:
    """Returns how many of the cells have a value of the metric to draw."""
    if metric not in section.last:
        return 0
    measured = section.last.dropna(subset=[metric, VARIANCE])["cell"]
    return len(set(measured) & set(cells))


def _spread_note(section: Section, cells: pd.DataFrame) -> str:
    """Says what points and bars are: there is no deviation of a single repetition."""
    counts = section.last.groupby("cell").size()[list(cells.index)]
    low, high = counts.min(), counts.max()
    if high == 1:
        return "One repetition per cell."
    span = f"{low}" if low == high else f"{low} to {high}"
    return f"Means and standard deviations over {span} repetitions."


def _note(section: Section, cells: pd.DataFrame, metric: str, curves: Sequence[int]) -> str:
    note = _spread_note(section, cells)
    if curves:
        note += " Curves: quadratics through the cells' means"
        three = "through three points, which any quadratic fits"
        if min(curves) > 3:
            note += "."
        elif max(curves) > 3:
            note += f" (dashed: {three})."
        else:
            note += f" (each {three})."
    missing = len(cells) - _num_measured(section, cells.index, metric)
    return f"{note} Not evaluated: {missing} of {len(cells)} cells." if missing else note


# Labels beside points.


def _annotate(axis: Axes, section: Section, labels: Mapping[str, str], metric: str) -> None:
    """Writes a label beside each cell's mean, where it covers least of points and other labels."""
    means = section.last.groupby("cell")[[VARIANCE, metric]].mean().loc[list(labels)].dropna()
    axis.autoscale_view()
    points = axis.transData.transform(means.to_numpy()) * 72 / axis.figure.dpi
    taken = [_box(point, (-4.0, -4.0), 8.0, 8.0) for point in points]
    left, bottom, right, top = np.multiply(axis.bbox.extents, 72 / axis.figure.dpi).tolist()
    far = 1e4  # beyond any figure: a label does not leave the axes
    taken += [(-far, -far, left, far), (right, -far, far, far)]
    taken += [(-far, -far, far, bottom), (-far, top, far, far)]
    for cell, point, place in zip(means.index, points, means.to_numpy(), strict=True):
        width = 0.6 * _LABEL_SIZE * len(labels[cell])
        offsets = [(x, y) for y in (4.0, -11.0, 13.0, -20.0) for x in (5.0, -5.0 - width)]
        boxes = [_box(point, offset, width, _LABEL_SIZE) for offset in offsets]
        covered = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(covered))
        taken.append(boxes[best])
        note = axis.annotate(
            labels[cell],
            place,
            xytext=offsets[best],
            textcoords="offset points",
            fontsize=_LABEL_SIZE,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
            zorder=5,
        )
        note.set_in_layout(False)  # a long label must not squeeze the axes


def _box(point: np.ndarray, offset: tuple[float, float], width: float, height: float) -> _Box:
    x, y = point + offset
    return x, y, x + width, y + height


def _overlap(first: _Box, second: _Box) -> float:
    """The area that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
