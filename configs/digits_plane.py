"""The digits with a two-dimensional latent, whose densities can be drawn.

python -m launch.train --config=configs/digits_plane.py --workdir=runs/plane
python -m launch.tempered --workdir=runs/plane
python -m launch.eval --workdir=runs/plane --newest_only

Score: KID 0.115 +- 0.005, FID 65.2 +- 2.1 (297 images, EfficientNet-Lite0), after 1.5 minutes of
training on two idle cores.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import digits_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = digits_paper.get_config()
    config.num_epochs = 15

    config.model.latent_dim = 2
    # Two numbers describe an image poorly: a narrower likelihood would give posteriors with peaks
    # too far apart for chains to move between them.
    config.model.likelihood_sigma = 0.6

    config.sampler.prior.step_size = 0.1
    config.sampler.prior.num_steps = 30
    config.sampler.posterior.step_size = 0.02
    config.sampler.posterior.num_steps = 30

    config.loss.name = "vanilla"

    config.optimizer.prior.learning_rate = 3e-4
    config.optimizer.prior.final_learning_rate = 1e-4
    config.optimizer.generator.learning_rate = 2e-3
    config.optimizer.generator.final_learning_rate = 2e-4
    return config
