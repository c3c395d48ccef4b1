"""FID and KID with your own PyTorch network.

Needs torch. Run it from the repository's folder with
python -m launch.compare FOLDER_A FOLDER_B --features=examples.own_network:features
"""

import numpy as np
import torch

torch.manual_seed(0)
# Replace this random network by one whose features are meaningful for your images.
NETWORK = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, stride=2),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 64, 3, stride=2),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
).eval()


def cache_key() -> str:
    """Everything besides this file that features depend on; with it, features are cached.

    Here the seed, which this file holds, decides the weights. For weights in a file, return the
    SHA-256 of its content.
    """
    return f"torch {torch.__version__}"


@torch.no_grad()
def features(images: np.ndarray) -> np.ndarray:
    """Features [num, 64] of uint8 images [num, height, width, 3]; add logits as a second result."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return NETWORK(scaled).numpy()
