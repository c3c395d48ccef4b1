"""Makes network_features.npz: what the PyTorch builds give, for machines without torch.

Where torch is installed: `python -m tests.metrics.networks.data.make_network_features`
"""

from pathlib import Path

import numpy as np

from tests.metrics.networks import random_weights, torch_networks


def main() -> None:
    images = random_weights.random_images(2, 40, 32)
    cases = {
        "inception_v3": torch_networks.run(
            torch_networks.InceptionV3(),
            random_weights.inception_state_dict(),
            images,
            299,
            127.5,
            127.5,
        ),
        "efficientnet_lite0": torch_networks.run(
            torch_networks.EfficientNetLite0(),
            random_weights.efficientnet_state_dict(),
            images,
            224,
            127.0,
            128.0,
        ),
    }
    arrays = {}
    for network, stages in cases.items():
        for stage, values in stages.items():
            # The mean over pixels of each channel keeps the file small.
            means = values.mean(axis=(1, 2)) if values.ndim == 4 else values
            arrays[f"{network}/{stage}"] = means.astype(np.float32)
    np.savez_compressed(Path(__file__).with_name("network_features.npz"), **arrays)


if __name__ == "__main__":
    main()
