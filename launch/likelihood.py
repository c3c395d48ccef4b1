r"""Estimates log p(x) of each held-out image with a trained run.

python -m launch.likelihood --workdir=runs/digits
python -m launch.likelihood --workdir=runs/cifar10 --num_images=500 --against=svhn_cropped:test \
    --against_data_dir=TFDS

The estimate uses annealed importance sampling and MBAR with Metropolis-adjusted chains. On images
simulated from the model, lower and upper bounds (bidirectional Monte Carlo) check the estimator.
With --against, the program measures how well three scores distinguish other images from validation
images: log p(x) and the tilt f(z), which are lower for images unlike the model's, and the score of
Pang et al., which is higher. The program writes rep_XX/likelihood.csv, and a summary and pictures
into rep_XX/likelihood. Finished images are not computed again.
Exit codes: 0 done, 2 bad input, 3 interrupted (the same command continues).
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from thermo_ebm.errors import UserError, printable

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    import numpy as np
    from matplotlib.figure import Figure
    from tqdm import tqdm

    from thermo_ebm import data, files
    from thermo_ebm.evaluation import sets
    from thermo_ebm.evaluation.likelihood import figures, session, tables
    from thermo_ebm.evaluation.likelihood.session import Session
    from thermo_ebm.evaluation.likelihood.tables import Row
    from thermo_ebm.evaluation.run import Run, load_run
    from thermo_ebm.evaluation.statistics import Statistics
    from thermo_ebm.run import layout


_DEFAULT_IMAGES = 100
_DPI = 120


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    flags.DEFINE_integer(
        "num_images",
        None,
        "Images of each set; by default 100, or all if there are fewer.",
        lower_bound=2,
    )
    flags.DEFINE_integer("chains", 16, "Chains per image.", lower_bound=2)
    flags.DEFINE_integer(
        "num_temperatures",
        30,
        "Intervals between the temperatures of prior and posterior.",
        lower_bound=2,
    )
    flags.DEFINE_integer(
        "steps_per_temperature", 10, "Steps of a chain at each temperature.", lower_bound=1
    )
    flags.DEFINE_integer(
        "num_simulated", 20, "Simulated images that check the estimate by bounds; 0 omits them."
    )
    flags.register_validator(
        "num_simulated", lambda num: num == 0 or num >= 2, message="must be 0, or at least 2"
    )
    DEFINE_path(
        "against",
        None,
        "Other images: a folder, an .npz or .npy file, or a data set such as cifar10:test.",
    )
    DEFINE_path(
        "against_data_dir", None, "Folder of the data set of --against; by default that of TFDS."
    )
    flags.DEFINE_integer(
        "batch_size",
        25,
        "Images processed together; their chains share a step size.",
        lower_bound=1,
    )
    program.define_seed("Seed of the chains.")
    DEFINE_path("output", None, "Folder for the tables; by default rep_XX of the run.")
    program.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Fills the tables, writes the summary and the pictures, and prints the results."""
    del argv
    program.continue_without_output()
    try:
        return _likelihood(Path(flags.FLAGS.workdir))
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 3


def _likelihood(workdir: Path) -> int:

    values = flags.FLAGS
    program.check_devices()
    run = load_run(workdir)
    checkpoint = run.load(values.repetition, values.step)
    validation = run.validation_images(values.data_dir)
    images = _limited(validation, "validation images")
    other_images = _other_images(run)
    folder = layout.repetition_dir(workdir, values.repetition)
    folder = Path(values.output) if values.output else folder
    data.check_output(run.config.data, folder, "output")
    settings = session.SessionSettings(
        **{field: getattr(values, field) for field in session.SessionSettings._fields}
    )
    with tables.locked(folder):
        with _bar("schedule", 1) as progress:
            opened = session.open_session(run, checkpoint, validation, settings, folder)
            progress(1)
        _fill_tables(opened, checkpoint.title(), images, other_images)
    return 0


def _limited(images: np.ndarray, description: str) -> np.ndarray:
    """The first images, as many as --num_images asks for."""

    num = flags.FLAGS.num_images
    if num is not None and num > len(images):
        raise UserError(f"num_images={num}: more than the {len(images)} {description}")
    if len(images) < 2:
        raise UserError(f"{len(images)} {description}: too few, there must be at least 2")
    return images[: num or _DEFAULT_IMAGES]


def _other_images(run: Run) -> np.ndarray | None:
    """The images of --against, cropped and resized as training does, in a fixed random order."""

    values = flags.FLAGS
    if values.against is None:
        return None
    image_set = sets.open_set(
        values.against, values.against_data_dir or "", run.config.data.image_size
    )
    if isinstance(image_set, Statistics):
        raise UserError(f"against={values.against}: holds statistics, not images")
    num = values.num_images or _DEFAULT_IMAGES
    # Folders are sorted by name, and thus possibly by class.
    numbers = np.random.default_rng(0).permutation(image_set.images.num)[:num]
    images = image_set.images.take(numbers)._replace(channels=run.config.data.channels)
    pixels = sets.read_images(image_set._replace(images=images))
    pixels = _limited(pixels, f"images of against={values.against}")
    for remark in image_set.remarks:
        print(printable(f"{values.against}: {remark}"), file=sys.stderr, flush=True)
    return pixels


