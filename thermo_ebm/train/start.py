"""What a start of training checks, loads and records before it trains."""

import functools
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data, files
from thermo_ebm.config.build import image_shape
from thermo_ebm.cost import memory, plan
from thermo_ebm.data.images import read_sets
from thermo_ebm.errors import UserError, printable
from thermo_ebm.models import own
from thermo_ebm.run import configuration, layout, provenance, warm_start
from thermo_ebm.run.warm_start import WarmStart
from thermo_ebm.train import checkpoint_content, checkpoints, feed, hosts, writers
from thermo_ebm.train.feed import Feed
from thermo_ebm.train.programs import NUM_PICTURES, Programs, make_programs
from thermo_ebm.train.report import say
from thermo_ebm.train.step import Batches
from thermo_ebm.train.task import Task, make_task, updates_per_epoch
from thermo_ebm.train.validation import HELD_OUT_IMAGES
from thermo_ebm.types import Params

_INT32 = 2**31 - 1


class Prepared(NamedTuple):
    """The programs of some repetitions that train together, and their costs."""

    task: Task  # its chunks of images and chains chosen for this number of repetitions
    programs: Programs
    flops_per_step: int  # of one repetition; a multiply-add is two operations
    device_bytes: int  # estimate for each device


class RunImages(NamedTuple):
    """A run's images."""

    feed: Feed  # the training images
    validation: Batches  # the validation images in order, on the devices
    likelihood: Batches  # one batch of the first of them, for the held-out log p(x)
    real: np.ndarray  # uint8 [num, *image_shape], the first validation images, for pictures
    levels: provenance.ImageLevels  # mean levels that identify both sets


class Group(NamedTuple):
    """What repetitions that train together share."""

    task: Task
    programs: Programs
    flops_per_step: int  # of one repetition
    images: RunImages
    initial: Callable[[], Params | None]  # reads the parameters of a warm start, if there is one


def groups(config: ConfigDict) -> list[range]:
    """The numbers of the repetitions that train together, group by group."""
    size = config.parallel_repetitions
    return [
        range(first, min(first + size, config.num_repetitions))
        for first in range(0, config.num_repetitions, size)
    ]


def prepare(config: ConfigDict, size: int) -> Prepared:
    """The programs of `size` repetitions, compiled when first called, with their costs."""
    chunked = plan.with_chunk(config, size)
    task = make_task(chunked)
    return Prepared(
        task,
        make_programs(task, size),
        plan.step_flops(chunked),
        plan.device_bytes(chunked, size),
    )


def check_agreement(config: ConfigDict, workdir: Path) -> None:
    """Requires that all processes have the same configuration and see the same folder.

    Raises:
      UserError: they do not; such processes would wait for each other for ever.
    """
    fields = json.dumps(configuration.as_json(config), sort_keys=True)
    numbers = range(config.num_repetitions)
    folders = [layout.checkpoints_dir(workdir, number) for number in numbers]
    visible = [layout.has_begun(workdir), *map(checkpoints.steps_in, folders)]
    for value, message in (
        (fields, "config: the processes were started with different configurations"),
        (
            str(visible),
            f"workdir={workdir}: the processes see different folders; it must be shared",
        ),
    ):
        checksums = hosts.of_all(zlib.crc32(value.encode()) & _INT32)
        if (checksums != checksums[0]).any():
            raise UserError(message)


def check_writers(config: ConfigDict) -> None:
    """Imports the writers of readings on the process that uses them.

    Raises:
      UserError: one cannot be used.
    """
    with hosts.together():
        if hosts.is_first():
            writers.check(config.logging.writers)


