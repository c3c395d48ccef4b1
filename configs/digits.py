"""Scikit-learn's handwritten digits, 8 x 8: a small model that trains in minutes on two cores.

python -m launch.train --config=configs/digits.py --workdir=runs/digits
python -m launch.eval --workdir=runs/digits --newest_only

Chains from the linear reference; `configs/digits_paper.py` has the paper's.
"""

from ml_collections import ConfigDict

from configs import chains, digits_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(digits_paper.get_config())
