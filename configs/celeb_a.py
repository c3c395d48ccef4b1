r"""CelebA with the paper's sizes and chains from the linear reference.

python -m launch.train --config=configs/celeb_a.py --workdir=runs/celeb_a \
    --config.data.data_dir=TFDS

`configs/celeb_a_paper.py` has the paper's chains. Without a score: it was not trained to its end,
which takes an accelerator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import celeb_a_paper, chains


def get_config() -> ConfigDict:
    """Returns the configuration."""
    return chains.from_linear_reference(celeb_a_paper.get_config())
