"""Subsets of both sets of images, drawn without replacement, for metrics at many sample sizes.

An extrapolation needs each metric on subsets of ten sizes. Both sets are subsampled, each size with
a fresh key: subsampling only the generated images leaves a bias that no line in 1/N removes, and
drawing with replacement gives back the metric at the full size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np


class Draw(NamedTuple):
    """A subset of each set of images."""

    real: np.ndarray  # [size], indices without repetition
    generated: np.ndarray  # [size]


def all_images(num_real: int, num_generated: int) -> Draw:
    """Returns the draw of all images of both sets."""
    return Draw(np.arange(num_real), np.arange(num_generated))


def extrapolation_sizes(largest: int = 4500, count: int = 10) -> tuple[int, ...]:
    """Returns `count` sizes evenly spaced from 2/9 of the largest to the largest.

    For 4,500 images: 1000, 1389, 1778, 2167, 2556, 2944, 3333, 3722, 4111, 4500.

    Raises:
      ValueError: for fewer than three sizes, or so few images that two sizes are the same.
    """
    sizes = tuple(int(size) for size in np.linspace(largest * 2 / 9, largest, count).round())
    if count < 3 or len(set(sizes)) < count or sizes[0] < 2:
        raise ValueError(f"no {count} sizes of at least 2 up to {largest} for an extrapolation")
    return sizes


def draw_subsets(
    key: jax.Array,
    sizes: Sequence[int],
    num_real: int,
    num_generated: int,
    draws_per_size: int = 4,
) -> list[list[Draw]]:
    """Draws subsets of both sets for each size, without replacement, with a fresh key per size.

    The draws of one size are evenly spaced windows of one random order of the images, so that
    together they use every image about equally often: their mean varies less than the mean of
    independent draws.

    Args:
      key: consumed here.
      sizes: images in each subset, at most the number in the smaller set.
      num_real: number of real images.
      num_generated: number of generated images.
      draws_per_size: subsets of each size; a size equal to the number of images in both sets has
        one draw.

    Returns:
      The draws of each size.

    Raises:
      ValueError: if a size is smaller than 2 or larger than a set, or `draws_per_size` is not
        positive.
    """
    if not sizes or min(sizes) < 2 or max(sizes) > min(num_real, num_generated):
        raise ValueError(
            f"cannot draw subsets of {tuple(sizes)} from {num_real} real and {num_generated}"
            " generated images"
        )
    if draws_per_size < 1:
        raise ValueError(f"draws_per_size must be positive, not {draws_per_size}")
    draws = []
    for size, size_key in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
        real_key, generated_key = jax.random.split(size_key)
        count = 1 if size == num_real == num_generated else draws_per_size
        real = _windows(real_key, num_real, size, count)
        generated = _windows(generated_key, num_generated, size, count)
        draws.append([Draw(*pair) for pair in zip(real, generated, strict=True)])
    return draws


def _windows(key: jax.Array, num_images: int, size: int, count: int) -> list[np.ndarray]:
    # A permutation of all images has the same shape for every size: it compiles only once.
    order = np.asarray(jax.random.permutation(key, num_images))
    starts = [index * num_images // count for index in range(count)]
    return [np.take(order, np.arange(start, start + size), mode="wrap") for start in starts]
