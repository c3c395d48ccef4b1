"""The cells of an experiment: read from its file, named, their status, and their training."""

import contextlib
import enum
import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import fields
from thermo_ebm.config import checks, shipped
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.evaluation import evaluate
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.run import Run, load_run
from thermo_ebm.run import configuration, layout, lock
from thermo_ebm.train import loop, timing
from thermo_ebm.train.loop import Outcome

_MAX_READABLE = 150  # characters of a cell's name before the hash; file systems allow 255


class Cell(NamedTuple):
    """A configuration of a sweep, with all its repetitions."""

    name: str  # name of the cell's folder
    config: ConfigDict
    budget: float = 0.0  # seconds of training, which then set the number of epochs; 0: none


class Status(enum.Enum):
    """The status of a cell."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"


# Entered while a cell trains; yields a function that says whether training must save and end.
CatchInterrupts = Callable[[], AbstractContextManager[Callable[[], bool]]]


def read_changes(path: Path, config: ConfigDict) -> list[dict[str, Any]]:
    """Runs an experiment's file and returns its cells' changes of the configuration.

    Args:
      path: a Python file with `get_cells()` or `get_cells(config)`, which returns or yields a dict
        for each cell: fields with dots, such as "loss.power", and their values.
      config: the argument of `get_cells(config)`.

    Raises:
      UserError: the file does not exist, defines no such function, or raises an error.
    """
    if not path.is_file():
        advice = shipped.suggest(str(path), "get_cells")
        raise UserError(f"experiment={path}: there is no such file{advice}")
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None:
        raise UserError(f"experiment={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_cells = getattr(module, "get_cells", None)
        if not callable(get_cells):
            raise UserError(
                f"experiment={path}: defines no function get_cells(), which returns a list of "
                'cells such as {"loss.power": 6.0}; see configs/experiment1.py'
            )
        takes_config = bool(inspect.signature(get_cells).parameters)
        return list(get_cells(config) if takes_config else get_cells())
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"experiment={path}: {reason}") from error


def make_cells(
    base: ConfigDict, changes: Iterable[Mapping[str, Any]], budget: float = 0.0
) -> list[Cell]:
    """Returns an experiment's cells over one data set's configuration.

    Args:
      base: the configuration that all cells share.
      changes: the fields that each cell changes, such as {"loss.power": 6.0}.
      budget: seconds of training of each cell; 0 for none.

    Raises:
      UserError: there is no cell, a change names an unknown field or has another type, or two
        cells are the same run.
    """
    cells = [_make_cell(base, change)._replace(budget=budget) for change in changes]
    if not cells:
        raise UserError("experiment: get_cells() returns no cell")
    names = [cell.name for cell in cells]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(
                f"experiment: cells {names.index(name) + 1} and {i + 1} are the same run, {name}"
            )
    return cells


def _make_cell(base: ConfigDict, change: Mapping[str, Any]) -> Cell:
    if not isinstance(change, Mapping):
        raise UserError(f"experiment: a cell is a dict of fields and values, not {change!r}")
    base_fields = _flatten(base)
    config = ConfigDict(base.to_dict())
    for field, value in change.items():
        _check_field(field, value, base_fields)
        try:
            config.update_from_flattened_dict({field: value})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            kind = type(base_fields[field]).__name__
            raise UserError(f"experiment: {field}={value!r}: must be {kind}") from error
    return Cell(_name(config, change), config)


def _check_field(field: str, value: Any, names: Iterable[str]) -> None:
    """Refuses a change of something that is not a field, such as a group of fields."""
    if field in names:
        return
    if group := [name for name in names if name.startswith(f"{field}.")]:
        members = [f"{field}.{name}" for name in value] if isinstance(value, Mapping) else group[:1]
        example = ", ".join(f'"{member}": ...' for member in members)
        raise UserError(f"experiment: {field} is a group of fields; name each: {{{example}}}")
    raise UserError(f"experiment: {field}: {fields.unknown(field)}")


def _name(config: ConfigDict, change: Mapping[str, Any]) -> str:
    """A readable name with a hash of the complete cell, so that no two names collide."""
    values, defaults = _flatten(config), _flatten(ConfigDict(fields.defaults()))
    # Fields that may change when a run continues are not part of its identity. Neither are
    # defaults, so that a field of a later version renames no cell.
    identity = {
        field: value
        for field, value in values.items()
        if not configuration.is_free(field) and value != defaults[field]
    }
    words = [
        f"{short_name(field, values)}={values[field]}"
        for field in sorted(change)
        if not configuration.is_free(field)
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9._=+-]+", "-", "_".join([config.data.name, *words]))
    return f"{readable[:_MAX_READABLE]}_{digest}"


def short_name(field: str, names: Iterable[str]) -> str:
    """The shortest ending of a field's name that no other field has: prior.num_steps, power."""
    parts = field.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if not any(other.endswith(f".{end}") for other in names if other != field):
            return end
    return field


