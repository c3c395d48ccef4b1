r"""Other models under the same instrument: trains and evaluates one of each kind, at equal time.

python -m study.measurements.models --output=runs/models --budget=9m
python -m study.pages.models_page runs/models

Every model has the decoder, the images and the rates of `configs/digits.py`. The repetitions of a
model train together; `--budget` is the time of all of them. Each is evaluated as any run is: KID
and FID by `launch.eval`, held-out log p(x) with the bounds of simulated images by
`launch.likelihood`. The two-stage model is the first variational autoencoder with a prior that
`launch.fit_prior` fits to it. What is in OUTPUT is not done again, so that the program can be
stopped and continued.
"""

if not __package__:
    __import__("not_a_script")

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from launch import program
from launch.path_flags import DEFINE_path
from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import EVALUATIONS, SIMULATED, repetition_dir

DONE = "trained"  # an empty file in the folder of a run that has ended


class Arm(NamedTuple):
    """One kind of model."""

    title: str
    config: str  # name of a shipped configuration
    changes: tuple[str, ...] = ()  # flags


ARMS = {
    "vae": Arm("VAE", "digits_vae"),
    "iwae": Arm("IWAE", "digits_iwae"),
    "factorized": Arm(
        "factorised prior, linear reference",
        "digits",
        ("--config.model.prior.name=factorized",),
    ),
    "vanilla": Arm(
        "EBM, vanilla, the paper's chains", "digits_paper", ("--config.loss.name=vanilla",)
    ),
    "thermodynamic": Arm("EBM, thermodynamic, the paper's chains", "digits_paper"),
    "linear": Arm("EBM, linear reference", "digits"),
}
TWO_STAGE = "two_stage"  # of the first arm
TWO_STAGE_TITLE = "VAE with a fitted EBM prior"


def commands(output: Path, budget: str, repetitions: int) -> Iterator[tuple[Path, list[str]]]:
    """What is to be run, in this order, each with the file that says that it is done."""
    for name, arm in ARMS.items():
        run = output / name
        yield (
            run / DONE,
            [
                "train",
                f"--config={arm.config}",
                f"--workdir={run}",
                f"--budget={budget}",
                f"--config.num_repetitions={repetitions}",
                f"--config.parallel_repetitions={repetitions}",
                "--config.evaluation.likelihood.every_epochs=0",
                *arm.changes,
            ],
        )
        yield from _evaluations(str(run), run, range(repetitions))
    for repetition in range(repetitions):
        model = output / f"{TWO_STAGE}_{repetition}.safetensors"
        fit = ["fit_prior", f"--run={output / next(iter(ARMS))}", f"--output={model}"]
        yield model, [*fit, f"--repetition={repetition}"]
        yield from _evaluations(str(model), model.with_suffix(""), [repetition])


def _evaluations(
    workdir: str, folder: Path, repetitions: Sequence[int]
) -> Iterator[tuple[Path, list[str]]]:
    last = repetition_dir(folder, repetitions[-1])
    yield last / EVALUATIONS, ["eval", f"--workdir={workdir}", "--newest_only"]
    for repetition in repetitions:
        done = repetition_dir(folder, repetition) / SIMULATED
        number = f"--repetition={repetition}"
        yield done, ["likelihood", f"--workdir={workdir}", number, "--num_images=20"]


def run(output: Path, budget: str, repetitions: int) -> None:
    """Runs what is not done yet.

    Raises:
      UserError: naming the command that failed.
    """
    for done, (name, *rest) in commands(output, budget, repetitions):
        if done.exists():
            continue
        print(f"{time.strftime('%H:%M:%S')} {name} {' '.join(rest)}", flush=True)
        process = subprocess.run([sys.executable, "-m", f"launch.{name}", *rest], check=False)
        if process.returncode:
            raise UserError(f"launch.{name} {' '.join(rest)}: exit code {process.returncode}")
        if name == "train":
            done.touch()


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("output", None, "Folder for the runs, created if needed.", required=True)
    flags.DEFINE_string("budget", "9m", "Time of the training of all repetitions of a model.")
    flags.DEFINE_integer("repetitions", 3, "Seeds of each model.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    del argv
    output = Path(flags.FLAGS.output)
    with files.clear_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    run(output, flags.FLAGS.budget, flags.FLAGS.repetitions)


if __name__ == "__main__":
    program.run(main, define_flags)
