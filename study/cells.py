"""The cells of a study: combinations of configuration fields, with their labels and groups.

The cells of one data set are a frame with one row per cell. Its columns are configuration fields
by their dotted names, NaN where a field has no meaning; its index is the cell's label. The
repetitions of a cell differ by seed alone. A *variant* is every field but the one that an
experiment varies (the batch size, or the power of the schedule).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

VANILLA, THERMODYNAMIC = "vanilla", "thermodynamic"
REGIMES = ("vanilla", "p > 1", "0 < p ≤ 1")  # the paper's three regimes (figure 10)

# The paper's settings, which every table has, and how labels name them.
SYMBOLS = {
    "loss.name": "loss",
    "batch_size": "batch",
    "loss.power": "p",
    "loss.schedule": "schedule",
    "loss.num_temperatures": "N_t",
    "sampler.posterior.num_steps": "K",
    "sampler.prior.num_steps": "K_z",
    "loss.kl_weight": "η",
    "loss.kl_form": "KL form",
    "loss.quadrature": "quadrature",
    "loss.prior_gradient": "prior gradient",
    "loss.generator_gradient": "generator gradient",
}
# The fields that decide what the loss's gradient is: every caption says them.
PROVENANCE = ("loss.prior_gradient", "loss.generator_gradient", "loss.quadrature", "loss.kl_form")
_SORTED_BY = (
    "loss.power", "loss.num_temperatures", "sampler.posterior.num_steps",
    "sampler.prior.num_steps", "loss.kl_weight", "batch_size", "loss.prior_gradient",
    "loss.generator_gradient", "loss.quadrature", "loss.kl_form", "loss.schedule",
)  # fmt: skip


def make_cells(configurations: pd.DataFrame) -> pd.DataFrame:
    """Returns the cells among some configurations of one data set.

    Args:
      configurations: one row per run, columns are configuration fields.

    Returns:
      One row per distinct configuration, labelled, in the order of display: vanilla first, then by
      power. Its columns are the fields of `SYMBOLS` and every further field that varies.
    """
    further = [name for name in varied(configurations) if name not in SYMBOLS]
    cells = configurations.reindex(columns=[*SYMBOLS, *further]).drop_duplicates()
    keys = pd.DataFrame({"loss.name": cells["loss.name"] != VANILLA})
    for name in (*_SORTED_BY, *further):
        numeric = pd.api.types.is_numeric_dtype(cells[name])
        keys[name] = cells[name].fillna(-1.0) if numeric else cells[name].fillna("").astype(str)
    cells = cells.loc[keys.sort_values(list(keys.columns)).index]
    return cells.set_axis(make_labels(cells), axis="index")


def label_rows(configurations: pd.DataFrame, cells: pd.DataFrame) -> pd.Series:
    """Returns the label of each configuration's cell, with the index of `configurations`."""
    fields = list(cells.columns)
    labels = cells.reset_index(names="cell")
    rows = configurations.reindex(columns=fields).merge(labels, on=fields, how="left")
    return rows["cell"].set_axis(configurations.index)


def varied(cells: pd.DataFrame) -> list[str]:
    """Returns the fields that differ between cells that have them."""
    return [name for name in cells.columns if cells[name].nunique() > 1]


