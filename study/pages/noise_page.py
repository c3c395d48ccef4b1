"""The text of docs/study/noise/index.md: fixed sentences on the design, and numbers from the runs.

No number and no verdict stands in this file: each is read from the tables of `DataSet`.
"""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from docs.tools.markdown import table
from study.claims.verdicts import NOT_SUPPORTED, SUPPORTED, UNDECIDED
from study.pages import settings_table
from study.pages.settings_table import SettingsStudy
from study.readings import REPETITION, Section


class DataSet(NamedTuple):
    """The results on one data set."""

    section: Section  # all readings
    network: str  # of the metrics
    cells: pd.DataFrame  # `noise.noise_cells_table`
    factors: pd.DataFrame  # `noise.factors_table` of KID
    likelihoods: pd.DataFrame  # the same of the held-out log-likelihood
    claims: pd.DataFrame  # `claims.decide`
    figures: list[str]  # names of their files

    @property
    def title(self) -> str:
        """The name of the data set."""
        return self.section.title.partition(",")[0]

    @property
    def anchor(self) -> str:
        """Begins the file names of the figures."""
        return re.sub(r"[^\w-]", "_", self.section.dataset)


TITLE = "# Does the noise of the learning gradient decide image quality?\n"

QUESTION = """This page is written by `python -m study.pages.noise_study`; its numbers, tables and
figures come from the runs. *Noise* is the variance of the update's gradient over repeated draws,
per parameter ([definition](../../mathematics.md#variance-and-noise-of-a-gradient)), not the
variance over entries that the paper reports.

The paper varies the variance by the power p and by the batch size, which change more than it: p
changes the mean of a `detached` gradient, and at a fixed number of epochs a smaller batch also has
more updates. Here the gradients are unbiased for converged chains (`contrastive`, `reweighted`),
and all cells have the same number of updates. In these runs more noise also means shorter steps, by
Adam's second moment (`gradient_noise.second_moment="amplified"`,
[noise control](../../mathematics.md#noise-control)): no effect below is one of the noise alone.
"""

# What each setting changes besides the noise, by its name in the tables.
SETTINGS = {
    "amplification": ("amplification", "the size of the steps, by Adam's second moment"),
    "p": ("power p", "where the temperatures of the chains are"),
    "M": ("chains per image M", "the number of chains"),
    "batch": ("batch size", "images seen and chains per update"),
    "accumulation": ("batches per update (accumulation)", "images seen and chains per update"),
}

DECIDED = """KID∞ and FID∞, extrapolated to infinitely many images, use the network of the table;
intervals are 95 % intervals. Verdicts are those of
[Published readings](../published/README.md#how-a-claim-is-decided), with p-values adjusted by
Holm's method, so that a claim can be undecided although its interval excludes 0. At equal noise,
cells are the units: a line in the logarithm of the noise is fitted to their means, and the claim
that there is *no* difference is supported only if the interval lies within 5 % of the mean KID
(2 % of FID) on either side of 0.
"""

LIMITS = """## What this page does not show

- The models and images are small and training is short: rely on the direction of effects, not on
  their sizes.
- Where the metric bends, settings at the ends of the range can differ from the line without
  differing at equal noise; the figures show the cells themselves.
- The gradients are unbiased only as far as the chains have converged
  ([effect of short chains](../../estimate.md)).
- "Undecided" does not mean that there is no effect.
"""


def page(
    datasets: Sequence[DataSet],
    settings: SettingsStudy | None,
    published: pd.DataFrame,
    notes: Sequence[str],
    commands: Sequence[str] = (),
) -> str:
    """Returns the page.

    Args:
      datasets: the results on each data set.
      settings: the study of settings; None if it was not run.
      published: the claims table of the published readings.
      notes: remarks on the readings.
      commands: that made the runs; by default those of the complete experiments.
    """
    blocks = [TITLE, _opening_figure(datasets[0]), *map(_summary, datasets), QUESTION]
    blocks += [_design(datasets, commands), _sizes(datasets), "## The answer\n"]
    blocks += [*map(_answer, datasets), DECIDED]
    blocks += [_figures(dataset, skip=int(dataset is datasets[0])) for dataset in datasets]
    blocks += ["## The settings side by side\n", _factors(datasets)]
    blocks.append(_paper_claims(datasets, published))
    if settings is not None:
        blocks.append(settings_table.section(settings, _experiments(commands, of_settings=True)))
    blocks += [LIMITS, _commands(datasets, settings is not None, commands)]
    if notes:
        blocks.append("## Remarks on the readings\n\n" + "".join(f"- {note}\n" for note in notes))
    return "\n".join(blocks)


def _opening_figure(dataset: DataSet) -> str:
    """The first figure of the first data set."""
    if not dataset.figures:
        return ""
    caption = f"*Each mark is a cell (one setting, with its repetitions) on {dataset.title}.*"
    return f"{_picture(dataset, dataset.figures[0])}\n{caption}\n"


