"""Writes docs/study/models: one model of each kind, at equal time, with equal decoders.

python -m study.pages.models_page runs/models

The folder holds the runs of `study.measurements.models`, from which every number on the page is
read.
"""

if not __package__:
    __import__("not_a_script")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from docs.tools.markdown import table
from study import statistics
from study.claims.verdicts import ALPHA
from study.figures import style
from study.measurements.models import ARMS, TWO_STAGE, TWO_STAGE_TITLE
from study.pages.page_program import path_argument, print_all
from study.report.section import DPI
from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.plots import new_figure
from thermo_ebm.run import tables
from thermo_ebm.run.layout import EVALUATIONS, LIKELIHOOD_SUMMARY, READINGS, repetition_dir

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "study" / "models"
METRICS = {
    "log_marginal_likelihood": "held-out log p(x), nats",
    "gap": "bounds apart, nats",
    "kid": "KID",
    "fid": "FID",
    "noise": "noise of the gradient",
    "seconds": "seconds of training",
    "updates": "updates",
}
COMPARED = ("log_marginal_likelihood", "kid", "fid")
REFERENCE = "linear"  # the arm that the others are compared with

OPENING = """# Other models under the same instrument

![Held-out log p(x) and KID of each kind of model](figures/models.png)

*Held-out log p(x) and KID of each seed: models of the digits with equal decoders, images and time.*

{findings}

This page is written by `python -m study.pages.models_page`; its numbers come from the runs. Every
model has the decoder, the images and the learning rates of `configs/digits.py`; {repetitions} seeds
train together for equal time, so that cheaper updates are more of them. The encoders mirror the
decoder. The two-stage model is the VAE with a prior that `launch.fit_prior` fits to its posteriors;
its seconds are the VAE's, without the fit.
"""

READING = """
Means over seeds, ± their standard deviation. log p(x) is that of {num_images} validation images by
annealed SMC, the same estimator for every model ([log p(x)](../../estimate.md)); *reliable* counts
images and seeds. The bounds are those of images simulated from the model. KID and FID are of
EfficientNet-Lite0. The noise is the variance of the update's gradient per parameter: of models with
an encoder that of the reparameterised gradient.

## Against {reference}

Differences of equal seeds with 95 % intervals (Student's t), bold where p < 0.05 after Holm's
adjustment over the models of a column:

"""

LIMITS = """
The models are small and trained for a short time, and their rates were chosen for chains, not for
encoders: rely on the order of large differences.

## Reproducing this page

    python -m study.measurements.models --output=runs/models --budget={budget}
    python -m study.pages.models_page runs/models

Table: [models.csv](tables/models.csv).
"""


def load(folder: Path) -> pd.DataFrame:
    """One row per model and seed.

    Raises:
      UserError: a run is not there, or was not evaluated.
    """
    first = next(iter(ARMS))
    rows = []
    for name, arm in ARMS.items():
        repetitions = sorted((folder / name).glob("rep_[0-9]*"))
        rows += [_row(arm.title, name, i, path, path) for i, path in enumerate(repetitions)]
    for i in range(len(sorted((folder / first).glob("rep_[0-9]*")))):
        evaluated = repetition_dir(folder / f"{TWO_STAGE}_{i}", i)
        trained = repetition_dir(folder / first, i)
        rows.append(_row(TWO_STAGE_TITLE, TWO_STAGE, i, evaluated, trained))
    if not rows:
        raise UserError(f"{folder}: no runs; run study.measurements.models")
    return pd.DataFrame(rows)


def _row(title: str, arm: str, seed: int, evaluated: Path, trained: Path) -> dict[str, object]:
    """What is known of one model: its evaluation and its training."""
    readings = tables.read(trained / READINGS)
    evaluations = [
        row
        for row in tables.read(evaluated / EVALUATIONS, columns=None)
        if row.get("efficientnet_lite0_kid") is not None
    ]
    summary_path = evaluated / LIKELIHOOD_SUMMARY
    if not readings or not evaluations or not summary_path.is_file():
        raise UserError(f"{evaluated}: not evaluated yet; run study.measurements.models")
    summary, metrics = files.read_json(summary_path), evaluations[-1]
    mean = summary["validation"]
    return {
        "model": title,
        "arm": arm,
        "seed": seed,
        "log_marginal_likelihood": mean["log_marginal_likelihood"],
        "stderr": mean["stderr"],
        "images": mean["num_images"],
        "reliable": mean["num_reliable"],
        "gap": summary["simulated"]["gap"],
        "kid": metrics["efficientnet_lite0_kid"],
        "fid": metrics["efficientnet_lite0_fid"],
        "noise": readings[-1]["train_update_noise"],
        "seconds": sum(float(row["seconds"] or 0) for row in readings),
        "updates": readings[-1]["step"],
    }


