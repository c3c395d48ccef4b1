"""The effect of each setting on the noise, the mean and the cost of the learning gradient.

  python -m study.measurements.gradient_noise
  python -m study.measurements.gradient_noise --quick        # a fast check with too small sizes
  python -m study.measurements.gradient_noise --cifar10=DIR  # CIFAR-10 as prepared by TFDS

Trains a small model of the digits (or of CIFAR-10 images) with a fixed seed and then holds its
parameters fixed. For each value of each setting (p, batch size, chains per image M, amplification,
accumulation) the training gradient is drawn repeatedly. `noise` is tr Cov(g) / n over the draws,
and `chain_noise` the same over draws of the chains alone, for one fixed batch. `halves` is the
noise as measured by a training step (|d|^2 / n, times the amplification). `bias` is the distance of
the mean gradient from that of long chains, divided by the norm of the latter, with the sampling
variance subtracted; `least` is the same with the standard error subtracted as well. `step_ms` is
the time of one complete training step. Then short runs with `gradient_noise.target` continue from
the trained model.

The output ends in the line `mean_bias=... target_error=... range=... overhead=...`:

  mean_bias     the largest `least` over amplifications and accumulations
  target_error  the largest relative error of the update's noise over the last half of those runs
  range         largest over smallest noise by amplification and accumulation, all else equal
  overhead      time of a step that measures the halves over that of one that does not, median of
  pairs
"""

if not __package__:
    __import__("not_a_script")

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from launch import program
from launch.path_flags import DEFINE_output_file, DEFINE_path
from study.measurements import gradient_draws
from thermo_ebm import data
from thermo_ebm.train import programs
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.task import Task, make_task


class Sizes(NamedTuple):
    """Numbers of draws and training steps, and the values of the settings."""

    train_steps: int = 100  # few: a bias is measured relative to the mean gradient, which fades
    draws: int = 128  # of a gradient of one batch
    references: int = 4  # draws of the long chains' gradient of the whole population
    reference_chains: int = 4  # per image
    reference_steps: int = 200
    amplified: int = 64  # amplifications of each draw
    target_steps: int = 200
    timed_steps: int = 15
    powers: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 6.0)
    amplifications: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    accumulations: tuple[int, ...] = (2, 4, 8)
    batch_sizes: tuple[int, ...] = (8, 16, 64)
    chains: tuple[int, ...] = (1, 4)
    targets: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)  # over the unamplified noise


FULL = Sizes()
CIFAR10 = Sizes(
    draws=64,
    reference_steps=300,
    amplified=16,
    target_steps=60,
    timed_steps=9,
    powers=(0.03, 0.3, 1.0, 3.0, 6.0),
    amplifications=(1.0, 16.0),
    accumulations=(4,),
    batch_sizes=(),
    chains=(1, 4),
    targets=(4.0,),
)
QUICK = Sizes(
    *(4, 16, 4, 2, 10, 4, 16, 2),
    powers=(0.1, 6.0),
    amplifications=(1.0, 4.0),
    accumulations=(2,),
    batch_sizes=(16,),
    chains=(1,),
    targets=(2.0,),
)


class Row(NamedTuple):
    """One value of one factor."""

    factor: str
    value: float
    p: float
    batch: int
    chains: int  # per image and temperature
    draws: int
    ess: float  # of the reweighted chains of an image
    noise: float  # per parameter
    chain_noise: float  # the same with one fixed batch: the chains' part
    halves: float
    bias: float
    least: float
    step_ms: float


class Experiment(NamedTuple):
    """The state that all measurements share."""

    config: ConfigDict
    sizes: Sizes
    population: np.ndarray  # the training images, uint8
    state: TrainState  # trained
    reference: np.ndarray  # [references, num_params]
    key: Any


def prepare(config: ConfigDict, sizes: Sizes, seed: int) -> Experiment:
    """Trains the model and draws the reference."""
    task = make_task(config)
    population = data.load(config.data).train
    start = gradient_draws.initial_state(task, seed)
    state = gradient_draws.trained(task, start, population, sizes.train_steps)
    long = gradient_draws.changed(
        config,
        {
            "loss.name": "vanilla",  # the chains of t = 0 and t = 1, and their plain means
            "batch_size": config.data.num_train,
            "sampler.chains_per_image": sizes.reference_chains,
            "sampler.exchange_every": 0,
            "sampler.prior.num_steps": sizes.reference_steps,
            "sampler.posterior.num_steps": sizes.reference_steps,
        },
    )
    draw = gradient_draws.make_draws(make_task(long), fixed_batch=True)
    key, reference_key = jax.random.split(jax.random.key(seed))
    params, schedule = programs.local(state.params), programs.local(state.schedule)
    reference = draw(params, schedule, population, reference_key, sizes.references).mean
    return Experiment(config, sizes, population, state, reference, key)