def _design(datasets: Sequence[DataSet], commands: Sequence[str]) -> str:
    """What was varied, and only what was: the settings in the tables of the data sets."""
    varied = {name for dataset in datasets for name in dataset.factors["factor"]}
    rows = [row for name, row in SETTINGS.items() if name in varied]
    files = _experiments(commands, of_settings=False) or ["configs/experiment3.py"]
    named = ", ".join(f"`{file}`" for file in files)
    opening = (
        "## Design\n\nOne setting at a time is changed from a baseline, for the vanilla and the "
        f"thermodynamic loss\n({named}):\n"
    )
    closing = "Updates, training images and (constant) learning rates are equal in all cells.\n"
    return f"{opening}\n{table(['setting', 'what it changes besides the noise'], rows)}\n{closing}"


def _experiments(commands: Sequence[str], of_settings: bool) -> list[str]:
    """The experiment files of the commands: those of the study of settings, or the others."""
    files = [file for file in (_flag(command, "experiment") for command in commands) if file]
    return [file for file in dict.fromkeys(files) if ("settings_study" in file) == of_settings]


def _flag(command: str, name: str) -> str | None:
    """The value of a flag in a command."""
    match = re.search(rf"--{name}[= ](\S+)", command)
    return match[1] if match else None


def _sizes(datasets: Sequence[DataSet]) -> str:
    rows = []
    for dataset in datasets:
        last = dataset.section.last
        hours = last["hours"].sum() if "hours" in last else 0.0
        updates = dataset.section.frame.groupby(REPETITION)["step"].max().median()
        rows.append(
            [dataset.title, len(dataset.cells), int(dataset.cells["repetitions"].sum()),
             int(updates), dataset.network, f"{hours:.2f}"]
        )  # fmt: skip
    titles = ["data", "cells", "models", "updates", "network", "hours of steps"]
    return table(titles, rows)


def _summary(dataset: DataSet) -> str:
    """The answer to the question of the title on one data set, in two sentences."""
    words = {
        SUPPORTED: "less noise by amplification improves KID",
        NOT_SUPPORTED: "less noise by amplification does not improve KID",
        UNDECIDED: "whether less noise by amplification improves KID is undecided",
    }
    losses: dict[str, list[str]] = {}
    for claim in _claims(dataset, "^less noise by amplification improves KID"):
        losses.setdefault(claim["verdict"], []).append(_loss(claim))
    first = "; ".join(f"{words[verdict]} ({', '.join(names)})" for verdict, names in losses.items())
    verdicts = [claim["verdict"] for claim in _claims(dataset, "^noise alone predicts KID:")]
    if not first or not verdicts:
        return ""
    counts = {verdict: verdicts.count(verdict) for verdict in words if verdict in verdicts}
    counted = ", ".join(
        f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counts.items()
    )
    if NOT_SUPPORTED in verdicts:
        second = "The noise does not decide KID"
    elif UNDECIDED in verdicts:
        second = "Whether the noise decides KID is undecided"
    else:
        second = "The noise decides KID, within the margin"
    return (
        f"On {dataset.title}, {first}. {second}: of {len(verdicts)} claims that cells have\n"
        f"the same KID at equal noise, {counted}.\n"
    )


def _claims(dataset: DataSet, pattern: str) -> list[dict]:
    """The rows of all claims whose text matches."""
    return dataset.claims[dataset.claims["claim"].str.contains(pattern)].to_dict("records")


def _loss(claim: dict) -> str:
    """Which loss a claim is about."""
    return str(claim["variant"]).removeprefix("noise, ")


def _answer(dataset: DataSet) -> str:
    """The answer on one data set, in sentences with effects and intervals."""
    sentences = [
        _effects(dataset, "^less noise by amplification improves KID",
                 "**Effect of the amplification on KID**: per doubling,"),
        _effects(dataset, "^the noise rises with power p",
                 "**Effect of p on the noise**: per doubling of p,"),
        _effects(dataset, "^less noise by power p improves KID",
                 "**Effect of p on KID**: per doubling of p,"),
        _effects(dataset, "^noise alone predicts KID: (?!.*vanilla at equal)",
                 "**KID at equal noise**, the cells of one setting less those of the others:"),
        _effects(dataset, "^noise alone predicts KID: .* vanilla at equal noise",
                 "**KID at equal noise**, the thermodynamic less the vanilla loss:"),
        _explained_share(dataset.factors, "KID"),
        _explained_share(dataset.likelihoods, "held-out log p(x), nats,"),
    ]  # fmt: skip
    lines = "\n".join(f"- {sentence}" for sentence in sentences if sentence)
    return f"**{dataset.title}**\n\n{lines}\n"


def _effects(dataset: DataSet, pattern: str, opening: str) -> str:
    """The effects of all claims whose text matches, with their verdicts; empty without any."""
    parts = []
    for claim in _claims(dataset, pattern):
        subject = _loss(claim)
        if match := re.match(r"noise alone predicts KID: (.*) is like the other", claim["claim"]):
            subject = f"{subject}, {match[1]}"
        effect = "{effect:+.3g} [{ci_low:.3g}, {ci_high:.3g}]".format(**claim)
        unit = " %" if str(claim["unit"]).startswith("%") else ""
        parts.append(f"{effect}{unit} ({subject}; {claim['verdict']})")
    return f"{opening} {'; '.join(parts)}." if parts else ""


