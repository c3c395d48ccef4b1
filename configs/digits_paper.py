"""Scikit-learn's handwritten digits, 8 x 8: a small model that trains in minutes on two cores.

python -m launch.train --config=configs/digits_paper.py --workdir=runs/digits_paper
python -m launch.eval --workdir=runs/digits_paper --newest_only

Score: KID 0.0201 +- 0.0020, FID 18.5 +- 0.9 (297 images, EfficientNet-Lite0),
after 6.5 minutes of training on two idle cores.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import base


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.num_repetitions = 1
    config.num_epochs = 30

    config.data.name = "digits"
    config.data.image_size = 8
    config.data.channels = 1
    config.data.num_train = 1_500
    config.data.num_val = 297

    config.model.latent_dim = 32
    config.model.generator.features = 32
    config.model.generator.widths = (2, 1)
    config.model.generator.strides = (1, 2, 1)

    config.sampler.prior.num_steps = 40
    config.sampler.posterior.num_steps = 10
    config.sampler.posterior.step_size = 0.04

    config.loss.num_temperatures = 4

    config.optimizer.prior.learning_rate = 3e-4
    config.optimizer.prior.final_learning_rate = 1e-4
    config.optimizer.generator.learning_rate = 2e-3
    config.optimizer.generator.final_learning_rate = 2e-4

    config.checkpoint.every_epochs = 5
    return config
