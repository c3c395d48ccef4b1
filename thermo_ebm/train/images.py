"""The images of a run: checks of memory, selection, and loading."""

import json
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.cost import memory
from thermo_ebm.data.source import read
from thermo_ebm.errors import UserError
from thermo_ebm.run import layout, record
from thermo_ebm.train import hosts
from thermo_ebm.train.batches import make_dispatch_layout, make_layout
from thermo_ebm.train.feed import Feed, resident, streamed
from thermo_ebm.train.progress import say
from thermo_ebm.train.tasks import Task, updates_per_epoch

_INT32 = 2**31 - 1


class Loaded(NamedTuple):
    """A run's images."""

    feed: Feed  # the training images
    validation: np.ndarray  # uint8 [per_process, *image_shape], this process's share
    means: record.Means  # mean levels that identify both sets
    skipped: list[str]  # names of the images that the run skips


def load(config: ConfigDict, task: Task, workdir: Path) -> Loaded:
    """Loads this process's share of the images, or opens the training images to be streamed.

    Args:
      config: the whole configuration.
      task: its task.
      workdir: the run's folder, with the record of the images that the run skips.

    Raises:
      UserError: the images do not fit into the memory, or cannot be read.
    """
    shard = (jax.process_index(), jax.process_count())
    with hosts.together():
        check_memory(config, jax.local_devices()[0])
    skipped = _skipped(config, workdir)
    with hosts.together():
        opened = data.open_images(config.data, skipped)
        if config.data.streaming:
            (validation,) = data.read_shards([opened.validation], shard)
            some = read(opened.train, data.some_numbers(task.num_train))
        else:
            train, validation = data.read_shards(opened, shard)
    if config.data.streaming:
        feed = streamed(opened.train, task, config.steps_per_dispatch)
        means = data.quarter_means(some).ravel().tolist()
    else:
        feed, means = resident(train, task), _means(train, task.num_train, shard)
    known_by = record.Means(means, _means(validation, task.num_val, shard))
    return Loaded(feed, validation, known_by, skipped)


def _skipped(config: ConfigDict, workdir: Path) -> list[str]:
    """Names of the images to skip: those recorded when the run began, or found now.

    Raises:
      UserError: the record or the data cannot be read, or the processes find different images.
    """
    with hosts.together():
        recorded = record.read_skipped(workdir)
        if recorded is not None or not config.data.skip_unreadable:
            return recorded or []
        found = list(data.find_unreadable(config.data))
    checksums = hosts.of_all(zlib.crc32(json.dumps(found).encode()) & _INT32)
    if (checksums != checksums[0]).any():
        raise UserError(
            "data.data_dir: some processes cannot read images that other processes can; try again"
        )
    if found and hosts.is_first():
        say(f"{len(found)} images cannot be read and are left out: {workdir / layout.SKIPPED}")
    return found


def _means(images: np.ndarray, num: int, shard: tuple[int, int]) -> list[float]:
    """The mean levels that identify a set of images, from the shares of all processes."""
    return hosts.of_all(data.some_means(images, num, shard)).sum(axis=0).ravel().tolist()


class DataBytes(NamedTuple):
    """Memory that a run's images take, in bytes."""

    device: int  # on each device
    host: int  # in this process, besides its devices


def check_memory(config: ConfigDict, device: jax.Device) -> None:
    """Refuses images that do not fit into memory, before any image is read.

    Args:
      config: the whole configuration.
      device: one of this process's devices, which are all alike.

    Raises:
      UserError: says how many bytes are needed and what to do.
    """
    needed, whole = data_bytes(config), memory.host_bytes()
    host = whole - int(memory.USABLE["cpu"] * whole)
    if device.platform == "cpu":  # whose devices are parts of the same memory
        places = [("this machine", needed.host + jax.local_device_count() * needed.device, host)]
    else:
        places = [
            ("each device", needed.device, memory.data_bytes(device)),
            ("this machine", needed.host, host),
        ]
    for place, wanted, available in places:
        if wanted > available:
            raise UserError(_too_large(config, place, wanted, available))


def data_bytes(config: ConfigDict) -> DataBytes:
    """Memory for the training and validation images of a configuration, as uint8."""
    image = config.data.image_size**2 * config.data.channels
    validation = make_layout(config.data.num_val)
    if config.data.streaming:
        steps = min(config.steps_per_dispatch, updates_per_epoch(config))
        train = make_dispatch_layout(config.batch_size, steps * config.gradient_noise.accumulate)
        # The dispatch's images, and as many that are being read.
        repetitions = config.parallel_repetitions
        buffers = 2 * repetitions * train.per_process
        per_device = repetitions * train.per_device
    else:
        train = make_layout(config.data.num_train)
        buffers, per_device = train.per_process, train.per_device
    return DataBytes(
        device=image * (per_device + validation.per_device),
        host=image * (buffers + validation.per_process),
    )


def _too_large(config: ConfigDict, place: str, wanted: int, available: int) -> str:
    others = (
        "fewer validation images, a smaller data.image_size or a smaller steps_per_dispatch"
        if config.data.streaming
        else "fewer images, a smaller data.image_size or data.streaming=true, which reads training "
        "images when they are needed"
    )
    return (
        f"data.num_train={config.data.num_train} and data.num_val={config.data.num_val}: the "
        f"images need {wanted:,} bytes of the memory of {place}, where {available:,} bytes are "
        f"available; choose {others}"
    )
