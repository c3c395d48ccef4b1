"""From checkpoints to metrics: generated images against held-out real ones."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from thermo_ebm import data
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import best, records, trained
from thermo_ebm.evaluation.trained import TrainedRun, UnusableCheckpoint
from thermo_ebm.metrics import networks
from thermo_ebm.metrics.networks import Network, Outputs, cache
from thermo_ebm.metrics.networks.preprocess import to_rgb
from thermo_ebm.metrics.subsets import extrapolation_sizes
from thermo_ebm.metrics.summary import MIN_IMAGES, Summary, summarize
from thermo_ebm.randomness import EVALUATION
from thermo_ebm.run import layout, lock, tables
from thermo_ebm.run.best import Best
from thermo_ebm.sampling.samples import sample_images
from thermo_ebm.types import Params, PRNGKey

MAX_IMAGES = 4500  # the number of images of the paper's metrics


class Settings(NamedTuple):
    """Settings of an evaluation."""

    features: str = "efficientnet_lite0"
    resize: str = "bilinear"
    weights: str | None = None  # file of the network's weights
    cache_dir: str | None = None  # of weights and real images' features
    num_images: int = 0  # generated, and real ones used; 0 is all validation images, 4500 at most
    num_sizes: int = 10
    batch_size: int = 100
    data_dir: str | None = None  # where the data are now; the run's own by default


class Evaluation(NamedTuple):
    """Everything that the evaluations of a run's checkpoints share."""

    network: Network
    label: str  # the prefix of columns and files
    real: Outputs  # of the held-out images
    sizes: tuple[int, ...]  # of the extrapolation's subsets; the last is all images
    batch_size: int  # images per batch, in the generator and in the network
    generate: Callable[[Params, PRNGKey], np.ndarray]  # uint8 [num_images, h, w, channels]


class Checkpoint(NamedTuple):
    """A checkpoint to be evaluated."""

    repetition: int
    step: int


def check(settings: Settings) -> None:
    """Refuses settings with which no run can be evaluated.

    Raises:
      UserError: naming the flag and what it must be.
    """
    for name, least in (("num_images", 0), ("num_sizes", 3), ("batch_size", 1)):
        value = getattr(settings, name)
        if value < least:
            raise UserError(f"{name}={value}: must be at least {least}")


def label(settings: Settings) -> str:
    """The prefix of columns and files; see `networks.label`."""
    return networks.label(settings.features, settings.resize)


def num_images(num_val: int, settings: Settings) -> int:
    """How many images are generated for a run with `num_val` validation images.

    Raises:
      UserError: there are fewer than requested, or too few for the extrapolation.
    """
    number = settings.num_images or min(num_val, MAX_IMAGES)
    if number > num_val:
        raise UserError(f"num_images={number}: more than the {num_val} validation images")
    try:
        extrapolation_sizes(number, settings.num_sizes)
    except ValueError as error:
        raise UserError(
            f"num_sizes={settings.num_sizes}: {number} images are too few ({error})"
        ) from error
    if number < MIN_IMAGES:
        raise UserError(f"num_images={number}: too few images (at least {MIN_IMAGES})")
    return number


def choose_network(settings: Settings) -> Network:
    """The feature network, with its weights.

    Raises:
      UserError: there is no such network, or its weights are missing.
    """
    return networks.choose(
        settings.features, settings.resize, settings.weights, _cache_dir(settings)
    )


def _cache_dir(settings: Settings) -> Path:
    return Path(settings.cache_dir).expanduser() if settings.cache_dir else cache.default_dir()


def prepare(run: TrainedRun, settings: Settings, network: Network) -> Evaluation:
    """Computes the real images' features, or reads them from the cache, once for a run.

    Raises:
      UserError: the data are missing, or have fewer images than requested.
    """
    number, batch = num_images(run.config.data.num_val, settings), settings.batch_size
    real = to_rgb(trained.validation_images(run, settings.data_dir)[:number])
    name = run.config.data.name
    return Evaluation(
        network=network,
        label=label(settings),
        real=cache.real_outputs(network, real, name, "validation", _cache_dir(settings), batch),
        sizes=extrapolation_sizes(number, settings.num_sizes),
        batch_size=batch,
        generate=generate_images(run, number, batch),
    )