def _explained_share(factors: pd.DataFrame, metric: str) -> str:
    """How much of a metric's variation between cells a line in the noise explains."""
    if factors.empty:
        return ""
    lines = factors[(factors["factor"] == "all") & factors["r_squared"].notna()]
    parts = [
        "{r_squared:.2f} ({variant}, {cells} cells, {slope:+.3g} [{ci_low:.3g}, {ci_high:.3g}] "
        "per doubling)".format(**row)
        for row in lines.to_dict("records")
    ]
    opening = f"**Share of the variation of {metric} between cells that the noise explains** (R²):"
    return f"{opening} {'; '.join(parts)}." if parts else ""


def _figures(dataset: DataSet, skip: int) -> str:
    """The figures of a data set but the first `skip`, which stand elsewhere."""
    pictures = (_picture(dataset, name) for name in dataset.figures[skip:])
    return f"## Figures: {dataset.title}\n\n" + "\n".join(pictures)


def _picture(dataset: DataSet, name: str) -> str:
    words = name.rpartition("-")[2].removesuffix(".png").replace("_", " ")
    words = words.replace("factor", "setting")
    return f"![{dataset.title}: {words}](figures/{name})\n"


def _factors(datasets: Sequence[DataSet]) -> str:
    rows = [
        [dataset.title, row["variant"], row["factor"], row["cells"],
         f"{row['lowest_noise']:.3g} to {row['highest_noise']:.3g}", f"{row['range']:.3g}",
         f"{row['relative_sd']:.2g}", f"{row['cost']:.2f}"]
        for dataset in datasets
        for row in dataset.factors.to_dict("records")
        if row["factor"] != "all"
    ]  # fmt: skip
    titles = ["data", "loss", "setting", "cells", "noise", "range", "relative sd over repetitions"]
    return table([*titles, "time per update, costliest / baseline"], rows)


def _paper_claims(datasets: Sequence[DataSet], published: pd.DataFrame) -> str:
    """The claims of the paper's tables on these runs, beside those of the published readings."""
    columns = {
        "published, CelebA": published[published["dataset"] == "celeb_a"],
        "published, CIFAR-10": published[published["dataset"] == "cifar10"],
    }
    columns |= {f"here, {dataset.title}": dataset.claims for dataset in datasets}
    texts = [
        text
        for dataset in datasets
        for text in dataset.claims.loc[dataset.claims["table"].str.startswith("Table"), "claim"]
        if "FID" not in text
    ]
    rows = []
    for text in dict.fromkeys(texts):
        verdicts = [
            ", ".join(dict.fromkeys(claims.loc[claims["claim"] == text, "verdict"]))
            for claims in columns.values()
        ]
        rows.append([text, *(verdict or "not tested" for verdict in verdicts)])
    if not rows:
        return ""
    opening = (
        "## The claims of the paper's tables on these runs\n\n"
        "Here with unbiased gradients and equal numbers of updates. *Variance* is the variance "
        "over entries.\n"
    )
    return f"{opening}\n{table(['claim', *columns], rows)}"


def _commands(datasets: Sequence[DataSet], with_settings: bool, commands: Sequence[str]) -> str:
    """The commands that made the runs, and the one that writes the page from them."""
    sweep = "python -m launch.sweep --experiment=configs/{} --config=CONFIG --workdir=runs/{}"
    lines = list(commands) or [sweep.format("experiment3.py", "noise")]
    if with_settings and not commands:
        lines.append(sweep.format("settings_study.py", "settings"))
    write = [f"python -m study.pages.noise_study {_folder(lines, False) or 'runs/noise'}"]
    if with_settings:
        write.append(f"--settings={_folder(lines, True) or 'runs/settings'}")
    write += [f"--made_by={shlex.quote(command)}" for command in commands]
    lines.append(" \\\n        ".join(write))
    code = "".join(f"    {line}\n" for line in lines)
    files = ["cells", "factors", "claims", *(["settings"] if with_settings else [])]
    tables = ", ".join(f"[{name}.csv](tables/{name}.csv)" for name in files)
    names = ", ".join(dataset.title for dataset in datasets)
    scope = "" if commands else (
        f"For the configuration of each data set ({names}); the short forms are "
        "`configs/experiment3_short.py` and `configs/settings_study_short.py`:\n\n"
    )  # fmt: skip
    return f"## Reproducing this page\n\n{scope}{code}\nTables: {tables}.\n"


def _folder(commands: Sequence[str], of_settings: bool) -> str | None:
    """The folder of the runs of the study of settings, or of the others."""
    folders = [
        _flag(command, "workdir") for command in commands if _experiments([command], of_settings)
    ]
    return next((folder for folder in folders if folder), None)
