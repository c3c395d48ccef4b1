"""Loading a trained run: its configuration, its model, and the parameters of its checkpoints."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config import checks
from thermo_ebm.errors import UserError, first_line
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.run import best, configuration, layout, record
from thermo_ebm.train import checkpoints
from thermo_ebm.train.tasks import updates_per_epoch
from thermo_ebm.types import Params, PRNGKey


class UnusableCheckpoint(Exception):
    """A checkpoint that is damaged or whose model is not finite; the message is one line.

    Not a subclass of `ValueError`, so that errors of the program are not mistaken for it.
    """


class TrainedRun(NamedTuple):
    """A run's folder, with its configuration and model."""

    workdir: Path
    config: ConfigDict
    model: LatentEBM
    steps_per_epoch: int
    total_steps: int


def open_run(workdir: Path) -> TrainedRun:
    """Reads a run's configuration and builds its model.

    Raises:
      UserError: the folder is not a run directory, or its configuration is damaged.
    """
    config = ConfigDict(configuration.read_config(workdir))
    try:
        checks.check(config)
        model = make_model(config.model, config.data.channels)
    except (UserError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir / layout.CONFIG}: not a complete configuration: {error}"
        ) from error
    steps_per_epoch = updates_per_epoch(config)
    return TrainedRun(workdir, config, model, steps_per_epoch, config.num_epochs * steps_per_epoch)


def repetitions(run: TrainedRun) -> list[int]:
    """The numbers of the repetitions that have a folder, in order."""
    folders = run.workdir.glob("rep_[0-9]*")
    return sorted(int(path.name[4:]) for path in folders if path.name[4:].isdigit())


def checkpoint_steps(run: TrainedRun, number: int) -> list[int]:
    """The steps for which a repetition has complete checkpoints, in order."""
    return checkpoints.steps_in(_folder(run, number))


def epoch_steps(run: TrainedRun, number: int) -> list[int]:
    """The steps in `checkpoint_steps` at the end of an epoch, except step 0."""
    return [s for s in checkpoint_steps(run, number) if s > 0 and s % run.steps_per_epoch == 0]


def load_params(run: TrainedRun, number: int, at_step: int) -> Params:
    """The parameters of one checkpoint, on the default device.

    Raises:
      FileNotFoundError: the checkpoint is not there (any more).
      UserError: it was made by a program whose state has another structure.
      UnusableCheckpoint: it is damaged.
    """
    return _load(run, _folder(run, number), at_step)


def load_best(run: TrainedRun, number: int, at_step: int) -> Params:
    """The parameters of a repetition's copy of its best checkpoint; raises as `load_params`."""
    return _load(run, layout.repetition_dir(run.workdir, number) / layout.BEST, at_step)


def _load(run: TrainedRun, folder: Path, at_step: int) -> Params:
    path = folder / str(at_step)
    template = jax.eval_shape(lambda: run.model.init(jax.random.key(0)))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        return checkpoints.restore_params(folder, at_step, template, sharding)
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds
        if not path.is_dir():  # training removes old checkpoints, even while they are read
            raise FileNotFoundError(path) from error
        reason = first_line(error)[:200]
        raise UnusableCheckpoint(f"{path} cannot be read ({reason})") from error


def chosen_params(run: TrainedRun, number: int, at_step: int | str | None) -> tuple[int, Params]:
    """Step and parameters of a repetition's checkpoint.

    Args:
      run: the run.
      number: of the repetition.
      at_step: a step, "best" (see `evaluation.best`), or None for the newest.

    Raises:
      UserError: there is no such repetition or checkpoint, or it cannot be read.
    """
    known = repetitions(run)
    if number not in known:
        there = ", ".join(map(str, known)) or "none"
        raise UserError(f"repetition={number}: {run.workdir} has {there}")
    if at_step == layout.BEST:
        return _best_params(run, number)
    steps = checkpoint_steps(run, number)
    if not steps:
        raise UserError(f"{_folder(run, number)}: no checkpoint there; train first")
    chosen = steps[-1] if at_step is None else at_step
    if not isinstance(chosen, int) or chosen not in steps:
        raise UserError(f"step={chosen}: no such checkpoint; there are {_listed(steps)}")
    try:
        return chosen, load_params(run, number, chosen)
    except (FileNotFoundError, UnusableCheckpoint) as error:
        others = _listed([other for other in steps if other != chosen])
        raise UserError(f"{error}; choose another step: {others}") from error


def _best_params(run: TrainedRun, number: int) -> tuple[int, Params]:
    folder = layout.repetition_dir(run.workdir, number)
    held, how = best.read(folder), "run launch.eval --keep_best=METRIC"
    if held is None:
        raise UserError(f"step=best: {folder} has no best checkpoint yet; {how}")
    try:
        return held.step, load_best(run, number, held.step)
    except (FileNotFoundError, UnusableCheckpoint) as error:
        raise UserError(f"step=best: {error}; remove {folder / layout.BEST} and {how}") from error


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def validation_images(run: TrainedRun, data_dir: str | None = None) -> np.ndarray:
    """The run's held-out images, uint8 [num_val, height, width, channels].

    Args:
      run: the run.
      data_dir: where the data are now; None for the place that the run recorded.

    Raises:
      UserError: they are not there, or cannot be read.
    """
    config = run.config.data.copy_and_resolve_references()
    if data_dir is not None:
        config.data_dir = data_dir
    config.num_train = 1  # held-out images do not depend on num_train; none of these is decoded
    try:
        return data.load(config, skipped=record.read_skipped(run.workdir)).validation
    except UserError as error:
        raise UserError(f"{error} (data_dir says where the data are now)") from error


def repetition_key(run: TrainedRun, number: int) -> PRNGKey:
    """The key a repetition was trained with."""
    return jax.random.key(run.config.seed + number)


def _folder(run: TrainedRun, number: int) -> Path:
    return layout.checkpoints_dir(run.workdir, number)
