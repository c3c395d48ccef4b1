r"""Estimates the held-out log-likelihood log p(x) of a trained run for each image.

python -m launch.likelihood --workdir=runs/digits
python -m launch.likelihood --workdir=runs/cifar10 --num_images=500 --against=svhn_cropped:test \
    --against_data_dir=TFDS

The estimate uses annealed importance sampling and MBAR with Metropolis-adjusted chains. On images
simulated from the model, lower and upper bounds (bidirectional Monte Carlo) check the estimator.
With --against, the program measures how well log p(x), the tilt and the score of Pang et al.
distinguish other images from validation images. The program writes rep_XX/likelihood.csv, and a
summary and pictures into rep_XX/likelihood. Finished images are not computed again.
Exit codes: 0 done, 2 bad input, 3 interrupted (the same command continues).
"""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from . import program

if TYPE_CHECKING:
    import numpy as np

    from thermo_ebm.evaluation.likelihoods import Session
    from thermo_ebm.evaluation.trained import TrainedRun

_DEFAULT_IMAGES = 100
_DPI = 120


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    flags.DEFINE_integer(
        "num_images", None, "Images of each set; by default 100, or all if there are fewer."
    )
    flags.DEFINE_integer("chains", 16, "Chains per image, at least 2.")
    flags.DEFINE_integer(
        "num_temperatures", 30, "Intervals between the temperatures of prior and posterior."
    )
    flags.DEFINE_integer("steps_per_temperature", 10, "Steps of a chain at each temperature.")
    flags.DEFINE_integer(
        "num_simulated", 20, "Simulated images that check the estimate by bounds; 0 omits them."
    )
    flags.DEFINE_string(
        "against", None, "Other images: a folder, an .npz file, or a data set such as cifar10:test."
    )
    flags.DEFINE_string(
        "against_data_dir", "", "Folder of the data set of --against; by default that of TFDS."
    )
    flags.DEFINE_integer(
        "batch_size", 25, "Images processed together; their chains share a step size."
    )
    program.define_seed("Seed of the chains.")
    flags.DEFINE_string("output", None, "Folder for the tables; by default rep_XX of the run.")
    program.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Fills the tables, writes the summary and the pictures, and prints the results."""
    del argv
    try:
        return _likelihood(Path(flags.FLAGS.workdir))
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return 3


def _likelihood(workdir: Path) -> int:
    from thermo_ebm.evaluation import likelihood_files, likelihoods, trained
    from thermo_ebm.run import layout

    values = flags.FLAGS
    settings = likelihoods.Settings(
        values.chains,
        values.num_temperatures,
        values.steps_per_temperature,
        values.batch_size,
        values.seed,
    )
    likelihoods.check(settings)
    _check_numbers()
    program.check_devices()
    run = trained.open_run(workdir)
    step, params = trained.chosen_params(run, values.repetition, values.step)
    every = trained.validation_images(run, values.data_dir)
    images = _first(every, "validation images")
    others = _other_images(run)
    folder = layout.repetition_dir(workdir, values.repetition)
    folder = Path(values.output) if values.output else folder
    with likelihood_files.hold(folder):
        with _bar("schedule", 1) as progress:
            session = likelihoods.open_session(
                run, values.repetition, step, params, every, settings, folder
            )
            progress(1)
        where = f"repetition {values.repetition}, step {step}"
        _write(session, where, images, others)
    return 0


def _check_numbers() -> None:
    from thermo_ebm.errors import UserError

    values = flags.FLAGS
    if values.num_images is not None and values.num_images < 2:
        raise UserError(f"num_images={values.num_images}: must be at least 2")
    if values.num_simulated < 0 or values.num_simulated == 1:
        raise UserError(f"num_simulated={values.num_simulated}: must be 0, or at least 2")


def _first(images: "np.ndarray", what: str) -> "np.ndarray":
    """The first images, as many as --num_images asks for."""
    from thermo_ebm.errors import UserError

    wanted = flags.FLAGS.num_images
    if wanted is not None and wanted > len(images):
        raise UserError(f"num_images={wanted}: more than the {len(images)} {what}")
    if len(images) < 2:
        raise UserError(f"{len(images)} {what}: too few, there must be at least 2")
    return images[: wanted or _DEFAULT_IMAGES]


def _other_images(run: "TrainedRun") -> "np.ndarray | None":
    """The images of --against, cropped and resized as training does, in a fixed random order."""
    import numpy as np

    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import sets

    values, of_run = flags.FLAGS, run.config.data
    if values.against is None:
        return None
    opened = sets.open_set(values.against, values.against_data_dir)
    if isinstance(opened, sets.Statistics):
        raise UserError(f"against={values.against}: holds statistics, not images")
    num = values.num_images or _DEFAULT_IMAGES
    # Folders are sorted by name, and thus possibly by class.
    order = np.random.default_rng(0).permutation(len(opened.indices))[:num]
    some = opened._replace(indices=opened.indices[order])
    return _first(
        sets.read_images(some, of_run.image_size, of_run.channels),
        f"images of against={values.against}",
    )


def _write(
    session: "Session", where: str, images: "np.ndarray", others: "np.ndarray | None"
) -> None:
    """Fills the tables, prints the results, and writes the summary and the pictures."""
    from thermo_ebm.evaluation import likelihood_files, likelihood_summary, likelihoods

    with _bar("validation images", len(images)) as progress:
        rows = likelihoods.validation_table(session, images, progress)
    found = likelihood_summary.mean(rows)
    print(f"log p(x) of {len(rows)} validation images, {where}:\n{_mean_line(found)}", flush=True)
    parts: dict[str, Any] = {"where": where, "validation": found._asdict()}
    _save_extremes(session, where, images, rows, "images")
    if flags.FLAGS.num_simulated:
        parts["simulated"] = _certify(session)
    if others is not None:
        name = _slug(flags.FLAGS.against)
        with _bar(name, len(others)) as progress:
            other_rows = likelihoods.against_table(session, others, name, progress)
        parts[f"against_{name}"] = _compare(session, where, name, rows, other_rows)
        _save_extremes(session, f"{name}, {where}", others, other_rows, f"against_{name}_images")
    likelihood_files.update_summary(session.folder, parts)
    print(f"written: {session.folder / likelihood_files.TABLE} and {_inner(session)}")


def _certify(session: "Session") -> dict[str, Any]:
    """Prints the gap between the bounds on images simulated from the model."""
    from thermo_ebm.evaluation import likelihood_summary, likelihoods

    num = flags.FLAGS.num_simulated
    with _bar("simulated images", num) as progress:
        found = likelihood_summary.gap(likelihoods.simulated_table(session, num, progress))
    print(
        f"{num} images simulated from the model: lower bound {found.lower:.2f}, estimate "
        f"{found.log_likelihood:.2f}, upper bound {found.upper:.2f}; gap {found.gap:.2f} "
        f"+- {found.gap_stderr:.2f} nats",
        flush=True,
    )
    return found._asdict()


def _mean_line(found: Any) -> str:
    return (
        f"  mean {found.log_likelihood:.2f} nats (95 % interval {found.low:.2f} to "
        f"{found.high:.2f}), {found.bits_per_dim:.3f} bits per dimension; standard error of the "
        f"estimate itself {found.stderr:.2g}; smallest effective sample size "
        f"{found.least_effective_sample_size:.1f} of {flags.FLAGS.chains} chains"
    )


def _compare(
    session: "Session", where: str, name: str, rows: list[Any], others: list[Any]
) -> dict[str, Any]:
    """Prints and draws how well each score detects the other images."""
    from thermo_ebm.evaluation import likelihood_figures, likelihood_summary

    place = flags.FLAGS.against
    found = likelihood_summary.detections(rows, others, flags.FLAGS.seed)
    print(f"log p(x) of {len(others)} images of {place}:")
    print(_mean_line(likelihood_summary.mean(others)))
    for score, one in found.items():
        print(
            f"  detected by {score}: AUROC {one.auroc:.3f} ({one.auroc_low:.3f} to "
            f"{one.auroc_high:.3f}), AUPRC {one.auprc:.3f} ({one.auprc_low:.3f} to "
            f"{one.auprc_high:.3f}; chance {one.share:.2f})"
        )
    inliers, outliers = (
        {score: of(table) for score, of in likelihood_summary.SCORES.items()}
        for table in (rows, others)
    )
    figure = likelihood_figures.histograms(
        inliers, outliers, found, ("validation images", name), f"{where}, against {name}"
    )
    _save(figure, _inner(session) / f"against_{name}.png")
    mean = likelihood_summary.mean(others)._asdict()
    return {"images": place, "mean": mean} | {score: one._asdict() for score, one in found.items()}


def _save_extremes(
    session: "Session", title: str, images: "np.ndarray", rows: list[Any], name: str
) -> None:
    import numpy as np

    from thermo_ebm.evaluation import likelihood_figures

    values, errors = (np.array([row[key] for row in rows]) for key in ("log_likelihood", "stderr"))
    figure = likelihood_figures.extremes(images, values, errors, title)
    _save(figure, _inner(session) / f"{name}.png")


def _save(figure: Any, path: Path) -> None:
    from thermo_ebm import files

    content = io.BytesIO()
    figure.savefig(content, dpi=_DPI, format="png")
    files.write_bytes(path, content.getvalue())


def _inner(session: "Session") -> Path:
    from thermo_ebm.evaluation import likelihood_files

    return session.folder / likelihood_files.FOLDER


def _slug(place: str) -> str:
    """A file name for the images of --against: letters and digits of the last part of its path."""
    last = Path(place.rstrip("/")).name.removesuffix(".npz")
    return re.sub(r"[^A-Za-z0-9]+", "_", last).strip("_") or "images"


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], Any]]:
    """On a terminal, a bar with the time left; elsewhere a line at the end of each stage."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="img", disable=None, dynamic_ncols=True) as bar:
        yield bar.update
    if bar.disable:
        print(f"{what}: {total} done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    define_flags()
    program.run(main)
