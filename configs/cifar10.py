r"""CIFAR-10 with the paper's sizes and chains from the linear reference.

python -m launch.train --config=configs/cifar10.py --workdir=runs/cifar10 \
    --config.data.data_dir=TFDS

`configs/cifar10_paper.py` has the paper's chains. Without a score: it was not trained to its end,
which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, cifar10_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(cifar10_paper.get_config())
