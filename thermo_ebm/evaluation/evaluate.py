"""From checkpoints to metrics: generated images against held-out real ones."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config.build import image_shape
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import best, records
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.run import LoadedCheckpoint, Run, UnusableCheckpoint
from thermo_ebm.metrics import memorization, paired, subsets, summary
from thermo_ebm.metrics.networks import Network, Outputs, cache
from thermo_ebm.metrics.networks.preprocess import to_rgb
from thermo_ebm.metrics.paired import PairedMetrics
from thermo_ebm.metrics.summary import Summary, bias_note
from thermo_ebm.randomness import EVALUATION
from thermo_ebm.run import layout, lock, tables
from thermo_ebm.run.records import Best
from thermo_ebm.types import Params, PRNGKey


class EvaluationSettings(Protocol):
    """What is evaluated; `MetricSettings`, or `likelihood.held_out.HeldOut`."""

    def extent(self, config: ConfigDict) -> records.Extent:
        """Columns and sizes of the evaluations of a run; UserError if it has too few images."""

    def required_columns(self) -> list[str]:
        """Columns without which a checkpoint counts as not evaluated."""


class TrainingImages(NamedTuple):
    """What a run's training images are compared by."""

    features: np.ndarray  # [num_train, num_features]
    digests: list[bytes]  # SHA-256 of each image's pixels


class Evaluation(NamedTuple):
    """Everything that the evaluations of a run's checkpoints share."""

    network: Network
    label: str  # the prefix of columns and files
    real: Outputs  # of the held-out images, or of the training images where the protocol says so
    num_images: int  # that are generated
    sizes: tuple[int, ...]  # of the extrapolation's subsets; none for the FID alone
    num_sizes: int  # as asked for
    batch_size: int  # images per batch, in the generator and in the network
    training: TrainingImages | None = None  # for copies, if asked for
    best_metric: str | None = None  # of which both halves are evaluated


class Checkpoint(NamedTuple):
    """A checkpoint to be evaluated."""

    repetition: int
    step: int


def prepare(
    run: Run, settings: MetricSettings, network: Network, data_dir: str | None = None
) -> Evaluation:
    """Computes the real images' features, or reads them from the cache, once for a run.

    Args:
      run: the run.
      settings: the settings of the evaluation.
      network: the settings' network.
      data_dir: where the data are now; None for the place that the run recorded.

    Raises:
      UserError: the data are missing, or have fewer images than requested.
    """
    number, needs_training = settings.extent(run.config).num_images, settings.memorization

    def outputs(images: np.ndarray, split: str) -> Outputs:
        name, folder = f"{run.config.data.name}-{split}", settings.cache_folder()
        return cache.real_outputs(network, images, name, folder, settings.batch_size)

    against_training = settings.choose_protocol().reference == "training"
    training = None
    if needs_training or against_training:
        images = to_rgb(read(run.training_set(data_dir)))
        real = outputs(images, "train")
        if needs_training:
            training = TrainingImages(real.features, memorization.digests(images))
    if not against_training:
        real = outputs(to_rgb(run.validation_images(data_dir)[:number]), "validation")
    sizes = settings.subset_sizes(min(number, len(real.features)), "num_images")
    return Evaluation(
        *(network, run.label(settings.label()), real, number, sizes),
        *(settings.num_sizes, settings.batch_size, training, settings.keep_best),
    )


def notes(evaluation: Evaluation) -> list[str]:
    """Notes on the metrics of these evaluations, for the user."""
    network, num_images = evaluation.network, evaluation.num_images
    lines = []
    if evaluation.real.from_cache:
        lines.append("features of the real images: from the cache")
    if not network.is_cacheable:
        lines.append(
            f"{evaluation.label}: the network's module has no cache_key(): other weights write "
            "columns of the same name"
        )
    if not evaluation.sizes:
        return [*lines, f"only the FID is computed of {num_images} images"]
    bias = bias_note(num_images, evaluation.real.features.shape[1])
    return [*lines, bias] if bias else lines


def other_rows(run: Run, settings: EvaluationSettings) -> str | None:
    """A note on rows of the same network with other numbers of images or sizes; None without.

    Raises:
      UserError: there are too few images, or a table of evaluations is damaged.
    """
    own = extent_of(run, settings)
    folders = [layout.repetition_dir(run.workdir, number) for number in run.repetitions()]
    others = set().union(*(records.other_extents(folder, own) for folder in folders))
    if not others:
        return None
    listed = ", ".join(f"{other.num_images} images and {other.num_sizes} sizes" for other in others)
    return (
        f"{layout.EVALUATIONS} keeps its rows of {own.network} with {listed}; rows with "
        f"{own.num_images} images and {own.num_sizes} sizes are added"
    )


