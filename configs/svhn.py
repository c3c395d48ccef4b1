r"""SVHN (cropped digits) with the values of CIFAR-10.

python -m launch.train --config=configs/svhn.py --workdir=runs/svhn \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = cifar10.get_config()
    config.data.name = "svhn_cropped"
    return config
