r"""Is it the noise of the gradient that changes images, or the size of the steps?

python -m study.measurements.noise_or_step --output=runs/noise_or_step/linear \
    --config=configs/digits_small_linear.py --config.num_epochs=9
python -m study.measurements.noise_or_step --output=runs/noise_or_step/prior \
    --config=configs/digits_small.py --config.num_epochs=9

Trains and measures the cells of configs/noise_or_step.py one after another in one process, which
compiles the sampler, the feature network and the estimator of log p(x) once (a sweep of the same
cells does so for every cell). The repetitions of a cell train together. A cell that is in OUTPUT is
not trained again. --cells=N measures only the first N cells. `study.pages.step_study` makes the
page from the folders.

Each repetition has one row in OUTPUT/NAME.json: KID, FID, recall and density of as many images as
there are validation images (EfficientNet-Lite0), held-out log p(x) of 64 of them, the root mean
squares over all updates of `train_step_size` and `train_step_noise`, the mean of
`train_update_noise`, the skipped updates and the seconds of training.
"""

if not __package__:
    __import__("not_a_script")

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from launch import config_file, program
from launch.path_flags import DEFINE_path
from thermo_ebm import data, files
from thermo_ebm.config import checks
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.metrics.fid import frechet_distance
from thermo_ebm.metrics.kid import kernel_distance
from thermo_ebm.metrics.manifold import manifold_metrics
from thermo_ebm.metrics.networks import Network
from thermo_ebm.metrics.networks.preprocess import to_rgb
from thermo_ebm.randomness import EVALUATION
from thermo_ebm.sampling.samples import sample_images
from thermo_ebm.sweep.cells import Cell, make_cells, read_changes
from thermo_ebm.train import feed, programs, start, timing
from thermo_ebm.train.start import Prepared
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.step import Batches
from thermo_ebm.train.task import updates_per_epoch
from thermo_ebm.train.validation import HELD_OUT_IMAGES

EXPERIMENT = Path(__file__).resolve().parents[2] / "configs" / "noise_or_step.py"
# Readings of which a step sums the square.
ROOTS = tuple(
    f"train_step_{name}{group}"
    for name in ("size", "noise")
    for group in ("", "_prior", "_generator")
)
NOISE = "train_update_noise"


class Measurement(NamedTuple):
    """What all cells share."""

    network: Network
    validation: np.ndarray  # uint8 [num, *image_shape]
    real_features: np.ndarray
    held_out: Batches  # the images of log p(x)
    evaluating: Prepared  # whose programs evaluate log p(x) of every cell


