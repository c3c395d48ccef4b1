r"""The paper's second experiment: changes of N_t, K, K_z and eta at p = 0.1, one at a time.

python -m launch.sweep --experiment=configs/experiment2.py --config=configs/celeb_a_paper.py \
    --config.data.data_dir=TFDS --workdir=runs/experiment2

On CelebA the changed values are the paper's N_t = 20 and 30, K = 40 and K_z = 80 (from 10, 20 and
60); on other data the values of the configuration are multiplied by the same factors.
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.published import PUBLISHED


def get_cells(config: ConfigDict) -> list[dict[str, Any]]:
    """Returns the fields that each cell changes in the configuration of a data set."""
    num_temperatures, sampler = config.loss.num_temperatures, config.sampler
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"loss.num_temperatures": 2 * num_temperatures},
        {"loss.num_temperatures": 3 * num_temperatures},
        {"sampler.posterior.num_steps": 2 * sampler.posterior.num_steps},
        {"sampler.prior.num_steps": 4 * sampler.prior.num_steps // 3},
        {"loss.kl_weight": 2.0},
        {"loss.kl_weight": 4.0},
    )
    baseline = PUBLISHED | {
        "loss.name": "thermodynamic",
        "loss.power": 0.1,
        "num_repetitions": 3,
    }
    return [baseline | change for change in changes]
