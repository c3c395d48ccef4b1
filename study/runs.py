"""Reads run folders: configurations, readings, temperatures and evaluations of each repetition."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from study.cells import SYMBOLS, VANILLA, varied
from thermo_ebm.config.checks import check_value
from thermo_ebm.errors import UserError
from thermo_ebm.fields import FIELDS, flatten
from thermo_ebm.run import warm_start
from thermo_ebm.run.configuration import is_free, read_config
from thermo_ebm.run.layout import CHANGES, CONFIG, EVALUATIONS, IMAGES, READINGS, TEMPERATURES
from thermo_ebm.run.provenance import are_same_images, read_levels
from thermo_ebm.run.records import Change, read_changes
from thermo_ebm.run.tables import NETWORK, check_epochs, read_columns

LOCAL = ("folder", "npz", "idx")  # data sets that are known by where they are
# Runs that differ in one of these fields took other images of one source, or other sizes of them.
_SELECTION = ("data.num_train", "data.image_size", "data.channels")


class StudyRun(NamedTuple):
    """One run folder."""

    folder: Path
    config: dict[str, Any]  # flattened to dotted names, and `init_from`: what the run began with
    changes: list[Change]  # of the configuration during training

    @property
    def mixing_changes(self) -> list[Change]:
        """Changes that make the run a mixture of two configurations.

        Fields that change nothing that is computed do not count, nor does a field that was changed
        before the first step. One that was changed and changed back counts: some epochs had
        another value.
        """
        return [change for change in self.changes if change.step > 0 and not is_free(change.field)]


class RunReadings(NamedTuple):
    """The readings of all runs."""

    frame: pd.DataFrame  # one row per repetition and epoch
    configurations: pd.DataFrame  # data set and configuration fields by run
    temperatures: pd.DataFrame  # of the last epoch of each repetition
    runs: list[StudyRun]  # all of them, also those without readings
    notes: list[str]


def load_runs(folder: Path) -> RunReadings:
    """Reads every run under `folder`.

    A run whose configuration changed during training belongs to no cell: it is left out of the
    readings, with a note, and stays among the runs.

    Raises:
      UserError: naming the file (and line), for a folder without runs or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"runs={folder}: no such folder")
    runs = [read_run(path) for path in sorted(_run_folders(folder))]
    if not runs:
        raise UserError(f"runs={folder}: holds no run directory (one with a {CONFIG})")
    frames, temperatures, notes = [], [], []
    for run in runs:
        repetitions = sorted(run.folder.glob(f"rep_[0-9]*/{READINGS}"))
        if run.mixing_changes:
            described = "; ".join(map(describe_change, run.mixing_changes))
            notes.append(f"{run.folder}: left out: its configuration changed ({described}).")
            continue
        if not repetitions:
            notes.append(f"{run.folder}: left out: it has no readings yet.")
        for path in repetitions:
            frame, remarks = _load_repetition(run, path)
            frames.append(frame)
            notes += remarks
            temperatures += _load_temperatures(run, path.with_name(TEMPERATURES))
    if not frames:
        reason = "no run has a readings.csv yet; train first"
        if any(run.mixing_changes for run in runs):
            reason = (
                "the configuration of every run with readings changed during training; "
                f"see {CHANGES}"
            )
        raise UserError(f"runs={folder}: {reason}")
    frame = pd.concat(frames, ignore_index=True)
    parts = pd.concat(temperatures, ignore_index=True) if temperatures else pd.DataFrame()
    present = set(frame["run"])
    configurations = make_configurations([run for run in runs if str(run.folder) in present])
    return RunReadings(frame, configurations, parts, runs, notes + _unfinished(frame))


def describe_change(change: Change) -> str:
    """Returns ``loss.power 6 → 1 after epoch 3``."""
    old, new = json.dumps(change.old), json.dumps(change.new)
    return f"{change.field} {old} → {new} after epoch {change.epoch}"


def repetition_of(path: Path) -> int:
    """Returns r of a file in a folder ``rep_<r>``."""
    name = re.fullmatch(r"rep_(\d+)", path.parent.name)
    if name is None:
        raise UserError(f"{path}: its folder is not named rep_<number>; rename or remove it")
    return int(name[1])


# Configurations.


