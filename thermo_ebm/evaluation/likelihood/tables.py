"""The tables of log p(x) with one row per image: files, settings, means, detection of outliers.

    likelihood.csv                  of the validation images
    likelihood/settings.json        the checkpoint and the settings that all rows share
    likelihood/simulated.csv        bounds on images of the model
    likelihood/against_NAME.csv     of other images
    likelihood/summary.json, *.png

A table is rewritten atomically after each group of images. A folder holds the figures of one
checkpoint by one estimator, and never mixes two.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

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
    "stderr",  # standard error of log p(x), without that of log Z_alpha, which all images share
    "reliable",  # 1 if log p(x) can be relied on, else 0
    "island_spread",  # between the largest and the smallest estimate of an island, nats
    "effective_sample_size",  # of the weights of the chains, the least over temperatures
    "prior_sampling",  # log of the mean of p(x | z) over draws of the prior, nats
    "gradients",  # of a chain
    "reconstruction",  # |x - g(z)|^2 / (2 sigma_l^2), mean over z of the posterior
    "tilt",  # f(z), mean over z of the posterior
    "norm",  # |z|^2 / (2 sigma_0^2), mean over z of the posterior
)
SIMULATED_COLUMNS = (
    "image",  # number of the image, from 0
    "log_marginal_likelihood",  # the estimate, a lower bound in expectation, nats
    "stderr",  # its standard error
    "upper",  # an upper bound in expectation, nats
    "upper_stderr",  # its standard error
)
_INTEGERS = ("image", "checksum", "reliable", "gradients")

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


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Records the settings that all rows share, or compares them with those of existing rows.

    Args:
      folder: the folder of the tables.
      settings: numbers and words by the name of their flag or field.

    Raises:
      UserError: the rows belong to another checkpoint or to other settings.
    """
    path = folder / layout.LIKELIHOOD_SETTINGS
    try:
        recorded = files.read_json(path)
    except FileNotFoundError:
        files.write_json(path, dict(settings))
        return
    if not isinstance(recorded, dict) or "parameters" not in recorded:
        raise UserError(f"{path}: not the settings of a likelihood; move {path.parent} away")
    for name, value in settings.items():
        if recorded.get(name) != value:
            raise UserError(
                f"{name}={value}: {folder / layout.LIKELIHOOD} was made with {recorded.get(name)}; "
                "name another folder as output, or move that table and the folder beside it away"
            )


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
    stderr: float  # of the estimate for the given images, without that of log Z_alpha
    least_effective_sample_size: float
    num_reliable: int
    gradients: float  # of a chain


def mean(rows: list[Row]) -> Mean:
    """The mean of log p(x) of a table, at least 2 rows."""
    values, errors = column(rows, "log_marginal_likelihood"), column(rows, "stderr")
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return Mean(
        num_images=len(values),
        log_marginal_likelihood=float(values.mean()),
        low=float(values.mean() - half),
        high=float(values.mean() + half),
        bits_per_dim=float(column(rows, "bits_per_dim").mean()),
        stderr=float(np.sqrt((errors**2).sum()) / len(errors)),
        least_effective_sample_size=float(column(rows, "effective_sample_size").min()),
        num_reliable=int(column(rows, "reliable").sum()),
        gradients=float(column(rows, "gradients").mean()),
    )


class Gap(NamedTuple):
    """Means over simulated images, in nats per image."""

    num_images: int
    log_marginal_likelihood: float  # the estimate: a lower bound in expectation
    stderr: float  # over repetitions of the estimate
    upper: float  # from conditional SMC: an upper bound in expectation
    upper_stderr: float
    gap: float  # upper less estimate
    gap_stderr: float  # over images


def gap(rows: list[Row]) -> Gap:
    """The bounds of a table of simulated images, at least 2 rows."""
    names = ("log_marginal_likelihood", "stderr", "upper", "upper_stderr")
    lower, lower_errors, upper, upper_errors = (column(rows, name) for name in names)
    gaps = upper - lower
    return Gap(
        num_images=len(rows),
        log_marginal_likelihood=float(lower.mean()),
        stderr=float(np.sqrt((lower_errors**2).sum()) / len(rows)),
        upper=float(upper.mean()),
        upper_stderr=float(np.sqrt((upper_errors**2).sum()) / len(rows)),
        gap=float(gaps.mean()),
        gap_stderr=float(gaps.std(ddof=1) / math.sqrt(len(rows))),
    )


class RunDifference(NamedTuple):
    """log p(x) under this model less that under another, for the same images, in nats per image."""

    num_images: int
    mean: float
    low: float  # the ends of the 95 % interval of the mean
    high: float
    decided: bool  # whether 0 is outside of the interval
    images_needed: int  # with which an interval of this mean would leave out 0

    def sentence(self, name: str, other_name: str) -> str:
        """The mean with its interval, and which of the two is better, in one line."""
        words = "undecided"
        if self.decided:
            words = f"{other_name if self.mean < 0 else name} is better"
        elif self.images_needed > 0:
            words += f"; about {self.images_needed} images would decide"
        return f"{self.mean:.2f} nats (95 % interval {self.low:.2f} to {self.high:.2f}): {words}"


def difference(rows: list[Row], other_rows: list[Row], constant_stderr: float) -> RunDifference:
    """Paired differences of two tables of the same images.

    Args:
      rows: of this model.
      other_rows: of the other model, in the same order.
      constant_stderr: standard error of the difference of both models' log Z_alpha, which all
        images share.
    """
    name = "log_marginal_likelihood"
    values = column(rows, name) - column(other_rows, name)
    num, average, spread = len(values), float(values.mean()), float(values.std(ddof=1))
    quantile = float(stats.t.ppf(0.975, num - 1))
    half = math.hypot(quantile * spread / math.sqrt(num), 1.96 * constant_stderr)
    room = average**2 - (1.96 * constant_stderr) ** 2
    needed = math.ceil((1.96 * spread) ** 2 / room) + 1 if room > 0 else -1
    return RunDifference(num, average, average - half, average + half, abs(average) > half, needed)


# Scores that are higher for images unlike those of the model, from a table's rows to [num]. Images
# of the model have a high log p(x) and a high tilt f(z), so that both count with a negative sign.
SCORES: Mapping[str, Callable[[list[Row]], np.ndarray]] = {
    "log_marginal_likelihood": lambda rows: -column(rows, "log_marginal_likelihood"),
    "tilt": lambda rows: -column(rows, "tilt"),
    "pang": lambda rows: (
        column(rows, "reconstruction") - column(rows, "tilt") + column(rows, "norm")
    ),
}


def detections(inliers: list[Row], outliers: list[Row], seed: int = 0) -> dict[str, Detection]:
    """How well each of `SCORES` tells the outliers from the inliers."""
    return {
        name: detection(score(inliers), score(outliers), seed) for name, score in SCORES.items()
    }


def column(rows: list[Row], name: str) -> np.ndarray:
    """A column of a table, [num]."""
    return np.array([row[name] for row in rows], np.float64)