def _fill_tables(
    opened: Session, checkpoint: str, images: np.ndarray, other_images: np.ndarray | None
) -> None:
    """Fills the tables, prints the results, and writes the summary and the pictures."""

    folder = opened.folder / layout.LIKELIHOOD_FOLDER
    with _bar("validation images", len(images)) as progress:
        rows = session.validation_rows(opened, images, progress)
    mean = tables.mean(rows)
    print(f"log p(x) of {len(rows)} validation images, {checkpoint}:")
    print(_mean_line(mean), flush=True)
    parts: dict[str, Any] = {"where": checkpoint, "validation": mean._asdict()}
    _save(figures.extremes(images, rows, checkpoint), folder / "images.png")
    if flags.FLAGS.num_simulated:
        parts["simulated"] = _check_by_bounds(opened)
    if other_images is not None:
        name = _slug(flags.FLAGS.against)
        with _bar(name, len(other_images)) as progress:
            other_rows = session.against_rows(opened, other_images, name, progress)
        parts[f"against_{name}"] = _compare(checkpoint, rows, other_rows, folder)
        figure = figures.extremes(other_images, other_rows, f"{name}, {checkpoint}")
        _save(figure, folder / f"against_{name}_images.png")
    tables.update_summary(opened.folder, parts)
    print(f"written: {opened.folder / layout.LIKELIHOOD} and {folder}")


def _check_by_bounds(opened: Session) -> dict[str, Any]:
    """Prints the gap between the bounds on images simulated from the model."""

    num = flags.FLAGS.num_simulated
    with _bar("simulated images", num) as progress:
        gap = tables.gap(session.simulated_rows(opened, num, progress))
    print(
        f"{num} images simulated from the model: lower bound {gap.lower:.2f}, estimate "
        f"{gap.log_marginal_likelihood:.2f}, upper bound {gap.upper:.2f}; gap {gap.gap:.2f} "
        f"+- {gap.gap_stderr:.2f} nats",
        flush=True,
    )
    return gap._asdict()


def _mean_line(mean: tables.Mean) -> str:
    return (
        f"  mean {mean.log_marginal_likelihood:.2f} nats (95 % interval {mean.low:.2f} to "
        f"{mean.high:.2f}), {mean.bits_per_dim:.3f} bits per dimension; standard error of the "
        f"estimate itself {mean.stderr:.2g}; smallest effective sample size "
        f"{mean.least_effective_sample_size:.1f} of {flags.FLAGS.chains} chains"
    )


def _compare(
    checkpoint: str, rows: list[Row], other_rows: list[Row], folder: Path
) -> dict[str, Any]:
    """Prints and draws how well each score detects the other images."""

    images, name = flags.FLAGS.against, _slug(flags.FLAGS.against)
    mean = tables.mean(other_rows)
    print(f"log p(x) of {len(other_rows)} images of {images}:")
    print(_mean_line(mean))
    detections = tables.detections(rows, other_rows, flags.FLAGS.seed)
    for score, areas in detections.items():
        print(
            f"  detected by {score}: AUROC {areas.auroc:.3f} ({areas.auroc_low:.3f} to "
            f"{areas.auroc_high:.3f}), AUPRC {areas.auprc:.3f} ({areas.auprc_low:.3f} to "
            f"{areas.auprc_high:.3f}; chance {areas.share:.2f})"
        )
    labels, title = ("validation images", name), f"{checkpoint}, against {name}"
    figure = figures.histograms(rows, other_rows, detections, labels, title)
    _save(figure, folder / f"against_{name}.png")
    parts = {score: areas._asdict() for score, areas in detections.items()}
    return {"images": images, "mean": mean._asdict(), **parts}


def _save(figure: Figure, path: Path) -> None:

    content = io.BytesIO()
    figure.savefig(content, dpi=_DPI, format="png")
    files.write_bytes(path, content.getvalue())


def _slug(name: str) -> str:
    """A file name for the images of --against: letters and digits of the last part of its path."""
    last = Path(name.rstrip("/")).name.removesuffix(".npz")
    return re.sub(r"[^A-Za-z0-9]+", "_", last).strip("_") or "images"


@contextlib.contextmanager
def _bar(stage: str, total: int) -> Iterator[Callable[[int], Any]]:
    """On a terminal, a bar with the time left; elsewhere a line at the end of each stage."""

    with tqdm(total=total, desc=stage, unit="img", disable=None, dynamic_ncols=True) as bar:
        yield bar.update
    if bar.disable:
        print(f"{stage}: {total} done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    program.run(main, define_flags)
