"""From checkpoints to metrics: generated images against held-out real ones."""

import csv
import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from thermo_ebm import data, files, trained
from thermo_ebm.config import sampler_settings
from thermo_ebm.errors import UserError
from thermo_ebm.metrics import cache, networks
from thermo_ebm.metrics.networks import Network, Outputs
from thermo_ebm.metrics.preprocess import to_rgb
from thermo_ebm.metrics.subsets import extrapolation_sizes
from thermo_ebm.metrics.summary import Point, Summary, summarize
from thermo_ebm.metrics.weights import default_cache_dir
from thermo_ebm.sampling.images import sample_images
from thermo_ebm.train import events, readings, rundir
from thermo_ebm.train.state import EVALUATION
from thermo_ebm.trained import TrainedRun
from thermo_ebm.types import Params, PRNGKey

EVAL = "eval.csv"
POINT_COLUMNS = ("epoch", "metric", "size", "value")


class Evaluation(NamedTuple):
    """What checkpoints are evaluated with."""

    network: Network
    real: Outputs  # of the held-out images
    num_images: int  # generated
    sizes: tuple[int, ...]  # of the extrapolation's subsets
    batch_size: int  # images at once, generated and through the network
    generate: Callable[[Params, PRNGKey], np.ndarray]  # uint8 [num_images, height, width, 3]


class Settings(NamedTuple):
    """What a user can choose of an evaluation."""

    features: str = "efficientnet_lite0"
    resize: str = "bilinear"
    inception_weights: str | None = None
    cache_dir: str | None = None  # of weights and real images' features
    num_images: int = 0  # generated, and real ones used; 0 is all validation images, 4500 at most
    num_sizes: int = 10
    batch_size: int = 100
    data_dir: str | None = None  # where the data are now; the run's own by default


class Checkpoint(NamedTuple):
    """One that is to be evaluated."""

    repetition: int
    step: int


def prepare(run: TrainedRun, settings: Settings) -> Evaluation:
    """Loads the network and the real images' features, once for all checkpoints of a run.

    Raises:
      UserError: weights or data are not there, or more images are asked for than there are.
    """
    folder = Path(settings.cache_dir) if settings.cache_dir else default_cache_dir()
    network = networks.choose(
        settings.features, settings.resize, settings.inception_weights, folder
    )
    config = run.config.data.copy_and_resolve_references()
    if settings.data_dir is not None:
        config.data_dir = settings.data_dir
    real = data.load(config).validation
    num_images = settings.num_images or min(len(real), 4500)
    if num_images > len(real):
        raise UserError(f"--num_images={num_images}: more than the {len(real)} validation images")
    real = to_rgb(real[:num_images])
    batch = settings.batch_size
    return Evaluation(
        network=network,
        real=cache.real_outputs(network, real, config.name, "validation", folder, batch),
        num_images=num_images,
        sizes=extrapolation_sizes(num_images, settings.num_sizes),
        batch_size=batch,
        generate=generate_images(run, num_images, batch),
    )


def generate_images(
    run: TrainedRun, num_images: int, batch_size: int
) -> Callable[[Params, PRNGKey], np.ndarray]:
    """Returns a function from parameters and a key to uint8 images [num_images, h, w, channels]."""
    settings = sampler_settings(run.config).prior

    @partial(jax.jit, static_argnums=2)
    def batch(params: Params, key: PRNGKey, num: int) -> jax.Array:
        return data.to_uint8(sample_images(run.model, params, key, num, settings))

    def generate(params: Params, key: PRNGKey) -> np.ndarray:
        num = min(batch_size, num_images)
        count = -(-num_images // num)
        batches = [batch(params, jax.random.fold_in(key, i), num) for i in range(count)]
        return np.concatenate([np.asarray(images) for images in batches])[:num_images]

    return generate


def todo(run: TrainedRun, network: str, newest_only: bool = False) -> list[Checkpoint]:
    """The checkpoints at epochs' ends that have no row of this network yet, oldest first."""
    wanted = []
    for number in trained.repetitions(run):
        steps = trained.epoch_steps(run, number)
        done = _evaluated_steps(run, number, network)
        chosen = steps[-1:] if newest_only else steps
        wanted += [Checkpoint(number, step) for step in chosen if step not in done]
    return sorted(wanted, key=lambda one: (one.step, one.repetition))


def _evaluated_steps(run: TrainedRun, number: int, network: str) -> set[int]:
    rows = readings.read(rundir.repetition_dir(run.workdir, number) / EVAL, columns=None)
    column = f"{network}_fid_inf"
    return {int(row["step"] or 0) for row in rows if row.get(column) is not None}


def evaluate(run: TrainedRun, one: Checkpoint, evaluation: Evaluation) -> Summary | None:
    """Evaluates one checkpoint and writes its row; None where it has vanished meanwhile.

    Raises:
      UserError: the checkpoint is another program's, or the row cannot be written.
    """
    try:
        params = trained.load_params(run, one.repetition, one.step)
    except FileNotFoundError as error:
        logging.warning("%s: vanished before it was evaluated", error)
        return None
    except ValueError as error:
        logging.warning("repetition %d, step %d: damaged (%s)", one.repetition, one.step, error)
        return None
    key = jax.random.fold_in(trained.repetition_key(run, one.repetition), EVALUATION)
    key_images, key_metrics = jax.random.split(jax.random.fold_in(key, one.step))
    images = evaluation.generate(params, key_images)
    generated = evaluation.network.apply(to_rgb(images), evaluation.batch_size)
    try:
        summary = summarize(key_metrics, evaluation.real, generated, evaluation.sizes)
    except ValueError as error:  # images that are not finite, say
        logging.warning("repetition %d, step %d: %s", one.repetition, one.step, error)
        return None
    _write(run, one, evaluation.network.name, summary)
    return summary


def _write(run: TrainedRun, one: Checkpoint, network: str, summary: Summary) -> None:
    """The points first, then the row: a row is there only when all of it is."""
    folder = rundir.repetition_dir(run.workdir, one.repetition)
    epoch = one.step // run.steps_per_epoch
    values = {f"{network}_{name}": value for name, value in summary.values.items()}
    try:
        _write_points(folder / f"eval_points_{network}.csv", epoch, summary.points)
        if run.config.logging.tensorboard:
            # A session of its own that hides no other's steps.
            opened = events.open_events(folder / "tensorboard" / f"eval_{network}", run.total_steps)
            events.write_scalars(opened, one.step, values)
            events.close_events(opened)
        readings.update_row(folder / EVAL, {"epoch": epoch, "step": one.step, **values})
    except OSError as error:
        raise UserError(f"{folder}: the evaluation cannot be written: {error.strerror}") from error


def _write_points(path: Path, epoch: int, points: Sequence[Point]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(POINT_COLUMNS)
    if path.exists():
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))[1:]
        writer.writerows(row for row in rows if row[0] != str(epoch))
    writer.writerows((epoch, point.metric, point.size, repr(point.value)) for point in points)
    files.write_text(path, table.getvalue())


def watch(
    run: TrainedRun, network: str, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Checkpoint]:
    """Yields each checkpoint once as it appears; ends when no program trains there any more."""
    seen: set[Checkpoint] = set()
    while True:
        training = rundir.is_held(run.workdir)  # asked before looking, so that none is missed
        new = [one for one in todo(run, network) if one not in seen]
        yield from new
        seen.update(new)
        if not training:
            return
        if not new:
            sleep(seconds)