def generate_images(
    run: TrainedRun, number: int, batch_size: int
) -> Callable[[Params, PRNGKey], np.ndarray]:
    """Returns a function from parameters and a key to uint8 images [number, h, w, channels].

    The images do not depend on the batch size, which bounds the memory. The function raises
    UnusableCheckpoint if a chain is not finite.
    """
    settings, num = sampler_settings(run.config).prior, min(batch_size, number)

    @jax.jit
    def batch(params: Params, key: PRNGKey, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = sample_images(run.model, params, key, num, settings, first)
        return data.to_uint8(images), jnp.isfinite(images).all()

    def generate(params: Params, key: PRNGKey) -> np.ndarray:
        drawn = [batch(params, key, jnp.int32(first)) for first in range(0, number, num)]
        if not all(bool(finite) for _, finite in drawn):
            raise UnusableCheckpoint("some of its samples are not finite numbers")
        return np.concatenate([np.asarray(images) for images, _ in drawn])[:number]

    return generate


def todo(run: TrainedRun, settings: Settings, newest_only: bool = False) -> list[Checkpoint]:
    """The checkpoints at ends of epochs that are not evaluated yet with these settings, oldest
    first.

    Raises:
      UserError: there are too few images, or a table of evaluations is damaged.
    """
    number = num_images(run.config.data.num_val, settings)
    wanted = []
    for repetition in trained.repetitions(run):
        steps = trained.epoch_steps(run, repetition)
        folder = layout.repetition_dir(run.workdir, repetition)
        done = records.evaluated_steps(folder, label(settings), number, settings.num_sizes)
        chosen = steps[-1:] if newest_only else steps
        wanted += [Checkpoint(repetition, step) for step in chosen if step not in done]
    return sorted(wanted, key=lambda one: (one.step, one.repetition))


def keep_best(run: TrainedRun, repetition: int, metric: str, settings: Settings) -> Best | None:
    """Keeps a repetition's best checkpoint among those evaluated with these settings; `best.keep`.

    Raises:
      UserError: as `best.keep`, or there are too few images.
    """
    number = num_images(run.config.data.num_val, settings)
    criterion = best.Criterion(metric, label(settings), number, settings.num_sizes)
    return best.keep(run, repetition, criterion)


def evaluate(run: TrainedRun, one: Checkpoint, evaluation: Evaluation) -> Summary | None:
    """Evaluates one checkpoint and writes its row; None, with a warning, if that is impossible.

    That is the case if it was removed meanwhile, is damaged, or gives samples that are not finite.

    Raises:
      UserError: the checkpoint has another structure, or the row cannot be written.
    """
    folder = layout.repetition_dir(run.workdir, one.repetition)
    records.check_writable(folder, evaluation.label)
    try:
        params = trained.load_params(run, one.repetition, one.step)
        summary = _summarize(run, one, evaluation, params)
    except FileNotFoundError as error:
        logging.warning("%s: was removed before it could be evaluated", error)
        return None
    except UnusableCheckpoint as error:
        logging.warning("repetition %d, step %d: %s", one.repetition, one.step, error)
        return None
    prefix = evaluation.label
    row: tables.Row = {"epoch": one.step // run.steps_per_epoch, "step": one.step}
    row |= {f"{prefix}_{name}": value for name, value in summary.values.items()}
    row |= records.extent(prefix, evaluation.sizes[-1], len(evaluation.sizes))
    tensorboard = "tensorboard" in run.config.logging.writers
    records.write(folder, prefix, row, summary.points, tensorboard)
    return summary


def checkpoint_keys(run: TrainedRun, one: Checkpoint) -> tuple[PRNGKey, PRNGKey]:
    """The keys of the images and of the metrics of a checkpoint's evaluation."""
    key = jax.random.fold_in(trained.repetition_key(run, one.repetition), EVALUATION)
    key_images, key_metrics = jax.random.split(jax.random.fold_in(key, one.step))
    return key_images, key_metrics


def _summarize(run: TrainedRun, one: Checkpoint, evaluation: Evaluation, params: Params) -> Summary:
    key_images, key_metrics = checkpoint_keys(run, one)
    images = evaluation.generate(params, key_images)
    generated = evaluation.network.apply(to_rgb(images), evaluation.batch_size)
    return summarize(key_metrics, evaluation.real, generated, evaluation.sizes)


def pending(
    run: TrainedRun,
    settings: Settings,
    newest_only: bool = False,
    watch: Callable[[], None] | None = None,
) -> Iterator[Checkpoint]:
    """Yields each checkpoint of `todo` once; checkpoints are searched for again after each one.

    Args:
      run: the run.
      settings: the settings of the evaluation.
      newest_only: only each repetition's newest checkpoint.
      watch: called to wait for more while a program trains there; None does not wait.
    """
    seen: set[Checkpoint] = set()
    while True:
        training = lock.is_held(
            run.workdir
        )  # asked before the search, so that no checkpoint is missed
        new = [one for one in todo(run, settings, newest_only) if one not in seen]
        if new:
            seen.add(new[0])
            yield new[0]
        elif training and watch is not None:
            watch()
        else:
            return