def measure(experiment: Experiment) -> Iterator[Row]:
    """Measures every factor, with the others at their first values."""
    config, sizes = experiment.config, experiment.sizes
    base = compile_task(experiment, config)
    for number, power in enumerate(sizes.powers):
        yield drawn_row(experiment, base, ("p", power), number)
    yield from amplified_rows(experiment, base)
    fields = {
        "accumulate": ("gradient_noise.accumulate", sizes.accumulations, 200),
        "batch_size": ("batch_size", sizes.batch_sizes, 300),
        "chains": ("sampler.chains_per_image", sizes.chains, 400),
    }
    for factor, (field, values, first_number) in fields.items():
        for value in values:
            task = compile_task(experiment, gradient_draws.changed(config, {field: value}))
            yield drawn_row(experiment, task, (factor, value), first_number + value)


class CompiledTask(NamedTuple):
    """The compiled draws of one task, and the time of its step."""

    config: ConfigDict
    task: Task
    draw: Callable[..., gradient_draws.Draws]
    draw_fixed: Callable[..., gradient_draws.Draws]  # always the same batch
    seconds: float


def compile_task(experiment: Experiment, config: ConfigDict) -> CompiledTask:
    """Times the step of a configuration; its draws compile when they are first called."""
    task = make_task(config)
    draw, draw_fixed = (gradient_draws.make_draws(task, fixed) for fixed in (False, True))
    return CompiledTask(config, task, draw, draw_fixed, _median_seconds(experiment, task))


