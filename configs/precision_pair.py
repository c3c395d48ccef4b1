r"""Chains in float32 and in bfloat16 compared, by five repetitions of each.

python -m launch.sweep --experiment=configs/precision_pair.py --config=configs/digits_small.py \
    --workdir=runs/precision --num_sizes=6

Both cells have the same seeds, so that their repetitions can be compared in pairs. The loss is that
of version 0.1.0 with `posterior` gradients: p = 6, one chain per image, the trapezium and the
pooled correction.
"""

from typing import Any

COMMON: dict[str, Any] = {
    "num_repetitions": 5,
    "sampler.chains_per_image": 1,
    "loss.power": 6.0,
    "loss.quadrature": "trapezium",
    "loss.correction": "pooled_gaussian",
    "loss.generator_gradient": "posterior",
}


def get_cells() -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return [COMMON | {"sampler.precision": name} for name in ("float32", "bfloat16")]
