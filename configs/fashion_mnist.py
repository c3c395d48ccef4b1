r"""Fashion-MNIST at 16 x 16 pixels: a small model of photographs that trains on two cores.

From the IDX files of Debian's package (`apt-get install dataset-fashion-mnist`):

python -m launch.train --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

From the data set of TFDS, with the same images:

python -m launch.train --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist \
    --config.data.name=fashion_mnist --config.data.data_dir=TFDS

Chains from the linear reference; `configs/fashion_mnist_paper.py` has the paper's.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, fashion_mnist_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(fashion_mnist_paper.get_config())