def page(frame: pd.DataFrame, budget: str) -> str:
    """The text of the page."""
    titles = ["model", *METRICS.values(), "reliable"]
    rows = []
    for model, group in frame.groupby("model", sort=False):
        row = [model, *(_mean(group[name]) for name in METRICS)]
        rows.append([*row, f"{group['reliable'].sum()} of {group['images'].sum()}"])
    reference = frame[frame["arm"] == REFERENCE]
    differences = _differences(frame, reference)
    text = OPENING.format(findings=_findings(frame), repetitions=frame["seed"].nunique())
    text += "\n" + table(titles, rows)
    text += READING.format(
        num_images=frame["images"].max(), reference=f"the {reference['model'].iloc[0]}"
    )
    text += table(["model", *(METRICS[name] for name in COMPARED)], differences)
    return text + LIMITS.format(budget=budget)


def _mean(values: pd.Series) -> str:
    mean, spread = values.mean(), values.std()
    return f"{mean:,.4g}" if values.nunique() == 1 else f"{mean:,.4g} ± {spread:.2g}"


def _findings(frame: pd.DataFrame) -> str:
    """Which kinds of models have the highest log p(x) and the lowest KID."""
    means = frame.groupby("model", sort=False)[["log_marginal_likelihood", "kid"]].mean()
    likely, near = means["log_marginal_likelihood"].idxmax(), means["kid"].idxmin()
    return (
        f"The highest mean log p(x) is that of: {likely} "
        f"({means.loc[likely, 'log_marginal_likelihood']:.4g} nats); the lowest mean KID that of: "
        f"{near} ({means.loc[near, 'kid']:.4g})."
    )


def _differences(frame: pd.DataFrame, reference: pd.DataFrame) -> list[list[str]]:
    """One row per model other than the reference: paired differences, bold where decided."""
    base = reference.set_index("seed")
    others = frame[frame["arm"] != REFERENCE].groupby("model", sort=False)
    rows = [[str(model)] for model, _ in others]
    for metric in COMPARED:
        paired = [group.set_index("seed")[metric] - base[metric] for _, group in others]
        found = [statistics.contrast([values.dropna().to_numpy()], [1.0]) for values in paired]
        adjusted = statistics.holm([estimate.p_value for estimate in found])
        for row, estimate, p_value in zip(rows, found, adjusted, strict=True):
            text = f"{estimate.value:+.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
            row.append(f"**{text}**" if p_value < ALPHA else text)
    return rows


def draw(frame: pd.DataFrame) -> Figure:
    """log p(x) and KID of every seed, one row per kind of model."""
    figure, axes = new_figure(1, 2, 9.0, 3.2, (False, True))
    models = list(frame["model"].unique())
    for axis, metric in zip(axes, ("log_marginal_likelihood", "kid"), strict=True):
        for place, model in enumerate(models):
            values = frame[frame["model"] == model][metric]
            axis.plot(values, [place] * len(values), "o", markersize=5, alpha=0.7)
        axis.set_xlabel(METRICS[metric], fontsize=9)
        axis.set_yticks(range(len(models)), [style.wrapped(m, 30) for m in models], fontsize=8)
        axis.set_ylim(len(models) - 0.5, -0.5)
    return figure


def write(folder: Path, output: Path, budget: str) -> list[Path]:
    """Writes the page, its table and its figure; returns their paths.

    Raises:
      UserError: a run is not there, or was not evaluated.
    """
    frame = load(folder)
    for name in ("tables", "figures"):
        (output / name).mkdir(parents=True, exist_ok=True)
    paths = [output / "tables" / "models.csv", output / "figures" / "models.png"]
    frame.to_csv(paths[0], index=False, float_format="%.6g")
    draw(frame).savefig(paths[1], dpi=DPI)
    paths.append(output / "index.md")
    paths[2].write_text(page(frame, budget), encoding="utf-8")
    return paths


def main(argv: Sequence[str]) -> int:
    """Reads the runs and writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes docs/study/models.")
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("--output", type=path_argument, default=OUTPUT)
    parser.add_argument("--budget", default="9m", help="that the runs were given, for the page")
    values = parser.parse_args(argv)
    return print_all(lambda: write(values.folder, values.output, values.budget))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
