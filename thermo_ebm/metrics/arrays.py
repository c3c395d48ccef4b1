"""Feature matrices: checked once, in float64; and linear algebra on several cores."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import threadpoolctl

Array = np.ndarray | jax.Array
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MAX_WORKERS = 8  # each holds a few matrices of 32 MB


class FeaturePair(NamedTuple):
    """The features of real and generated images, checked by `feature_pair`."""

    real: np.ndarray  # float64 [num_real, num_features]
    generated: np.ndarray  # float64 [num_generated, num_features]


def feature_matrix(name: str, values: Array, min_images: int = 2) -> np.ndarray:
    """Returns features [num_images, num_features] as float64.

    Raises:
      ValueError: for another rank, fewer images, no features, or values that are not finite.
    """
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[0] < min_images or matrix.shape[1] < 1:
        raise ValueError(
            f"{name} must be [num_images, num_features] with at least {min_images} images,"
            f" not {matrix.shape}"
        )
    if not np.issubdtype(matrix.dtype, np.floating):
        raise ValueError(f"{name} must be floating-point, not {matrix.dtype}")
    matrix = matrix.astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} has values that are not finite")
    return matrix


def feature_pair(real: Array, generated: Array, min_images: int = 2) -> FeaturePair:
    """Returns the features of both sets as float64; see `feature_matrix`.

    Raises:
      ValueError: as for `feature_matrix`, and if the numbers of features differ.
    """
    pair = FeaturePair(
        feature_matrix("real features", real, min_images),
        feature_matrix("generated features", generated, min_images),
    )
    if pair.real.shape[1] != pair.generated.shape[1]:
        raise ValueError(
            f"real features have {pair.real.shape[1]} columns, generated features have"
            f" {pair.generated.shape[1]}"
        )
    return pair


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix with rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1.0))


def map_over_cores(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Returns `[function(item) for item in items]`, computed by several threads.

    BLAS uses one thread meanwhile: eigenvalue solvers are bound by memory and gain little from
    BLAS's own threads, which wait for each other on a busy machine.
    """
    items = list(items)
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(_MAX_WORKERS, num_cores or 1, len(items))
    if workers <= 1:
        return [function(item) for item in items]
    with (
        threadpoolctl.threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(workers) as pool,
    ):
        return list(pool.map(function, items))
