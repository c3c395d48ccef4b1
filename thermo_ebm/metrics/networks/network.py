"""Feature networks: the value that describes one, its application to images, its weights read."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np

from thermo_ebm.metrics.networks import download, preprocess, weights
from thermo_ebm.metrics.networks.preprocess import Resize, Scale


class Outputs(NamedTuple):
    """The outputs of a network for images."""

    features: np.ndarray  # [num_images, num_features]
    logits: np.ndarray  # [num_images, num_classes]; no classes where the network has no logits
    from_cache: bool = False  # whether they were read rather than computed


class Network(NamedTuple):
    """A feature network with its weights, ready for images."""

    name: str  # the prefix of every column and file made with the network
    resize: Resize  # how images are resized to the input size
    fingerprint: str  # SHA-256 of the weights' file, or of a user's source and `cache_key()`
    num_features: int | None  # None: not known before images are seen
    apply: Callable[[np.ndarray, int], Outputs]  # images uint8 [num, height, width, 3], batch size
    # Whether the fingerprint covers everything that features depend on; else they are not cached.
    is_cacheable: bool = True


class PublishedNetwork(NamedTuple):
    """A feature network without its weights: an entry of the registry `networks.NETWORKS`."""

    name: str
    num_features: int
    input_size: int  # height and width
    bilinear: Scale  # of [0, 255] after bilinear resizing
    others: Scale  # of [0, 255] after every other resizing
    # The parameters from the arrays of the published file by their names there. Raises ValueError
    # if an array is missing, has another shape than the network's, or is not finite.
    params_from_torch: Callable[[Mapping[str, np.ndarray]], hk.Params]
    # Features [num, num_features] and logits [num, num_classes] (0 classes if there are none) from
    # the parameters and scaled images [num, input_size, input_size, 3].
    outputs: Callable[[hk.Params, jax.Array], tuple[jax.Array, jax.Array]]
    # The file of weights from the user's path (or None) and the cache folder. Raises UserError if
    # there is no such file.
    find_weights: Callable[[str | Path | None, Path], Path]
    # First digits of the SHA-256 of the published file; "" if there is none, so that no file is it.
    sha256: str = ""
    default_resize: Resize = "bilinear"  # where none is asked for
    url: str = ""  # of the published file; "" where it needs no download


def features_and_logits(
    network: PublishedNetwork,
    params: hk.Params,
    images: np.ndarray | jax.Array,
    batch_size: int = 50,
    resize: Resize = "bilinear",
) -> Outputs:
    """Returns the features and logits of uint8 images.

    Args:
      network: the network.
      params: from its `params_from_torch`.
      images: uint8 [num, height, width, 3] of any size.
      batch_size: images at once.
      resize: how images are resized to the input size; see `preprocess`.

    Raises:
      ValueError: if the images have another type or shape, or `resize` is unknown.
    """
    preprocess.check_images(images)
    preprocess.check_resize(resize)
    apply = partial(_apply, params, network=network, resize=resize)
    features, logits = preprocess.in_batches(apply, np.asarray(images), batch_size)
    return Outputs(features, logits)


@partial(jax.jit, static_argnames=("network", "resize"))
def _apply(
    params: hk.Params, images: jax.Array, network: PublishedNetwork, resize: Resize
) -> tuple[jax.Array, jax.Array]:
    scale = network.bilinear if resize == "bilinear" else network.others
    resized = preprocess.resize(images, network.input_size, resize)
    # By default an accelerator multiplies with fewer digits than a metric needs.
    with jax.default_matmul_precision("highest"):
        return network.outputs(params, preprocess.scaled(resized, scale))


def with_weights(network: PublishedNetwork, path: Path, resize: Resize) -> Network:
    """Returns the network with the weights of a file.

    Raises:
      ValueError: if the file does not hold this network's weights.
      OSError: if it cannot be read.
    """
    params = network.params_from_torch(weights.read_state_dict(path))
    fingerprint = download.sha256_of(path)

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        return features_and_logits(network, params, images, batch_size, resize)

    return Network(network.name, resize, fingerprint, network.num_features, apply)
