"""The digits by a variational autoencoder, with the decoder of configs/digits.py.

python -m launch.train --config=configs/digits_vae.py --workdir=runs/digits_vae
python -m launch.eval --workdir=runs/digits_vae --newest_only

Score: KID 0.0349 +- 0.0024, FID 24.7 +- 0.9 (297 images, EfficientNet-Lite0), held-out log p(x)
-11.3 nats (64 images), after 2,000 updates.

The prior is N(0, I). `--config.model.prior.name=mlp` has the tilt of the other models, whose chains
persist.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import digits_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = digits_paper.get_config()
    config.num_epochs = 100
    config.checkpoint.every_epochs = 20
    config.evaluation.likelihood.every_epochs = 50

    config.model.prior.name = "gaussian"

    config.sampler.prior.kernel = "mala"
    config.sampler.prior.num_steps = 10
    config.sampler.prior.persistent = True

    config.loss.name = "elbo"

    config.optimizer.encoder.learning_rate = 2e-3
    config.optimizer.encoder.final_learning_rate = 2e-4
    return config
