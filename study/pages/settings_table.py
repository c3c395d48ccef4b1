"""The section on the study of settings in docs/study/noise: its cells and what sets each apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from docs.tools.markdown import table
from study.cells import SYMBOLS, THERMODYNAMIC, VANILLA, describe
from study.titles import LIKELIHOOD

# What names a baseline, and what names a cell beside it.
_BASELINE = (
    "loss.power",
    "loss.num_temperatures",
    "sampler.posterior.num_steps",
    "loss.quadrature",
    "loss.generator_gradient",
)
_COMPARED = (
    *_BASELINE,
    "loss.schedule",
    "sampler.prior.num_steps",
    "loss.kl_weight",
    "loss.kl_form",
    "loss.prior_gradient",
)


class SettingsStudy(NamedTuple):
    """The cells of the study of settings."""

    cells: pd.DataFrame  # of all data sets, one row each: `tables.cells_table`
    fields: list[str]  # its columns that are configuration fields


def section(study: SettingsStudy, experiments: Sequence[str]) -> str:
    """Returns the section: the cells, best KID first within each data set.

    Args:
      study: the cells.
      experiments: the files of the experiments that made them; by default the complete one.
    """
    cells = study.cells
    kid = next(name for name in cells.columns if name.endswith("_kid_inf_mean"))
    network = kid.removesuffix("_kid_inf_mean")
    titles = {
        f"{network}_kid_inf": "KID∞",
        f"{network}_fid_inf": "FID∞",
        f"{network}_recall": "recall",
        LIKELIHOOD: "log p(x), nats",
        "effective_sample_size": "effective chains",
    }
    titles = {name: title for name, title in titles.items() if f"{name}_mean" in cells}
    further = [name for name in study.fields if name not in SYMBOLS]
    rows, baselines = [], {}
    for dataset, part in cells.sort_values(["dataset", kid]).groupby("dataset"):
        part = part.reindex(columns=list(dict.fromkeys([*part.columns, *_COMPARED])))
        baseline = baselines[dataset] = _baseline(part, [*_COMPARED, *further])
        rows += [
            [dataset, _difference(cell, baseline, further), *(_mean(cell, name) for name in titles),
             _seconds(cell)]
            for cell in part.to_dict("records")
        ]  # fmt: skip
    files = ", ".join(f"`{file}`" for file in experiments or ["configs/settings_study.py"])
    named = "; ".join(f"{name}: {describe(cell, _BASELINE)}" for name, cell in baselines.items())
    opening = (
        f"## Which settings to use\n\nCells of {files}: means "
        "(standard deviations over\nrepetitions), and the time of all training steps of a "
        "repetition, without compiling, validation\nand evaluation. Each cell is named by what "
        "differs from the baseline of its data set\n"
        f"({named}).\nThe published form is that of `configs/published.py`.\n"
    )
    return f"{opening}\n{table(['data', 'differs by', *titles.values(), 'seconds of steps'], rows)}"


def _baseline(cells: pd.DataFrame, fields: Sequence[str]) -> dict[str, Any]:
    """The first cell with most values in common with the thermodynamic cells."""
    candidates = cells[cells["loss.name"] == THERMODYNAMIC]
    candidates = cells if candidates.empty else candidates
    texts = candidates[list(fields)].astype(str)
    common = [int((texts == row).sum(axis=None)) for _, row in texts.iterrows()]
    return candidates.iloc[common.index(max(common))].to_dict()


def _difference(
    cell: Mapping[str, Any], baseline: Mapping[str, Any], further: Sequence[str]
) -> str:
    """What distinguishes a cell from the baseline, which is named as such."""
    if cell["loss.name"] == VANILLA:
        return "vanilla"
    if (cell["loss.prior_gradient"], cell["loss.kl_form"]) == ("none", "sum"):
        return f"published form, {describe(cell, ('loss.power',))}"
    changed = [name for name in (*_COMPARED, *further) if str(cell[name]) != str(baseline[name])]
    words = [describe(cell, [name]) for name in changed]
    parts = [
        f"`{word}`" if name in further else word
        for name, word in zip(changed, words, strict=True)
        if word
    ]
    return ", ".join(parts) or "baseline"


def _seconds(cell: Mapping[str, Any]) -> str:
    hours = cell.get("hours_mean", float("nan"))
    return "" if pd.isna(hours) else f"{3600 * hours:.0f}"


def _mean(cell: Mapping[str, Any], name: str) -> str:
    mean, sd = cell[f"{name}_mean"], cell[f"{name}_sd"]
    if pd.isna(mean) or (name == "effective_sample_size" and cell["loss.name"] == VANILLA):
        return ""
    return f"{mean:.4g}" if pd.isna(sd) else f"{mean:.4g} ({sd:.2g})"
