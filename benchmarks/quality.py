r"""Seconds of training to a held-out log p(x), for different chains, in one run.

  python -m benchmarks.quality --config=configs/quality_cifar10.py \
      --config.data.data_dir=TFDS --seconds=120 --workdir=runs/quality
  python -m benchmarks.quality --short --config=configs/digits_paper.py --seconds=60

Every arm is the configuration with other chains. The arms train in turns, a slice of a few seconds
each, so that a change of the machine's speed meets all of them; compilation and the first step are
not counted. Parameters are kept at times that double, and evaluated afterwards: log p(x) of
validation images by annealed SMC (`thermo_ebm/likelihood`), at fixed effort. Data that are not
there end the program with one line.
"""

if not __package__:
    __import__("not_a_script")

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks import programs as bench_programs
from configs import chains
from launch import config_file, path_flags, program
from thermo_ebm import data
from thermo_ebm.config import checks
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError
from thermo_ebm.likelihood import LikelihoodSettings, log_marginal_likelihood
from thermo_ebm.plots import new_figure
from thermo_ebm.train import feed, programs
from thermo_ebm.train.state import TrainState, init_state
from thermo_ebm.train.task import Task, make_task
from thermo_ebm.types import Params

_PRIOR_LADDER = chains.LINEAR | {
    "loss.reference": "prior",
    "loss.num_temperatures": 4,
    "sampler.start": "prior",
    "sampler.exchange_every": 1,
    "sampler.posterior.num_steps": 4,
}
_LINEAR = chains.LINEAR
_VANILLA = {"loss.name": "vanilla", "sampler.exchange_every": 0}

ARMS = {
    "paper K=20": {"sampler.posterior.num_steps": 20},
    "paper K=40": {"sampler.posterior.num_steps": 40},
    "vanilla paper K=20": _VANILLA | {"sampler.posterior.num_steps": 20},
    "prior ladder 4 rounds": _PRIOR_LADDER,
    "vanilla linear 2 rounds": _LINEAR | _VANILLA,
    "linear N_t=1 1 round": _LINEAR | {"sampler.posterior.num_steps": 1},
    "linear N_t=1 2 rounds": _LINEAR,
    "linear N_t=1 4 rounds": _LINEAR | {"sampler.posterior.num_steps": 4},
    "linear N_t=2 2 rounds": _LINEAR | {"loss.num_temperatures": 2, "sampler.exchange_every": 1},
}
SHORT = ("paper K=20", "prior ladder 4 rounds", "linear N_t=1 2 rounds", "linear N_t=2 2 rounds")
SLICE_SECONDS = 5.0
NUM_TEMPERATURES = 75  # of the estimates: 300 gradients a chain


class Arm(NamedTuple):
    """One setting, while it trains."""

    name: str
    task: Task
    step: object  # the compiled step
    images: np.ndarray
    rng: np.random.Generator


class Progress(NamedTuple):
    """How far an arm is."""

    state: TrainState
    order: np.ndarray  # numbers of the images still to come in this epoch
    steps: int
    seconds: float
    checkpoints: tuple[tuple[float, int, Params], ...]  # seconds, steps, parameters


def make_arm(name: str, config: ConfigDict, images: np.ndarray) -> tuple[Arm, Progress]:
    """An arm and its progress after two steps, which are not timed."""
    changed = ConfigDict(config.to_dict())
    changed.num_repetitions = 1
    changed.update_from_flattened_dict(ARMS[name])
    checks.check(changed)
    task = make_task(bench_programs.with_chunks(changed, make_task(changed).model))
    arm = Arm(name, task, programs.map_step(task), images, np.random.default_rng(0))
    init = jax.jit(lambda seed: init_state(task, seed), out_shardings=programs.replicated())
    begun = Progress(init(jnp.uint32(config.seed)), np.zeros(0, int), 0, 0.0, ())
    # One step compiles; the second shows that nothing compiles again.
    return arm, advance(arm, advance(arm, begun, 0.0), 0.0)._replace(seconds=0.0)


def advance(arm: Arm, progress: Progress, seconds: float) -> Progress:
    """Trains at least one step, until the seconds have passed."""
    state, order, steps = progress.state, progress.order, progress.steps
    size, spent = arm.task.config.batch_size, 0.0
    while True:
        if len(order) < size:
            order = arm.rng.permutation(len(arm.images))
        batch, order = order[:size], order[size:]
        start = time.perf_counter()
        batches = feed.take(arm.images.__getitem__, batch[None])
        state = jax.block_until_ready(arm.step(state, batches))
        spent += time.perf_counter() - start
        steps += 1
        if spent >= seconds:
            break
    total = progress.seconds + spent
    return progress._replace(state=state, order=order, steps=steps, seconds=total)


def keep(progress: Progress) -> Progress:
    """The progress with a copy of its parameters."""
    params = jax.device_get(programs.local(progress.state.params))
    kept = (progress.seconds, progress.steps, params)
    return progress._replace(checkpoints=(*progress.checkpoints, kept))


