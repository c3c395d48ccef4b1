r"""Is the number of images that a paired comparison plans the number that it needs?

  python -m study.measurements.paired_digits --workdir=runs/digits --steps=100,200

Two checkpoints of a run of the digits are compared at 300, 600 and 1,200 images a side against the
run's training images, in pixels (64 features, so that no network is needed). One row for each
metric and number: the difference with its interval of 95 %, the verdict on the first checkpoint,
and the number of images a side that an undecided difference is said to need.
"""

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from launch import flag_errors, program
from launch.path_flags import DEFINE_path
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.evaluate import generate_images
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.metrics import paired

METRICS = ("fid", "fid_inf", "kid", "mind")


def pixels(images: np.ndarray) -> np.ndarray:
    """Features of images, [num, height * width * channels], in [0, 1]."""
    return images.reshape(len(images), -1) / 255.0


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("workdir", None, "The run directory.", required=True)
    flags.DEFINE_list("steps", None, "The steps of two checkpoints.", required=True)
    flags.DEFINE_list("num_images", "300,600,1200", "Numbers of images a side.")
    program.define_seed("Seed of images and subsets.")


def main(argv: Sequence[str]) -> None:
    """Compares the checkpoints at each number of images."""
    del argv
    run, steps = load_run(flags.FLAGS.workdir), flag_errors.integers("steps")
    numbers = flag_errors.integers("num_images")
    if len(steps) != 2:
        raise UserError(f"steps={','.join(map(str, steps))}: name two checkpoints")
    real = pixels(read(run.training_set()))
    keys = jax.random.split(jax.random.key(flags.FLAGS.seed))
    generated = {
        str(step): pixels(generate_images(run, run.params(0, step), key, max(numbers)))
        for step, key in zip(steps, keys, strict=True)
    }
    print("images  metric   difference  95 % interval        verdict     images needed")
    for number in numbers:
        candidates = {name: features[:number] for name, features in generated.items()}
        result = paired.compare_features(real[:number], candidates, flags.FLAGS.seed)
        for row in result.differences:
            if row.metric in METRICS:
                interval = f"[{row.low:.4g}, {row.high:.4g}]"
                print(
                    f"{number:6d}  {row.metric:8s} {row.value:10.4g}  {interval:20s} "
                    f"{row.verdict:10s}  {row.num_images or ''}"
                )


if __name__ == "__main__":
    program.run(main, define_flags)
