"""Scikit-learn's handwritten digits, 8 x 8: a small model that trains in minutes on two cores.

python -m launch.train --config=configs/digits.py --workdir=runs/digits
python -m launch.eval --workdir=runs/digits --newest_only

Chains from the linear reference; `configs/digits_paper.py` has the paper's.

Score: KID 0.0171 +- 0.0020, FID 16.5 +- 1.0 (297 images, EfficientNet-Lite0), held-out log p(x)
-9.4 nats (64 images), after 2,000 updates.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import chains, digits_paper


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = chains.from_linear_reference(digits_paper.get_config())
    config.num_epochs = 100
    config.checkpoint.every_epochs = 20
    config.evaluation.likelihood.every_epochs = 50
    return config
