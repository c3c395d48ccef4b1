r"""SVHN (cropped digits) with the values of CIFAR-10 and chains from the linear reference.

python -m launch.train --config=configs/svhn.py --workdir=runs/svhn \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, svhn_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(svhn_paper.get_config())
