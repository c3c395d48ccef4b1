r"""CelebA: sizes and chains of the paper (table 4), loss of `configs/base.py`.

For the paper's own objective see `configs/published.py`.

python -m launch.train --config=configs/celeb_a_paper.py --workdir=runs/celeb_a_paper \
    --config.data.data_dir=TFDS

Without a score: it was not trained to its end, which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import base


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.name = "celeb_a"
    config.data.image_size = 64
    config.model.latent_dim = 80
    config.model.generator.widths = (16, 8, 4, 2, 1)
    config.model.generator.strides = (1, 2, 2, 2, 2, 1)
    return config
