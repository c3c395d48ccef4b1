r"""SVHN (cropped digits) with the values of CIFAR-10.

python -m launch.train --config=configs/svhn_paper.py --workdir=runs/svhn_paper \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import cifar10_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = cifar10_paper.get_config()
    config.data.name = "svhn_cropped"
    return config