def load(task: Task, workdir: Path) -> RunImages:
    """Loads the images; with `data.streaming` the training images are only opened.

    Raises:
      UserError: the images do not fit into the memory, cannot be read, or are not those that the
        run was started with.
    """
    config = task.config
    if (source := own.source(config)) is not None:
        with hosts.together():
            provenance.check_source(workdir, source.sha256)
    check_memory(config, jax.local_devices()[0])
    with hosts.together():
        train, validation = data.open_images(config.data)
        numbers = provenance.sample_numbers(train.num)
        if config.data.streaming:
            sample, held_out = read_sets([train.take(numbers), validation])
            training = feed.from_files(train, task)
        else:
            images, held_out = read_sets([train, validation])
            sample, training = images[numbers], feed.in_memory(images, task)
        sample_val = held_out[provenance.sample_numbers(len(held_out))]
        levels = provenance.ImageLevels(*map(provenance.mean_levels, (sample, sample_val)))
        provenance.check_images(workdir, levels)
        for remark in train.remarks if hosts.is_first() else ():
            say(printable(f"data        {remark}"))
    in_batches = np.arange(task.val_batches * config.batch_size).reshape(-1, config.batch_size)
    first = np.arange(min(HELD_OUT_IMAGES, len(held_out)))
    return RunImages(
        training,
        feed.take(held_out.__getitem__, np.minimum(in_batches, len(held_out) - 1)),
        feed.take(held_out.__getitem__, first[None]),
        held_out[:NUM_PICTURES],
        levels,
    )


def check_memory(config: ConfigDict, device: jax.Device) -> None:
    """Refuses images that do not fit into memory, before any image is read.

    Args:
      config: the complete configuration.
      device: one of this process's devices, which are all alike.

    Raises:
      UserError: says how many bytes are needed and what to do.
    """
    dispatch, of_validation = plan.image_bytes(config, config.parallel_repetitions)
    on_device, pixels = dispatch + of_validation, math.prod(image_shape(config))
    in_host = config.data.num_val * pixels
    if config.data.streaming:  # the dispatch's images, and as many that are being read
        in_host += 2 * dispatch * jax.local_device_count()
    else:
        in_host += config.data.num_train * pixels
    total = memory.host_bytes()
    available = total - int(memory.USABLE["cpu"] * total)
    if device.platform == "cpu":  # whose devices are parts of the same memory
        in_host += jax.local_device_count() * on_device
        places = [("this machine", in_host, available)]
    else:
        places = [
            ("each device", on_device, memory.data_bytes(device)),
            ("this machine", in_host, available),
        ]
    for place, needed, available in places:
        if needed > available:
            smaller = (
                "fewer validation images, a smaller data.image_size or a smaller steps_per_dispatch"
                if config.data.streaming
                else "fewer images, a smaller data.image_size or data.streaming=true, which reads "
                "training images when they are needed"
            )
            raise UserError(
                f"data.num_train={config.data.num_train} and data.num_val={config.data.num_val}: "
                f"the images need {needed:,} bytes of the memory of {place}, where {available:,} "
                f"bytes are available; choose {smaller}"
            )


def recorder(
    config: ConfigDict,
    workdir: Path,
    levels: provenance.ImageLevels,
    init_from: WarmStart | None,
) -> Callable[[], None]:
    """A function that records the run once.

    A new run is recorded here; an existing run when the caller knows that it continues.
    """
    numbers = range(config.num_repetitions)
    folders = [layout.checkpoints_dir(workdir, number) for number in numbers]
    step = max(step for folder in folders for step in (0, *checkpoints.all_steps_in(folder)))

    @functools.cache
    def record_once() -> None:
        with hosts.together():
            if hosts.is_first():
                device, source = jax.devices()[0], own.source(config)
                provenance.record_start(
                    workdir,
                    config,
                    levels,
                    provenance.Device(device.platform, device.device_kind),
                    (step // updates_per_epoch(config), step),
                    None if source is None else source._asdict(),
                )
                if not layout.has_begun(workdir):
                    with files.clear_errors(workdir):
                        warm_start.write(workdir, init_from)
        with hosts.together():
            configuration.read_config(workdir)

    if not layout.has_begun(workdir):
        record_once()
    return record_once


def initial_params(task: Task, workdir: Path) -> Params | None:
    """The recorded parameters of a warm start, on the host; None if there was none.

    Raises:
      UserError: they cannot be read. All processes must call it.
    """
    with hosts.together():
        recorded = warm_start.read(workdir)
    if recorded is None:
        return None
    template = jax.eval_shape(lambda: task.model.init(jax.random.key(0)))
    return checkpoint_content.params_from(template, recorded.params)
