"""Standard errors by balanced half-samples (Fay's method; Judkins 1990), second order included.

Both sets of images are cut into G groups at random, paired across the sets. A row h of a Hadamard
matrix gives half of the groups +1 and the others -1, and the metric is computed with the groups
weighted by 1 + d h and by 1 - d h:

    odd_r  = (T(1 + d h_r) - T(1 - d h_r)) / (2 d)            the metric's linear response
    even_r = (T(1 + d h_r) + T(1 - d h_r)) / (2 d^2)          its quadratic response
    stderr^2 = mean_r odd_r^2 - 1/2 variance_r even_r

The first term alone is what a jackknife measures. It counts a quadratic statistic's variance twice
(Efron & Stein 1981), and the distance of two equal distributions is quadratic in the samples: a
jackknife's error is then sqrt(2) times too large. The variance of `even` is that surplus. Half of
it is taken away, not all: the estimate rises and falls with the metric itself, so that an unbiased
one is too small just where the metric is too low. As the true variance is between half of the
first term and all of it, the estimate is kept there.
"""

import jax
import numpy as np
import scipy.linalg

NUM_GROUPS = 32
_STEP = 0.5  # d: small enough to keep every weight positive
_SIGNS = scipy.linalg.hadamard(NUM_GROUPS)[1:].astype(float)  # [31, 32]; the first row is constant
# [63, 32]: the metric itself, then the rows with + and the rows with -.
WEIGHTS = np.concatenate([np.ones((1, NUM_GROUPS)), 1 + _STEP * _SIGNS, 1 - _STEP * _SIGNS])


def assign_groups(key: jax.Array, num_images: int) -> np.ndarray:
    """Returns each image's group, int [num_images], drawn at random with nearly equal sizes.

    Args:
      key: consumed here.
      num_images: of one set; with fewer than 32 some groups stay empty.
    """
    return np.asarray(jax.random.permutation(key, num_images)) % NUM_GROUPS


def stderr(replicates: np.ndarray) -> float:
    """Returns the standard error of a metric from its values under `WEIGHTS`, [63].

    Raises:
      ValueError: if there are more or fewer values.
    """
    values = np.asarray(replicates, np.float64)
    if values.shape != (len(WEIGHTS),):
        raise ValueError(f"replicates must be {(len(WEIGHTS),)}, not {values.shape}")
    plus, minus = values[1:NUM_GROUPS], values[NUM_GROUPS:]
    odd = np.mean(((plus - minus) / (2 * _STEP)) ** 2)
    even = np.var((plus + minus) / (2 * _STEP**2), ddof=1)
    return float(np.sqrt(max(odd - even / 2, odd / 2)))
