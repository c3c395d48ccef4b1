"""The text of docs/study/noise/index.md: fixed sentences on the design, and numbers from the runs.

No number and no verdict stands in this file: each is read from the tables of `DataSet`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from docs.tools.markdown import table
from study.claims.verdicts import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from study.pages import settings_table


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

This page is written by `python -m study.pages.noise_study`; its numbers, tables and figures come
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
    blocks += (
        [settings_table.section(chosen, _experiments(made_by, settings=True))]
        if len(chosen)
        else []
    )
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
    return f"{opening}\n{table(['setting', 'what it changes besides the noise'], rows)}\n{closing}"


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
    return table(titles, rows)


def _summary(part: DataSet) -> str:
    """The answer to the question of the title on one data set, in two sentences."""
    alone = _losses_by_verdict(part, "^less noise, all else equal, improves KID")
    told = {
        SUPPORTED: "less noise, all else equal, improves KID",
        NOT_SUPPORTED: "less noise, all else equal, does not improve KID",
        UNDECIDED: "whether less noise, all else equal, improves KID is undecided",
    }
    first = "; ".join(f"{told[verdict]} ({', '.join(losses)})" for verdict, losses in alone.items())
    equal = [row["verdict"] for row in _claims(part, "^noise alone predicts KID:")]
    numbers = {verdict: equal.count(verdict) for verdict in told if verdict in equal}
    counts = ", ".join(
        f"{n} {'is' if n == 1 else 'are'} {verdict}" for verdict, n in numbers.items()
    )
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


def _claims(part: DataSet, pattern: str) -> list[dict]:
    """The rows of all claims whose text matches."""
    return part.claims[part.claims["claim"].str.contains(pattern)].to_dict("records")


def _losses_by_verdict(part: DataSet, pattern: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in _claims(part, pattern):
        found.setdefault(row["verdict"], []).append(_loss(row))
    return found


def _loss(row: dict) -> str:
    """Which loss a claim is about."""
    return str(row["variant"]).removeprefix("noise, ")


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
    rows = _claims(part, pattern)
    told = [f"{_effect(row)} ({_whose(row)}; {row['verdict']})" for row in rows]
    return f"{opening} {'; '.join(told)}." if told else ""


def _whose(row: dict) -> str:
    """Which loss a claim is about, and which knob where the claim compares knobs."""
    found = re.match(r"noise alone predicts KID: (.*) is like the other knobs", row["claim"])
    return f"{_loss(row)}, {found[1]}" if found else _loss(row)


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
    return name.rpartition("-")[2].removesuffix(".png").replace("_", " ").replace("knob", "setting")


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
    return table([*titles, "time per update, costliest / baseline"], rows)


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
    return f"{opening}\n{table(['claim', *seen], rows)}"


def _verdicts(claims: pd.DataFrame, claim: str) -> str:
    found = claims.loc[claims["claim"] == claim, "verdict"]
    return ", ".join(dict.fromkeys(found)) or "not tested"


def _commands(parts: Sequence[DataSet], with_settings: bool, made_by: Sequence[str]) -> str:
    """The commands that made the runs, and the one that writes the page from them."""
    sweep = "python -m launch.sweep --experiment=configs/{} --config=CONFIG --workdir=runs/{}"
    lines = list(made_by) or [sweep.format("experiment3.py", "noise")]
    if with_settings and not made_by:
        lines.append(sweep.format("settings_study.py", "settings"))
    write = [f"python -m study.pages.noise_study {_folder(lines, False) or 'runs/noise'}"]
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
