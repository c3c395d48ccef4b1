"""The small digits with chains from the linear reference, for many runs on two cores.

python -m launch.sweep --experiment=configs/noise_or_step.py \
    --config=configs/digits_small_linear.py --config.num_epochs=9 --workdir=runs/step_linear \
    --num_sizes=6
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, digits_small


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(digits_small.get_config())
