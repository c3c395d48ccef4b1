"""Recovery: `resume` from the newest checkpoint, `roll_back` to one, `rewind` files to a step."""

from functools import lru_cache, partial
from pathlib import Path

import jax
import numpy as np
from absl import logging

from thermo_ebm.errors import UserError
from thermo_ebm.readings import TEMPERATURE_READINGS
from thermo_ebm.run import events, pictures, tables
from thermo_ebm.run.layout import READINGS, ROLLBACKS, STRIP, TEMPERATURES, checkpoints_dir
from thermo_ebm.run.records import Rollback, write_rollbacks
from thermo_ebm.train import checkpoints, hosts, repetition, spmd, writers
from thermo_ebm.train.epochs import is_pending
from thermo_ebm.train.group import Group
from thermo_ebm.train.repetition import Repetition
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.tasks import Task, init_state


def is_done(task: Task, workdir: Path, number: int, total_steps: int) -> bool:
    """Whether a repetition has a readable checkpoint of its last step.

    Raises:
      UserError: its checkpoints have another structure of the state, or none can be read.
    """
    if not repetition.may_be_done(workdir, number, total_steps):
        return False
    one = repetition.open_repetition(workdir, number)
    try:
        restored = checkpoints.restore_newest(one.checkpoints, _shapes(task), spmd.replicated())
    finally:
        repetition.close_repetition(one)
    return restored is not None and _step(restored.state) >= total_steps


def steps_done(task: Task, workdir: Path, number: int) -> int:
    """The step from which a repetition would continue; changes nothing.

    Raises:
      UserError: as `is_done`.
    """
    folder = checkpoints_dir(workdir, number)
    restored = checkpoints.read_newest(folder, _shapes(task), spmd.replicated())
    return 0 if restored is None else _step(restored.state)


def resume(
    group: Group, opened: list[Repetition]
) -> tuple[TrainState, np.ndarray, list[Repetition]]:
    """Each repetition's newest checkpoint, or its first state, which is saved.

    Returns:
      The stacked state, the seconds of each repetition's epoch so far [num_repetitions], and the
      repetitions with their files rewound to there.
    """
    states, seconds, rewound = [], np.zeros(len(opened)), []
    first = None
    for i, one in enumerate(opened):
        restored = checkpoints.restore_newest(
            one.checkpoints, _shapes(group.task), spmd.replicated()
        )
        if restored is None:
            first = first or _first_states(group, opened)
            state = spmd.select_repetition(first, i)
            checkpoints.save(one.checkpoints, state, 0.0)
        else:
            state, seconds[i] = restored
        rewound.append(_with_writers(group, _rewind_to(group, one, state)))
        states.append(_with_branch(rewound[-1], state))
    return spmd.stack_repetitions(states), seconds, rewound


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
    one = opened[i]
    from_step = int(spmd.local(state.step)[i])
    if len(one.rollbacks) >= group.config.divergence.max_rollbacks:
        logging.error(
            "repetition %d diverged at step %d and is given up after %d rollbacks (see %s): lower "
            "the step sizes or the learning rates, or set optimizer.clip_norm",
            *(one.number, from_step, len(one.rollbacks), one.folder / ROLLBACKS),
        )
        return None
    checkpoints.wait(one.checkpoints)
    restored = checkpoints.restore_newest(
        one.checkpoints, _shapes(group.task), spmd.replicated(), due_only=True
    )
    if restored is None:  # every checkpoint was damaged, and moved away
        raise UserError(
            f"{one.checkpoints.folder}: no checkpoint is left that repetition {one.number}, which "
            f"diverged at step {from_step}, could go back to; to start it anew, remove {one.folder}"
        )
    checkpoints.discard_interrupted(one.checkpoints)
    one = _rewind_to(group, one, restored.state)
    opened[i] = _record_rollback(one, from_step, _step(restored.state))
    states = [spmd.select_repetition(state, j) for j in range(len(opened))]
    states[i] = _with_branch(opened[i], restored.state)
    return spmd.stack_repetitions(states), restored.seconds


