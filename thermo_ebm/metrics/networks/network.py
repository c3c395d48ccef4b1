"""The structure of a feature network."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics.networks.preprocess import Resize


class Outputs(NamedTuple):
    """The outputs of a network for images."""

    features: np.ndarray  # [num_images, num_features]
    logits: np.ndarray  # [num_images, num_classes]; no classes where the network has no logits


class Network(NamedTuple):
    """A feature network with its weights."""

    name: str  # the prefix of every column and file made with it
    resize: Resize  # how images get to its input size
    fingerprint: str  # SHA-256 of the weights' file, or of an own network's source
    num_features: int | None  # None: not known before images are seen
    apply: Callable[[np.ndarray, int], Outputs]  # images uint8 [num, height, width, 3], batch size
