"""The digits with chains from the linear reference; `configs/digits.py` has the paper's chains.

python -m launch.train --config=configs/digits_linear.py --workdir=runs/digits_linear
"""

from ml_collections import ConfigDict

from configs import chains, digits


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(digits.get_config())
