r"""A folder of image files of your own, any number, at 64 x 64: one model that two cores can train.

python -m launch.train --config=configs/folder.py --workdir=runs/own --data_dir=IMAGES
python -m launch.train --config=configs/folder.py --workdir=runs/own --data_dir=IMAGES \
    --image_size=32

A tenth of the images is held out; all others are trained on. With an accelerator,
`--config.model.generator.features=64` has the channels of CelebA's generator.
"""

from ml_collections import ConfigDict

from thermo_ebm.configs import celeb_a


def get_config() -> ConfigDict:
    """Returns the configuration."""
    config = celeb_a.get_config()
    config.num_repetitions = 1
    config.model.generator.features = 16
    config.data.name = "folder"
    config.data.num_train = 0
    config.data.num_val = 0.1
    return config
