"""Experiments on the noise of the learning gradient: the factors that set it, and their tables.

Such an experiment changes one factor at a time from a centre, for each variant of the loss. The
centre is found from the cells themselves: it is the cell that most others differ from in one factor
alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from study import statistics
from study.cells import VANILLA, agree, describe, groups_without, varied
from study.readings import Section
from study.titles import LIKELIHOOD, NOISE

AMPLIFICATION = "amplification"
QUALITY = ("kid", "kid_inf", "fid", "fid_inf", "precision", "recall", "coverage")


class Factor(NamedTuple):
    """A configuration field that changes the noise."""

    title: str  # of an axis
    field: str
    sign: int  # +1: the noise is claimed to rise with it, -1: to fall


FACTORS = {
    AMPLIFICATION: Factor("amplification", "gradient_noise.amplification", +1),
    "p": Factor("power p", "loss.power", +1),
    "M": Factor("chains per image M", "sampler.chains_per_image", -1),
    "batch": Factor("batch size", "batch_size", -1),
    "accumulation": Factor("batches per update", "gradient_noise.accumulate", -1),
}


class Family(NamedTuple):
    """The cells of one variant of the loss, by the factor that each one changes."""

    name: str  # the loss, and what distinguishes the variant from others of that loss
    loss: str
    centre: str  # its cell
    levels: dict[str, dict[str, float]]  # {factor: {cell: value}}, rising, the centre in each

    @property
    def cells(self) -> list[str]:
        """All cells, the centre first."""
        changed = (cell for cells in self.levels.values() for cell in cells)
        return list(dict.fromkeys([self.centre, *changed]))


def families(cells: pd.DataFrame) -> list[Family]:
    """Returns the experiments on the noise among the cells of one data set.

    Returns:
      One family per variant of the loss in which some factor has two values or more.
    """
    cells = _with_one_second_moment(cells)
    fields = [factor.field for factor in FACTORS.values()]
    experiments = [
        (group.loc[centre], centre, levels)
        for group in groups_without(cells, *fields)
        for centre, levels in [_centre(group)]
        if levels
    ]
    centres = pd.DataFrame([cell for cell, _, _ in experiments], columns=cells.columns)
    result = []
    for cell, centre, levels in experiments:
        peers = centres[centres["loss.name"] == cell["loss.name"]]
        names = [name for name in varied(peers) if name not in ("batch_size", "loss.power")]
        loss = "vanilla" if cell["loss.name"] == VANILLA else "TI"
        name = f"{loss} {describe(cell, names)}".strip()
        result.append(Family(name, str(cell["loss.name"]), centre, levels))
    return result


def _with_one_second_moment(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells whose noise is not set have the second moment of those whose noise is.

    There it has no meaning, and would keep them apart from the others.
    """
    field, amplification = "gradient_noise.second_moment", FACTORS[AMPLIFICATION].field
    if field not in cells or amplification not in cells:
        return cells
    amplified = cells[amplification] != 1
    values = cells.loc[amplified, field].unique()
    return cells if len(values) != 1 else cells.assign(**{field: values[0]})


def _centre(group: pd.DataFrame) -> tuple[str, dict[str, dict[str, float]]]:
    """Returns the centre of some cells that differ in factors alone, and its factors' levels."""
    columns = {name: factor.field for name, factor in FACTORS.items() if factor.field in group}

    def levels(centre: str) -> dict[str, dict[str, float]]:
        result = {}
        for name, field in columns.items():
            unchanged = [other for other in columns.values() if other != field]
            alone = agree(group, group.loc[centre], unchanged)
            values = group.loc[alone, field].dropna().astype(float)
            if len(values) > 1:
                result[name] = values.sort_values(kind="stable").to_dict()
        return result

    by_cell = {str(cell): levels(cell) for cell in group.index}
    return max(by_cell.items(), key=lambda pair: sum(map(len, pair[1].values())))


def noise_cells_table(section: Section, network: str) -> pd.DataFrame:
    """Returns one row per cell of the experiments on the noise.

    Args:
      section: the readings.
      network: the feature network of the metrics.

    Returns:
      Variant, factor, its value (the centre stands once, without a factor), repetitions, and of
      each measure: the mean, the standard deviation over repetitions (n - 1), and, where an
      evaluation has one, the root mean square of its standard error (of the sampling of images or
      chains). Noise per parameter; log-likelihood in nats; hours of training per repetition.
    """
    last = section.last
    if NOISE not in last:
        return pd.DataFrame()
    measures = {NOISE: "noise", LIKELIHOOD: "log_likelihood"}
    measures |= {"effective_sample_size": "ess", "hours": "hours"}
    measures |= {f"{network}_{metric}": metric for metric in QUALITY}
    rows = []
    for family in families(section.cells):
        for factor, cell, value in _cells_once(family):
            part = last[last["cell"] == cell]
            row: dict[str, object] = {"variant": family.name, "factor": factor, "value": value}
            row["repetitions"] = len(part)
            for column, name in measures.items():
                if column in part:
                    row |= {f"{name}_mean": part[column].mean(), f"{name}_sd": part[column].std()}
                if f"{column}_stderr" in part:
                    row[f"{name}_stderr"] = np.sqrt((part[f"{column}_stderr"] ** 2).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def _cells_once(family: Family) -> Iterator[tuple[str, str, float]]:
    """Yields (factor, cell, value) for every cell, the centre first."""
    yield "", family.centre, float("nan")
    for factor, cells in family.levels.items():
        for cell, value in cells.items():
            if cell != family.centre:
                yield factor, cell, value


def factors_table(section: Section, metric: str) -> pd.DataFrame:
    """Returns one row per variant of the loss and factor, and one of all its factors together.

    Args:
      section: the readings.
      metric: the column of the metric that is set against the noise.

    Returns:
      The number of cells; the lowest and highest noise and their ratio; the relative standard
      deviation of the noise over repetitions (root mean square over cells); the time per update of
      the costliest cell over the centre's; the slope of the metric per doubling of the noise with
      its 95 % interval and R^2, of the least-squares line through the cells' means. NaN where two
      cells are all there is.
    """
    last = section.last
    if NOISE not in last or metric not in last:
        return pd.DataFrame()
    if "hours" in last and "step" in last:
        last = last.assign(time_per_update=last["hours"] / last["step"])
    by_cell = last.groupby("cell", sort=False)
    means = by_cell[[NOISE, metric, *last.columns.intersection(["time_per_update"])]].mean()
    relative_sd = by_cell[NOISE].std() / means[NOISE]
    rows = []
    for family in families(section.cells):
        levels = {factor: list(cells) for factor, cells in family.levels.items()}
        for factor, cells in {**levels, "all": family.cells}.items():
            part = means.loc[cells]
            noise = part[NOISE]
            cost = float("nan")
            if "time_per_update" in means:
                times = means.loc[[*cells, family.centre], "time_per_update"]
                cost = times.max() / times.iloc[-1]
            line = statistics.line(np.log2(noise.to_numpy()), part[metric].to_numpy())
            rows.append(
                {
                    "variant": family.name,
                    "factor": factor,
                    "cells": len(cells),
                    "lowest_noise": noise.min(),
                    "highest_noise": noise.max(),
                    "range": noise.max() / noise.min(),
                    "relative_sd": np.sqrt(np.mean(np.square(relative_sd[cells].to_numpy()))),
                    "cost": cost,
                    **line._asdict(),
                }
            )
    return pd.DataFrame(rows)
