"""One tidy table of readings, from run folders and from the study's published files alike."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from study.cells import label_rows, make_cells
from study.published import load_published
from study.runs import StudyRun, load_runs
from study.titles import dataset_title, split_metric
from thermo_ebm.errors import UserError

PUBLISHED, RUNS = "published", "runs"  # where readings come from
REPETITION = ["run", "repetition"]
EVERY_EPOCH = [
    *("epoch", "step", "train_loss", "train_grad_mean", "val_loss"),
    *("train_grad_var", "train_grad_var_prior", "train_grad_var_generator"),
]


class Section(NamedTuple):
    """The readings of one data set and origin."""

    dataset: str
    origin: str  # PUBLISHED or RUNS
    frame: pd.DataFrame  # one row per repetition and epoch, by cells in the order of display
    last: pd.DataFrame  # one row per repetition: `final` of the frame, and hours of training
    cells: pd.DataFrame  # configuration fields by the cell's label; see `cells`

    @property
    def title(self) -> str:
        """The heading of all cells of the section."""
        source = "published readings" if self.origin == PUBLISHED else "own runs"
        return f"{dataset_title(self.dataset)}, {source}"


class Readings(NamedTuple):
    """Everything that a report is made of."""

    frame: pd.DataFrame  # one row per repetition and epoch; columns as in `load`
    fields: list[str]  # its columns that are configuration fields
    temperatures: pd.DataFrame  # last epoch's temperatures.csv of all repetitions; may be empty
    runs: list[StudyRun]  # the run folders read
    notes: list[str]  # what a reader must know of the data, one line each


def load(runs: Path | None, published: Path | None) -> Readings:
    """Reads run folders, the published readings, or both.

    Returns:
      Readings whose frame has the columns ``dataset`` and ``origin``, configuration fields by their
      dotted names (NaN where a field has no meaning), ``cell`` (the label of the configuration in
      its data set), ``run``, ``repetition``, ``seed``, ``planned_epochs``, ``epoch`` (from 1), the
      columns of readings.csv, and those of eval.csv (``<network>_<metric>``); losses in nats per
      image.

    Raises:
      UserError: nothing is asked for, or a folder or file is missing or malformed.
    """
    if runs is None and published is None:
        raise UserError("nothing to report on: give runs, readings or both")
    frames, configurations = [], []
    temperatures, folders, notes = pd.DataFrame(), [], []
    if runs is not None:
        run_readings = load_runs(runs)
        frames.append(run_readings.frame)
        configurations.append(run_readings.configurations.assign(origin=RUNS))
        temperatures, folders = run_readings.temperatures, run_readings.runs
        notes = run_readings.notes
    if published is not None:
        frame, configuration = load_published(published)
        frames.append(frame)
        configurations.append(configuration.assign(origin=PUBLISHED))
    by_run = label_configurations(pd.concat(configurations))
    frame = pd.concat(frames, ignore_index=True).join(by_run, on="run")
    frame, doubled = drop_doubled(frame)
    if not temperatures.empty:
        temperatures = temperatures.assign(cell=temperatures["run"].map(by_run["cell"]))
    fields = [name for name in by_run.columns if name not in ("dataset", "origin", "cell")]
    return Readings(frame, fields, temperatures, folders, notes + doubled)


def label_configurations(configurations: pd.DataFrame) -> pd.DataFrame:
    """Adds the column ``cell``.

    Args:
      configurations: dataset, origin and configuration fields, one row per run.
    """
    parts = []
    for _, part in configurations.groupby(["dataset", "origin"], sort=False):
        fields = part.drop(columns=["dataset", "origin"])
        parts.append(part.assign(cell=label_rows(fields, make_cells(fields))))
    return pd.concat(parts)


def drop_doubled(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keeps one of several repetitions with the same images, settings and seed: they are one draw.

    Returns the remaining rows (of the repetition with most epochs) and a note for each repetition
    left out.
    """
    notes, drop = [], []
    for _, rows in frame.groupby(["dataset", "origin", "cell", "seed"], sort=False):
        repetitions = [part for _, part in rows.groupby(REPETITION)]
        first, *doubled = sorted(repetitions, key=len, reverse=True)
        for part in doubled:
            drop.extend(part.index)
            name = f"{part['run'].iloc[0]}/rep_{part['repetition'].iloc[0]:02d}"
            notes.append(
                f"{name}: left out: it repeats the settings and the seed of {first['run'].iloc[0]}."
            )
    return frame.drop(index=drop).reset_index(drop=True), notes


def final(frame: pd.DataFrame, epochs: int = 1) -> pd.DataFrame:
    """Returns one row per repetition: its last epoch, or the readings' means over the last ones.

    A reading that is not taken every epoch (a metric, the gradient noise) keeps its newest value; a
    loss or gradient statistic that is not finite at the end stays so.
    """
    ordered = frame.sort_values("epoch", kind="stable")
    groups = ordered.groupby(REPETITION, sort=False)
    every_epoch = [name for name in EVERY_EPOCH if name in frame]
    last = groups.last()
    last[every_epoch] = groups.tail(1).set_index(REPETITION)[every_epoch]
    if epochs > 1:
        means = [
            name
            for name in last.select_dtypes("number").columns
            if name not in ("seed", "planned_epochs", "epoch", "step") and "." not in name
        ]
        recent = frame[
            frame["epoch"] > frame.groupby(REPETITION)["epoch"].transform("max") - epochs
        ]
        last[means] = recent.groupby(REPETITION)[means].mean()
    order = frame[REPETITION].drop_duplicates()
    return last.loc[pd.MultiIndex.from_frame(order)].reset_index()[list(frame.columns)]


def sections(readings: Readings) -> list[Section]:
    """Returns the readings of each data set and origin, sorted: a report has a part for each."""
    result = []
    for (dataset, origin), rows in readings.frame.groupby(["dataset", "origin"]):
        runs = rows.drop_duplicates("run").set_index("cell")[readings.fields]
        cells = make_cells(runs)
        place = rows["cell"].map({label: number for number, label in enumerate(cells.index)})
        ordered = rows.assign(place=place).sort_values(["place", *REPETITION, "epoch"])
        frame = ordered.drop(columns="place").reset_index(drop=True)
        described = frame.columns.isin([*readings.fields, "cell", *REPETITION, "seed", "epoch"])
        frame = frame.loc[:, described | frame.notna().any()]
        last = final(frame)
        if "seconds" in frame:
            hours = frame.groupby(REPETITION)["seconds"].sum() / 3600.0
            last["hours"] = hours.reindex(pd.MultiIndex.from_frame(last[REPETITION])).to_numpy()
        result.append(Section(str(dataset), str(origin), frame, last, cells))
    return result


def networks(frame: pd.DataFrame) -> list[str]:
    """Returns the feature networks that the readings hold a KID or FID of, InceptionV3 first."""
    names = {
        metric.network
        for column in frame.columns
        if (metric := split_metric(column)) and metric.metric in ("kid_inf", "fid_inf")
        if frame[column].notna().any()
    }
    return sorted(names, key=lambda name: ("inception" not in name, name))
