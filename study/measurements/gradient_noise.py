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
the time of one complete training step. Then short runs with `dial.target_noise` continue from the
trained model.

The output ends in the line `mean_bias=... target_error=... range=... overhead=...`:

  mean_bias     the largest `least` over amplifications and accumulations
  target_error  the largest relative error of the update's noise over the last half of those runs
  range         largest over smallest noise by amplification and accumulation, all else equal
  overhead      time of a step that measures the halves over that of one that does not, median of
  pairs
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from study.measurements import gradient_draws as measure
from thermo_ebm import data, runtime
from thermo_ebm.train import spmd, tasks
from thermo_ebm.train.batches import make_layout, split_over_devices
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.tasks import Task
from thermo_ebm.types import Array


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
    """One value of one setting."""

    knob: str
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


class Bench(NamedTuple):
    """The state that all measurements share."""

    config: ConfigDict
    sizes: Sizes
    part: Array  # the population, on the devices
    state: TrainState  # trained
    reference: np.ndarray  # [references, num_params]
    key: Any


def prepare(config: ConfigDict, sizes: Sizes, seed: int) -> Bench:
    """Trains the model and draws the reference."""
    task = tasks.make_task(config)
    images = data.load(config.data).train
    part = spmd.spread(split_over_devices(images, make_layout(task.num_train)))
    start = measure.initial_state(task, seed)
    state = measure.trained(task, start, part, sizes.train_steps)
    long = measure.changed(
        config,
        loss__name="vanilla",  # the chains of t = 0 and t = 1, and their plain means
        batch_size=config.data.num_train,
        sampler__chains_per_image=sizes.reference_chains,
        sampler__exchange_every=0,
        sampler__prior__num_steps=sizes.reference_steps,
        sampler__posterior__num_steps=sizes.reference_steps,
    )
    draw = measure.make_draws(tasks.make_task(long), whole=True)
    key, reference_key = jax.random.split(jax.random.key(seed))
    params = spmd.local(state.params)
    found = draw(params, spmd.local(state.schedule), part, reference_key, sizes.references)
    return Bench(config, sizes, part, state, found.mean, key)


