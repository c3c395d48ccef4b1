"""The tables of log p(x) with one row per image: files, settings, means, detection of outliers.

    likelihood.csv                  of the validation images
    likelihood/settings.json        the checkpoint, settings and schedule that all rows share
    likelihood/simulated.csv        bounds on images of the model
    likelihood/against_NAME.csv     of other images
    likelihood/summary.json, *.png

A table is rewritten atomically after each group of images. A folder holds the figures of one
checkpoint by one estimator, and never mixes two.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.metrics.detection import Detection, detection
from thermo_ebm.run import layout, lock
from thermo_ebm.run.tables import read_columns, write_cells

IMAGE_COLUMNS = (
    "image",  # number of the image, from 0
    "checksum",  # CRC-32 of its pixels
    "log_marginal_likelihood",  # log p(x), nats
    "bits_per_dim",  # bits per dimension, for 256 levels per value
    "stderr",  # standard error of log p(x)
    "annealed",  # a stochastic lower bound on log p(x)
    "effective_sample_size",  # of the weights of the annealed chains
    "reconstruction",  # |x - g(z)|^2 / (2 sigma_l^2), mean over z of the posterior
    "tilt",  # f(z), mean over z of the posterior
    "norm",  # |z|^2 / (2 sigma_0^2), mean over z of the posterior
)
SIMULATED_COLUMNS = ("image", "lower", "log_marginal_likelihood", "stderr", "upper")
_INTEGERS = ("image", "checksum")

Row = dict[str, float]


class ImageTable(NamedTuple):
    """A CSV file with one row per image."""

    path: Path
    columns: tuple[str, ...]

    def read(self) -> dict[int, Row]:
        """The rows by image; without a file there are no rows.

        Raises:
          UserError: the table is damaged; the message names the file and the line.
        """
        if not self.path.exists():
            return {}
        columns = read_columns(self.path, self.columns).columns
        rows = zip(*(columns[name] for name in self.columns), strict=True)
        table = [dict(zip(self.columns, map(float, row), strict=True)) for row in rows]
        return {int(row["image"]): row for row in table}

    def write(self, rows: Mapping[int, Row]) -> None:
        """Replaces the table, in the order of images; floats are read back bit for bit."""
        cells = [
            {
                name: str(int(row[name])) if name in _INTEGERS else repr(float(row[name]))
                for name in self.columns
            }
            for _, row in sorted(rows.items())
        ]
        write_cells(self.path, cells, self.columns)


def validation_table(folder: Path) -> ImageTable:
    """The table of the validation images in the folder of a repetition."""
    return ImageTable(folder / layout.LIKELIHOOD, IMAGE_COLUMNS)


def against_table(folder: Path, name: str) -> ImageTable:
    """The table of other images, called `name`."""
    return ImageTable(layout.likelihood_against(folder, name), IMAGE_COLUMNS)


def simulated_table(folder: Path) -> ImageTable:
    """The table of bounds on images simulated from the model."""
    return ImageTable(folder / layout.SIMULATED, SIMULATED_COLUMNS)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates the folder and holds its lock, so that one process at a time fills its tables.

    Raises:
      UserError: another process holds the lock, or the folder cannot be written.
    """
    inner = folder / layout.LIKELIHOOD_FOLDER
    with contextlib.ExitStack() as stack:
        try:
            inner.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.locked(inner / layout.LOCK, patience=0.5))
        except TimeoutError as error:
            raise UserError(
                f"{folder}: another process is estimating likelihoods there; wait for its end"
            ) from error
        except OSError as error:
            raise UserError(f"output={folder}: cannot be written: {error.strerror}") from error
        with files.clear_errors(folder):
            yield


