"""The text of docs/study/noise/index.md: fixed sentences on the design, and numbers from the runs.

No number and no verdict stands in this file: each is read from the tables of `DataSet`.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from thermo_ebm.analysis.claims.verdicts import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from thermo_ebm.analysis.names import LIKELIHOOD
from thermo_ebm.analysis.settings import VANILLA, Settings, describe, other_fields


class DataSet(NamedTuple):
    """The results on one data set."""

    name: str
    title: str
    frame: pd.DataFrame  # all readings
    network: str  # of the metrics
    cells: pd.DataFrame  # `noise_tables.quality_table`
    knobs: pd.DataFrame  # `noise_tables.knobs_table` of KID
    likelihoods: pd.DataFrame  # the same of the held-out log-likelihood
    claims: pd.DataFrame  # `claims.decide`
    hours: float  # of training, all repetitions
    figures: list[str]  # names of their files

    @property
    def anchor(self) -> str:
        """Begins the file names of the figures."""
        return re.sub(r"[^\w-]", "_", self.name)


QUESTION = """# Does the noise of the learning gradient decide image quality?

This page is written by `python -m docs.tools.noise_study`; its numbers, tables and figures come
from the runs.

The paper asks what the variance of learning gradients does to generated images, and varies it by
the power p and by the batch size. Both change more than the variance: p changes the mean of a
`detached` gradient, and at a fixed number of epochs a smaller batch also has more updates. Here the
gradients are unbiased for converged chains (`contrastive`, `reweighted`), all cells have the same
number of updates, and one setting, the amplification, changes the noise and nothing else. *Noise*
is the variance of the update's gradient over repeated draws, per parameter
([definition](../../mathematics.md#variance-and-noise-of-a-gradient)), not the variance over
entries.
"""

# What each setting changes besides the noise, by its name in the tables.
SETTINGS = {
    "amplification": ("amplification", "nothing"),
    "p": ("power p", "where the temperatures of the chains are"),
    "M": ("chains per image M", "the number of chains"),
    "batch": ("batch size", "images seen and chains per update"),
    "accumulation": ("batches per update (accumulation)", "images seen and chains per update"),
}

DECIDED = """KID∞ and FID∞ use the network named in the table. Intervals are 95 % intervals, and
verdicts are those of [Published readings](../published/README.md#how-a-claim-is-decided). Their
p-values are adjusted by Holm's method for the number of claims, the intervals are not: a claim can
be undecided although its interval excludes 0. Comparisons at equal noise take cells as units: a
line in the logarithm of the noise is fitted to the means of the cells. The claim is that there is
*no* difference. It is supported only if the interval lies within 5 % of the mean KID (2 % of FID)
on either side of 0, so that a wide interval leaves it undecided.
"""

LIMITS = """## What this page does not show

- The models and images are small and training is short: rely on the direction of effects, not on
  their sizes.
- A line in the logarithm of the noise is a model. Where the metric bends, settings at the ends of
  the range can differ from the line without differing at equal noise; the figures show the cells
  themselves.
- The gradients are unbiased only as far as the chains of training have converged
  ([effect of short chains](../../estimate.md)).
- "Undecided" does not mean that there is no effect.
"""


def page(
    parts: Sequence[DataSet],
    chosen: pd.DataFrame,
    published: pd.DataFrame,
    notes: Sequence[str],
    made_by: Sequence[str] = (),
) -> str:
    """Returns the page.

    Args:
      parts: the results on each data set.
      chosen: the cells of the study of settings; empty if it was not run.
      published: the claims table of the published readings.
      notes: remarks on the readings.
      made_by: the commands that made the runs; by default those of the complete experiments.
    """
    blocks = [QUESTION, _design(parts, made_by), _sizes(parts), "## The answer\n"]
    blocks += [_summary(part) for part in parts]
    blocks += [DECIDED, *(_answer(part) for part in parts)]
    blocks += [_figures(part) for part in parts]
    blocks += ["## The settings side by side\n", _knobs(parts), _claims_again(parts, published)]
    blocks += [_choices(chosen, made_by)] if len(chosen) else []
    blocks += [LIMITS, _commands(parts, len(chosen) > 0, made_by)]
    if notes:
        blocks.append("## Remarks on the readings\n\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(blocks)


def _design(parts: Sequence[DataSet], made_by: Sequence[str]) -> str:
    """What was varied, and only what was: the settings in the tables of the data sets."""
    varied = {name for part in parts for name in part.knobs["knob"]}
    rows = [row for name, row in SETTINGS.items() if name in varied]
    files = _experiments(made_by, settings=False) or ["configs/experiment3.py"]
    named = ", ".join(f"`{file}`" for file in files)
    opening = (
        "## Design\n\nOne setting at a time is changed from a baseline, for the vanilla and the "
        f"thermodynamic loss\n({named}):\n"
    )
    closing = "Updates, training images and (constant) learning rates are equal in all cells.\n"
    return f"{opening}\n{_table(['setting', 'what it changes besides the noise'], rows)}\n{closing}"


def _experiments(made_by: Sequence[str], settings: bool) -> list[str]:
    """The experiment files of the commands: those of the study of settings, or the others."""
    found = [re.search(r"--experiment[= ](\S+)", command) for command in made_by]
    files = dict.fromkeys(match[1] for match in found if match)
    return [file for file in files if ("settings_study" in file) == settings]


def _sizes(parts: Sequence[DataSet]) -> str:
    rows = []
    for part in parts:
        epochs = part.frame.groupby(["cell", "run", "repetition"])["step"].max()
        rows.append(
            [part.title, part.cells.shape[0], int(part.cells["repetitions"].sum()),
             int(epochs.median()), part.network, f"{part.hours:.2f}"]
        )  # fmt: skip
    titles = ["data", "cells", "models", "updates", "network", "hours of steps"]
    return _table(titles, rows)


def _summary(part: DataSet) -> str:
    """The answer to the question of the title on one data set, in two sentences."""
    alone = _verdicts_by_loss(part, "^less noise, all else equal, improves KID")
    told = {
        SUPPORTED: "less noise, all else equal, improves KID",
        NOT_SUPPORTED: "less noise, all else equal, does not improve KID",
        UNDECIDED: "whether less noise, all else equal, improves KID is undecided",
    }
    first = "; ".join(
        f"{told[verdict]} ({', '.join(losses)})" for verdict, losses in alone.items() if losses
    )
    equal = [v for _, v in _claims(part, "^noise alone predicts KID:")]
    counts = ", ".join(f"{equal.count(v)} are {v}" for v in told if v in equal)
    if not first or not equal:
        return ""
    if NOT_SUPPORTED in equal:
        second = "The noise alone does not decide KID"
    elif UNDECIDED in equal:
        second = "Whether the noise alone decides KID is undecided"
    else:
        second = "The noise alone decides KID, within the margin"
    return (
        f"On {part.title}, {first}. {second}: of {len(equal)} claims that cells have\nthe same KID "
        f"at equal noise, {counts}.\n"
    )


def _claims(part: DataSet, pattern: str) -> list[tuple[str, str]]:
    """(variant, verdict) of all claims whose text matches."""
    rows = part.claims[part.claims["claim"].str.contains(pattern)]
    return [(str(row["variant"]), str(row["verdict"])) for row in rows.to_dict("records")]


def _verdicts_by_loss(part: DataSet, pattern: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for variant, verdict in _claims(part, pattern):
        found.setdefault(verdict, []).append(variant.removeprefix("noise, "))
    return found


def _answer(part: DataSet) -> str:
    """The answer on one data set, in sentences with effects and intervals."""
    sentences = [
        _told(part, "^less noise, all else equal, improves KID",
              "**Effect of the noise alone on KID**, set by the amplification: per doubling,"),
        _told(part, "^the noise rises with power p",
              "**Effect of p on the noise**: per doubling of p,"),
        _told(part, "^less noise by power p improves KID",
              "**Effect of p on KID**: per doubling of p,"),
        _told(part, "^noise alone predicts KID: (?!.*vanilla at equal)",
              "**KID at equal noise**, the cells of one setting less those of the others:"),
        _told(part, "^noise alone predicts KID: .* vanilla at equal noise",
              "**KID at equal noise**, the thermodynamic less the vanilla loss:"),
        _share(part.knobs, "KID"),
        _share(part.likelihoods, "held-out log p(x), nats,"),
    ]  # fmt: skip
    lines = "\n".join(f"- {sentence}" for sentence in sentences if sentence)
    return f"**{part.title}**\n\n{lines}\n"


def _told(part: DataSet, pattern: str, opening: str) -> str:
    """The effects of all claims whose text matches, with their verdicts; empty without any."""
    rows = part.claims[part.claims["claim"].str.contains(pattern)]
    told = [f"{_effect(row)} ({_whose(row)}; {row['verdict']})" for row in rows.to_dict("records")]
    return f"{opening} {'; '.join(told)}." if told else ""


def _whose(row: dict) -> str:
    """Which loss a claim is about, and which knob where the claim compares knobs."""
    variant = str(row["variant"]).removeprefix("noise, ")
    found = re.match(r"noise alone predicts KID: (.*) is like the other knobs", row["claim"])
    return f"{variant}, {found[1]}" if found else variant


def _effect(row: dict) -> str:
    values = (row["effect"], row["ci_low"], row["ci_high"])
    shown = "{:+.3g} [{:.3g}, {:.3g}]".format(*values)
    return f"{shown} %" if str(row["unit"]).startswith("%") else shown


def _share(knobs: pd.DataFrame, what: str) -> str:
    """How much of a metric's variation between cells a line in the noise explains."""
    if knobs.empty:
        return ""
    rows = knobs[knobs["knob"] == "all"]
    told = [
        f"{row['r_squared']:.2f} ({row['variant']}, {row['cells']} cells, "
        f"{row['slope']:+.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}] per doubling)"
        for row in rows.to_dict("records")
        if row["r_squared"] == row["r_squared"]
    ]
    if not told:
        return ""
    opening = f"**Share of the variation of {what} between cells that the noise explains** (R²):"
    return f"{opening} {'; '.join(told)}."


def _figures(part: DataSet) -> str:
    shown = [f"![{part.title}: {_words(name)}](figures/{name})\n" for name in part.figures]
    return f"## Figures: {part.title}\n\n" + "\n".join(shown)


def _words(name: str) -> str:
    return name.partition("-")[2].removesuffix(".png").replace("_", " ").replace("knob", "setting")


def _knobs(parts: Sequence[DataSet]) -> str:
    rows = [
        [part.title, row["variant"], row["knob"], row["cells"],
         f"{row['lowest_noise']:.3g} to {row['highest_noise']:.3g}", f"{row['range']:.3g}",
         f"{row['relative_sd']:.2g}", f"{row['cost']:.2f}"]
        for part in parts
        for row in part.knobs.to_dict("records")
        if row["knob"] != "all"
    ]  # fmt: skip
    titles = ["data", "loss", "setting", "cells", "noise", "range", "relative sd over repetitions"]
    return _table([*titles, "time per update, costliest / baseline"], rows)


def _claims_again(parts: Sequence[DataSet], published: pd.DataFrame) -> str:
    """The claims of the paper's tables on these runs, beside those of the published readings."""
    seen = {
        "published, CelebA": published[published["dataset"] == "celeb_a"],
        "published, CIFAR-10": published[published["dataset"] == "cifar10"],
    }
    seen |= {f"here, {part.title}": part.claims for part in parts}
    wanted = ("Table 2", "Table 3")
    own = [claims for name, claims in seen.items() if name.startswith("here")]
    found = [
        claim
        for claims in own
        for claim in claims.loc[claims["table"].isin(wanted), "claim"]
        if "FID" not in claim
    ]
    rows = [
        [claim, *(_verdicts(claims, claim) for claims in seen.values())]
        for claim in dict.fromkeys(found)
    ]
    if not rows:
        return ""
    opening = (
        "## The claims of the paper's tables on these runs\n\n"
        "Here with unbiased gradients and equal numbers of updates. *Variance* is the variance "
        "over entries.\n"
    )
    return f"{opening}\n{_table(['claim', *seen], rows)}"


def _verdicts(claims: pd.DataFrame, claim: str) -> str:
    found = claims.loc[claims["claim"] == claim, "verdict"]
    return ", ".join(dict.fromkeys(found)) or "not tested"


def _choices(chosen: pd.DataFrame, made_by: Sequence[str]) -> str:
    """The cells of the study of settings, best KID first within each data set."""
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
    files = _experiments(made_by, settings=True) or ["configs/settings_study.py"]
    told = "; ".join(f"{name}: {describe(one, _NAMED)}" for name, one in baselines.items())
    opening = (
        f"## Which settings to use\n\nCells of {', '.join(f'`{file}`' for file in files)}: means "
        "(standard deviations over\nrepetitions), and the time of all training steps of a "
        "repetition, without compiling, validation\nand evaluation. Each cell is named by what "
        "differs from the baseline of its data set\n"
        f"({told}).\nThe published form is that of `configs/published.py`.\n"
    )
    titles = ["data", "differs by", *shown.values(), "seconds of steps"]
    return f"{opening}\n{_table(titles, rows)}"


# What names a baseline, and what names a cell beside it.
_NAMED = ("power", "num_temperatures", "posterior_steps", "quadrature", "generator_gradient")
_COMPARED = (*_NAMED, "schedule", "prior_steps", "kl_weight", "kl_form", "prior_gradient")


def _settings(row: Mapping[str, object]) -> Settings:
    values = {name: row.get(name) for name in Settings._fields}
    return Settings(**{n: None if v != v or v == "" else v for n, v in values.items()})


def _baseline(cells: Sequence[Settings]) -> Settings:
    """The cell with most values in common with the thermodynamic cells."""
    others = [cell for cell in cells if cell.loss != VANILLA] or list(cells)
    return max(
        others, key=lambda one: sum(_same(one, cell) for cell in others)
    )  # the first of several


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


def _commands(parts: Sequence[DataSet], with_settings: bool, made_by: Sequence[str]) -> str:
    """The commands that made the runs, and the one that writes the page from them."""
    sweep = "python -m launch.sweep --experiment=configs/{} --config=CONFIG --workdir=runs/{}"
    lines = list(made_by) or [sweep.format("experiment3.py", "noise")]
    if with_settings and not made_by:
        lines.append(sweep.format("settings_study.py", "settings"))
    write = [f"python -m docs.tools.noise_study {_folder(lines, False) or 'runs/noise'}"]
    if with_settings:
        write.append(f"--settings={_folder(lines, True) or 'runs/settings'}")
    write += [f"--made_by={shlex.quote(command)}" for command in made_by]
    lines.append(" \\\n        ".join(write))
    code = "".join(f"    {line}\n" for line in lines)
    files = ["cells", "knobs", "claims", *(["settings"] if with_settings else [])]
    tables = ", ".join(f"[{name}.csv](tables/{name}.csv)" for name in files)
    names = ", ".join(part.title for part in parts)
    which = "" if made_by else (
        f"For the configuration of each data set ({names}); the short forms are "
        "`configs/experiment3_short.py` and `configs/settings_study_short.py`:\n\n"
    )  # fmt: skip
    return f"## Reproducing this page\n\n{which}{code}\nTables: {tables}.\n"


def _folder(commands: Sequence[str], settings: bool) -> str | None:
    """The folder of the runs of the study of settings, or of the others."""
    chosen = [c for c in commands if _experiments([c], settings)]
    found = [re.search(r"--workdir[= ](\S+)", command) for command in chosen]
    return next((match[1] for match in found if match), None)


def _table(titles: Iterable[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(map(str, titles))]
    lines += [["---"] * len(lines[0]), *(list(map(str, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
