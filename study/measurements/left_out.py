r"""Trains models of the digits with one digit left out, and detects that digit as another image.

  python -m study.measurements.left_out --workdir=runs/left_out
  python -m study.measurements.left_out --workdir=runs/left_out --digits=0,1,2 --epochs=20

For each digit and for both losses: `python -m launch.train` on the other nine digits (1,400 images
for training, 200 for validation), then `python -m launch.likelihood` of validation images and of
the digit that was left out. One row each: mean log p(x) of both sets, and the AUROC by which
log p(x), the tilt and the score of Pang et al. detect the digit, with their 95 % intervals. The
same command continues after an interruption; what is done is not done again.
"""

if not __package__:
    __import__("not_a_script")

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from launch import flag_errors, program
from launch.path_flags import DEFINE_path
from thermo_ebm.errors import UserError
from thermo_ebm.run import layout

LOSSES = ("thermodynamic", "vanilla")
SCORES = ("log_marginal_likelihood", "tilt", "pang")


def write_images(folder: Path, digit: int) -> tuple[Path, Path]:
    """Writes the images of the other digits and of this one; returns the two files."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    without, alone = folder / f"without_{digit}.npz", folder / f"only_{digit}.npz"
    np.savez(without, images=images[digits.target != digit])
    np.savez(alone, images=images[digits.target == digit])
    return without, alone


def run(name: str, *arguments: str) -> None:
    """Runs a program of `launch`, quietly; its own message ends this program if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))


def detect(folder: Path, digit: int, loss: str) -> dict:
    """Trains on the other digits and returns the summary of `launch.likelihood`."""
    without, alone = write_images(folder, digit)
    workdir = folder / f"{loss}_{digit}"
    run(
        "train",
        f"--config={flags.FLAGS.config_file}",
        f"--workdir={workdir}",
        "--config.num_repetitions=1",
        "--config.parallel_repetitions=1",
        f"--config.loss.name={loss}",
        "--config.data.name=npz",
        f"--config.data.data_dir={without}",
        "--config.data.num_train=1400",
        "--config.data.num_val=200",
        f"--config.num_epochs={flags.FLAGS.epochs}",
        "--config.evaluation.likelihood.every_epochs=0",
        "--config.logging.pictures_every_epochs=0",
    )
    run(
        "likelihood",
        f"--workdir={workdir}",
        f"--against={alone}",
        f"--num_images={flags.FLAGS.num_images}",
        f"--error={flags.FLAGS.error}",
        "--num_simulated=0",
    )
    return json.loads(
        (layout.repetition_dir(workdir, 0) / layout.LIKELIHOOD_FOLDER / "summary.json").read_text()
    )


def row(digit: int, loss: str, summary: dict) -> str:
    """A row of the table."""
    against = summary[f"against_only_{digit}"]
    means = (summary["validation"], against["mean"])
    cells = [str(digit), loss, *(f"{mean['log_marginal_likelihood']:.1f}" for mean in means)]
    for score in SCORES:
        value, low, high = (against[score][name] for name in ("auroc", "auroc_low", "auroc_high"))
        cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
    return f"| {' | '.join(cells)} |"


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("workdir", None, "Folder for images and runs.", required=True)
    flags.DEFINE_list("digits", [str(digit) for digit in range(10)], "Digits to leave out.")
    DEFINE_path("config_file", "configs/digits_small.py", "The configuration.")
    flags.DEFINE_integer("epochs", 6, "Epochs of training.")
    flags.DEFINE_integer("num_images", 40, "Images of each set.")
    flags.DEFINE_float("error", 0.3, "Standard error asked for of each image's log p(x), nats.")


def main(argv: Sequence[str]) -> None:
    del argv
    folder = Path(flags.FLAGS.workdir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print("| digit | loss | log p(x), others | log p(x), digit | AUROC log p(x) | tilt | Pang |")
    print("|---|---|---|---|---|---|---|")
    for digit in flag_errors.integers("digits"):
        for loss in LOSSES:
            print(row(digit, loss, detect(folder, digit, loss)), flush=True)


if __name__ == "__main__":
    program.run(main, define_flags)