def _flatten(config: ConfigDict) -> dict[str, Any]:
    return fields.flatten(configuration.as_json(config))


def status(root: Path, cell: Cell, settings: MetricSettings) -> Status:
    """The status of a cell whose folder is `root / cell.name`; never FAILED.

    A cell is done when every repetition is trained as far as the cell says (more epochs may be
    asked for than at first) and its newest checkpoint is evaluated.
    """
    folder = root / cell.name
    if lock.is_held(folder):
        return Status.RUNNING
    try:
        done = (folder / layout.CONFIG).exists() and _is_done(load_run(folder), cell)
        done = done and not _to_evaluate(load_run(folder), cell, settings)
    except UserError:  # damaged: running the cell reports the error
        return Status.WAITING
    return Status.DONE if done else Status.WAITING


def _is_done(run: Run, cell: Cell) -> bool:
    epochs = run.config.num_epochs if cell.budget else cell.config.num_epochs
    total = epochs * run.steps_per_epoch
    return all(
        any(step >= total for step in run.checkpoint_steps(number))
        for number in range(cell.config.num_repetitions)
    )


def _to_evaluate(run: Run, cell: Cell, settings: MetricSettings) -> list[evaluate.Checkpoint]:
    newest = evaluate.unevaluated(run, settings, newest_only=True)
    return [
        checkpoint for checkpoint in newest if checkpoint.repetition < cell.config.num_repetitions
    ]


def run_cell(
    root: Path,
    cell: Cell,
    settings: MetricSettings,
    catch: CatchInterrupts = lambda: contextlib.nullcontext(lambda: False),
) -> Outcome:
    """Trains and evaluates one cell, from wherever an earlier attempt left it.

    Args:
      root: the sweep's folder.
      cell: the cell, its configuration checked (`checks.check`).
      settings: of the evaluation of each repetition's newest checkpoint.
      catch: open while the cell trains. Evaluation can be interrupted at any time anyway.

    Returns:
      How training ended. Diverged repetitions are evaluated like the others; an interrupted cell is
      not evaluated.

    Raises:
      UserError: it cannot be trained or evaluated.
    """
    folder = root / cell.name
    config = cell.config
    checks.check(config)
    with lock.hold(folder):
        if cell.budget:
            config = timing.with_budget(config, folder, cell.budget)
            checks.check(config)
        configuration.check_config(folder, config)
        with catch() as interrupted:
            outcome = loop.train(config, folder, interrupted)
        if outcome is not Outcome.INTERRUPTED:
            _evaluate(load_run(folder), cell, settings)
    return outcome


def _evaluate(run: Run, cell: Cell, settings: MetricSettings) -> None:
    pending = _to_evaluate(run, cell, settings)
    if not pending:
        return
    network = settings.choose_network()
    prepared = evaluate.prepare(run, settings, network)
    failed = [
        checkpoint for checkpoint in pending if evaluate.evaluate(run, checkpoint, prepared) is None
    ]
    if failed:
        which = ", ".join(f"repetition {number} at step {step}" for number, step in failed)
        raise UserError(f"{run.workdir}: not evaluated: {which}; the log says why")
