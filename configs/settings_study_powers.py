r"""The study of settings with `reweighted` and `detached` gradients, and three repetitions.

python -m launch.sweep --experiment=configs/settings_study_powers.py \
    --config=configs/digits_small.py --config.num_epochs=6 --workdir=runs/settings --num_sizes=6
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.settings_study import FULL, make_cells

POWERS = FULL._replace(posterior_samplers=(), posterior_exchange=(), temperatures=(), repetitions=3)


def get_cells(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    return make_cells(config, POWERS)
