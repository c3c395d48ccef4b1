"""Configurations and images that the tests of data sources share."""

import numpy as np
from ml_collections import ConfigDict
from PIL import Image


def make_config(name, data_dir="", size=8, channels=1, num_train=10, num_val=5):
    return ConfigDict(
        {
            "name": name,
            "data_dir": str(data_dir),
            "image_size": size,
            "channels": channels,
            "num_train": num_train,
            "num_val": num_val,
        }
    )


def numbered_images(num, height=8, width=8):
    """Constant images whose level is their number, so that any one can be recognised."""
    levels = np.arange(num, dtype=np.uint8)[:, None, None]
    return np.broadcast_to(levels, (num, height, width)).copy()


def levels_of(images):
    return set(images.reshape(len(images), -1)[:, 0].tolist())


def save_images(folder, images, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06d}.{suffix}")
