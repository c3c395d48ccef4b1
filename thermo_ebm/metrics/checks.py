"""Checks of feature matrices, shared by the metrics."""

import jax
import numpy as np

Array = np.ndarray | jax.Array


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


def feature_pair(
    real: Array, generated: Array, min_images: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides as float64; see `feature_matrix`.

    Raises:
      ValueError: as for `feature_matrix`, and if the numbers of features differ.
    """
    real = feature_matrix("real features", real, min_images)
    generated = feature_matrix("generated features", generated, min_images)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"real features have {real.shape[1]} columns, generated ones {generated.shape[1]}"
        )
    return real, generated
