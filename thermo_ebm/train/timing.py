"""Seconds of a training step on this machine, and the epochs that fit into a time.

The step is timed in the program that trains, with all repetitions that train together.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError, counted
from thermo_ebm.fields import flatten
from thermo_ebm.run import configuration, layout
from thermo_ebm.train import feed, hosts, programs, start
from thermo_ebm.train.feed import Feed
from thermo_ebm.train.report import decimal, say
from thermo_ebm.train.start import Prepared
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.task import Task, updates_per_epoch

LEAST_SECONDS = 3.0  # of the timed steps
MOST_STEPS = 60
_FILES = 0.05  # share of a budget that is left for checkpoints and pictures
MOST_CPU_FLOPS = 10**12  # of a step that a dry run times on a CPU, in some ten seconds
WEEK = 7 * 24 * 3600
# Fields that a budget sets: the epochs, and the decay of the rates, which counts epochs.
BUDGETED = (
    "num_epochs",
    "optimizer.decay.rate",
    "optimizer.decay.begin_epoch",
    "optimizer.decay.end_epoch",
    "optimizer.warm_up_epochs",
)
# What makes a training fit into less time.
_SHORTER = "give more time, or a smaller model, shorter chains or a smaller batch_size"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


class Timed(NamedTuple):
    """A step that was timed."""

    seconds: float  # one step of all repetitions that train together, median of dispatches
    state: TrainState  # after the steps
    steps: int  # how many were timed


def parse_duration(text: str) -> float:
    """Seconds of a text such as 90s, 20m, 2h or 1.5d.

    >>> parse_duration("20m"), parse_duration("1.5h")
    (1200.0, 5400.0)

    Raises:
      UserError: it is no such text.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([smhd])", text)
    if not match or not float(match[1]):
        raise UserError(f"budget={text}: must be a time such as 90s, 20m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """Seconds for reading.

    >>> duration(6000), duration(50), duration(200_000)
    ('1 h 40 min', '50 s', '2 d 7 h')
    """
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


def training_feed(task: Task) -> Feed:
    """The training images alone: the validation images are not read."""
    train, _ = data.open_images(task.config.data)
    if task.config.data.streaming:
        return feed.from_files(train, task)
    return feed.in_memory(read(train), task)


def advance(
    prepared: Prepared, images: Feed, state: TrainState, steps: int, begin_epochs: bool = True
) -> TrainState:
    """The stacked state after more steps, with a new order of the images at every epoch.

    Without `begin_epochs` the steps must end at the end of an epoch, whose sums stay.
    """
    task, run = prepared.task, prepared.programs
    per_epoch = task.steps_per_epoch
    reached = np.asarray(programs.local(state.step)).copy()
    last = reached + steps
    while (reached < last).any():
        ends = (reached // per_epoch + 1) * per_epoch
        limit = task.config.steps_per_dispatch
        until = np.minimum(np.minimum(reached + limit, ends), last).astype(np.int32)
        state = run.run(state, until, np.int32(limit), images.dispatch(state, until, limit))
        reached = until
        if begin_epochs and (ended := reached % per_epoch == 0).any():
            state = run.begin_epoch(state, (reached // per_epoch).astype(np.int32), ended)
    return state


def first_state(prepared: Prepared, size: int) -> TrainState:
    """The states of the first repetitions before their first step."""
    return prepared.programs.init(prepared.task.config.seed + np.arange(size))


def time_steps(prepared: Prepared, images: Feed, state: TrainState) -> Timed:
    """Times steps for some seconds, after one that compiles; the state is consumed.

    All processes must call it; each gets the slowest process's time.
    """
    state = advance(prepared, images, state, 1)
    samples: list[float] = []
    number, steps, spent = 1, 0, 0.0
    while not steps or (steps < MOST_STEPS and spent < LEAST_SECONDS):
        begun = time.perf_counter()
        state = advance(prepared, images, state, number)
        elapsed = float(hosts.of_all(time.perf_counter() - begun).max())
        samples += [elapsed / number] * number
        steps, spent = steps + number, spent + elapsed
        number = min(2 * number, prepared.task.config.steps_per_dispatch)
    return Timed(float(np.median(samples)), state, steps)


def time_config(config: ConfigDict) -> Timed:
    """Times the step of the first repetitions that train together; the state is theirs after it."""
    size = len(start.groups(config)[0])
    prepared = start.prepare(config, size)
    images = training_feed(prepared.task)
    try:
        return time_steps(prepared, images, first_state(prepared, size))
    finally:
        images.close()


def is_quick(flops_per_step: int, size: int) -> bool:
    """Whether a few steps take seconds and not minutes, by their arithmetic: on a CPU few do."""
    return jax.default_backend() != "cpu" or flops_per_step * size < MOST_CPU_FLOPS


def summary(config: ConfigDict, seconds: float, steps_left: int) -> list[str]:
    """What the measured step means for the steps that are left, of all repetitions.

    A second line warns where the training takes more than a week.
    """
    size = len(start.groups(config)[0])
    total = seconds * steps_left / size
    each = config.num_epochs * updates_per_epoch(config)
    together = f", {size} at once" if size > 1 else ""
    lines = [
        f"time        about {seconds:.2g} s per step here, {counted(each, 'step')}: "
        f"{duration(total)}; {counted(config.num_repetitions, 'repetition')}{together}"
    ]
    if total > WEEK:
        lines.append(
            "warning     more than a week: use fewer epochs or repetitions, a smaller model or "
            "shorter chains, or give a --budget"
        )
    return lines


def with_budget(config: ConfigDict, workdir: Path, seconds: float) -> ConfigDict:
    """The configuration with as many epochs as end within a time on this machine.

    The decay of the learning rates is stretched with the epochs. A run that has begun keeps what
    was chosen at its first start, which its `config.json` has recorded.

    Args:
      config: checked by `config.check`.
      workdir: the run's folder.
      seconds: for all repetitions, from the start of the measurement to the end of training.

    Raises:
      UserError: not even one epoch ends within the time.
    """
    budgeted = ConfigDict(config.to_dict())
    if layout.has_begun(workdir):
        recorded = flatten(configuration.read_config(workdir))
        budgeted.update_from_flattened_dict({name: recorded[name] for name in BUDGETED})
        return budgeted.lock()
    begun = time.perf_counter()
    per_epoch, at_end = _epoch_seconds(config, workdir, seconds)
    spent = float(hosts.of_all(time.perf_counter() - begun).max())
    num_groups = len(start.groups(config))
    # The training compiles what was compiled here, since the rates are a part of its programs.
    left = (1 - _FILES) * seconds - 2 * spent
    epochs = int((left / num_groups - at_end) / per_epoch)
    if epochs < 1:
        raise UserError(
            f"budget={duration(seconds)}: too short; one epoch of all repetitions takes "
            f"{duration(num_groups * (per_epoch + at_end))} here, and compiling "
            f"{duration(spent)}, twice; {_SHORTER}"
        )
    if hosts.is_first():
        say(
            f"budget      {counted(epochs, 'epoch')} of {duration(per_epoch)} fit into "
            f"{duration(seconds)}, of which measuring took {duration(spent)}"
        )
    stretched = epochs / config.num_epochs
    decay = config.optimizer.decay
    begin, end = round(decay.begin_epoch * stretched), decay.end_epoch
    if decay.name == "cosine":
        end = max(round(end * stretched), begin + 1)
    values = (
        epochs,
        float(decay.rate ** (1 / stretched)),
        begin,
        end,
        float(config.optimizer.warm_up_epochs * stretched),
    )
    budgeted.update_from_flattened_dict(dict(zip(BUDGETED, values, strict=True)))
    return budgeted.lock()


def _epoch_seconds(config: ConfigDict, workdir: Path, budget: float) -> tuple[float, float]:
    """Seconds of an epoch with its validation, and of what is evaluated at the end of training.

    Raises:
      UserError: compiling the step, which the training does again, leaves nothing of the budget.
    """
    size = len(start.groups(config)[0])
    prepared = start.prepare(config, size)
    if hosts.is_first():
        say(
            f"budget      compiling, then timing a few steps of {decimal(prepared.flops_per_step)}"
            "FLOP per repetition"
        )
    images = start.load(prepared.task, workdir)
    try:
        begun = time.perf_counter()
        state = advance(prepared, images.feed, first_state(prepared, size), 1)
        first = float(hosts.of_all(time.perf_counter() - begun).max())
        if 2 * first >= (1 - _FILES) * budget:
            raise UserError(
                f"budget={duration(budget)}: too short; compiling and one step take "
                f"{duration(first)} here, and the training compiles again; {_SHORTER}"
            )
        timed = time_steps(prepared, images.feed, state)
    finally:
        images.feed.close()
    validation = _seconds(prepared.programs.validate, timed.state, images.validation)
    per_epoch = prepared.task.steps_per_epoch * timed.seconds + validation
    if not (interval := config.evaluation.likelihood.every_epochs):
        return per_epoch, 0.0
    likelihood = _seconds(prepared.programs.likelihood, timed.state, images.likelihood)
    return per_epoch + likelihood / interval, likelihood


def _seconds(call: Callable[..., object], *args: object) -> float:
    """Seconds of a call, after one that compiles; the slowest process's."""
    jax.block_until_ready(call(*args))
    begun = time.perf_counter()
    jax.block_until_ready(call(*args))
    return float(hosts.of_all(time.perf_counter() - begun).max())
