"""The text of docs/study/noise/index.md: fixed sentences on the design, and numbers from the runs.

No number and no verdict stands in this file: each is read from the tables of `DataSet`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from thermo_ebm.analysis.names import LIKELIHOOD


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
number of updates, and one knob, the amplification, changes the noise and nothing else. *Noise* is
the variance of the update's gradient over repeated draws, per parameter
([definition](../../mathematics.md#variance-and-noise-of-a-gradient)), not the variance over
entries.
"""

DESIGN = """## Design

One knob at a time is changed from a centre, for the vanilla and the thermodynamic loss
(`configs/experiment3.py`):

| knob | what it changes besides the noise |
|---|---|
| amplification | nothing |
| power p | where the temperatures of the chains are |
| chains per image M | the number of chains |
| batch size | images seen and chains per update |
| batches per update (accumulation) | images seen and chains per update |

Updates, training images and (constant) learning rates are equal in all cells.
"""

DECIDED = """KID∞ and FID∞ use the network named in the table, with intervals and verdicts as in
[Published readings](../published/README.md#how-a-claim-is-decided). Comparisons at equal noise take
cells as units: a line in the logarithm of the noise is fitted to the means of the cells. "No
difference" is supported if the 95 % interval lies within 5 % of the mean KID (2 % of FID).
"""

LIMITS = """## What this page does not show

- The models and images are small and training is short: rely on the direction of effects, not on
  their sizes.
- A line in the logarithm of the noise is a model. Where the metric bends, knobs at the ends of the
  range can differ from the line without differing at equal noise; the figures show the cells
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
    blocks = [QUESTION, DESIGN, _sizes(parts), "## The answer\n", DECIDED]
    blocks += [_answer(part) for part in parts]
    blocks += [_figures(part) for part in parts]
    blocks += ["## The knobs side by side\n", _knobs(parts), _claims_again(parts, published)]
    blocks += [_choices(chosen)] if len(chosen) else []
    blocks += [LIMITS, _commands(parts, len(chosen) > 0, made_by)]
    if notes:
        blocks.append("## Remarks on the readings\n\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(blocks)


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


def _answer(part: DataSet) -> str:
    """The answer on one data set, in sentences with effects and intervals."""
    sentences = [
        _told(part, "^less noise, all else equal, improves KID",
              "**Noise alone**, set by the amplification: per doubling, KID changes by"),
        _told(part, "^the noise rises with power p",
              "**p is a dial of the noise**: per doubling of p, the noise changes by"),
        _told(part, "^less noise by power p improves KID",
              "**KID follows p**: per doubling of p, it changes by"),
        _told(part, "^noise alone predicts KID: (?!.*vanilla at equal)",
              "**At equal noise**, the cells of one knob less those of the others:"),
        _told(part, "^noise alone predicts KID: .* vanilla at equal noise",
              "**At equal noise, the thermodynamic less the vanilla loss**:"),
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
    return name.partition("-")[2].removesuffix(".png").replace("_", " ")


def _knobs(parts: Sequence[DataSet]) -> str:
    rows = [
        [part.title, row["variant"], row["knob"], row["cells"],
         f"{row['lowest_noise']:.3g} to {row['highest_noise']:.3g}", f"{row['range']:.3g}",
         f"{row['relative_sd']:.2g}", f"{row['cost']:.2f}"]
        for part in parts
        for row in part.knobs.to_dict("records")
        if row["knob"] != "all"
    ]  # fmt: skip
    titles = ["data", "loss", "knob", "cells", "noise", "range", "relative sd over repetitions"]
    return _table([*titles, "time per update, costliest / centre"], rows)


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


def _choices(chosen: pd.DataFrame) -> str:
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
    ordered = chosen.sort_values(["dataset", kid])
    rows = [
        [row["dataset"], row["cell"], *(_mean(row, name) for name in shown), _seconds(row)]
        for row in ordered.to_dict("records")
    ]
    opening = (
        "## Which settings to use\n\n"
        "Cells of `configs/settings_study.py`: means (standard deviations over repetitions), and "
        "the time of\nall training steps of a repetition, without compiling, validation and "
        "evaluation.\n"
    )
    titles = ["data", "cell", *shown.values(), "seconds of steps"]
    return f"{opening}\n{_table(titles, rows)}"


def _seconds(row: dict) -> str:
    hours = row.get("hours_mean", float("nan"))
    return f"{3600 * hours:.0f}" if hours == hours else ""


def _mean(row: dict, name: str) -> str:
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean != mean:
        return ""
    return f"{mean:.4g}" if sd != sd else f"{mean:.4g} ({sd:.2g})"


def _commands(parts: Sequence[DataSet], with_settings: bool, made_by: Sequence[str]) -> str:
    sweep = "python -m launch.sweep --experiment=configs/{} --config=CONFIG --workdir=runs/{}"
    lines = list(made_by) or [sweep.format("experiment3.py", "noise")]
    if with_settings and not made_by:
        lines.append(sweep.format("settings_study.py", "settings"))
    second = " --settings=runs/settings" if with_settings else ""
    lines.append(f"python -m docs.tools.noise_study runs/noise{second}")
    code = "".join(f"    {line}\n" for line in lines)
    files = ["cells", "knobs", "claims", *(["settings"] if with_settings else [])]
    tables = ", ".join(f"[{name}.csv](tables/{name}.csv)" for name in files)
    names = ", ".join(part.title for part in parts)
    which = "" if made_by else (
        f"For the configuration of each data set ({names}); the short forms are "
        "`configs/experiment3_short.py` and `configs/settings_study_short.py`:\n\n"
    )  # fmt: skip
    return f"## Making it again\n\n{which}{code}\nTables: {tables}.\n"


def _table(titles: Iterable[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(map(str, titles))]
    lines += [["---"] * len(lines[0]), *(list(map(str, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
