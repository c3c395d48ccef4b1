"""The images for the devices: the host takes them by number and gives each device its share.

Before a dispatch the host takes the images of its steps by the epoch's order, from memory or,
with `data.streaming`, through threads of Grain that read ahead. The numbers of the images in the
data set travel beside them. Which images a step uses depends only on the order and the step in its
state: the number of devices and the way images are read change nothing.

The devices hardly wait for this. The 20 steps of a dispatch of CelebA with 75 images per batch are
18 MB: on one core of a CPU they are gathered in 3 ms and copied in at most 20 ms. The compiler
expects 1.3 s for these steps on four TPU v6e, the fastest of docs/performance.md.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from thermo_ebm.data.images import Images, read
from thermo_ebm.train import hosts
from thermo_ebm.train.programs import local, spread
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.step import Batches
from thermo_ebm.train.task import Task

# (repetition, numbers [num_batches, num] of an epoch, first batch, count) -> [count, num, ...]
ReadBatches = Callable[[int, np.ndarray, int, int], np.ndarray]


class Feed(NamedTuple):
    """The training images."""

    # (state, stop [num_repetitions], limit): the batches of the steps up to `stop`, at most `limit`
    # steps: [num_devices, num_repetitions, num_batches, share, ...]
    dispatch: Callable[[TrainState, np.ndarray, int], Batches]
    # Any images by their numbers, int [..., batch_size]: [num_devices, ..., share, ...]
    take: Callable[[np.ndarray], Batches]
    close: Callable[[], None]  # ends the threads that read ahead


def split(numbers: np.ndarray) -> np.ndarray:
    """This process's part of batches [..., batch_size]: [..., local_devices, share].

    The last devices' shares are filled with the last image of a batch.
    """
    devices, of_process = jax.device_count(), jax.local_device_count()
    share = -(-numbers.shape[-1] // devices)
    filling = [(0, 0)] * (numbers.ndim - 1) + [(0, share * devices - numbers.shape[-1])]
    filled = np.pad(numbers, filling, mode="edge").reshape(*numbers.shape[:-1], devices, share)
    first = jax.process_index() * of_process
    return filled[..., first : first + of_process, :]


def take(read: Callable[[np.ndarray], np.ndarray], numbers: np.ndarray) -> Batches:
    """Puts batches [..., batch_size] of images on the devices: [num_devices, ..., share, ...].

    Args:
      read: numbers of images, int of any shape -> uint8 of this shape and an image's.
      numbers: of the images.
    """
    shares = np.moveaxis(split(numbers), -2, 0)
    return Batches(spread(read(shares)), spread(shares.astype(np.int32)))


def in_memory(images: np.ndarray, task: Task) -> Feed:
    """All training images in this process's memory, uint8 [num_train, *image_shape]."""

    def read_batches(repetition: int, numbers: np.ndarray, first: int, count: int) -> np.ndarray:
        del repetition
        return images[numbers[first : first + count]]

    dispatch = _dispatch(task, images.shape[1:], read_batches)
    return Feed(dispatch, lambda numbers: take(images.__getitem__, numbers), lambda: None)


def from_files(images: Images, task: Task) -> Feed:
    """Training images that are read shortly before they are needed."""
    image_shape = (images.size, images.size, images.channels)
    ahead = _most_steps(task) * task.gradient_noise.accumulate
    streams: dict[int, tuple[np.ndarray, int, Any]] = {}  # numbers, next batch, Grain's iterator

    def read_batches(repetition: int, numbers: np.ndarray, first: int, count: int) -> np.ndarray:
        if repetition in streams:
            of_epoch, next_batch, iterator = streams[repetition]
            if next_batch != first or not np.array_equal(of_epoch, numbers):
                iterator.close()
                del streams[repetition]
        if repetition not in streams:
            streams[repetition] = numbers, first, stream(images, numbers, first, ahead)
        _, _, iterator = streams[repetition]
        streams[repetition] = numbers, first + count, iterator
        return np.stack([next(iterator) for _ in range(count)])

    def read_numbers(numbers: np.ndarray) -> np.ndarray:
        return read(images.take(numbers.ravel())).reshape(*numbers.shape, *image_shape)

    def take_read(numbers: np.ndarray) -> Batches:
        with hosts.together():
            return take(read_numbers, numbers)

    def close() -> None:
        for _, _, iterator in streams.values():
            iterator.close()
        streams.clear()

    return Feed(_dispatch(task, image_shape, read_batches), take_read, close)


def stream(images: Images, numbers: np.ndarray, first: int, ahead: int) -> Iterator[np.ndarray]:
    """Yields the images of each batch from `first` on, while threads read those of later batches.

    The images of a step are known in advance (`TrainState.order` and `step`). The stream can
    therefore start at any step, and a checkpoint need not hold any state of the stream.

    Args:
      images: the chosen images.
      numbers: int [num_batches, count], the numbers of the images of each batch.
      first: the first batch to yield, in [0, num_batches].
      ahead: batches that are read before they are asked for, at least 1.

    Returns:
      An iterator over uint8 [count, size, size, channels]; its `close()` ends the threads.

    Raises:
      UserError: raised by the iterator at a batch with an image that cannot be read.
    """
    import grain  # takes three seconds to import; only streamed runs need it

    batches = grain.MapDataset.range(first, len(numbers)).map(
        lambda batch: read(images.take(numbers[batch]))
    )
    threads = min(ahead, os.cpu_count() or 1, 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(batches.to_iter_dataset(options))


def _most_steps(task: Task) -> int:
    """Steps for whose images a dispatch has room, at least 2.

    With room for a single step its images would not change within the compiled loop. XLA would
    prepare them before the loop, and round some results differently than for other sizes.
    """
    return max(min(task.config.steps_per_dispatch, task.steps_per_epoch), 2)


def _dispatch(
    task: Task, image_shape: tuple[int, ...], read_batches: ReadBatches
) -> Callable[[TrainState, np.ndarray, int], Batches]:
    accumulate, most_steps = task.gradient_noise.accumulate, _most_steps(task)
    used = task.steps_per_epoch * task.images_per_step  # images of an epoch

    def dispatch(state: TrainState, stop: np.ndarray, limit: int) -> Batches:
        orders, steps = (np.asarray(local(leaf)) for leaf in (state.order, state.step))
        shares = split(orders[:, :used].reshape(len(orders), -1, task.config.batch_size))
        firsts = accumulate * (steps % task.steps_per_epoch)
        counts = accumulate * np.clip(stop - steps, 0, min(limit, most_steps))
        shape = (len(orders), most_steps * accumulate, *shares.shape[2:])
        images, numbers = np.zeros((*shape, *image_shape), np.uint8), np.zeros(shape, np.int32)
        with hosts.together():
            for i in np.flatnonzero(counts).tolist():
                first, count = int(firsts[i]), int(counts[i])
                of_epoch = shares[i].reshape(len(shares[i]), -1)
                batches = read_batches(i, of_epoch, first, count)
                images[i, :count] = batches.reshape(count, *images.shape[2:])
                numbers[i, :count] = shares[i, first : first + count]
        return Batches(*(spread(np.moveaxis(array, 2, 0)) for array in (images, numbers)))

    return dispatch
