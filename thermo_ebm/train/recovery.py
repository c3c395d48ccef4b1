"""Recovery: a repetition's folder, resumed from its newest checkpoint or rolled back to one.

Files are rewound to the checkpoint: what was written after it is removed, and written again.
"""

from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.readings import TEMPERATURE_READINGS
from thermo_ebm.run import events, tables
from thermo_ebm.run.layout import (
    READINGS,
    ROLLBACKS,
    TEMPERATURES,
    TENSORBOARD,
    checkpoints_dir,
    repetition_dir,
)
from thermo_ebm.run.records import Rollback, read_rollbacks, write_rollbacks
from thermo_ebm.train import checkpoints, hosts, programs, writers
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.start import Group
from thermo_ebm.train.state import TrainState, init_state
from thermo_ebm.train.task import Task
from thermo_ebm.train.writers import OpenWriters


class Repetition(NamedTuple):
    """An open repetition."""

    number: int
    folder: Path
    checkpoints: Checkpoints
    rollbacks: tuple[Rollback, ...]  # rollbacks so far, oldest first
    events: Any = None  # a TensorBoard writer; None on all processes but the first, or not wanted
    writers: OpenWriters = MappingProxyType({})  # empty on all processes but the first


def open_repetition(
    workdir: Path, number: int, keep: int | None = None, keep_period: int = 0
) -> Repetition:
    """Opens or makes a repetition's folder; its events are opened by `rewind`.

    Raises:
      UserError: the record of its rollbacks is damaged.
    """
    folder = repetition_dir(workdir, number)
    with hosts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        rollbacks = read_rollbacks(folder)
    opened = checkpoints.open_checkpoints(checkpoints_dir(workdir, number), keep, keep_period)
    return Repetition(number, folder, opened, rollbacks)


def close_repetition(repetition: Repetition) -> None:
    """Waits for its checkpoints and closes its files."""
    try:
        checkpoints.close(repetition.checkpoints)
    finally:
        try:
            writers.close_writers(repetition.writers)
        finally:
            if repetition.events is not None:
                with files.clear_errors(repetition.folder):
                    events.close_events(repetition.events)


def is_done(task: Task, workdir: Path, number: int) -> bool:
    """Whether a repetition has a readable checkpoint of its last step.

    Raises:
      UserError: its checkpoints have another structure of the state, or none can be read.
    """
    steps = checkpoints.steps_in(checkpoints_dir(workdir, number))
    if not any(step >= task.total_steps for step in steps):
        return False
    repetition = open_repetition(workdir, number)
    try:
        restored = checkpoints.restore_newest(
            repetition.checkpoints, _shapes(task), programs.replicated()
        )
    finally:
        close_repetition(repetition)
    return restored is not None and _step(restored.state) >= task.total_steps


def steps_done(task: Task, workdir: Path, number: int) -> int:
    """The step from which a repetition would continue; changes nothing.

    Raises:
      UserError: as `is_done`.
    """
    folder = checkpoints_dir(workdir, number)
    if not folder.parent.exists():
        return 0  # without tracing the shapes: a sweep asks for each repetition of each cell
    restored = checkpoints.read_newest(folder, _shapes(task), programs.replicated())
    return 0 if restored is None else _step(restored.state)


def is_pending(task: Task, steps: Any, summed: Any) -> Any:
    """Whether an epoch's steps are done and its readings not yet written; scalars or arrays.

    Args:
      task: what is trained.
      steps: done in all.
      summed: `sums.steps`, which the next epoch begins at 0.
    """
    return (steps % task.steps_per_epoch == 0) & (summed > 0)


def resume(
    group: Group, opened: list[Repetition]
) -> tuple[TrainState, np.ndarray, list[Repetition]]:
    """Each repetition's newest checkpoint, or its first state, which is saved.

    Returns:
      The stacked state, the seconds of each repetition's epoch so far [num_repetitions], and the
      repetitions with their files rewound to there and their writers open.
    """
    states, seconds, rewound = [], np.zeros(len(opened)), []
    first = None
    for i, repetition in enumerate(opened):
        restored = checkpoints.restore_newest(
            repetition.checkpoints, _shapes(group.task), programs.replicated()
        )
        if restored is None:
            first = first or _first_states(group, opened)
            state = programs.select_repetition(first, i)
            checkpoints.save(repetition.checkpoints, state, 0.0)
        else:
            state, seconds[i] = restored
        repetition = _rewind_to(group, repetition, state)
        with hosts.writing(repetition.folder):
            if hosts.is_first():
                names = group.task.config.logging.writers
                connected = writers.open_writers(names, repetition.folder)
                repetition = repetition._replace(writers=connected)
        rewound.append(repetition)
        states.append(_with_branch(repetition, state))
    return programs.stack_repetitions(states), seconds, rewound


