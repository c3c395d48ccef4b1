"""Computes FID and KID between two folders of images with features of EfficientNet-Lite0.

Run it with: python -m examples.compare_folders FOLDER_A FOLDER_B
"""

import sys

import numpy as np

import thermo_ebm as te
from thermo_ebm.data.folder import folder
from thermo_ebm.data.images import read
from thermo_ebm.metrics import networks

SIZE = 32  # images are cropped to squares and resized to this many pixels first


def features(path: str, network: networks.Network) -> np.ndarray:
    """Features of every image below a folder, [num, num_features]."""
    images, _ = folder(path)
    pixels = read(images._replace(size=SIZE))  # uint8 [num, SIZE, SIZE, 3]
    return network.apply(pixels, 50).features


if __name__ == "__main__":
    network = networks.choose("efficientnet_lite0")
    real, generated = (features(path, network) for path in sys.argv[1:3])
    print(f"{len(real)} and {len(generated)} images, {network.name}")
    print(f"FID {te.frechet_distance(real, generated):.3f}")
    print(f"KID {te.kernel_distance(real, generated):.5f}")