def make_configurations(runs: Sequence[StudyRun]) -> pd.DataFrame:
    """Returns the data set and the fields of each run, one row per run.

    The fields are those of `SYMBOLS` and every further one that differs between two runs. Fields of
    the thermodynamic loss are NaN for the vanilla one. Where all runs of a data set are planned
    with the same number of updates, their numbers of epochs follow from their batches: no field.
    """
    datasets = label_sources([read_source(run) for run in runs])
    rows = [
        _cell_fields(run.config) | {"dataset": name}
        for run, name in zip(runs, datasets, strict=True)
    ]
    frame = pd.DataFrame(rows, index=[str(run.folder) for run in runs])
    updates = pd.Series([_num_updates(run.config) for run in runs], frame.index)
    follows = updates.groupby(frame["dataset"]).transform("nunique") == 1
    frame.loc[follows, "num_epochs"] = math.nan
    further = varied(frame.drop(columns=["dataset", *SYMBOLS], errors="ignore"))
    return frame.reindex(columns=["dataset", *SYMBOLS, *further])


def read_run(folder: Path) -> StudyRun:
    """Reads a run's configuration, its changes and what it began with.

    Raises:
      UserError: naming the file and the field, for one that is damaged or a value that no run has.
    """
    config = flatten(read_config(folder))
    for name in config.keys() & FIELDS.keys():
        try:
            check_value(name, config[name])
        except UserError as error:
            raise UserError(f"{folder / CONFIG}: {error}") from error
    return StudyRun(folder, config | {"init_from": _first_parameters(folder)}, read_changes(folder))


def _first_parameters(folder: Path) -> str:
    """Describes the parameters that a run began with: ``random``, or ``RUN:REPETITION:STEP#HASH``.

    The hash of the parameters distinguishes runs of the same name.
    """
    start = warm_start.read(folder)
    if start is None:
        return "random"
    digest = hashlib.sha256()
    for name in sorted(start.params):
        digest.update(name.encode() + start.params[name].tobytes())
    run = Path(start.source.run).name
    return f"{run}:{start.source.repetition}:{start.step}#{digest.hexdigest()[:8]}"


def _cell_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that decide a run's cell: numbers as floats, everything else as text.

    Repetitions differ by seed; images are recognised by their record, wherever they are stored.
    """
    fields: dict[str, Any] = {}
    for name, value in config.items():
        ignored = is_free(name) or name in ("seed", "data.name")
        of_other_loss = (
            name.startswith("loss.") and name != "loss.name" and config["loss.name"] == VANILLA
        )
        if name == "num_epochs" or not (ignored or of_other_loss):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            fields[name] = float(value) if is_number else str(value)
    if config["loss.correction"] != "pooled_gaussian":  # the only one with a KL form and weight
        fields |= {"loss.kl_weight": math.nan, "loss.kl_form": math.nan}
    return fields


def _num_updates(config: Mapping[str, Any]) -> int:
    """The updates that a run is planned with."""
    images = config["batch_size"] * config["gradient_noise.accumulate"]
    return config["num_epochs"] * (config["data.num_train"] // images)


# Images.


class ImageSource(NamedTuple):
    """Where the images of a run come from, and what is recorded of them."""

    name: str  # data.name
    place: str  # data.data_dir
    selection: tuple[Any, ...]  # values of `_SELECTION`
    levels: tuple[float, ...]  # mean levels of parts of some images, 0 to 255; may be empty

    def is_same(self, other: "ImageSource") -> bool:
        """Whether two runs have the same source of images."""
        if self.name != other.name:
            return False
        if self.levels and other.levels and self.selection == other.selection:
            return are_same_images(self.levels, other.levels)
        return self.name not in LOCAL or self.place == other.place


def read_source(run: StudyRun) -> ImageSource:
    """Reads the record of a run's images.

    Raises:
      UserError: the record is damaged.
    """
    levels = read_levels(run.folder / IMAGES) or ()
    selection = tuple(run.config[name] for name in _SELECTION)
    place = run.config["data.data_dir"] or ""
    return ImageSource(run.config["data.name"], place, selection, tuple(levels))


def label_sources(sources: Sequence[ImageSource]) -> list[str]:
    """Returns a label for each source: equal labels for the same images alone.

    The label is the data set's name. Local images have the name of their file or folder added, and
    images that still have the same label get a number.
    """
    distinct: list[ImageSource] = []
    places = []
    for source in sources:
        same = (i for i, other in enumerate(distinct) if other.is_same(source))
        places.append(next(same, len(distinct)))
        if places[-1] == len(distinct):
            distinct.append(source)
    names = [
        f"{source.name} {Path(source.place).stem if source.name in LOCAL else ''}".strip()
        for source in distinct
    ]
    labels = [
        f"{name} {names[:number].count(name) + 1}" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]
    return [labels[place] for place in places]


# Repetitions.


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yields the outermost folders with a config.json; nothing inside a run is another run."""
    if (folder / CONFIG).is_file():
        yield folder
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            yield from _run_folders(child)


