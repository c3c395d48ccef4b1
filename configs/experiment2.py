r"""The paper's second experiment: what helps p = 0.1 (N_t, K, eta), one change at a time.

python -m launch.sweep --experiment=configs/experiment2.py --config=configs/celeb_a.py \
    --workdir=runs/experiment2
"""

from typing import Any

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"loss.num_temperatures": 20},
    {"loss.num_temperatures": 30},
    {"sampler.posterior.num_steps": 40},
    {"sampler.prior.num_steps": 80},
    {"loss.kl_weight": 2.0},
    {"loss.kl_weight": 4.0},
)


def get_cells() -> list[dict[str, Any]]:
    """Returns the fields that each cell changes."""
    baseline = {"loss.name": "thermodynamic", "loss.power": 0.1, "num_repetitions": 3}
    return [baseline | change for change in CHANGES]
