"""Copies: does a generator repeat its training images?

- authenticity: share of generated images whose nearest training image is farther from them than
  from any other training image (Alaa et al. 2022; the percentage of dgm-eval, Stein et al. 2023);
- MIFID with the training images as reference (Bai et al. 2021): the FID, divided by the mean cosine
  distance of generated images to the nearest of *all* training images where that is below 0.1;
- exact copies, by a hash of the pixels.

Training images are taken as they are: errors are of the sampling of generated images alone.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import arrays, fid, mifid
from thermo_ebm.metrics.arrays import Array

_BLOCK = 2048  # training images at once


class Authenticity(NamedTuple):
    """The share of generated images that are no near copies, and its standard error."""

    share: float  # of 1
    stderr: float


class Copies(NamedTuple):
    """Numbers of generated images that are equal in every pixel."""

    of_training: int  # to a training image
    of_each_other: int  # to an earlier generated image


class Memorization(NamedTuple):
    """What `summarize` returns; each is a column of an evaluation."""

    authenticity: float
    authenticity_stderr: float
    training_distance: float  # mean cosine distance to the nearest training image
    mifid_training: float  # MIFID by its definition; infinite where all images are copies
    training_copies: int
    repeated_images: int


def authenticity(training_features: Array, generated_features: Array) -> Authenticity:
    """Returns the share of generated images that are no near copies of training images.

    Args:
      training_features: of the images that the generator was trained on,
        [num_training, num_features].
      generated_features: [num_generated, num_features].

    Raises:
      ValueError: for another rank, different numbers of features, fewer than two images, or values
        that are not finite.
    """
    features = arrays.feature_pair(training_features, generated_features)
    centre = features.real.mean(axis=0)  # distances are the same, and fewer digits cancel
    training, generated = features.real - centre, features.generated - centre
    distances, nearest = _nearest(generated, training)
    own_distances, _ = _nearest(training[nearest], training, skip=nearest)
    is_authentic = own_distances < distances
    share = float(is_authentic.mean())
    return Authenticity(share, float(np.sqrt(share * (1 - share) / len(generated))))


def count_copies(training_digests: Sequence[bytes], generated_digests: Sequence[bytes]) -> Copies:
    """Returns the numbers of exact copies, from `digests` of both sets."""
    training = set(training_digests)
    return Copies(
        sum(digest in training for digest in generated_digests),
        len(generated_digests) - len(set(generated_digests)),
    )


def digests(images: np.ndarray) -> list[bytes]:
    """Returns the SHA-256 of each image's pixels, [num, height, width, channels]."""
    return [hashlib.sha256(image).digest() for image in np.ascontiguousarray(images)]


def training_distance(training_features: Array, generated_features: Array) -> float:
    """Returns the mean cosine distance of generated images to the nearest training image."""
    features = arrays.feature_pair(training_features, generated_features)
    generated = arrays.unit_rows(features.generated)
    nearest = np.zeros(len(generated))
    for start in range(0, len(features.real), _BLOCK):
        block = arrays.unit_rows(features.real[start : start + _BLOCK])
        nearest = np.maximum(nearest, np.abs(generated @ block.T).max(axis=1))
    return float(np.mean(1.0 - nearest))


def summarize(
    training_features: Array,
    generated_features: Array,
    training_digests: Sequence[bytes],
    generated_digests: Sequence[bytes],
) -> Memorization:
    """Returns all of it; arguments and errors as for the functions above."""
    distance = training_distance(training_features, generated_features)
    frechet = fid.frechet_distance(training_features, generated_features)
    penalty = float(mifid.memorization_penalty(distance))
    return Memorization(
        *authenticity(training_features, generated_features),
        distance,
        frechet / penalty if distance > mifid.MIN_DISTANCE else np.inf,
        *count_copies(training_digests, generated_digests),
    )


def _nearest(
    points: np.ndarray, others: np.ndarray, skip: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The squared distance of each point to the nearest of the others, and which it is; [num].

    Args:
      points: [num, num_features].
      others: [num_others, num_features].
      skip: for each point, one of the others that does not count, [num].
    """
    nearest, smallest = np.zeros(len(points), int), np.full(len(points), np.inf)
    rows, point_norms = np.arange(len(points)), np.sum(points**2, axis=1)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK]
        squares = point_norms[:, None] + np.sum(block**2, axis=1) - 2.0 * (points @ block.T)
        if skip is not None:
            inside = (skip >= start) & (skip < start + len(block))
            squares[rows[inside], skip[inside] - start] = np.inf
        column = squares.argmin(axis=1)
        is_nearer = squares[rows, column] < smallest
        smallest[is_nearer] = squares[rows, column][is_nearer]
        nearest[is_nearer] = column[is_nearer] + start
    return np.maximum(smallest, 0.0), nearest
