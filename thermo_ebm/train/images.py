"""The images of a run: checks of memory, selection, and loading."""

from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.cost import memory
from thermo_ebm.data.images import Images, read_sets
from thermo_ebm.errors import UserError
from thermo_ebm.run import provenance
from thermo_ebm.train import hosts
from thermo_ebm.train.batches import make_dispatch_layout, make_layout
from thermo_ebm.train.feed import Feed, resident, streamed
from thermo_ebm.train.tasks import Task, updates_per_epoch


class Loaded(NamedTuple):
    """A run's images."""

    feed: Feed  # the training images
    validation: np.ndarray  # uint8 [per_process, *image_shape], this process's share
    levels: provenance.ImageLevels  # mean levels that identify both sets


def load(config: ConfigDict, task: Task) -> Loaded:
    """Loads this process's share of the images, or opens the training images to be streamed.

    Raises:
      UserError: the images do not fit into the memory, or cannot be read.
    """
    with hosts.together():
        check_memory(config, jax.local_devices()[0])
    with hosts.together():
        sets = data.open_images(config.data)
        shares = [_share(images) for images in sets]
        samples = [images.take(provenance.sample_numbers(images.num)) for images in sets]
        if config.data.streaming:
            feed = streamed(sets[0], task, config.steps_per_dispatch)
            (validation,) = read_sets(shares[1:])
        else:
            train, validation = read_sets(shares)
            feed = resident(_fill_up(train, task.num_train), task)
        levels = provenance.ImageLevels(*map(provenance.mean_levels, read_sets(samples)))
    return Loaded(feed, _fill_up(validation, task.num_val), levels)


def _share(images: Images) -> Images:
    """This process's part: contiguous, of ceil(num / processes) images, fewer for the last."""
    length = -(-images.num // jax.process_count())
    first = jax.process_index() * length
    return images.take(np.arange(first, min(first + length, images.num)))


def _fill_up(images: np.ndarray, num: int) -> np.ndarray:
    """A share, filled with zeros to the length of the others."""
    length = -(-num // jax.process_count())
    return np.pad(images, [(0, length - len(images)), (0, 0), (0, 0), (0, 0)])


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