def rewind(one: Repetition, step: int, epochs_done: int, events_step: int | None) -> Repetition:
    """Removes everything written after a checkpoint, and opens a new event file; on every process.

    Rollbacks to later steps are removed too, since they will happen again.

    Args:
      one: the repetition, open.
      step: the checkpoint's.
      epochs_done: whose readings stay.
      events_step: up to which events stay; None opens no file of them.
    """
    kept = tuple(each for each in one.rollbacks if each.to_step <= step)
    with hosts.writing(one.folder):
        if hosts.is_first():
            return _rewind_files(one, kept, epochs_done, events_step)
    return one._replace(rollbacks=kept)


def _rewind_files(
    one: Repetition, kept: tuple[Rollback, ...], epochs: int, events_step: int | None
) -> Repetition:
    folder = one.folder
    if kept != one.rollbacks:
        write_rollbacks(folder, kept)
    tables.truncate(folder / READINGS, epochs)
    tables.truncate(folder / TEMPERATURES, epochs, TEMPERATURE_READINGS)
    pictures.truncate_strip(folder / STRIP, epochs)
    if one.events is not None:
        events.close_events(one.events)
    opened = None
    if events_step is not None:
        opened = events.open_events(folder / "tensorboard", events_step)
    return one._replace(rollbacks=kept, events=opened)


def _record_rollback(one: Repetition, from_step: int, to_step: int) -> Repetition:
    """Records a rollback, with the next branch of the key, before it happens."""
    new = Rollback(from_step, to_step, len(one.rollbacks) + 1)
    rollbacks = (*one.rollbacks, new)
    with hosts.writing(one.folder):
        if hosts.is_first():
            write_rollbacks(one.folder, rollbacks)
    logging.warning(
        "repetition %d diverged at step %d: back to step %d with branch %d of its key",
        *(one.number, *new),
    )
    return one._replace(rollbacks=rollbacks)


@lru_cache(maxsize=1)
def _shapes(task: Task) -> TrainState:
    return jax.eval_shape(partial(init_state, task), 0)


def _first_states(group: Group, opened: list[Repetition]) -> TrainState:
    """The stacked states before the first step, with the parameters of a warm start."""
    states = group.programs.init(_seeds(group, opened))
    params = group.initial()
    if params is None:
        return states
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * len(opened)), params)
    return states._replace(params=jax.device_put(stacked, spmd.replicated()))


def _seeds(group: Group, opened: list[Repetition]) -> np.ndarray:
    return np.array([group.config.seed + one.number for one in opened], np.int32)


def _step(state: TrainState) -> int:
    return int(spmd.local(state.step))


def _rewind_to(group: Group, one: Repetition, state: TrainState) -> Repetition:
    step = _step(state)
    pending = is_pending(group, step, int(spmd.local(state.sums.steps)))
    epochs = step // group.task.steps_per_epoch - pending
    shown = "tensorboard" in group.config.logging.writers
    wanted = shown and (pending or step < group.total_steps)
    # A pending epoch's events, at its last step, are still to come.
    return rewind(one, step, epochs, step - pending if wanted else None)


def _with_writers(group: Group, one: Repetition) -> Repetition:
    """The repetition with its writers open, on the first process."""
    with hosts.writing(one.folder):
        if not hosts.is_first():
            return one
        opened = writers.open_writers(group.config.logging.writers, one.folder)
    return one._replace(writers=opened)


def _with_branch(one: Repetition, state: TrainState) -> TrainState:
    """The state on the branch of the newest rollback, if no checkpoint has followed this rollback
    yet.

    Skipped steps are counted anew on this branch.
    """
    branch = len(one.rollbacks)
    if int(spmd.local(state.branch)) >= branch:
        return state
    fresh = {"branch": np.int32(branch), "skipped_in_row": np.int32(0)}
    return state._replace(**jax.device_put(fresh, spmd.replicated()))
