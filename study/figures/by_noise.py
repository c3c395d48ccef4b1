"""Figures of experiments on the gradient's noise: metrics against it, and it against each factor.

Each function takes the readings of one data set and origin and returns a figure, or None where they
hold no such experiment. Error bars are standard deviations over repetitions (n - 1).
"""

import pandas as pd
from matplotlib.figure import Figure

from study.cells import VANILLA
from study.figures import style
from study.noise import FACTORS, families
from study.readings import Section
from study.titles import NOISE, UPDATE_NOISE, reading_title

_COLORS = dict(zip(FACTORS, style.VARIANT_COLORS, strict=False))
_VANILLA_COLOR = style.REGIME_COLORS["vanilla"]
_OTHER_COLORS = [color for color in style.VARIANT_COLORS if color != _VANILLA_COLOR]
_MARKERS = ("o", "s", "^", "D", "v", "P")


def metric_by_noise(section: Section, metric: str) -> Figure | None:
    """A metric or reading against the noise of the update, one colour per factor.

    One panel per variant of the loss, all with the same scales. If noise alone decides the metric,
    the lines of a panel lie on each other.
    """
    means, deviations = _moments(section, metric)
    experiments = families(section.cells.loc[means.index])
    if not experiments:
        return None
    titles = [family.name for family in experiments]
    figure, axes = style.new_titled_grid(titles, 3, style.panel_size(len(experiments)), size=9.0)
    for axis, family in zip(axes, experiments, strict=True):
        for factor, levels in family.levels.items():
            cells = list(levels)
            x, y = means.loc[cells, NOISE], means.loc[cells, metric]
            axis.errorbar(x, y, deviations.loc[cells, metric], deviations.loc[cells, NOISE],
                          label=FACTORS[factor].title, color=_COLORS[factor], marker=".",
                          linewidth=1.1, elinewidth=0.5, capsize=2)  # fmt: skip
            for cell in (cells[0], cells[-1]):  # the factor's smallest and largest value
                if cell != family.centre:
                    axis.annotate(f"{levels[cell]:g}", (x[cell], y[cell]), (3, 3),
                                  textcoords="offset points", fontsize=6,
                                  color=_COLORS[factor])  # fmt: skip
        centre = means.loc[family.centre]
        axis.plot(centre[NOISE], centre[metric], "*", color="black", markersize=9, zorder=5,
                  label="centre")  # fmt: skip
        style.use_log_scale(axis, "x")
    style.label_columns(axes, UPDATE_NOISE)
    style.label_rows(axes, reading_title(metric))
    style.outside_legend(figure, axes)
    cells = section.cells.loc[[cell for family in experiments for cell in family.cells]]
    title = f"{reading_title(metric)} against the noise"
    note = "Means and standard deviations over repetitions. Numbers: the factor's extreme values."
    return style.finish_section(figure, section, cells, title, note)


def noise_by_factor(section: Section) -> Figure | None:
    """The noise of the update against each factor, one line per variant of the loss."""
    means, deviations = _moments(section, NOISE)
    experiments = families(section.cells.loc[means.index])
    if not experiments:
        return None
    factors = [name for name in FACTORS if any(name in family.levels for family in experiments)]
    figure, axes = style.new_grid(len(factors), 3, (2.9, 2.6), share=False)
    for axis, factor in zip(axes, factors, strict=True):
        ticks: set[float] = set()
        for number, family in enumerate(experiments):
            levels = family.levels.get(factor)
            if levels is None:
                continue
            color = _OTHER_COLORS[number % len(_OTHER_COLORS)]
            if family.loss == VANILLA:
                color = _VANILLA_COLOR
            axis.errorbar(list(levels.values()), means.loc[list(levels), NOISE],
                          deviations.loc[list(levels), NOISE], label=family.name, capsize=2,
                          color=color, marker=_MARKERS[number % len(_MARKERS)], markersize=4,
                          linewidth=1.1)  # fmt: skip
            ticks |= set(levels.values())
        style.use_log_scale(axis, "xy")
        axis.set_xticks(sorted(ticks), [f"{value:g}" for value in sorted(ticks)])
        axis.minorticks_off()
        axis.set_xlabel(FACTORS[factor].title, fontsize=9)
    style.label_rows(axes, UPDATE_NOISE)
    style.outside_legend(figure, axes)
    cells = section.cells.loc[[cell for family in experiments for cell in family.cells]]
    note = "Means and standard deviations over repetitions, last epoch."
    return style.finish_section(figure, section, cells, f"{UPDATE_NOISE} by factor", note)


def _moments(section: Section, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means and deviations, by cell, of the noise and the metric where both were measured.

    A single repetition has no deviation: 0.
    """
    columns = list(dict.fromkeys([NOISE, metric]))
    measured = section.last.reindex(columns=["cell", *columns]).dropna()
    by_cell = measured.groupby("cell", sort=False)
    return by_cell.mean(), by_cell.std().fillna(0.0)