def train(prepared: Prepared, size: int) -> tuple[TrainState, list[dict[str, Any]]]:
    """Trains the repetitions together; returns their state, and the readings of each."""
    task = prepared.task
    images = timing.training_feed(task)
    state = timing.first_state(prepared, size)
    totals: dict[str, np.ndarray] = dict.fromkeys((*ROOTS, NOISE), np.zeros(size))
    steps, skipped = np.zeros(size), np.zeros(size)
    begun = time.perf_counter()
    for _ in range(task.config.num_epochs):
        # The last step of an epoch is taken alone, since the sums end with the epoch.
        state = timing.advance(prepared, images, state, task.steps_per_epoch - 1)
        state = timing.advance(prepared, images, state, 1, begin_epochs=False)
        counters = programs.counters(state)
        steps, skipped = steps + counters.sums.steps, skipped + counters.skipped
        totals = {name: totals[name] + counters.sums.readings[name] for name in totals}
        epochs = (np.asarray(counters.step) // task.steps_per_epoch).astype(np.int32)
        state = prepared.programs.begin_epoch(state, epochs, np.ones(size, bool))
    seconds = (time.perf_counter() - begun) / size
    means = {name: total / np.maximum(steps, 1) for name, total in totals.items()}
    rows = []
    for i in range(size):
        row = {name: float(means[name][i]) for name in (*ROOTS, NOISE)}
        row |= {name: math.sqrt(row[name]) if row[name] >= 0 else math.nan for name in ROOTS}
        rows.append(row | {"skipped": int(skipped[i]), "seconds": seconds})
    return state, rows


def measure(cell: Cell, shared: Measurement) -> list[dict[str, Any]]:
    """Trains a cell and returns one row per repetition."""
    size = cell.config.num_repetitions
    prepared = start.prepare(cell.config, size)
    state, rows = train(prepared, size)
    evaluate = shared.evaluating.programs.likelihood
    likelihood = jax.device_get(programs.local(evaluate(state, shared.held_out)))
    for i, row in enumerate(rows):
        of_repetition = programs.select_repetition(state, i)
        params, key = programs.local((of_repetition.params, of_repetition.key))
        row |= {"seed": cell.config.seed + i}
        row |= {
            "log_marginal_likelihood": float(likelihood.mean[i]),
            "log_marginal_likelihood_stderr": float(likelihood.stderr[i]),
            "reliable": float(likelihood.reliable[i]),
        }
        row |= image_metrics(prepared, params, jax.random.fold_in(key, EVALUATION), shared)
    return rows


def image_metrics(
    prepared: Prepared, params: Any, key: Any, shared: Measurement
) -> Mapping[str, float]:
    """KID, FID, recall and density; NaN where samples are not finite."""
    task = prepared.task
    chains = sampler_settings(task.config).prior
    num = len(shared.validation)
    images = np.asarray(_sample(task.model, params, key, num, chains))
    if not np.isfinite(images).all():
        return dict.fromkeys(("kid", "fid", "recall", "density"), math.nan)
    features = shared.network.apply(to_rgb(data.to_uint8(images)), 100).features
    manifold = manifold_metrics(shared.real_features, features)
    return {
        "kid": kernel_distance(shared.real_features, features),
        "fid": frechet_distance(shared.real_features, features),
        "recall": manifold.recall,
        "density": manifold.density,
    }


_sample = jax.jit(sample_images, static_argnums=(0, 3, 4))


def prepare(cell: Cell) -> Measurement:
    """What does not depend on the cell but by its data and its model."""
    network = MetricSettings().choose_network()
    validation = data.load(cell.config.data).validation
    features = network.apply(to_rgb(validation), 100).features
    evaluating = start.prepare(cell.config, cell.config.num_repetitions)
    first = np.arange(min(HELD_OUT_IMAGES, len(validation)))[None]
    held_out = feed.take(validation.__getitem__, first)
    return Measurement(network, validation, features, held_out, evaluating)


def fields(cell: Cell) -> dict[str, Any]:
    """What distinguishes the cells."""
    config: ConfigDict = cell.config
    return {
        "amplification": config.gradient_noise.amplification,
        "second_moment": config.gradient_noise.second_moment,
        "power": config.loss.power,
        "chains_per_image": config.sampler.chains_per_image,
        "batch_size": config.batch_size,
        "updates": config.num_epochs * updates_per_epoch(config),
    }


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define(None, "Configuration of all cells.")
    DEFINE_path("output", None, "Folder for the results, created if needed.", required=True)
    flags.DEFINE_integer("cells", None, "Only the first of the cells.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    config, folder = config_file.read(), Path(flags.FLAGS.output)
    with files.clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cells = make_cells(config, read_changes(EXPERIMENT, config))[: flags.FLAGS.cells]
    shared = None
    for cell in cells:
        checks.check(cell.config)
        path = folder / f"{cell.name}.json"
        if path.exists():
            continue
        shared = shared or prepare(cells[0])
        rows = measure(cell, shared)
        files.write_json(path, {"cell": fields(cell), "repetitions": rows})
        kids = ", ".join(f"{row['kid']:.4f}" for row in rows)
        print(f"{time.strftime('%H:%M:%S')} {fields(cell)}: KID {kids}", flush=True)


if __name__ == "__main__":
    program.run(main, define_flags)
