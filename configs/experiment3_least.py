r"""The third experiment with the amplification and p alone, and three repetitions.

python -m launch.sweep --experiment=configs/experiment3_least.py \
    --config=configs/fashion_small.py --workdir=runs/noise --num_images=1000 --num_sizes=6
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.experiment3 import Grid, make_cells

LEAST = Grid(
    amplifications=(4.0, 16.0),
    powers=(0.01, 6.0),
    vanilla_chains=(),
    thermodynamic_chains=(),
    batch_sizes=(),
    accumulations=(),
    repetitions=3,
)


def get_cells(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return make_cells(config, LEAST)
