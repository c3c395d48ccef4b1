r"""The generator's gradients `posterior` and `reweighted` compared, by five repetitions of each.

python -m launch.sweep --experiment=configs/gradient_pair.py --config=configs/digits_small.py \
    --workdir=runs/gradients --num_sizes=6

Both cells have the same seeds, so that their repetitions can be compared in pairs.
"""

from typing import Any

from thermo_ebm.configs.experiment3 import UNBIASED

COMMON = UNBIASED | {"sampler.chains_per_image": 2, "num_repetitions": 5}


def get_cells() -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    gradients = ("posterior", "reweighted")
    return [COMMON | {"loss.generator_gradient": gradient} for gradient in gradients]