def rows(bench: Bench) -> Iterator[Row]:
    """Measures every setting, with the others at their first values."""
    config, sizes = bench.config, bench.sizes
    base = make_cell(bench, config)
    for number, power in enumerate(sizes.powers):
        yield drawn_row(bench, base, "p", power, number, power=power)
    yield from amplification_rows(bench, base)
    for k in sizes.accumulations:
        cell = make_cell(bench, measure.changed(config, dial__accumulate=k))
        yield drawn_row(bench, cell, "accumulate", k, 200 + k, num=max(sizes.draws // k, 8))
    for size in sizes.batch_sizes:
        cell = make_cell(bench, measure.changed(config, batch_size=size))
        yield drawn_row(bench, cell, "batch_size", size, 300 + size)
    for m in sizes.chains:
        cell = make_cell(bench, measure.changed(config, sampler__chains_per_image=m))
        yield drawn_row(bench, cell, "chains", m, 400 + m)


class Cell(NamedTuple):
    """One task's compiled draws and the time of its step."""

    config: ConfigDict
    task: Task
    draw: Callable[..., measure.Draws]
    draw_fixed: Callable[..., measure.Draws]  # always the same batch
    seconds: float


def make_cell(bench: Bench, config: ConfigDict) -> Cell:
    """Times the step of a configuration; its draws compile when they are first called."""
    task = tasks.make_task(config)
    draw, draw_fixed = (measure.make_draws(task, whole) for whole in (False, True))
    return Cell(config, task, draw, draw_fixed, _median_seconds(bench, task))


def drawn_row(
    bench: Bench,
    cell: Cell,
    knob: str,
    value: float,
    number: int,
    power: float | None = None,
    num: int | None = None,
) -> Row:
    """Draws the gradient of a cell repeatedly; `number` chooses the random numbers."""
    num = num or bench.sizes.draws
    found = _draws(bench, cell.draw, cell, number, power, num)
    fixed = _draws(bench, cell.draw_fixed, cell, 1000 + number, power, max(num // 4, 2))
    seen = measure.moments(found.mean, _trace(found), bench.reference)
    of_chains = _trace(fixed) / fixed.mean.shape[1]
    return _row(cell, knob, value, power or bench.config.loss.power, found, seen, of_chains)


def amplification_rows(bench: Bench, cell: Cell) -> Iterator[Row]:
    """The same draws, amplified: everything else is equal."""
    power = bench.config.loss.power
    found = _draws(bench, cell.draw, cell, 100, None, bench.sizes.draws)
    # The factor is a number like any other in the compiled step.
    louder = tasks.make_task(measure.changed(bench.config, dial__amplification=4.0))
    seconds = _median_seconds(bench, louder)
    for number, c in enumerate(bench.sizes.amplifications):
        key = jax.random.fold_in(bench.key, 500 + number)
        repeats = bench.sizes.amplified
        means, covariance = measure.amplified(found.mean, found.difference, c, key, repeats)
        seen = measure.moments(np.asarray(means), float(covariance), bench.reference)
        amplified = cell if c == 1 else cell._replace(seconds=seconds)
        yield _row(amplified, "amplification", c, power, found, seen, np.nan, c)


def _draws(
    bench: Bench,
    draw: Callable[..., measure.Draws],
    cell: Cell,
    number: int,
    power: float | None,
    num: int,
) -> measure.Draws:
    schedule = measure.power_schedule(cell.task, power or bench.config.loss.power)
    key, params = jax.random.fold_in(bench.key, number), spmd.local(bench.state.params)
    return draw(params, schedule, bench.part, key, num)


def _trace(found: measure.Draws) -> float:
    """The trace of the gradient's covariance over the draws."""
    return float(found.mean.var(axis=0, ddof=1, dtype=np.float64).sum())


def _row(
    cell: Cell,
    knob: str,
    value: float,
    power: float,
    found: measure.Draws,
    seen: measure.Moments,
    of_chains: float,
    amplification: float = 1.0,
) -> Row:
    return Row(
        knob=knob,
        value=value,
        p=power,
        batch=cell.config.batch_size,
        chains=cell.config.sampler.chains_per_image,
        draws=len(found.mean),
        ess=found.effective_sample_size,
        noise=seen.noise,
        chain_noise=of_chains,
        halves=float(amplification * np.square(found.difference, dtype=np.float64).mean()),
        bias=seen.bias,
        least=seen.least_bias,
        step_ms=1e3 * cell.seconds,
    )


def _median_seconds(bench: Bench, task: Task) -> float:
    seconds = measure.seconds_per_step([task], bench.state, bench.part, bench.sizes.timed_steps)
    return float(np.median(seconds))


def target_errors(bench: Bench, noise: float) -> Iterator[tuple[float, float, float]]:
    """Runs at five target noises: the target, the noise held, and the share of steps saturated."""
    for factor in bench.sizes.targets:
        config = measure.changed(bench.config, dial__target_noise=factor * noise)
        task = tasks.make_task(config)
        num_steps = bench.sizes.target_steps
        held, saturated = measure.held_noise(task, bench.state, bench.part, num_steps)
        yield factor * noise, held, saturated


def overhead(bench: Bench) -> float:
    """A step's time with the halves measured over one without, median of steps in pairs."""
    task = tasks.make_task(bench.config)
    pair = [task, measure.without_halves(task)]
    seconds = measure.seconds_per_step(pair, bench.state, bench.part, 2 * bench.sizes.timed_steps)
    return float(np.median(seconds[:, 0] / seconds[:, 1]))


def _print(values: tuple[object, ...]) -> None:
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    widths = [13, *[11] * (len(values) - 1)]
    print(*(text.rjust(width) for text, width in zip(shown, widths, strict=True)), flush=True)


def _write_csv(path: Path, made: list[Row], targets: list[tuple[float, float, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, "held", "saturated"])
        writer.writerows([*row, "", ""] for row in made)
        blank = [""] * (len(Row._fields) - 2)
        writer.writerows(["target_noise", target, *blank, *rest] for target, *rest in targets)


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_bool("quick", False, "Small sizes, at which no figure is accurate.")
    flags.DEFINE_string("cifar10", None, "TFDS folder: images of CIFAR-10 instead of the digits.")
    flags.DEFINE_integer("seed", 0, "Seed of the model and of the draws.")
    flags.DEFINE_string("csv", None, "CSV file to which the tables are written.")


def _chosen() -> tuple[ConfigDict, Sizes]:
    """The configuration and the sizes that the flags ask for."""
    if flags.FLAGS.cifar10:
        return measure.make_cifar10_config(flags.FLAGS.cifar10), CIFAR10
    quick = flags.FLAGS.quick
    return measure.make_config(quick), QUICK if quick else FULL


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)
    bench = prepare(*_chosen(), flags.FLAGS.seed)
    made, targets = [], []
    _print(Row._fields)
    for row in rows(bench):
        made.append(row)
        _print(row)
    knobs = [row for row in made if row.knob in ("amplification", "accumulate")]
    noise = next(row.noise for row in knobs if row.knob == "amplification" and row.value == 1)
    _print(("target_noise", "held", "error", "saturated"))
    for target, held, saturated in target_errors(bench, noise):
        targets.append((target, held, saturated))
        _print((f"{target:.4g}", held, held / target - 1, saturated))
    if flags.FLAGS.csv:
        _write_csv(Path(flags.FLAGS.csv), made, targets)
    error = max(abs(held / target - 1) for target, held, _ in targets)
    spread = max(row.noise for row in knobs) / min(row.noise for row in knobs)
    print(
        f"mean_bias={max(row.least for row in knobs):.3f} target_error={error:.3f} "
        f"range={spread:.1f} overhead={overhead(bench):.3f}"
    )


if __name__ == "__main__":
    define_flags()
    runtime.prepare_jax()
    app.run(main)
