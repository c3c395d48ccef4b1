r"""CIFAR-10: sizes and chains of the paper (table 5), loss of `configs/base.py`.

For the paper's own objective see `configs/published.py`.

python -m launch.train --config=configs/cifar10_paper.py --workdir=runs/cifar10_paper \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import base


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.name = "cifar10"
    config.sampler.posterior.num_steps = 40
    return config
