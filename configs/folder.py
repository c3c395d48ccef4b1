r"""A folder of image files, such as CelebA's img_align_celeba, at 64 x 64 with CelebA's values.

python -m launch.train --config=configs/folder.py --workdir=runs/own \
    --config.data.data_dir=IMAGES
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import celeb_a


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = celeb_a.get_config()
    config.data.name = "folder"
    return config
