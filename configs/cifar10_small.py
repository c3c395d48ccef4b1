r"""CIFAR-10 at 16 x 16, 3,000 images, few channels and short chains, for runs on two cores.

python -m launch.sweep --experiment=configs/experiment3_least.py \
    --config=configs/cifar10_small.py --workdir=runs/noise --config.data.data_dir=TFDS \
    --num_images=1000 --num_sizes=6

Score in docs/study/noise_cifar10 (constant learning rates, mean of three repetitions):
KID 0.339 +- 0.005, FID 204.4 +- 2.6 (1,000 images, EfficientNet-Lite0).
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import cifar10_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = cifar10_paper.get_config()
    config.parallel_repetitions = 3
    config.num_epochs = 8

    config.data.image_size = 16
    config.data.num_train = 3_000
    config.data.num_val = 1_000

    config.model.latent_dim = 64
    config.model.generator.features = 16
    config.model.generator.widths = (4, 2)
    config.model.generator.strides = (1, 2, 2)

    config.sampler.prior.num_steps = 20
    config.sampler.posterior.num_steps = 5

    config.loss.num_temperatures = 3

    # Few updates: the rates of the digits.
    config.optimizer.prior.learning_rate = 3e-4
    config.optimizer.prior.final_learning_rate = 1e-4
    config.optimizer.generator.learning_rate = 1e-3
    config.optimizer.generator.final_learning_rate = 2e-4

    config.checkpoint.keep_every_epochs = 0
    config.logging.pictures_every_epochs = 8
    return config
