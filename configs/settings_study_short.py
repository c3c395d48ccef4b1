r"""The study of settings with fewer powers and three repetitions.

python -m launch.sweep --experiment=configs/settings_study_short.py \
    --config=configs/fashion_small.py --workdir=runs/settings --num_images=1000 --num_sizes=6
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.settings_study import Grid, make_cells

SHORT = Grid(
    gradients=(0.1, 1.0),
    samplers=(1.0,),
    posterior_samplers=(),
    posterior_exchange=(),
    temperatures=(),
    repetitions=3,
)


def get_cells(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return make_cells(config, SHORT)
