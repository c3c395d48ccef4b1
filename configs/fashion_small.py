r"""Fashion-MNIST at 16 x 16 with half the channels and 3,000 images, for many runs on two cores.

From the IDX files of Debian's package (`apt-get install dataset-fashion-mnist`):

python -m launch.sweep --experiment=configs/experiment3_short.py \
    --config=configs/fashion_small.py --workdir=runs/noise --num_images=1000 --num_sizes=6

Score in docs/study/noise (6 epochs, constant learning rates, mean of three repetitions):
KID 0.186 +- 0.003, FID 117.8 +- 1.6 (1,000 images, EfficientNet-Lite0), after two minutes of
training steps of each, three together on one core.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import fashion_mnist_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = fashion_mnist_paper.get_config()
    config.parallel_repetitions = 3
    config.num_epochs = 9
    config.data.num_train = 3_000
    config.data.num_val = 1_000
    config.model.generator.features = 8
    config.sampler.prior.num_steps = 20
    config.sampler.posterior.num_steps = 8
    config.checkpoint.keep_every_epochs = 0
    config.logging.pictures_every_epochs = 9
    return config
