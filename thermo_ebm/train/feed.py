"""The training images given to the compiled steps of a dispatch: all images, or the next ones.

`resident` keeps the training set on the devices. `streamed` gives each dispatch the images of its
own steps, read by `data.streaming` while the steps before are computed. Both train the same run
bit for bit, since the images of a step depend only on the order and step in the state.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from thermo_ebm.data.images import Images
from thermo_ebm.data.streaming import stream
from thermo_ebm.train import hosts, spmd
from thermo_ebm.train.batches import batch_share, make_layout, split_over_devices
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.tasks import Task


class Feed(NamedTuple):
    """Where the training images come from."""

    images: Callable[[TrainState, np.ndarray, int], jax.Array]  # of the steps up to `stop`, `limit`
    close: Callable[[], None]  # ends what reads ahead; `images` may start it again


class _Stream(NamedTuple):
    """One repetition's images from a batch of an epoch on."""

    order: np.ndarray  # int32 [num_train], the epoch's
    batch: int  # of the epoch, which the next images are of
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
    accumulate = task.gradient_noise.accumulate
    num_steps = min(steps_per_dispatch, task.steps_per_epoch)
    streams: dict[int, _Stream] = {}

    def of_dispatch(state: TrainState, stop: np.ndarray, limit: int) -> jax.Array:
        orders, steps = (np.asarray(spmd.local(leaf)) for leaf in (state.order, state.step))
        counts = accumulate * np.clip(stop - steps, 0, min(limit, num_steps))
        firsts = accumulate * (steps % task.steps_per_epoch)
        parts = np.zeros((len(steps), *_shape(images, task, num_steps * accumulate)), np.uint8)
        with hosts.together():
            for i in np.flatnonzero(counts).tolist():
                streams[i] = _at(streams.get(i), images, task, orders[i], firsts[i], parts.shape[2])
                streams[i] = _fill(parts[i], streams[i], counts[i])
        return spmd.spread(np.moveaxis(parts, 0, 1).reshape(_flat(parts)))

    def close() -> None:
        for one in streams.values():
            one.images.close()
        streams.clear()

    return Feed(of_dispatch, close)


def _shape(images: Images, task: Task, num_batches: int) -> tuple[int, ...]:
    """[local_devices, num_batches, share, height, width, channels] of one repetition's images."""
    whole = make_layout(task.num_train)
    share = batch_share(task.batch_size, whole)
    image = (images.size, images.size, images.channels)
    return (whole.local_devices, num_batches, share, *image)


def _flat(parts: np.ndarray) -> tuple[int, ...]:
    """[local_devices, num_repetitions, num_batches * share, ...], the batches after each other."""
    repetitions, devices, batches, share, *image = parts.shape
    return (devices, repetitions, batches * share, *image)


def _at(
    found: _Stream | None, images: Images, task: Task, order: np.ndarray, batch: int, ahead: int
) -> _Stream:
    """The stream where it is at this batch of this order already, or a new one from there on."""
    if found is not None:
        if found.batch == batch and np.array_equal(found.order, order):
            return found
        found.images.close()
    whole = make_layout(task.num_train)
    per_process = whole.local_devices * batch_share(task.batch_size, whole)
    mine = slice(jax.process_index() * per_process, (jax.process_index() + 1) * per_process)
    used = order[: task.steps_per_epoch * task.gradient_noise.accumulate * task.batch_size]
    numbers = used.reshape(-1, task.batch_size)[:, mine]
    return _Stream(order, int(batch), stream(images, numbers, int(batch), ahead))


def _fill(parts: np.ndarray, found: _Stream, count: int) -> _Stream:
    """Puts the next batches where they belong in [local_devices, num_batches, share, ...]."""
    devices, _, share, *image = parts.shape
    for k in range(count):
        rows = next(found.images)
        padded = np.zeros((devices * share, *image), np.uint8)
        padded[: len(rows)] = rows
        parts[:, k] = padded.reshape(devices, share, *image)
    return found._replace(batch=found.batch + int(count))
