"""E_t and log p(x) from chains by kernel, exchange and length, beside their true values.

  python -m study.measurements.kernels --workdir=runs/plane     # a run of configs/digits_plane.py

The model has a two-dimensional latent, so that the true values are sums over a grid
(`benchmarks/integrals.py`). A batch of different images has chains as in training, N_t = 10,
p = 3 and four chains per image. Entries are offsets from the true mean over the batch in nats, and
standard deviations over repeated draws: of E_t at three temperatures, and of log p(x) by MBAR and
by `warped_trapezium`, whose own error remains where the chains have converged.
"""

if not __package__:
    __import__("not_a_script")

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from benchmarks import integrals
from launch import program
from launch.path_flags import DEFINE_path
from thermo_ebm.losses import log_likelihoods
from thermo_ebm.thermo.schedule import Schedule, make_schedule

NUM_TEMPERATURES, POWER, CHAINS = 10, 3.0, 4
NODES = (0, 6, 10)  # E_t at these indices: t = 0, 0.216 and 1
STEPS = (20, 200, 1000)
KERNELS = ("ula", "mala")
EXCHANGE = (0, 2)  # steps between exchanges; 0: none


class Row(NamedTuple):
    """Chains with one kernel, exchange and length; offsets and standard deviations in nats."""

    kernel: str
    exchange_every: int
    num_steps: int
    expected: list[tuple[float, float]]  # E_t at NODES
    mbar: tuple[float, float]
    warped: tuple[float, float]


def measure(case: integrals.Case, schedule: Schedule, repeats: int, seed: int) -> Iterator[Row]:
    """Measures all combinations of kernel, exchange and length on one model."""
    truth = true_expectations(case, schedule)
    value = jax.jit(partial(log_likelihoods, case.model, image_chunk=0))
    for kernel, exchange_every, num_steps in itertools.product(KERNELS, EXCHANGE, STEPS):
        run = integrals.chains_of(case, num_steps, CHAINS, kernel, exchange_every)
        expected, mbar, warped = [], [], []
        for repeat in range(repeats):
            latents = run(schedule, jax.random.key(seed + repeat))
            likelihood = value(case.params["generator"], jnp.float32(case.images), latents)
            estimates = integrals.estimates(schedule, likelihood, latents)
            expected.append(np.asarray(likelihood, np.float64).mean(axis=(1, 2)) - truth)
            mbar.append(estimates["mbar", ""] - case.truth.mean())
            warped.append(estimates["warped_trapezium", "none"] - case.truth.mean())
        at_nodes = [_spread([offsets[node] for offsets in expected]) for node in NODES]
        yield Row(kernel, exchange_every, num_steps, at_nodes, _spread(mbar), _spread(warped))


def true_expectations(case: integrals.Case, schedule: Schedule) -> np.ndarray:
    """E_t, the mean over images, at the schedule's temperatures."""
    return case.expected(np.asarray(schedule.temperatures, np.float64)).mean(axis=1)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("workdir", None, "Run of configs/digits_plane.py; by default one is trained.")
    flags.DEFINE_integer("repeats", 4, "Number of repeated draws.", lower_bound=2)
    flags.DEFINE_integer("images", 16, "Number of images in the batch.", lower_bound=2)
    flags.DEFINE_integer("seed", 0, "Seed of the draws.")


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    case = integrals.make_case("plane", flags.FLAGS.images, flags.FLAGS.seed, flags.FLAGS.workdir)
    schedule = make_schedule("power", NUM_TEMPERATURES, POWER)
    temperatures, truth = schedule.temperatures, true_expectations(case, schedule)
    print(f"{len(case.images)} images, true mean log p(x) {case.truth.mean():.2f} nats")
    nodes = [f"E_t at t = {temperatures[node]:.3g} (true {truth[node]:.1f})" for node in NODES]
    titles = ["kernel", "exchange every", "K", *nodes, "log p(x), MBAR", "warped_trapezium"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles), flush=True)
    for row in measure(case, schedule, flags.FLAGS.repeats, flags.FLAGS.seed):
        offsets = [f"{mean:+.2f} ({sd:.2f})" for mean, sd in (*row.expected, row.mbar, row.warped)]
        cells = [row.kernel, str(row.exchange_every or "off"), str(row.num_steps), *offsets]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    program.run(main, define_flags)
