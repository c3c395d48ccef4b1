"""Estimates of log p(x) to the error asked for, with as few gradients as each image needs.

A pilot gives the barrier of each image's path, from which the first number of temperatures follows.
An image whose standard error is larger than the error asked for by a half is estimated anew with
more temperatures, until the error is reached or the limit is met. Images that are done leave the
batch; the estimate of an image does not depend on which other images are in its batch.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.likelihood import annealed_smc
from thermo_ebm.likelihood.annealed_smc import Estimates
from thermo_ebm.likelihood.particles import PathSchedule
from thermo_ebm.likelihood.proposal import Preparation
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.types import Array, PRNGKey

# The sd of the log-weights per interval of the pilot's schedule, and how much larger the variance
# is than that of chains that follow the path closely.
_BARRIER_PER_INTERVAL = 0.5
_LAG = 3.5
_LEAST_TEMPERATURES = 16
# A standard error of a few islands is itself uncertain: estimates are final below so many times the
# error asked for, and else repeated with 1.5 to 4 times as many temperatures.
_TOLERANCE = 1.5


class Finished(NamedTuple):
    """Images whose estimates are final."""

    rows: np.ndarray  # their numbers among all images, [num]
    estimates: Estimates  # numpy, [num] each
    num_temperatures: np.ndarray  # N, [num]


class Bounds(NamedTuple):
    """Of log p(x) of simulated images, in nats; [num] each."""

    lower: Estimates
    upper: np.ndarray
    upper_stderr: np.ndarray


class Estimator(NamedTuple):
    """A model that is prepared, and the settings."""

    preparation: Preparation
    settings: LikelihoodSettings
    key: PRNGKey

    def run(
        self, images: np.ndarray | Array, schedule: PathSchedule | None = None
    ) -> Iterator[Finished]:
        """Estimates of images [num, *image_shape], each as soon as it is final.

        Args:
          images: [num, *image_shape].
          schedule: from `schedules` of these images, if it is there already.
        """
        begin = time.monotonic()
        schedule = self.schedules(images) if schedule is None else schedule
        of_next = self._first(np.asarray(schedule.intervals))  # N of each image's next estimate
        pending = np.arange(len(images))
        while len(pending):
            # Those with the fewest temperatures: a batch is then full, and its images are alike.
            pending = pending[np.argsort(of_next[pending], kind="stable")]
            rows, later = np.split(pending, [self.settings.batch_size])
            num_temperatures = of_next[rows]
            estimates = self._estimate(images, schedule, rows, num_temperatures)
            is_final = self._is_final(estimates, num_temperatures, time.monotonic() - begin)
            if is_final.any():
                done = jax.tree.map(lambda leaf: leaf[is_final], estimates)  # noqa: B023
                yield Finished(rows[is_final], done, num_temperatures[is_final])
            factor = np.clip((estimates.stderr / self.settings.error) ** 2, 1.5, 4.0)
            more = np.ceil(factor * num_temperatures).astype(np.int64)
            of_next[rows] = np.minimum(more, self._most_temperatures())
            pending = np.concatenate([later, rows[~is_final]])

    def schedules(self, images: np.ndarray | Array) -> PathSchedule:
        """The schedule of each image."""
        parts = []
        for rows in self._rows(np.arange(len(images))):
            x = jnp.asarray(images[self._padded(rows)])
            schedule = annealed_smc.pilot(self.preparation, x, self.key, self.settings.compiled())
            part = jax.device_get(schedule)
            parts.append(jax.tree.map(lambda leaf: leaf[: len(rows)], part))  # noqa: B023
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def bounds(self, images: np.ndarray | Array, latents: np.ndarray) -> Bounds:
        """Lower and upper bounds of images that the model made.

        Args:
          images: simulated from the model, [num, *image_shape].
          latents: that made them, [num, latent_dim].
        """
        schedule = self.schedules(images)
        lower, num_temperatures = collected(list(self.run(images, schedule)))
        bounds, errors = np.empty(len(images)), np.empty(len(images))
        # Images with similar numbers of temperatures together.
        for rows in self._rows(np.argsort(num_temperatures, kind="stable")):
            places = self._padded(rows)
            capacity = 1 << int(num_temperatures[rows].max() - 1).bit_length()
            bound, error = annealed_smc.upper_bound(
                self.preparation, jnp.asarray(images[places]), jnp.asarray(latents[places]),
                _rows_of(schedule, places, num_temperatures[places]),
                self.key, self.settings.compiled(), capacity,
            )  # fmt: skip
            bounds[rows], errors[rows] = bound[: len(rows)], error[: len(rows)]
        return Bounds(lower, bounds, errors)

    def draws(
        self, images: np.ndarray | Array, num: int, key: PRNGKey
    ) -> tuple[Estimates, np.ndarray, np.ndarray]:
        """Draws from the posterior of each image, after an estimate of its log p(x).

        The draws come from chains of their own along the schedule with which the estimate had the
        error asked for, so that the estimate's verdict tells of their chains too.

        Args:
          images: [num_images, *image_shape].
          num: draws of each image.
          key: of the draws; that of the estimates is another.

        Returns:
          The estimates, their numbers of temperatures, and latents [num_images, num, D].
        """
        schedule = self.schedules(images)
        estimates, num_temperatures = collected(list(self.run(images, schedule)))
        islands = self.settings.num_islands
        chains = max(-(-num // islands) * islands, self.settings.chains_per_image)
        settings = self.settings._replace(chains_per_image=chains).compiled()
        latents = np.empty((len(images), num, self.preparation.model.latent_dim), np.float32)
        for rows in self._rows(np.argsort(num_temperatures, kind="stable")):
            places = self._padded(rows)
            batch = annealed_smc.draws(
                self.preparation, jnp.asarray(images[places]),
                _rows_of(schedule, places, num_temperatures[places]), key, settings, num,
            )  # fmt: skip
            latents[rows] = batch[: len(rows)]
        return estimates, num_temperatures, latents

    def gradients(self, num_temperatures: np.ndarray) -> np.ndarray:
        """Gradients of a chain."""
        return num_temperatures * self.settings.gradients_per_temperature()

    def _first(self, intervals: np.ndarray) -> np.ndarray:
        """N of the first estimates, from the intervals of the pilot's schedules."""
        settings = self.settings
        if settings.num_temperatures:
            return np.full(len(intervals), settings.num_temperatures)
        variance = _LAG * (_BARRIER_PER_INTERVAL * intervals) ** 2 / settings.chains_per_image
        needed = variance / settings.error**2
        if settings.max_seconds:  # at first something for every image
            needed = np.minimum(needed, 4 * _LEAST_TEMPERATURES)
        needed = np.maximum(np.ceil(needed), _LEAST_TEMPERATURES)
        return np.minimum(needed, self._most_temperatures()).astype(np.int64)

    def _most_temperatures(self) -> int:
        return max(self.settings.max_gradients // self.settings.gradients_per_temperature(), 1)

    def _is_final(
        self, estimates: Estimates, num_temperatures: np.ndarray, seconds: float
    ) -> np.ndarray:
        settings = self.settings
        if settings.num_temperatures or (settings.max_seconds and seconds > settings.max_seconds):
            return np.ones(len(num_temperatures), bool)
        reached = estimates.stderr <= _TOLERANCE * settings.error
        return reached | (num_temperatures >= self._most_temperatures())

    def _estimate(
        self,
        images: np.ndarray | Array,
        schedule: PathSchedule,
        rows: np.ndarray,
        num_temperatures: np.ndarray,
    ) -> Estimates:
        places = self._padded(rows)
        padded = np.resize(num_temperatures, len(places))
        padded[len(rows) :] = 1
        estimates = annealed_smc.estimate(
            self.preparation, jnp.asarray(images[places]), _rows_of(schedule, places, padded),
            self.key, self.settings.compiled(),
        )  # fmt: skip
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(rows)], estimates)

    def _rows(self, rows: np.ndarray) -> list[np.ndarray]:
        size = self.settings.batch_size
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a batch of the one size, filled with the last."""
        padding = self.settings.batch_size - len(rows)
        return np.concatenate([rows, np.full(padding, rows[-1])])


def collected(parts: list[Finished]) -> tuple[Estimates, np.ndarray]:
    """Estimates and numbers of temperatures of all images, in their order."""
    order = np.argsort(np.concatenate([part.rows for part in parts]))

    def join(*leaves: np.ndarray) -> np.ndarray:
        return np.concatenate(leaves)[order]

    estimates = jax.tree.map(join, *(part.estimates for part in parts))
    return estimates, join(*(part.num_temperatures for part in parts))


def _rows_of(
    schedule: PathSchedule, rows: np.ndarray, num_temperatures: np.ndarray
) -> PathSchedule:
    """The schedule of some images, with N of each of them."""
    schedule = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), schedule)
    return schedule._replace(num_temperatures=jnp.asarray(num_temperatures, jnp.int32))