def train_in_turns(arms: list[tuple[Arm, Progress]], times: list[float]) -> list[Progress]:
    """All arms to each of the times, slice by slice."""
    progress = [begun for _, begun in arms]
    for limit in times:
        while any(each.seconds < limit for each in progress):
            for i, (arm, _) in enumerate(arms):
                left = limit - progress[i].seconds
                if left > 0:
                    progress[i] = advance(arm, progress[i], min(SLICE_SECONDS, left))
        progress = [keep(each) for each in progress]
        print(f"{limit:.0f} s of training done for each arm", flush=True)
    return progress


def evaluate(arm: Arm, progress: Progress, images: np.ndarray) -> list[dict]:
    """A row for each of an arm's checkpoints."""
    rows = []
    for seconds, steps, params in progress.checkpoints:
        estimate = log_marginal_likelihood(
            arm.task.model,
            jax.tree.map(jnp.asarray, params),
            data.to_unit(images),
            jax.random.key(1),
            LikelihoodSettings(num_temperatures=NUM_TEMPERATURES),
        )
        rows.append(
            {
                "arm": arm.name,
                "seconds": round(seconds, 2),
                "steps": steps,
                "seconds_per_step": progress.seconds / (progress.steps - 2),
                "log_marginal_likelihood": float(estimate.log_marginal_likelihood.mean()),
                # From the chains alone: all arms are evaluated on the same images.
                "stderr": estimate.mean_stderr,
                "reliable": bool(estimate.verdict.reliable),
            }
        )
        doubt = "" if rows[-1]["reliable"] else "  not reliable"
        print(
            f"{arm.name:24s} {seconds:7.1f} s {steps:6d} steps  log p(x) "
            f"{rows[-1]['log_marginal_likelihood']:8.2f} +- {rows[-1]['stderr']:.2f}{doubt}",
            flush=True,
        )
    return rows


def first_second(rows: list[dict], level: float) -> float:
    """Seconds to a level of log p(x), between two evaluations on the log of time; nan if never."""
    times, values = (
        np.array([row[name] for row in rows]) for name in ("seconds", "log_marginal_likelihood")
    )
    above = np.flatnonzero(values >= level)
    if not len(above) or not above[0]:
        return float(times[0]) if len(above) else float("nan")
    last, first = above[0] - 1, above[0]
    share = (level - values[last]) / (values[first] - values[last])
    return float(np.exp(np.log(times[last]) + share * np.log(times[first] / times[last])))


def write(rows: list[dict], folder: Path) -> None:
    """quality.csv and quality.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "quality.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure, (axes,) = new_figure()
    for name in dict.fromkeys(row["arm"] for row in rows):
        of_arm = [row for row in rows if row["arm"] == name]
        times, values = (
            [row[field] for row in of_arm] for field in ("seconds", "log_marginal_likelihood")
        )
        axes.plot(times, values, marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("held-out log p(x), nats")
    axes.legend(fontsize=7)
    figure.savefig(folder / "quality.png", dpi=150)


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("quality_cifar10", "The configuration.")
    flags.DEFINE_list("arms", None, f"Arms by name; by default all: {'; '.join(ARMS)}.")
    flags.DEFINE_bool("short", False, "Only four arms.")
    flags.DEFINE_float("seconds", 120.0, "Seconds of training for each arm.", 1.0)
    flags.DEFINE_integer("num_times", 6, "Evaluated times: SECONDS, half of it, and so on.", 1)
    flags.DEFINE_integer("num_images", 32, "Validation images.", 1)
    flags.DEFINE_list("levels", None, "Levels of log p(x) to which the seconds are printed.")
    path_flags.DEFINE_path("workdir", "runs/quality", "Folder for the table and the figure.")


def main(argv: Sequence[str]) -> None:
    """Trains, evaluates, prints and writes."""
    del argv
    values = flags.FLAGS
    config = ConfigDict(config_file.read().to_dict())
    names = [name.strip() for name in values.arms or (SHORT if values.short else ARMS)]
    if unknown := set(names) - set(ARMS):
        raise UserError(f"arms={', '.join(sorted(unknown))}: there are {'; '.join(ARMS)}")
    train, validation = data.open_images(config.data)
    images, held_out = read(train), read(validation)[: values.num_images]
    arms = [make_arm(name, config, images) for name in names]
    times = [values.seconds / 2**i for i in reversed(range(values.num_times))]
    progress = train_in_turns(arms, times)
    rows = []
    for (arm, _), reached in zip(arms, progress, strict=True):
        rows += evaluate(arm, reached, held_out)
    write(rows, Path(values.workdir))
    for name in names:
        of_arm = [row for row in rows if row["arm"] == name]
        line = f"{name:24s} {of_arm[-1]['seconds_per_step']:.3f} s a step"
        for level in values.levels or ():
            line += f"  {float(level):g} nats: {first_second(of_arm, float(level)):.1f} s"
        print(line)


if __name__ == "__main__":
    program.run(main, define_flags)
