r"""Fashion-MNIST at 16 x 16 pixels: a small model of photographs that trains on two cores.

From the IDX files of Debian's package (`apt-get install dataset-fashion-mnist`):

python -m launch.train --config=configs/fashion_mnist_paper.py --workdir=runs/fashion_mnist_paper

From the data set of TFDS, with the same images:

python -m launch.train --config=configs/fashion_mnist_paper.py --workdir=runs/fashion_mnist_paper \
    --config.data.name=fashion_mnist --config.data.data_dir=TFDS

Without a score of its own; `configs/fashion_small.py` has one.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import digits_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = digits_paper.get_config()
    config.num_epochs = 10

    config.data.name = "idx"
    config.data.data_dir = "/usr/share/datasets/fashion-mnist"
    config.data.image_size = 16
    config.data.num_train = 6_000
    config.data.num_val = 1_500

    config.model.latent_dim = 48
    config.model.generator.features = 16
    config.model.generator.widths = (4, 2)
    config.model.generator.strides = (1, 2, 2)
    return config