def generate_images(
    run: Run, params: Params, key: PRNGKey, num: int, batch_size: int = 100
) -> np.ndarray:
    """Images of `Run.sample_batches` as uint8 [num, height, width, channels].

    Raises:
      UnusableCheckpoint: a chain is not finite.
    """
    batches = []
    for images in run.sample_batches(params, key, num, batch_size):
        if not np.isfinite(images).all():
            raise UnusableCheckpoint("some of its samples are not finite numbers")
        batches.append(data.to_uint8(images))
    return np.concatenate(batches)


def extent_of(run: Run, settings: EvaluationSettings) -> records.Extent:
    """The evaluations of a run's parameters with these settings.

    Raises:
      UserError: there are too few images.
    """
    extent = settings.extent(run.config)
    return extent._replace(network=run.label(extent.network))


def unevaluated(
    run: Run, settings: EvaluationSettings, newest_only: bool = False
) -> list[Checkpoint]:
    """The checkpoints at ends of epochs that are not evaluated yet with these settings.

    Returns:
      The checkpoints, the oldest first.

    Raises:
      UserError: there are too few images, or a table of evaluations is damaged.
    """
    extent, checkpoints = extent_of(run, settings), []
    for repetition in run.repetitions():
        steps = run.epoch_steps(repetition)
        folder = layout.repetition_dir(run.workdir, repetition)
        required = [run.label(column) for column in settings.required_columns()]
        evaluated = records.evaluated_steps(folder, extent, required)
        checkpoints += [
            Checkpoint(repetition, step)
            for step in (steps[-1:] if newest_only else steps)
            if step not in evaluated
        ]
    return sorted(checkpoints, key=lambda checkpoint: (checkpoint.step, checkpoint.repetition))


def keep_best(run: Run, repetition: int, metric: str, settings: EvaluationSettings) -> Best | None:
    """Keeps a repetition's best checkpoint among those evaluated with these settings; `best.keep`.

    Raises:
      UserError: as `best.keep`, or there are too few images.
    """
    return best.keep(run, repetition, best.Criterion(metric, *extent_of(run, settings)))


