"""The end of an epoch: validation, gradient noise, readings and pictures."""

import math
from typing import Any

import jax
import numpy as np

from thermo_ebm.train import hosts, optimisers, repetition, spmd
from thermo_ebm.train.group import NUM_PICTURES, Group
from thermo_ebm.train.progress import Reporter
from thermo_ebm.train.repetition import Repetition
from thermo_ebm.train.state import TrainState


def is_pending(group: Group, steps: Any, summed: Any) -> Any:
    """Whether an epoch's steps are done and its readings not yet written; scalars or arrays.

    Args:
      group: what is trained.
      steps: done in all.
      summed: `sums.steps`, which `end_epochs` sets back to 0.
    """
    return (steps % group.task.steps_per_epoch == 0) & (summed > 0)


def end_epochs(
    group: Group,
    opened: list[Repetition],
    state: TrainState,
    host: TrainState,
    ended: np.ndarray,
    seconds: np.ndarray,
    reporter: Reporter,
) -> TrainState:
    """Writes the epoch of each repetition that has ended one, and begins its next.

    Args:
      group: what is trained.
      opened: the group's repetitions.
      state: theirs, consumed.
      host: the state's scalars on the host, [num_repetitions] each.
      ended: bool [num_repetitions].
      seconds: of each epoch's training [num_repetitions].
      reporter: tells of each epoch.
    """
    epochs = host.step // group.task.steps_per_epoch
    reporter.doing("validating")
    validated = group.programs.validate(state, group.validation)
    val_loss, aux = jax.device_get(spmd.local(validated))
    every = group.config.logging.grad_noise_every_epochs
    measured = ended & (epochs % every == 0) if every else np.zeros_like(ended)
    noise = None
    if measured.any():
        reporter.doing("measuring the gradient's noise")
        noise = jax.device_get(spmd.local(group.programs.noise(state, group.train)))
    updates = jax.device_get(spmd.local(optimisers.num_updates(state.optimiser)))
    with hosts.writing(opened[0].folder.parent):
        for i in np.flatnonzero(ended).tolist() if hosts.is_first() else ():
            step = int(host.step[i])
            row = repetition.make_row(
                epoch=int(epochs[i]),
                step=step,
                sums=_one(host.sums, i),
                skipped=int(host.skipped[i]),
                val_loss=float(val_loss[i]),
                dim=math.prod(group.train.shape[2:]),
                rates=optimisers.last_rates(group.task.optimisers, _one(updates, i)),
                noise=_one(noise, i) if measured[i] else None,
                seconds=float(seconds[i]),
                images=group.task.steps_per_epoch * group.task.batch_size,
                flops=group.flops_per_step,
                group_size=len(opened),
            )
            repetition.write_epoch(opened[i], row, _one(aux, i))
            if _wants_pictures(group, int(epochs[i])):
                reporter.doing("drawing")
                _draw_pictures(group, opened[i], state, i, int(epochs[i]), step)
            reporter.epoch_done(row)
    return group.programs.begin_epoch(state, epochs, ended)


def _one(stacked: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _wants_pictures(group: Group, epoch: int) -> bool:
    every = group.config.logging.pictures_every_epochs
    return every > 0 and (epoch % every == 0 or epoch == group.config.num_epochs)


def _draw_pictures(
    group: Group, one: Repetition, state: TrainState, i: int, epoch: int, step: int
) -> None:
    params, key = _one(spmd.local((state.params, state.key)), i)
    samples, frame = jax.device_get(group.draw(params, key))
    real = group.dataset.validation[:NUM_PICTURES]
    repetition.write_pictures(one, epoch, step, samples, real, frame)
