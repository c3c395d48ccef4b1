"""CLIP maximum mean discrepancy (Jayasumana et al. 2024, "Rethinking FID", arXiv 2401.09603).

The squared MMD of features of length 1 with a Gaussian kernel of bandwidth 10,
exp(-|x - y|^2 / 200), times 1,000. The published form keeps the pair of each image with itself and
is therefore too large by about 2,000 (1 - mean kernel) / N; the unbiased form leaves it out. Both
have the same error.
"""

from collections.abc import Sequence
from typing import Literal

from thermo_ebm.metrics import arrays, kid, subsets
from thermo_ebm.metrics.arrays import Array, FeaturePair
from thermo_ebm.metrics.kid import PairKernels
from thermo_ebm.metrics.subsets import Draw

SCALE = 1000.0


def clip_mmd(
    real_features: Array,
    generated_features: Array,
    form: Literal["unbiased", "published"] = "unbiased",
) -> float:
    """Returns the CMMD of two sets of features, of CLIP's ViT-L/14 at 336 pixels to be quoted.

    Args:
      real_features: [num_real, num_features]; each row is divided by its length.
      generated_features: [num_generated, num_features].
      form: "published" as its authors' program computes it, or "unbiased".

    Raises:
      ValueError: for another form, another rank, different numbers of features, fewer than two
        images, or values that are not finite.
    """
    if form not in ("unbiased", "published"):
        raise ValueError(f"form must be unbiased or published, not {form!r}")
    features = arrays.feature_pair(real_features, generated_features)
    sums = pair_sums(features, [subsets.all_images(len(features.real), len(features.generated))])
    values = kid.distances(sums).values if form == "unbiased" else kid.biased(sums)
    return SCALE * float(values[0])


def pair_sums(features: FeaturePair, draws: Sequence[Draw]) -> PairKernels:
    """The sums of the kernel of features of length 1, for `kid.distances`; without `SCALE`."""
    unit = FeaturePair(*(arrays.unit_rows(matrix) for matrix in features))
    return kid.pair_sums(unit, draws, ("gaussian",))["gaussian"]
