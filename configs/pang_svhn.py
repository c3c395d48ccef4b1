r"""SVHN with the networks, chains and learning rates of Pang et al. (2020), vanilla loss.

python -m launch.train --config=configs/pang_svhn.py --workdir=runs/pang_svhn \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.

"Learning latent space energy-based prior model" (NeurIPS 2020) writes a Langevin step as
z - s^2 / 2 grad U + s epsilon, with s = 0.4 for the prior and 0.1 for the posterior. Here it is
z + s grad log q + sqrt(2 s) epsilon, so that their step sizes are 0.4^2 / 2 = 0.08 and
0.1^2 / 2 = 0.005. `configs/svhn_paper.py` has 0.16 and 0.01, which is twice as much.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import svhn_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = svhn_paper.get_config()
    config.num_repetitions = 1
    config.num_epochs = 200
    config.batch_size = 100

    config.data.num_train = 73_257

    config.model.prior.features = 200
    config.model.prior.leak = 0.2
    config.model.generator.widths = (8, 4, 2)  # 4, 8, 16, 32 pixels
    config.model.generator.strides = (1, 2, 2, 2)

    config.sampler.chains_per_image = 1
    config.sampler.prior.step_size = 0.08
    config.sampler.prior.num_steps = 60
    config.sampler.posterior.step_size = 0.005
    config.sampler.posterior.num_steps = 20

    config.loss.name = "vanilla"

    config.optimizer.decay.rate = 0.998
    return config
