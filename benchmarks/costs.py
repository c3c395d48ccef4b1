"""Times what a setting adds to a training step, in pairs of steps.

  python -m benchmarks.costs --config=configs/cifar10_paper.py
  python -m benchmarks.costs --changes=mala,exchange --repeats=11

The base is a step of the configuration with two chains per image, no correction, `contrastive` and
`posterior` gradients, unadjusted chains and no exchange. Each change is applied to the base alone
and compiled, and its step is timed between two steps of the base: the ratio is the step's time over
the mean of those two. Printed are the median ratio and the quartiles over the pairs. The images are
random, and by default the sizes are those of `benchmarks.step`: batch 8, N_t = 4, K = 5.
"""

if not __package__:
    __import__("not_a_script")

import os
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from benchmarks import programs
from benchmarks.programs import Program
from launch import config_file, program
from thermo_ebm.errors import UserError
from thermo_ebm.models import conv_transpose

BASE = {
    "sampler.chains_per_image": 2,
    "sampler.exchange_every": 0,
    "sampler.prior.kernel": "ula",
    "sampler.posterior.kernel": "ula",
    "loss.correction": "none",
    "loss.prior_gradient": "contrastive",
    "loss.generator_gradient": "posterior",
}
CHANGES = {
    "none": {},  # two programs of the same settings: the error of the method
    "ratio": {"loss.correction": "ratio"},
    "reweighted": {"loss.generator_gradient": "reweighted"},
    "ratio+reweighted": {"loss.correction": "ratio", "loss.generator_gradient": "reweighted"},
    "exchange": {"sampler.exchange_every": 2},
    "mala": {"sampler.prior.kernel": "mala", "sampler.posterior.kernel": "mala"},
    "mala+exchange": {
        "sampler.prior.kernel": "mala",
        "sampler.posterior.kernel": "mala",
        "sampler.exchange_every": 2,
    },
}


def make_step(config: ConfigDict, fields: dict[str, object]) -> Program:
    """Compiles the step of the base with other fields."""
    changed = ConfigDict(config.to_dict())
    changed.update_from_flattened_dict(BASE | fields)
    changed.data.num_train = 4 * changed.batch_size
    form = conv_transpose.for_backend(jax.default_backend()).__name__
    model = programs.make_model(changed, form)
    return programs.fast_step(programs.with_chunks(changed, model), model)


def paired_ratios(base: Program, other: Program, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the base's steps, [repeats + 1], and the ratios, [repeats]."""
    base.call(), other.call()
    base_seconds, other_seconds = [_seconds(base)], []
    for _ in range(repeats):
        other_seconds.append(_seconds(other))
        base_seconds.append(_seconds(base))
    around = np.array(base_seconds)
    return around, np.array(other_seconds) * 2 / (around[1:] + around[:-1])


def _seconds(compiled: Program) -> float:
    start = time.perf_counter()
    compiled.call()
    return time.perf_counter() - start


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("cifar10_paper", "The configuration.")
    flags.DEFINE_list("changes", list(CHANGES), f"Changes to time: {', '.join(CHANGES)}.")
    flags.DEFINE_integer("batch_size", 8, "Batch size, over all devices.")
    flags.DEFINE_integer("num_temperatures", 4, "N_t.")
    flags.DEFINE_integer("num_steps", 5, "K, steps of the posterior's chains.")
    flags.DEFINE_integer("repeats", 15, "Number of pairs for each change.")


def main(argv: Sequence[str]) -> None:
    del argv
    values = flags.FLAGS
    if unknown := set(values.changes) - set(CHANGES):
        raise UserError(
            f"changes={', '.join(sorted(unknown))}: no such change; there are {', '.join(CHANGES)}"
        )
    logging.set_verbosity(logging.WARNING)
    config = ConfigDict(config_file.read().to_dict())
    config.update_from_flattened_dict(
        {
            "batch_size": values.batch_size,
            "loss.num_temperatures": values.num_temperatures,
            "sampler.posterior.num_steps": values.num_steps,
        }
    )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    base = make_step(config, {})
    print("          change    base s     ratio  quartiles")
    for name in values.changes:
        seconds, ratios = paired_ratios(base, make_step(config, CHANGES[name]), values.repeats)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"{name:>16} {np.median(seconds):9.3f} {middle:9.3f}  {low:.3f} to {high:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    program.run(main, define_flags)