def evaluate(run: Run, checkpoint: Checkpoint, evaluation: Evaluation) -> Summary | None:
    """Evaluates one checkpoint and writes its row.

    Returns:
      The metrics; None, with a warning, if the checkpoint was removed in the meantime, is damaged,
      or gives samples that are not finite.

    Raises:
      UserError: the checkpoint has another structure, or the row cannot be written.
    """
    repetition, step = checkpoint
    folder = layout.repetition_dir(run.workdir, repetition)
    records.check_writable(folder, evaluation.label)
    try:
        measured = measure(run, run.read(repetition, step), evaluation)
    except FileNotFoundError as error:
        logging.warning("%s: was removed before it could be evaluated", error)
        return None
    except UnusableCheckpoint as error:
        logging.warning("repetition %d, step %d: %s", repetition, step, error)
        return None
    prefix, number = evaluation.label, evaluation.num_images
    row: tables.Row = {"epoch": step // run.steps_per_epoch, "step": step}
    row |= {f"{prefix}_{name}": value for name, value in measured.values.items()}
    row |= records.extent(prefix, number, evaluation.num_sizes)
    tensorboard = "tensorboard" in run.config.logging.writers
    records.write(folder, prefix, row, measured.points, tensorboard)
    return measured


def measure(run: Run, checkpoint: LoadedCheckpoint, evaluation: Evaluation) -> Summary:
    """The metrics of a checkpoint's samples; nothing is written.

    Raises:
      UnusableCheckpoint: samples are not finite.
      UserError: there is no such metric to keep the best checkpoint by.
    """
    key_images, key_metrics = checkpoint_keys(run, checkpoint.repetition, checkpoint.step)
    number, batch_size = evaluation.num_images, evaluation.batch_size
    images = to_rgb(generate_images(run, checkpoint.params, key_images, number, batch_size))
    generated = evaluation.network.apply(images, batch_size)
    measured = _summarize(key_metrics, evaluation, generated)
    if evaluation.best_metric is not None:
        measured.values.update(_halves(key_metrics, evaluation, generated))
    if evaluation.training is not None:
        copies = memorization.summarize(
            *(evaluation.training.features, generated.features),
            *(evaluation.training.digests, memorization.digests(images)),
        )
        measured.values.update(copies._asdict())
    return measured


def _summarize(key: PRNGKey, evaluation: Evaluation, generated: Outputs) -> Summary:
    """Every metric, or the FID alone where there are too many images for the others."""
    if evaluation.sizes:
        return _summarize_plain(key, evaluation, generated)
    numbers = len(evaluation.real.features), evaluation.num_images
    draws = summary.make_draws(key, (), *numbers)
    return summary.measure_fid(evaluation.real, generated, draws).summary


def _summarize_plain(key: PRNGKey, evaluation: Evaluation, generated: Outputs) -> Summary:
    """Every metric, with extrapolations where there are sizes."""
    return summary.summarize(key, evaluation.real, generated, evaluation.sizes)


def _halves(key: PRNGKey, evaluation: Evaluation, generated: Outputs) -> dict[str, float]:
    """The metric of --keep_best of the images at even and at odd positions, with its errors."""
    metric, values = evaluation.best_metric, {}
    for number, half_key in enumerate(jax.random.split(key)):
        halves = [
            Outputs(outputs.features[number::2], outputs.logits[number::2])
            for outputs in (evaluation.real, generated)
        ]
        num_images = min(len(half.features) for half in halves)
        sizes: tuple[int, ...] = ()
        if evaluation.sizes and str(metric).endswith("_inf"):
            sizes = subsets.extrapolation_sizes(num_images, len(evaluation.sizes))
        half = evaluation._replace(real=halves[0], num_images=len(halves[1].features), sizes=sizes)
        compute = _summarize if sizes or not evaluation.sizes else _summarize_plain
        columns = compute(half_key, half, halves[1]).values
        if metric not in columns:
            raise UserError(f"keep_best={metric}: {evaluation.label} has no such metric")
        values[f"{metric}_half_{number + 1}"] = columns[metric]
        values[f"{metric}_half_{number + 1}_stderr"] = columns[f"{metric}_stderr"]
    return values


def compare_checkpoints(
    run: Run, checkpoint: Checkpoint, against: tuple[Run, LoadedCheckpoint], evaluation: Evaluation
) -> PairedMetrics:
    """Compares the images of two checkpoints, of one run or two, against the run's held-out images.

    Each has the images of its own evaluation. Nothing is written.

    Args:
      run: the run of the evaluation.
      checkpoint: its checkpoint.
      against: another run, or the same one, and its checkpoint.
      evaluation: from `prepare`.

    Returns:
      The metrics of "A", the run's checkpoint, and of "B".

    Raises:
      UserError: a checkpoint cannot be read, or the images of the runs have different shapes.
    """
    number, batch_size = evaluation.num_images, evaluation.batch_size
    repetition, step = checkpoint
    other_run, other = against
    if image_shape(run.config) != image_shape(other_run.config):
        raise UserError(f"{other_run.workdir}: its images have another shape than {run.workdir}'s")
    outputs = {}
    for letter, owner, loaded in (
        ("A", run, run.load(repetition, step)),
        ("B", other_run, other),
    ):
        key, _ = checkpoint_keys(owner, loaded.repetition, loaded.step)
        try:
            images = generate_images(owner, loaded.params, key, number, batch_size)
        except UnusableCheckpoint as error:
            raise UserError(f"{owner.workdir}, {loaded.title()}: {error}") from error
        outputs[letter] = evaluation.network.apply(to_rgb(images), batch_size)
    _, key_metrics = checkpoint_keys(run, repetition, step)
    return paired.compare_outputs(key_metrics, evaluation.real, outputs, evaluation.sizes)


def checkpoint_keys(run: Run, repetition: int, step: int) -> tuple[PRNGKey, PRNGKey]:
    """The keys of the images and of the metrics of a checkpoint's evaluation."""
    key = jax.random.fold_in(run.key(repetition), EVALUATION)
    key_images, key_metrics = jax.random.split(jax.random.fold_in(key, step))
    return key_images, key_metrics


def pending(
    run: Run,
    settings: EvaluationSettings,
    newest_only: bool = False,
    watch: Callable[[], None] | None = None,
) -> Iterator[Checkpoint]:
    """Yields each checkpoint of `unevaluated` once, searching for new ones after each.

    Args:
      run: the run.
      settings: the settings of the evaluation.
      newest_only: only each repetition's newest checkpoint.
      watch: called to wait for more while a program trains there; None does not wait.
    """
    yielded: set[Checkpoint] = set()
    while True:
        # Asked before the search, so that no checkpoint is missed.
        training = lock.is_held(run.workdir)
        checkpoints = unevaluated(run, settings, newest_only)
        new = [checkpoint for checkpoint in checkpoints if checkpoint not in yielded]
        if new:
            yielded.add(new[0])
            yield new[0]
        elif training and watch is not None:
            watch()
        else:
            return
