"""What a start of training checks and records before it trains; `dry_run` checks the same."""

import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run import configuration, layout, provenance, warm_start
from thermo_ebm.run.warm_start import WarmStart
from thermo_ebm.train import checkpoints, hosts, images, writers
from thermo_ebm.train.images import Loaded
from thermo_ebm.train.tasks import Task
from thermo_ebm.types import Params

_INT32 = 2**31 - 1


def groups(config: ConfigDict) -> list[range]:
    """The numbers of the repetitions that train together, group by group."""
    size = config.parallel_repetitions
    return [
        range(first, min(first + size, config.num_repetitions))
        for first in range(0, config.num_repetitions, size)
    ]


def check_agreement(config: ConfigDict, workdir: Path) -> None:
    """Requires that all processes have the same configuration and see the same folder.

    Raises:
      UserError: they do not; such processes would wait for each other for ever.
    """
    fields = json.dumps(configuration.as_json(config), sort_keys=True)
    folders = [layout.checkpoints_dir(workdir, one) for one in range(config.num_repetitions)]
    seen = [layout.has_begun(workdir), *map(checkpoints.steps_in, folders)]
    for value, message in (
        (fields, "config: the processes were started with different configurations"),
        (str(seen), f"workdir={workdir}: the processes see different folders; it must be shared"),
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


def load(config: ConfigDict, task: Task, workdir: Path) -> Loaded:
    """The images of the run.

    Raises:
      UserError: the images do not fit into the memory, cannot be read, or are not those that the
        run was started with.
    """
    loaded = images.load(config, task)
    with hosts.together():
        provenance.check_images(workdir, loaded.levels)
    return loaded


def recorder(
    config: ConfigDict, task: Task, workdir: Path, loaded: Loaded, init_from: WarmStart | None
) -> Callable[[], None]:
    """A function that records the run once.

    A new run is recorded here; an existing run when the caller knows that it continues.
    """
    folders = [layout.checkpoints_dir(workdir, one) for one in range(config.num_repetitions)]
    step = max(step for folder in folders for step in (0, *checkpoints.all_steps_in(folder)))

    @functools.cache
    def record_once() -> None:
        with hosts.together():
            if hosts.is_first():
                device = jax.devices()[0]
                provenance.record_start(
                    workdir,
                    config,
                    loaded.levels,
                    provenance.Device(device.platform, device.device_kind),
                    (step // task.steps_per_epoch, step),
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
    return checkpoints.params_from(template, recorded.params)
