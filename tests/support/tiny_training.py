"""A run small enough to be trained many times in a test, and what two such runs are compared by."""

import functools
import importlib
import json

import jax
import numpy as np

from thermo_ebm.config import checks
from thermo_ebm.evaluation import warm_start
from thermo_ebm.run import configuration, layout, lock, tables
from thermo_ebm.train import checkpoint_content, loop, programs, start
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import make_task

CHANGES = {
    "num_epochs": 3,
    "data.num_train": 150,
    "data.num_val": 40,
    "batch_size": 15,
    "model.generator.features": 4,
    "model.latent_dim": 4,
    "model.prior.features": 8,
    "sampler.prior.num_steps": 3,
    "sampler.posterior.num_steps": 2,
    "loss.num_temperatures": 3,
    # The tilt's constant, on which nothing depends, has the gradient 0. With `reweighted` it has
    # what rounding leaves of 0, which Adam scales up and which differs between numbers of devices.
    "loss.generator_gradient": "posterior",
    "evaluation.likelihood.every_epochs": 0,
    "logging.pictures_every_epochs": 0,
    "logging.writers": ("csv",),
    "checkpoint.every_epochs": 1,
    "checkpoint.every_steps": 4,
}
TIMES = (
    "seconds",
    "images_per_second",
    "device_memory_mib",
)  # the readings that two equal runs differ in


def config(**changes):
    """The tiny configuration; `loss__power=2.0` changes loss.power."""
    made = importlib.import_module("configs.digits_paper").get_config()
    named = {name.replace("__", "."): value for name, value in changes.items()}
    made.update_from_flattened_dict(CHANGES | named)
    return made.lock()


def flags(**changes):
    """The same as arguments of `python -m launch.train`."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    values = (CHANGES | named).items()
    return [
        "--config=configs/digits_paper.py",
        *(f"--config.{name}={value}" for name, value in values),
    ]


_COMPILED_BY = (
    *("batch_size", "val_batches", "model", "sampler", "loss", "optimizer"),
    *("gradient_noise", "evaluation"),
)
_COMPILED_BY_DATA = ("image_size", "channels", "num_train", "num_val", "flip")
_programs = {}


def prepare(config, size, **constants):
    """Programs that all runs of one test process share, since they compile for seconds.

    One program takes the steps of a dispatch, however many the configuration asks for. `constants`
    replace fields of the task, such as `max_skipped_steps`.
    """
    prepared = prepare_as_configured(config, size, **constants)
    if jax.device_count() > 1:
        return prepared
    accumulate = prepared.task.gradient_noise.accumulate
    room = prepared.task.steps_per_epoch * accumulate

    def run(state, stop, limit, batches):
        """With images for all steps of an epoch, of which the last are not used."""
        num = batches.images.shape[2]

        def pad(leaf):
            filling = [(0, 0), (0, 0), (0, max(room - num, 0)), *[(0, 0)] * (leaf.ndim - 3)]
            return np.pad(np.asarray(leaf), filling)

        most = np.minimum(limit, num // accumulate)
        return prepared.programs.run(state, stop, most, jax.tree.map(pad, batches))

    return prepared._replace(programs=prepared.programs._replace(run=run))


def prepare_as_configured(config, size, **constants):
    """As `prepare`, with the configuration's `steps_per_dispatch`."""
    task = make_task(config)._replace(**constants)
    fields = [config[name] for name in _COMPILED_BY]
    fields += [config.data[name] for name in _COMPILED_BY_DATA]
    key = json.dumps([fields, size, constants], default=lambda value: value.to_dict())
    if key not in _programs:
        _programs[key] = programs.make_programs(task, size)
    return start.Prepared(task, _programs[key], flops_per_step=1, device_bytes=1)


def prepare_recorded(call, config, size):
    """As `prepare`; `call(state, stop, limit)` is called before every dispatch."""
    prepared = prepare(config, size)

    def run(state, stop, limit, batches):
        call(state, stop, limit)
        return prepared.programs.run(state, stop, limit, batches)

    return prepared._replace(programs=prepared.programs._replace(run=run))


def train(
    config, workdir, dispatches=None, allow=(), init_from=None, prepare=prepare, profile=None
):
    """Trains as the program does; `dispatches` of steps, then as if a signal had come."""
    checks.check(config)
    asked = iter(range(dispatches or 0))

    def interrupted():
        return dispatches is not None and next(asked, None) is None

    with lock.hold(workdir):
        configuration.check_config(workdir, config, allow)
        source = warm_start.find(init_from, config, workdir)
        return loop.train(config, workdir, interrupted, source, profile, prepare)


def shapes(made):
    return jax.eval_shape(functools.partial(init_state, make_task(made)), 0)


def end_state(made, workdir, number=0):
    """The newest checkpoint's arrays by name: parameters, optimisers, sums, order, key."""
    folder = layout.repetition_dir(workdir, number) / "checkpoints"
    newest = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    return state_at(made, workdir, number, newest)


def state_at(made, workdir, number, step):
    """The same of the checkpoint at a step."""
    folder = layout.repetition_dir(workdir, number) / "checkpoints"
    state = checkpoint_content.restore(folder, step, shapes(made), programs.replicated()).state
    return {name: np.asarray(leaf) for name, leaf in checkpoint_content.flatten(state).items()}


def rows(workdir, number=0):
    """The readings without the times."""
    table = tables.read(layout.repetition_dir(workdir, number) / "readings.csv")
    return [{name: row[name] for name in row if name not in TIMES} for row in table]


def temperatures(workdir, number=0):
    path = layout.repetition_dir(workdir, number) / "temperatures.csv"
    return path.read_bytes() if path.exists() else None


def assert_equal_runs(one, other, number=0, other_number=None, **changes):
    """Readings, temperatures and end states, bit for bit."""
    made, second = config(**changes), number if other_number is None else other_number
    assert rows(one, number) == rows(other, second)
    assert temperatures(one, number) == temperatures(other, second)
    assert_same(end_state(made, one, number), end_state(made, other, second))


def assert_same(one, other):
    """Two end states, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_close_runs(workdir, reference, changes, what="", tolerance=1e-5, number=0):
    """Sums in another order: a few units of float32's last place, 6e-8, grown over some steps.

    Prints the largest differences: of a reading, relative; of parameters and of the gradients'
    moving averages, relative to the largest entry of an array.
    """
    of_readings, of_arrays = 0.0, dict.fromkeys(("params", "average", "mu", "path"), 0.0)
    for row, wanted in zip(rows(workdir, number), rows(reference, number), strict=True):
        for name, value in wanted.items():
            if value and name != "train_grad_mean":  # a mean of parts that cancel
                of_readings = max(of_readings, abs(row[name] - value) / abs(value))
    made = config(**changes)
    state, wanted = end_state(made, workdir, number), end_state(made, reference, number)
    for name, leaf in wanted.items():
        kind = "mu" if ".mu." in name else name.partition(".")[0]
        if leaf.dtype.kind != "f":
            np.testing.assert_array_equal(state[name], leaf, err_msg=name)
        elif kind in of_arrays:
            difference = np.abs(state[name] - leaf).max() / (np.abs(leaf).max() or 1)
            of_arrays[kind] = max(of_arrays[kind], float(difference))
    figures = {"readings": of_readings, **of_arrays}
    print(f"{what}: " + ", ".join(f"{name} {value:.1e}" for name, value in figures.items()))
    assert max(figures.values()) < tolerance, figures
