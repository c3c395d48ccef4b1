"""The training images that the compiled steps of a dispatch take: all of them, or the next ones.

`resident` keeps the training set on the devices. `streamed` gives each dispatch the images of its
own steps, read by `data.streaming` while the steps before are computed. Both train the same run,
bit for bit: the images of a step are fixed by the state's order and step alone.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from thermo_ebm.data.source import Images
from thermo_ebm.data.streaming import stream
from thermo_ebm.train import hosts, spmd
from thermo_ebm.train.batches import (
    batch_share,
    make_dispatch_layout,
    make_layout,
    split_over_devices,
)
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.step import Task


class Feed(NamedTuple):
    """Where the training images come from."""

    images: Callable[[TrainState, np.ndarray, int], jax.Array]  # of the steps up to `stop`, `limit`
    close: Callable[[], None]  # ends what reads ahead; `images` may start it again


class _Stream(NamedTuple):
    """One repetition's images from a step of an epoch on."""

    order: np.ndarray  # int32 [num_train], the epoch's
    step: int  # of the epoch, which the next images are of
    images: Any  # Grain's iterator over them


def resident(images: np.ndarray, task: Task) -> Feed:
    """All training images on the devices; `images` are this process's share (`Layout`)."""

    @functools.cache  # not before they are needed
    def spread() -> jax.Array:
        return spmd.spread(split_over_devices(images, make_layout(task.num_train)))

    return Feed(lambda state, stop, limit: spread(), lambda: None)


def streamed(images: Images, task: Task, steps_per_dispatch: int) -> Feed:
    """Images of the steps of one dispatch, of which each process reads its devices' share.

    Args:
      images: all training images.
      task: what is trained, with `task.streaming`.
      steps_per_dispatch: at most so many steps are dispatched at once.
    """
    num_steps = min(steps_per_dispatch, task.steps_per_epoch)
    streams: dict[int, _Stream] = {}

    def of_dispatch(state: TrainState, stop: np.ndarray, limit: int) -> jax.Array:
        orders, steps = (np.asarray(spmd.local(leaf)) for leaf in (state.order, state.step))
        counts = np.clip(stop - steps, 0, min(limit, num_steps))
        with hosts.together():
            parts = [
                _read(images, task, streams, i, orders[i], int(steps[i]), int(counts[i]), num_steps)
                for i in range(len(steps))
            ]
        return spmd.spread(np.stack(parts, axis=1))

    def close() -> None:
        for one in streams.values():
            one.images.close()
        streams.clear()

    return Feed(of_dispatch, close)


def _read(
    images: Images,
    task: Task,
    streams: dict[int, _Stream],
    repetition: int,
    order: np.ndarray,
    step: int,
    count: int,
    num_steps: int,
) -> np.ndarray:
    """One repetition's images of `count` steps: uint8 [local_devices, num_steps * share, ...]."""
    layout = make_dispatch_layout(task.batch_size, num_steps)
    share = batch_share(task.batch_size, layout)
    shape = (images.size, images.size, images.channels)
    parts = np.zeros((layout.local_devices, num_steps, share, *shape), np.uint8)
    if count:
        within = step % task.steps_per_epoch
        found = streams.get(repetition)
        if found is None or found.step != within or not np.array_equal(found.order, order):
            if found is not None:
                found.images.close()
            found = _Stream(order, within, _open(images, task, order, within, num_steps))
        for k in range(count):
            rows = next(found.images)
            parts[:, k].reshape(-1, *shape)[: len(rows)] = rows
        streams[repetition] = found._replace(step=within + count)
    return parts.reshape(layout.local_devices, num_steps * share, *shape)


def _open(
    images: Images, task: Task, order: np.ndarray, step: int, ahead: int
) -> Iterator[np.ndarray]:
    """The images that this process's devices get of every batch from a step of the epoch on."""
    layout = make_dispatch_layout(task.batch_size, ahead)
    per_process = layout.local_devices * batch_share(task.batch_size, layout)
    mine = slice(jax.process_index() * per_process, (jax.process_index() + 1) * per_process)
    used = order[: task.steps_per_epoch * task.batch_size]
    return stream(images, used.reshape(-1, task.batch_size)[:, mine], step, ahead)
