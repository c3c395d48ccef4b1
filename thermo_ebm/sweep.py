"""Sweeps: the cells of an experiment, what has become of each, and training one of them."""

import enum
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import config as configuration
from thermo_ebm import evaluation, trained
from thermo_ebm.errors import UserError
from thermo_ebm.train import loop, rundir
from thermo_ebm.train.loop import Outcome


class Cell(NamedTuple):
    """One setting of an experiment."""

    name: str  # of its folder
    config: ConfigDict


class Status(enum.Enum):
    """What has become of a cell."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"


def make_cells(base: ConfigDict, changes: Iterable[Mapping[str, Any]]) -> list[Cell]:
    """Returns an experiment's cells over one data set's configuration.

    Args:
      base: the configuration that all cells share.
      changes: the fields that each cell changes, such as {"loss.power": 6.0}.

    Raises:
      UserError: a change names a field that does not exist, or two cells are the same.
    """
    cells = [_make_cell(base, change) for change in changes]
    for i, cell in enumerate(cells):
        if cell.name in [other.name for other in cells[:i]]:
            raise UserError(f"--experiment: the cell {cell.name} is there twice")
    return cells


def _make_cell(base: ConfigDict, change: Mapping[str, Any]) -> Cell:
    config = ConfigDict(base.to_dict())
    try:
        with config.unlocked():
            config.update_from_flattened_dict(dict(change))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--experiment: {' '.join(str(error).split())}") from error
    unknown = [field for field in change if field not in _flat(base)]
    if unknown:
        raise UserError(f"--experiment: there is no field {unknown[0]}")
    return Cell(_name(config, change), config)


def _name(config: ConfigDict, change: Mapping[str, Any]) -> str:
    """A name that can be read, and a digest of the whole cell, so that no two collide."""
    shown = {field: value for field, value in change.items() if field != "num_repetitions"}
    words = [f"{field.split('.')[-1]}={value}" for field, value in sorted(shown.items())]
    # What may change when a run goes on is no part of what it is.
    whole = {field: value for field, value in _flat(config).items() if not rundir.is_free(field)}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([config.data.name, *words, digest])


def _flat(config: ConfigDict) -> dict[str, Any]:
    return rundir.flatten(rundir.as_json(config))


def status(root: Path, cell: Cell, features: str) -> Status:
    """What has become of a cell whose folder is `root / cell.name`."""
    folder = root / cell.name
    if not (folder / rundir.CONFIG).exists():
        return Status.WAITING
    if rundir.is_held(folder):
        return Status.RUNNING
    run = trained.open_run(folder)
    numbers = range(cell.config.num_repetitions)
    ended = all(run.total_steps in trained.checkpoint_steps(run, number) for number in numbers)
    if ended and not evaluation.todo(run, features, newest_only=True):
        return Status.DONE
    return Status.WAITING


def run_cell(root: Path, cell: Cell, reference: ConfigDict, settings: evaluation.Settings) -> None:
    """Trains and evaluates one cell, from wherever an earlier attempt left it.

    Args:
      root: the sweep's folder.
      cell: the cell.
      reference: a configuration with every field there is (`configs/base.py`).
      settings: of the evaluation of each repetition's newest checkpoint.

    Raises:
      UserError: it cannot be trained or evaluated.
      RuntimeError: it diverged or was interrupted.
    """
    import jax

    folder = root / cell.name
    configuration.check(cell.config, reference)
    with rundir.hold(folder):
        rundir.check_config(folder, cell.config)
        device = jax.devices()[0]
        rundir.write_versions(folder, device.platform, device.device_kind)
        outcome = loop.train(cell.config, folder)
        if outcome is Outcome.INTERRUPTED:
            raise RuntimeError(f"{cell.name}: interrupted; checkpoints are written")
        run = trained.open_run(folder)
        prepared = None
        for one in evaluation.todo(run, settings.features, newest_only=True):
            prepared = prepared or evaluation.prepare(run, settings)
            evaluation.evaluate(run, one, prepared)
    if outcome is Outcome.DIVERGED:
        raise RuntimeError(f"{cell.name}: a repetition diverged for good; see its rollbacks.json")
