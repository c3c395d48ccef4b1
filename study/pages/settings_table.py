"""The section on the study of settings in docs/study/noise: its cells and what sets each apart."""

from collections.abc import Mapping, Sequence

import pandas as pd

from docs.tools.markdown import table
from study.names import LIKELIHOOD
from study.settings import VANILLA, Settings, describe, other_fields

# What names a baseline, and what names a cell beside it.
_NAMED = ("power", "num_temperatures", "posterior_steps", "quadrature", "generator_gradient")
_COMPARED = (*_NAMED, "schedule", "prior_steps", "kl_weight", "kl_form", "prior_gradient")


def section(chosen: pd.DataFrame, experiments: Sequence[str]) -> str:
    """Returns the section: the cells, best KID first within each data set.

    Args:
      chosen: the cells of all data sets, one row each.
      experiments: the files of the experiments that made them; by default the complete one.
    """
    kid = next(name for name in chosen.columns if name.endswith("_kid_inf_mean"))
    network = kid.removesuffix("_kid_inf_mean")
    columns = {
        f"{network}_kid_inf": "KID∞",
        f"{network}_fid_inf": "FID∞",
        f"{network}_recall": "recall",
        LIKELIHOOD: "log p(x), nats",
        "effective_sample_size": "effective chains",
    }
    shown = {name: title for name, title in columns.items() if f"{name}_mean" in chosen}
    rows, baselines = [], {}
    for dataset, part in chosen.sort_values(["dataset", kid]).groupby("dataset"):
        found = [_settings(row) for row in part.to_dict("records")]
        baseline = baselines[dataset] = _baseline(found)
        rows += [
            [dataset, _difference(settings, baseline), *(_mean(row, name) for name in shown),
             _seconds(row)]
            for settings, row in zip(found, part.to_dict("records"), strict=True)
        ]  # fmt: skip
    files = experiments or ["configs/settings_study.py"]
    told = "; ".join(f"{name}: {describe(one, _NAMED)}" for name, one in baselines.items())
    opening = (
        f"## Which settings to use\n\nCells of {', '.join(f'`{file}`' for file in files)}: means "
        "(standard deviations over\nrepetitions), and the time of all training steps of a "
        "repetition, without compiling, validation\nand evaluation. Each cell is named by what "
        "differs from the baseline of its data set\n"
        f"({told}).\nThe published form is that of `configs/published.py`.\n"
    )
    titles = ["data", "differs by", *shown.values(), "seconds of steps"]
    return f"{opening}\n{table(titles, rows)}"


def _settings(row: Mapping[str, object]) -> Settings:
    values = {name: row.get(name) for name in Settings._fields}
    return Settings(**{n: None if v != v or v == "" else v for n, v in values.items()})


def _baseline(cells: Sequence[Settings]) -> Settings:
    """The cell with most values in common with the thermodynamic cells."""
    others = [cell for cell in cells if cell.loss != VANILLA] or list(cells)
    # Of several, the first.
    return max(others, key=lambda one: sum(_same(one, cell) for cell in others))


def _same(one: Settings, other: Settings) -> int:
    fields, others = other_fields(one), other_fields(other)
    same = sum(getattr(one, name) == getattr(other, name) for name in _COMPARED)
    return same + sum(others.get(name) == value for name, value in fields.items())


def _difference(settings: Settings, baseline: Settings) -> str:
    """What distinguishes a cell from the baseline, which is named as such."""
    if settings.loss == VANILLA:
        return "vanilla"
    if (settings.prior_gradient, settings.kl_form) == ("none", "sum"):
        return f"published form, {describe(settings, ('power',))}"
    names = [n for n in _COMPARED if getattr(settings, n) != getattr(baseline, n)]
    before, after = other_fields(baseline), other_fields(settings)
    changed = [f"`{n}={after[n]}`" for n in after if after[n] != before.get(n)]
    told = [describe(settings, names), *changed]
    return ", ".join(part for part in told if part) or "baseline"


def _seconds(row: dict) -> str:
    hours = row.get("hours_mean", float("nan"))
    return f"{3600 * hours:.0f}" if hours == hours else ""


def _mean(row: dict, name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean != mean or (name == "effective_sample_size" and row["loss"] == VANILLA):
        return ""
    return f"{mean:.4g}" if sd != sd else f"{mean:.4g} ({sd:.2g})"