def with_loss(cells: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Returns the cells with one loss."""
    return cells[cells["loss.name"] == loss]


def groups_without(cells: pd.DataFrame, *fields: str) -> list[pd.DataFrame]:
    """Groups cells that agree in all fields but the ones named, in the order of `cells`."""
    if cells.empty:
        return []
    columns = [name for name in cells.columns if name not in fields]
    return [group for _, group in cells.groupby(columns, dropna=False, sort=False)]


def agree(cells: pd.DataFrame, cell: pd.Series, fields: Iterable[str]) -> pd.Series:
    """Returns for each cell whether it has the same values as `cell` in some fields."""
    columns = list(fields)
    equal = (cells[columns] == cell[columns]) | (cells[columns].isna() & cell[columns].isna())
    return equal.all(axis="columns")


def regimes(cells: pd.DataFrame) -> pd.Series:
    """Returns the regime of each cell."""
    vanilla, large = cells["loss.name"] == VANILLA, cells["loss.power"] > 1.0
    return pd.Series(np.select([vanilla, large], REGIMES[:2], REGIMES[2]), cells.index)


def regime_groups(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Returns (regime, its cells) for each regime of each variant.

    A variant is every field but the batch size for the vanilla model and all but the power for the
    thermodynamic one: what the paper joins by one curve.
    """
    by_regime = regimes(cells)
    return [
        (regime, group)
        for regime in REGIMES
        for group in groups_without(
            cells[by_regime == regime], "batch_size" if regime == VANILLA else "loss.power"
        )
    ]


def describe(cell: Mapping[str, Any] | pd.Series, fields: Iterable[str]) -> str:
    """Returns a text of some fields of a cell, e.g. ``p = 0.1, N_t = 30``; absent ones are skipped.

    >>> describe({"loss.name": "thermodynamic", "loss.power": 0.1, "seed": 3.0}, ("loss.power",))
    'p = 0.1'
    """
    parts = []
    for name in fields:
        value = cell[name]
        if pd.isna(value):
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if name == "loss.name":
            parts.append("vanilla" if value == VANILLA else "TI")
        elif name not in SYMBOLS:
            parts.append(f"{name}={text}")
        else:
            parts.append(f"{SYMBOLS[name]} {'' if isinstance(value, str) else '= '}{text}")
    return ", ".join(parts)


def make_labels(cells: pd.DataFrame) -> list[str]:
    """Returns a unique label for each cell: ``vanilla, batch = 25`` or ``p = 0.1, N_t = 30``.

    Of the fields that vary, words are named everywhere, and a number or a field beyond `SYMBOLS`
    only where it is not the value that most cells share. Cells whose labels would be equal are
    named by every field in which they differ.
    """
    further = [
        name for name in varied(cells) if name not in ("loss.name", "batch_size", "loss.power")
    ]
    common = {name: _common_value(cells[name]) for name in further}
    batch_varies = with_loss(cells, THERMODYNAMIC)["batch_size"].nunique() > 1
    first = ("loss.power", "batch_size") if batch_varies else ("loss.power",)
    # Last the numbers that deviate from a common value.
    named = sorted(further, key=lambda name: name in SYMBOLS and common[name] is not None)
    labels = []
    for _, cell in cells.iterrows():
        deviating = [name for name in named if cell[name] != common[name]]
        opening = ("loss.name", "batch_size") if cell["loss.name"] == VANILLA else first
        labels.append(describe(cell, (*opening, *deviating)))
    return _made_unique(labels, cells)


def _common_value(column: pd.Series) -> Any:
    """The value that more than half of the cells share; None for words of `SYMBOLS`."""
    counts = column.value_counts()
    if column.name in SYMBOLS:
        if isinstance(counts.index[0], str):
            return None
        return counts.index[0] if counts.iloc[0] > column.count() / 2 else None
    return counts.index[0] if counts.iloc[0] > len(column) / 2 else None


def _made_unique(labels: Sequence[str], cells: pd.DataFrame) -> list[str]:
    """Adds to equal labels every field in which their cells differ, in full."""
    result = pd.Series(labels, dtype=object)
    for label, places in result.groupby(result).groups.items():
        if len(places) == 1:
            continue
        equal = cells.iloc[places]
        names = [name for name in cells.columns if equal[name].nunique(dropna=False) > 1]
        for place, (_, cell) in zip(places, equal.iterrows(), strict=True):
            parts = [
                f"{SYMBOLS.get(name, name)} {'none' if pd.isna(cell[name]) else cell[name]}"
                for name in names
            ]
            result[place] = ", ".join([str(label), *parts])
    return list(result)


def provenance(cells: pd.DataFrame) -> str:
    """Returns which gradients and quadrature the thermodynamic cells used, for captions."""
    thermodynamic = with_loss(cells, THERMODYNAMIC)
    if thermodynamic.empty:
        return "Vanilla: maximum-likelihood gradients."
    parts = [
        f"{SYMBOLS[name]} {' / '.join(values)}"
        for name in PROVENANCE
        if (values := sorted(thermodynamic[name].dropna().unique()))
    ]
    return f"TI: {', '.join(parts)}."
