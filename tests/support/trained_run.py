"""A tiny run as training leaves it, made once a process without training, and quick features."""

import atexit
import functools
import importlib
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.metrics import networks
from thermo_ebm.run import layout, lock, provenance
from thermo_ebm.train import checkpoints, programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import make_task

CHANGES = {
    "num_epochs": 3,
    "num_repetitions": 2,
    "batch_size": 15,
    "data.num_train": 150,
    "data.num_val": 40,
    "model.generator.features": 4,
    "model.latent_dim": 4,
    "model.prior.features": 8,
    "sampler.prior.num_steps": 3,
    "sampler.posterior.num_steps": 2,
    "loss.num_temperatures": 2,
    "evaluation.likelihood.every_epochs": 0,
    "logging.pictures_every_epochs": 1,
    "checkpoint.every_epochs": 1,
    "checkpoint.keep_every_epochs": 1,
}
STEPS_PER_EPOCH = 10
SETTINGS = MetricSettings(num_sizes=3)
PREFIX = "efficientnet_lite0"


def _fields(changes):
    return CHANGES | {name.replace("__", "."): value for name, value in changes.items()}


def config(**changes):
    """The configuration; `loss__power=2.0` changes loss.power."""
    fields = importlib.import_module("configs.digits_paper").get_config()
    fields.update_from_flattened_dict(_fields(changes))
    return fields


def flags(**changes):
    """The same as arguments."""
    values = _fields(changes).items()
    return [
        "--config=configs/digits_paper.py",
        *(f"--config.{name}={value}" for name, value in values),
    ]


def states(number, **changes):
    """A repetition's states after 0, 10, 20 and 30 steps, its parameters a little apart."""
    task = make_task(config(**changes), axis_name=None)
    state = jax.jit(functools.partial(init_state, task))(number)
    for epoch in range(4):
        params = jax.tree.map(lambda leaf, factor=1 + epoch / 8: leaf * factor, state.params)
        yield state._replace(params=params, step=np.int32(epoch * STEPS_PER_EPOCH))


@functools.cache
def original():
    """A run of two repetitions with checkpoints after 0, 10, 20 and 30 steps. Not to be changed."""
    folder = Path(tempfile.mkdtemp(prefix="trained_run"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return save(folder / "run")


def save(workdir, **changes):
    """Writes such a run, with changes of its configuration."""
    with lock.hold(workdir):
        provenance.record_start(
            workdir, config(**changes), provenance.ImageLevels(), provenance.Device("cpu", "cpu")
        )
    for number in range(2):
        path = layout.repetition_dir(workdir, number) / "checkpoints"
        path.parent.mkdir()
        opened = checkpoints.open_checkpoints(path)
        for state in states(number, **changes):
            checkpoints.save(opened, jax.device_put(state, programs.replicated()), 0.0)
        checkpoints.close(opened)
    return workdir


def quick_features(images):
    """Something of every image: its rows' and columns' means and a few products. [num, 12]"""
    unit = images.astype(np.float64).mean(axis=-1) / 255
    rows = unit.reshape(len(unit), 4, -1).mean(axis=2)
    columns = unit.transpose(0, 2, 1).reshape(len(unit), 4, -1).mean(axis=2)
    return np.concatenate([rows, columns, rows * columns], axis=1)


def quick_network(calls=None):
    """A feature network of no weights, which notes how many images each call had."""

    def apply(images, batch_size):
        del batch_size
        if calls is not None:
            calls.append(len(images))
        features = quick_features(images)
        return networks.Outputs(features, features[:, :3] * 5)

    return networks.Network(PREFIX, "bilinear", "none", 12, apply)


def use_quick_network():
    """In place of the one with weights, for a whole process."""

    def choose(name, resize="", *rest):
        if name == PREFIX and resize in ("", "bilinear", "antialias"):
            return quick_network()
        return real_choice(name, resize, *rest)

    real_choice = networks.choose
    networks.choose = choose


def damage(folder):
    """Cuts every file of a checkpoint's folder in half."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def use_slow_network():
    """The same, slow enough to be killed at it."""
    use_quick_network()
    quick_choice = networks.choose

    def choose(*arguments):
        network = quick_choice(*arguments)

        def apply(images, batch_size):
            time.sleep(0.1)
            return network.apply(images, batch_size)

        return network._replace(apply=apply)

    networks.choose = choose
