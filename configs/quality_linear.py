"""`configs/quality_cifar10.py` with chains from the linear reference, and its gradient's bias.

python -m launch.train --config=configs/quality_linear.py --config.data.data_dir=TFDS \
    --workdir=runs/quality_linear
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, quality_cifar10


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = chains.from_linear_reference(quality_cifar10.get_config())
    config.logging.gradient_bias_every_epochs = 20
    config.evaluation.likelihood.every_epochs = 20
    return config
