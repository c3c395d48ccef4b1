"""CIFAR-10 with chains from the linear reference; `configs/cifar10.py` has the paper's chains.

python -m launch.train --config=configs/cifar10_linear.py --config.data.data_dir=TFDS \
    --workdir=runs/cifar10
"""

from ml_collections import ConfigDict

from configs import chains, cifar10


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(cifar10.get_config())
