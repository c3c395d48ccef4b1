r"""Fashion-MNIST at its own 28 x 28 pixels: the first layer makes 7 x 7, and two strides of 2.

From the IDX files of Debian's package (`apt-get install dataset-fashion-mnist`):

python -m launch.train --config=configs/fashion_mnist_28.py --workdir=runs/fashion_mnist_28

Chains from the linear reference.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import fashion_mnist


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = fashion_mnist.get_config()
    config.data.image_size = 28
    config.data.num_train = 55_000
    config.data.num_val = 5_000
    config.model.generator.first_size = 7
    config.checkpoint.every_epochs = 1
    return config