def _load_repetition(run: StudyRun, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Returns the epochs of one repetition, and remarks on them."""
    readings = read_columns(path, ("epoch", "train_loss", "train_grad_var"), allow_empty=True)
    check_epochs(path, readings, "epoch")
    frame = pd.DataFrame(readings.columns)
    notes: list[str] = []
    evaluations = path.with_name(EVALUATIONS)
    if evaluations.is_file():
        table = read_columns(evaluations, ("epoch",), text=(NETWORK,), allow_empty=True)
        check_epochs(evaluations, table, "epoch", repeats=True)  # checkpoints within an epoch
        metrics = pd.DataFrame(table.columns).drop(columns=["step", NETWORK], errors="ignore")
        _refuse_columns(evaluations, set(metrics) & set(frame) - {"epoch"})
        notes = _old_evaluations(path.parent, metrics, frame["epoch"].max())
        frame = frame.merge(_last_of_each_epoch(metrics), on="epoch", how="left")
    repetition = repetition_of(path)
    constants = {
        "run": str(run.folder),
        "repetition": repetition,
        "seed": float(run.config["seed"] + repetition),
        "planned_epochs": float(run.config["num_epochs"]),
    }
    reserved = {*constants, *run.config, "dataset", "origin", "cell"}
    _refuse_columns(path, reserved & set(frame))
    if "seconds" in frame and "group_size" in frame:  # repetitions that trained together
        frame["seconds"] /= frame["group_size"].where(frame["group_size"] > 0.0, 1.0)
    return frame.assign(**constants), notes


def _last_of_each_epoch(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per epoch: of each network, the metrics of its last row there."""
    metrics = metrics.copy()
    # The longest name first: a network's name may begin with another's.
    ending = "_num_images"
    networks = [name.removesuffix(ending) for name in metrics if name.endswith(ending)]
    columns = [name for name in metrics if name != "epoch"]
    for network in sorted(networks, key=len, reverse=True):
        of_network = [name for name in columns if name.startswith(f"{network}_")]
        columns = [name for name in columns if name not in of_network]
        evaluated = metrics[metrics[f"{network}_num_images"].notna()]
        earlier = evaluated.index[evaluated.duplicated("epoch", keep="last")]
        metrics.loc[earlier, of_network] = math.nan
    return metrics.groupby("epoch", as_index=False).last()


def _refuse_columns(path: Path, columns: set[str]) -> None:
    if columns:
        raise UserError(
            f"{path}, line 1: the column {min(columns)} has another meaning; rename or remove it"
        )


def _old_evaluations(folder: Path, metrics: pd.DataFrame, last: float) -> list[str]:
    """Remarks on metrics that stand beside the variance of a later epoch than their own."""
    newest = {
        metrics.loc[metrics[name].notna(), "epoch"].max() for name in metrics if name != "epoch"
    }
    return [
        f"{folder}: metrics of epoch {epoch:g} beside the readings of epoch {last:g}."
        for epoch in sorted(epoch for epoch in newest if epoch < last)
    ]


def _load_temperatures(run: StudyRun, path: Path) -> list[pd.DataFrame]:
    if not path.is_file():
        return []
    required = ("epoch", "index", "temperature", "expected_log_likelihood")
    table = read_columns(path, required, allow_empty=True)
    check_epochs(path, table, "epoch", repeats=True)
    frame = pd.DataFrame(table.columns)
    frame = frame[frame["epoch"] == frame["epoch"].max()]
    return [frame.assign(run=str(run.folder), repetition=repetition_of(path))]


def _unfinished(frame: pd.DataFrame) -> list[str]:
    notes = []
    for (run, repetition), rows in frame.groupby(["run", "repetition"]):
        trained = rows.loc[rows["train_loss"].notna(), "epoch"].max()
        planned = rows["planned_epochs"].iloc[0]
        if trained < planned:
            notes.append(f"{run}/rep_{repetition:02d}: {trained:g} of {planned:g} epochs done.")
    return notes
