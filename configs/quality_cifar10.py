"""CIFAR-10 at 16 x 16, 1,500 images: the run of `benchmarks.quality`, for two cores.

python -m launch.train --config=configs/quality_cifar10.py --config.data.data_dir=TFDS \
    --workdir=runs/quality
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import cifar10_small


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = cifar10_small.get_config()
    config.num_repetitions = 1
    config.parallel_repetitions = 1
    config.batch_size = 75
    config.data.num_train = 1_500
    config.data.num_val = 1_000
    config.num_epochs = 20  # 400 updates

    config.loss.num_temperatures = 4
    config.sampler.posterior.num_steps = 20
    config.sampler.prior.num_steps = 20
    return config
