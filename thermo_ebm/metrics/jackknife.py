"""Standard errors by the delete-a-group jackknife (Kott 2001), for metrics without their own.

Both sets are cut into G groups at random, and each replicate leaves out one group of either set:

    stderr^2 = (G - 1) / G sum_g (metric_g - mean of the replicates)^2

No image is ever there twice, as in a bootstrap, where copies are each other's nearest neighbours.
It errs on the safe side: the FID of two like distributions hardly depends on which images there
are, and nearest neighbours do so more strongly when there are fewer. It is nearest to the true
spread for distributions well apart.
"""

from collections.abc import Sequence

import jax
import numpy as np

from thermo_ebm.metrics.subsets import Draw

NUM_GROUPS = 10


def leave_groups_out(
    key: jax.Array, num_real: int, num_generated: int, num_groups: int = NUM_GROUPS
) -> list[Draw]:
    """Returns what each replicate keeps of either set; sets smaller than that have fewer groups.

    Args:
      key: consumed here.
      num_real: images of the one set.
      num_generated: and of the other.
      num_groups: G.

    Raises:
      ValueError: if there are fewer than two groups.
    """
    count = min(num_groups, num_real, num_generated)
    if count < 2:
        raise ValueError(f"no {num_groups} groups of {num_real} and {num_generated} images")
    real_key, generated_key = jax.random.split(key)
    kept = [
        [np.setdiff1d(np.arange(number), group) for group in np.array_split(order, count)]
        for number, order in (
            (num_real, np.asarray(jax.random.permutation(real_key, num_real))),
            (num_generated, np.asarray(jax.random.permutation(generated_key, num_generated))),
        )
    ]
    return [Draw(real, generated) for real, generated in zip(*kept, strict=True)]


def stderr(replicates: Sequence[float] | np.ndarray) -> float:
    """Returns the standard error from the metric of each replicate, [num_groups].

    Raises:
      ValueError: if there are fewer than two.
    """
    values = np.asarray(replicates, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"replicates must be a list of at least two, not {values.shape}")
    return float(np.sqrt((len(values) - 1) * values.var()))