def read_settings(folder: Path, settings: Mapping[str, Any]) -> list[float] | None:
    """The temperatures of the existing rows, if they were made with these settings.

    Args:
      folder: the folder of the tables.
      settings: the settings required, numbers and words by the name of their flag or field.

    Returns:
      The recorded schedule, or None if there are no rows.

    Raises:
      UserError: the rows belong to another checkpoint or to other settings.
    """
    path = folder / layout.LIKELIHOOD_SETTINGS
    try:
        recorded = files.read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(recorded, dict) or "temperatures" not in recorded:
        raise UserError(f"{path}: not the settings of a likelihood; move {path.parent} away")
    for name, value in settings.items():
        if recorded.get(name) != value:
            raise UserError(
                f"{name}={value}: {folder / layout.LIKELIHOOD} was made with {recorded.get(name)}; "
                "name another folder as output, or move that table and the folder beside it away"
            )
    return [float(temperature) for temperature in recorded["temperatures"]]


def write_settings(
    folder: Path, settings: Mapping[str, Any], temperatures: Sequence[float]
) -> None:
    """Records the settings that all rows share."""
    path = folder / layout.LIKELIHOOD_SETTINGS
    files.write_json(path, {**settings, "temperatures": [*map(float, temperatures)]})


def update_summary(folder: Path, parts: Mapping[str, Any]) -> None:
    """Sets parts of the summary; its other parts belong to the same checkpoint and stay."""
    path = folder / layout.LIKELIHOOD_SUMMARY
    try:
        summary = files.read_json(path)
    except FileNotFoundError:
        summary = {}
    files.write_json(path, {**summary, **parts})


class Mean(NamedTuple):
    """Means over images, in nats per image."""

    num_images: int
    log_marginal_likelihood: float
    low: float  # the ends of the mean's 95 % interval, from the spread over images
    high: float
    bits_per_dim: float
    stderr: float  # standard error of the estimate for the given images
    least_effective_sample_size: float


def mean(rows: list[Row]) -> Mean:
    """The mean of log p(x) of a table, at least 2 rows."""
    values, errors = _column(rows, "log_marginal_likelihood"), _column(rows, "stderr")
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return Mean(
        num_images=len(values),
        log_marginal_likelihood=float(values.mean()),
        low=float(values.mean() - half),
        high=float(values.mean() + half),
        bits_per_dim=float(_column(rows, "bits_per_dim").mean()),
        stderr=float(np.sqrt((errors**2).sum()) / len(errors)),
        least_effective_sample_size=float(_column(rows, "effective_sample_size").min()),
    )


class Gap(NamedTuple):
    """Means over simulated images, in nats per image."""

    num_images: int
    lower: float
    log_marginal_likelihood: float
    upper: float
    gap: float  # upper - lower
    gap_stderr: float  # over images


def gap(rows: list[Row]) -> Gap:
    """The bidirectional gap of a table of simulated images, at least 2 rows."""
    lower, upper = _column(rows, "lower"), _column(rows, "upper")
    gaps = upper - lower
    return Gap(
        num_images=len(rows),
        lower=float(lower.mean()),
        log_marginal_likelihood=float(_column(rows, "log_marginal_likelihood").mean()),
        upper=float(upper.mean()),
        gap=float(gaps.mean()),
        gap_stderr=float(gaps.std(ddof=1) / math.sqrt(len(rows))),
    )


# Scores that are higher for images unlike those of the model, from a table's rows to [num]. Images
# of the model have a high log p(x) and a high tilt f(z), so that both count with a negative sign.
SCORES: Mapping[str, Callable[[list[Row]], np.ndarray]] = {
    "log_marginal_likelihood": lambda rows: -_column(rows, "log_marginal_likelihood"),
    "tilt": lambda rows: -_column(rows, "tilt"),
    "pang": lambda rows: (
        _column(rows, "reconstruction") - _column(rows, "tilt") + _column(rows, "norm")
    ),
}


def detections(inliers: list[Row], outliers: list[Row], seed: int = 0) -> dict[str, Detection]:
    """How well each of `SCORES` tells the outliers from the inliers."""
    return {
        name: detection(score(inliers), score(outliers), seed) for name, score in SCORES.items()
    }


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], np.float64)