def roll_back(
    group: Group, opened: list[Repetition], state: TrainState, i: int
) -> tuple[TrainState, float] | None:
    """Returns repetition i to its newest scheduled checkpoint, with a new branch of its key.

    Its files are rewound and `opened[i]` is replaced. The rollback is recorded before it happens,
    so that a run that is killed in between continues with the same branch.

    Returns:
      The group's state and repetition i's seconds of its epoch so far; None, with a message, if
      the largest number of rollbacks has been reached.
    """
    repetition = opened[i]
    from_step = int(programs.local(state.step)[i])
    if len(repetition.rollbacks) >= group.task.config.divergence.max_rollbacks:
        logging.error(
            "repetition %d diverged at step %d and is given up after %d rollbacks (see %s): lower "
            "the step sizes or the learning rates, or set optimizer.clip_norm",
            *(repetition.number, from_step, len(repetition.rollbacks)),
            repetition.folder / ROLLBACKS,
        )
        return None
    checkpoints.wait(repetition.checkpoints)
    restored = checkpoints.restore_newest(
        repetition.checkpoints, _shapes(group.task), programs.replicated(), due_only=True
    )
    if restored is None:  # every checkpoint was damaged, and moved away
        raise UserError(
            f"{repetition.checkpoints.folder}: no checkpoint is left that repetition "
            f"{repetition.number}, which diverged at step {from_step}, could go back to; to start "
            f"it anew, remove {repetition.folder}"
        )
    checkpoints.discard_interrupted(repetition.checkpoints)
    repetition = _rewind_to(group, repetition, restored.state)
    opened[i] = _record_rollback(repetition, from_step, _step(restored.state))
    states = [programs.select_repetition(state, j) for j in range(len(opened))]
    states[i] = _with_branch(opened[i], restored.state)
    return programs.stack_repetitions(states), restored.seconds


def rewind(
    repetition: Repetition, step: int, epochs_done: int, events_step: int | None
) -> Repetition:
    """Removes what was written after a checkpoint, and opens a new event file; on every process.

    Rollbacks to later steps are removed too, since they will happen again.

    Args:
      repetition: the repetition, open.
      step: the checkpoint's.
      epochs_done: whose readings stay.
      events_step: up to which events stay; None opens no file of them.
    """
    folder = repetition.folder
    rollbacks = tuple(rollback for rollback in repetition.rollbacks if rollback.to_step <= step)
    with hosts.writing(folder):
        if not hosts.is_first():
            return repetition._replace(rollbacks=rollbacks)
        if rollbacks != repetition.rollbacks:
            write_rollbacks(folder, rollbacks)
        tables.truncate(folder / READINGS, epochs_done)
        tables.truncate(folder / TEMPERATURES, epochs_done, TEMPERATURE_READINGS)
        if repetition.events is not None:
            events.close_events(repetition.events)
        opened = None
        if events_step is not None:
            opened = events.open_events(folder / TENSORBOARD, events_step)
    return repetition._replace(rollbacks=rollbacks, events=opened)


def _record_rollback(repetition: Repetition, from_step: int, to_step: int) -> Repetition:
    """Records a rollback, with the next branch of the key, before it happens."""
    rollback = Rollback(from_step, to_step, len(repetition.rollbacks) + 1)
    rollbacks = (*repetition.rollbacks, rollback)
    with hosts.writing(repetition.folder):
        if hosts.is_first():
            write_rollbacks(repetition.folder, rollbacks)
    logging.warning(
        "repetition %d diverged at step %d: back to step %d with branch %d of its key",
        *(repetition.number, *rollback),
    )
    return repetition._replace(rollbacks=rollbacks)


def _shapes(task: Task) -> TrainState:
    return jax.eval_shape(partial(init_state, task), 0)


def _first_states(group: Group, opened: list[Repetition]) -> TrainState:
    """The stacked states before the first step, with the parameters of a warm start."""
    seeds = [group.task.config.seed + repetition.number for repetition in opened]
    states = group.programs.init(np.array(seeds, np.int32))
    params = group.initial()
    if params is None:
        return states
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * len(opened)), params)
    replaced = jax.device_put(stacked, programs.replicated())
    average = None if states.average is None else replaced
    return states._replace(params=replaced, average=average)


def _step(state: TrainState) -> int:
    return int(programs.local(state.step))


def _rewind_to(group: Group, repetition: Repetition, state: TrainState) -> Repetition:
    step = _step(state)
    pending = is_pending(group.task, step, int(programs.local(state.sums.steps)))
    epochs = step // group.task.steps_per_epoch - pending
    with_events = "tensorboard" in group.task.config.logging.writers
    with_events &= bool(pending) or step < group.task.total_steps
    # A pending epoch's events, at its last step, are still to come.
    return rewind(repetition, step, epochs, step - pending if with_events else None)


def _with_branch(repetition: Repetition, state: TrainState) -> TrainState:
    """Applies the newest rollback's key branch to a state saved before that rollback.

    Skipped steps are counted anew on this branch.
    """
    branch = len(repetition.rollbacks)
    if int(programs.local(state.branch)) >= branch:
        return state
    replaced = {"branch": np.int32(branch), "skipped_in_row": np.int32(0)}
    return state._replace(**jax.device_put(replaced, programs.replicated()))