def drawn_row(
    experiment: Experiment, compiled: CompiledTask, factor: tuple[str, float], number: int
) -> Row:
    """Draws the gradient of a task repeatedly.

    Args:
      experiment: the trained state and the sizes.
      compiled: the task.
      factor: the name and the value of what was changed.
      number: decides the random numbers.
    """
    power = factor[1] if factor[0] == "p" else experiment.config.loss.power
    num = experiment.sizes.draws
    if compiled.task.gradient_noise.accumulate > 1:
        num = max(num // compiled.task.gradient_noise.accumulate, 8)
    schedule = gradient_draws.power_schedule(compiled.task, power)

    def draw(function: Callable[..., gradient_draws.Draws], key: int, num: int) -> Any:
        params = programs.local(experiment.state.params)
        keys = jax.random.fold_in(experiment.key, key)
        return function(params, schedule, experiment.population, keys, num)

    draws = draw(compiled.draw, number, num)
    fixed = draw(compiled.draw_fixed, 1000 + number, max(num // 4, 2))
    moments = gradient_draws.moments(draws.mean, _trace(draws), experiment.reference)
    row = _row(compiled, factor, draws, moments)
    return row._replace(p=power, chain_noise=_trace(fixed) / fixed.mean.shape[1])


def amplified_rows(experiment: Experiment, compiled: CompiledTask) -> Iterator[Row]:
    """The same draws, amplified: everything else is equal."""
    schedule = gradient_draws.power_schedule(compiled.task, experiment.config.loss.power)
    params, key = programs.local(experiment.state.params), jax.random.fold_in(experiment.key, 100)
    draws = compiled.draw(params, schedule, experiment.population, key, experiment.sizes.draws)
    # The factor is a number like any other in the compiled step.
    changes = {"gradient_noise.amplification": 4.0}
    amplified = make_task(gradient_draws.changed(experiment.config, changes))
    seconds = _median_seconds(experiment, amplified)
    for number, c in enumerate(experiment.sizes.amplifications):
        key = jax.random.fold_in(experiment.key, 500 + number)
        means, covariance = gradient_draws.amplified(
            draws.mean, draws.difference, c, key, experiment.sizes.amplified
        )
        moments = gradient_draws.moments(np.asarray(means), float(covariance), experiment.reference)
        timed = compiled if c == 1 else compiled._replace(seconds=seconds)
        row = _row(timed, ("amplification", c), draws, moments)
        yield row._replace(halves=c * row.halves)


def _trace(draws: gradient_draws.Draws) -> float:
    """The trace of the gradient's covariance over the draws."""
    return float(draws.mean.var(axis=0, ddof=1, dtype=np.float64).sum())


def _row(
    compiled: CompiledTask,
    factor: tuple[str, float],
    draws: gradient_draws.Draws,
    moments: gradient_draws.DrawMoments,
) -> Row:
    return Row(
        factor=factor[0],
        value=factor[1],
        p=compiled.config.loss.power,
        batch=compiled.config.batch_size,
        chains=compiled.config.sampler.chains_per_image,
        draws=len(draws.mean),
        ess=draws.effective_sample_size,
        noise=moments.noise,
        chain_noise=np.nan,
        halves=float(np.square(draws.difference, dtype=np.float64).mean()),
        bias=moments.bias,
        least=moments.least_bias,
        step_ms=1e3 * compiled.seconds,
    )


def _median_seconds(experiment: Experiment, task: Task) -> float:
    seconds = gradient_draws.seconds_per_step(
        [task], experiment.state, experiment.population, experiment.sizes.timed_steps
    )
    return float(np.median(seconds))


class TargetRow(NamedTuple):
    """A run with a target of the noise."""

    target: float
    noise: float  # of the update, over the last half of the steps
    saturated: float  # share of these steps at which the target was out of reach


def measure_targets(experiment: Experiment, noise: float) -> Iterator[TargetRow]:
    """Runs at several targets, given as multiples of the unamplified noise."""
    for factor in experiment.sizes.targets:
        target = factor * noise
        changes = {"gradient_noise.target": target}
        task = make_task(gradient_draws.changed(experiment.config, changes))
        yield TargetRow(
            target,
            *gradient_draws.noise_with_target(
                task, experiment.state, experiment.population, experiment.sizes.target_steps
            ),
        )


def overhead(experiment: Experiment) -> float:
    """A step's time with the halves measured over one without, median of steps in pairs."""
    task = make_task(experiment.config)
    pair = [task, gradient_draws.without_halves(task)]
    seconds = gradient_draws.seconds_per_step(
        pair, experiment.state, experiment.population, 2 * experiment.sizes.timed_steps
    )
    return float(np.median(seconds[:, 0] / seconds[:, 1]))


def _print(values: tuple[object, ...]) -> None:
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    widths = [13, *[11] * (len(values) - 1)]
    print(*(text.rjust(width) for text, width in zip(texts, widths, strict=True)), flush=True)


def _write_csv(path: Path, rows: list[Row], targets: list[TargetRow]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, "target_noise", "saturated"])
        writer.writerows([*row, "", ""] for row in rows)
        blank = [""] * (len(Row._fields) - 2)
        for row in targets:
            writer.writerow(["target", row.target, *blank, row.noise, row.saturated])


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_bool("quick", False, "Small sizes, at which no figure is accurate.")
    DEFINE_path("cifar10", None, "TFDS folder: images of CIFAR-10 instead of the digits.")
    flags.DEFINE_integer("seed", 0, "Seed of the model and of the draws.")
    DEFINE_output_file("csv", "CSV file to which the tables are written.")


def main(argv: Sequence[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    quick = flags.FLAGS.quick
    config, sizes = gradient_draws.make_config(quick), QUICK if quick else FULL
    if flags.FLAGS.cifar10:
        config, sizes = gradient_draws.make_cifar10_config(flags.FLAGS.cifar10), CIFAR10
    experiment = prepare(config, sizes, flags.FLAGS.seed)
    rows, targets = [], []
    _print(Row._fields)
    for row in measure(experiment):
        rows.append(row)
        _print(row)
    exact = [row for row in rows if row.factor in ("amplification", "accumulate")]
    noise = next(row.noise for row in exact if row.factor == "amplification" and row.value == 1)
    _print(("target", "noise", "error", "saturated"))
    for target in measure_targets(experiment, noise):
        targets.append(target)
        error = target.noise / target.target - 1
        _print((target.target, target.noise, error, target.saturated))
    if flags.FLAGS.csv:
        _write_csv(Path(flags.FLAGS.csv), rows, targets)
    error = max(abs(target.noise / target.target - 1) for target in targets)
    spread = max(row.noise for row in exact) / min(row.noise for row in exact)
    print(
        f"mean_bias={max(row.least for row in exact):.3f} target_error={error:.3f} "
        f"range={spread:.1f} overhead={overhead(experiment):.3f}"
    )


if __name__ == "__main__":
    program.run(main, define_flags)
