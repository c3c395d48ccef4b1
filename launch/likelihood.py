r"""Estimates log p(x) of each held-out image with a trained run.

python -m launch.likelihood --workdir=runs/digits
python -m launch.likelihood --workdir=runs/cifar10 --num_images=500 --against=svhn_cropped:test \
    --against_data_dir=TFDS

python -m launch.likelihood --workdir=runs/b --against_run=runs/a

The estimate is annealed SMC from a linear proposal, with as many gradients as each image needs for
the standard error that --error asks for. On images simulated from the model, the estimate and an
upper bound by the same chains (conditional SMC) show how far it may be off. The program says
whether the numbers are reliable, and if not, why and what to do.
With --against, the program measures how well three scores distinguish other images from validation
images: log p(x) and the tilt f(z), which are lower for images unlike the model's, and the score of
Pang et al., which is higher. With --against_run, it compares log p(x) of the same images under two
runs. The program writes rep_XX/likelihood.csv, and a summary and pictures into rep_XX/likelihood.
Finished images are not computed again.
Exit codes: 0 done, 2 bad input, 3 interrupted (the same command continues).
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import contextlib
import io
import math
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
    from thermo_ebm.config.build import image_shape
    from thermo_ebm.evaluation import sets
    from thermo_ebm.evaluation.likelihood import figures, session, tables
    from thermo_ebm.evaluation.likelihood.session import Session
    from thermo_ebm.evaluation.likelihood.tables import Row
    from thermo_ebm.evaluation.run import Run, load_run
    from thermo_ebm.evaluation.statistics import Statistics
    from thermo_ebm.likelihood.proposal import PriorConstant
    from thermo_ebm.likelihood.verdict import Verdict, of_bounds, of_prior, together
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
    program.define_effort()
    flags.DEFINE_integer("chains", 16, "Chains per image, a multiple of 4.", lower_bound=8)
    flags.register_validator(
        "chains", lambda chains: chains % 4 == 0, message="must be a multiple of 4"
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
    DEFINE_path("against_run", None, "Another run, whose log p(x) of the same images is compared.")
    program.define_against_parameters()
    flags.DEFINE_integer(
        "batch_size",
        8,
        "Images processed together; no figure depends on it.",
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
    run = load_run(workdir, values.parameters)
    checkpoint = run.load(values.repetition, values.step)
    validation = run.validation_images(values.data_dir)
    images = _limited(validation, "validation images")
    other_images, other = _other_images(run), _other_run(run)
    folder = layout.outputs_dir(workdir, values.repetition, run.parameters)
    folder = Path(values.output) if values.output else folder
    data.check_output(run.config.data, folder, "output")
    settings = session.SessionSettings(
        **{field: getattr(values, field) for field in session.SessionSettings._fields}
    )
    with tables.locked(folder):
        with _bar("proposal", 1) as progress:
            opened = session.open_session(run, checkpoint, settings, folder)
            prior = session.prior_constant(opened)
            progress(1)
        tables_of_images = _fill_tables(opened, prior, checkpoint.title(), images, other_images)
        if other is not None:
            _compare_runs(opened, prior, other, images, tables_of_images)
    return 0


def _other_run(run: Run) -> Run | None:
    """The run of --against_run, which must have images of the same shape."""
    path = flags.FLAGS.against_run
    if path is None:
        return None
    other = load_run(Path(path), program.against_parameters())
    if image_shape(other.config) != image_shape(run.config):
        raise UserError(f"against_run={path}: its images have another shape")
    return other


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
    opened: Session,
    prior: PriorConstant,
    checkpoint: str,
    images: np.ndarray,
    other_images: np.ndarray | None,
) -> list[Row]:
    """Fills the tables, prints the results, and writes the summary and the pictures."""

    folder = opened.folder / layout.LIKELIHOOD_FOLDER
    with _bar("validation images", len(images)) as progress:
        rows = session.validation_rows(opened, images, progress)
    mean, verdicts = tables.mean(rows), [session.verdict_of_rows(opened, rows)]
    print(f"log p(x) of {len(rows)} validation images, {checkpoint}:")
    print(_mean_line(mean, prior), flush=True)
    parts: dict[str, Any] = {"where": checkpoint, "validation": mean._asdict()}
    _save(figures.extremes(images, rows, checkpoint), folder / "images.png")
    if flags.FLAGS.num_simulated:
        parts["simulated"], of_bounds = _check_by_bounds(opened, mean)
        verdicts.append(of_bounds)
    settings = opened.estimator.settings
    verdict = together([*verdicts, of_prior(prior, settings.prior_chains)])
    print(verdict.sentence(), flush=True)
    parts["verdict"] = verdict._asdict()
    parts["log_z_alpha"] = {name: float(value) for name, value in prior._asdict().items()}
    if other_images is not None:
        name = _slug(flags.FLAGS.against)
        with _bar(name, len(other_images)) as progress:
            other_rows = session.against_rows(opened, other_images, name, progress)
        parts[f"against_{name}"] = _compare(checkpoint, prior, rows, other_rows, folder)
        figure = figures.extremes(other_images, other_rows, f"{name}, {checkpoint}")
        _save(figure, folder / f"against_{name}_images.png")
    tables.update_summary(opened.folder, parts)
    print(f"written: {opened.folder / layout.LIKELIHOOD} and {folder}")
    return rows


def _check_by_bounds(opened: Session, mean: tables.Mean) -> tuple[dict[str, Any], Verdict]:
    """Prints estimate and upper bound of images simulated from the model."""

    num = flags.FLAGS.num_simulated
    with _bar("simulated images", num) as progress:
        rows = session.simulated_rows(opened, num, progress)
    gap = tables.gap(rows)
    header = ("nats per image", "images", "estimate", "lower", "upper", "gap")
    estimate = f"{mean.log_marginal_likelihood:.2f} +- {mean.stderr:.2g}"
    lower = f"{gap.log_marginal_likelihood:.2f} +- {gap.stderr:.2g}"
    upper = f"{gap.upper:.2f} +- {gap.upper_stderr:.2g}"
    distance = f"{gap.gap:.2f} +- {gap.gap_stderr:.2g}"
    for cells in (
        header,
        ("validation", str(mean.num_images), estimate, "", "", ""),
        ("simulated", str(num), lower, lower, upper, distance),
    ):
        widths = (16, 8, 20, 20, 20, 16)
        print(
            "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        )
    lower_values, errors, upper_values, upper_errors = (
        tables.column(rows, name)
        for name in ("log_marginal_likelihood", "stderr", "upper", "upper_stderr")
    )
    verdict = of_bounds(lower_values, upper_values, np.hypot(errors, upper_errors))
    return gap._asdict(), verdict


def _compare_runs(
    opened: Session, prior: PriorConstant, other: Run, images: np.ndarray, rows: list[Row]
) -> None:
    """Prints the paired difference of log p(x) under this run and that of --against_run."""

    values, path = flags.FLAGS, flags.FLAGS.against_run
    name = other.label(f"run_{_slug(path)}")
    checkpoint = other.load(values.repetition, None)
    folder = opened.folder / layout.LIKELIHOOD_FOLDER / name
    with tables.locked(folder):
        settings = opened.settings
        compared = session.open_session(other, checkpoint, settings, folder)
        with _bar(name, len(images)) as progress:
            other_rows = session.validation_rows(compared, images, progress)
    constants = float(prior.stderr), float(session.prior_constant(compared).stderr)
    result = tables.difference(rows, other_rows, math.hypot(*constants))
    this, that = opened.run.title(), other.title()
    print(
        f"log p(x) of {result.num_images} images under {this} less that under {that}: "
        f"{result.sentence(this, that)}"
    )
    tables.update_summary(opened.folder, {f"against_{name}": result._asdict()})


def _mean_line(mean: tables.Mean, prior: PriorConstant) -> str:
    return (
        f"  mean {mean.log_marginal_likelihood:.2f} nats (95 % interval {mean.low:.2f} to "
        f"{mean.high:.2f}), {mean.bits_per_dim:.3f} bits per dimension; standard error of the "
        f"estimate itself {math.hypot(mean.stderr, float(prior.stderr)):.2g}; {mean.gradients:.0f} "
        f"gradients a chain; smallest effective sample size {mean.least_effective_sample_size:.1f} "
        f"of {flags.FLAGS.chains} chains; {mean.num_reliable} of {mean.num_images} images reliable"
    )


def _compare(
    checkpoint: str,
    prior: PriorConstant,
    rows: list[Row],
    other_rows: list[Row],
    folder: Path,
) -> dict[str, Any]:
    """Prints and draws how well each score detects the other images."""

    images, name = flags.FLAGS.against, _slug(flags.FLAGS.against)
    mean = tables.mean(other_rows)
    print(f"log p(x) of {len(other_rows)} images of {images}:")
    print(_mean_line(mean, prior))
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
