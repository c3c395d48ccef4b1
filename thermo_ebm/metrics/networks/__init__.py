"""Feature networks by name.

A new network is a file with its `PublishedNetwork` (see `network`) and its entry in `NETWORKS`.
"""

from pathlib import Path
from typing import cast, get_args

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import cache, efficientnet, inception_v3, network, user
from thermo_ebm.metrics.networks.network import Network, Outputs, PublishedNetwork
from thermo_ebm.metrics.networks.preprocess import Resize

__all__ = ["NETWORKS", "Network", "Outputs", "PublishedNetwork", "choose", "label"]

NETWORKS: dict[str, PublishedNetwork] = {
    "efficientnet_lite0": efficientnet.NETWORK,
    "inception_v3": inception_v3.NETWORK,
}


def choose(
    name: str,
    resize: str = "bilinear",
    weights: str | Path | None = None,
    cache_dir: Path | None = None,
) -> Network:
    """Returns the network of a name with its weights.

    Args:
      name: a name of `NETWORKS`, or MODULE:FUNCTION of a user's network (see `user`).
      resize: "bilinear" or "antialias"; see `preprocess`.
      weights: the file of weights; None looks where the network's weights are by default.
      cache_dir: the folder of downloaded weights; None is `cache.default_dir()`.

    Raises:
      UserError: for another name or resize, or weights that are missing or damaged.
    """
    if resize not in get_args(Resize):
        raise UserError(f"resize={resize}: must be {' or '.join(get_args(Resize))}")
    if user.is_user_network(name):
        _check_user_options(resize, weights)
        return user.import_network(name)
    if name not in NETWORKS:
        names = ", ".join(NETWORKS)
        raise UserError(f"features={name}: must be one of {names}, or MODULE:FUNCTION")
    path = NETWORKS[name].find_weights(weights, cache_dir or cache.default_dir())
    try:
        return network.with_weights(NETWORKS[name], path, cast(Resize, resize))
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def label(name: str, resize: str = "bilinear") -> str:
    """Returns the prefix of columns and files: the network, and the resizing unless bilinear.

    Raises:
      UserError: a user's network cannot be found, or is to be given resized images.
    """
    if user.is_user_network(name):
        _check_user_options(resize)
        return user.label(name)
    return name if resize == "bilinear" else f"{name}_{resize}"


def _check_user_options(resize: str, weights: str | Path | None = None) -> None:
    if resize != "bilinear":
        raise UserError(f"resize={resize}: your own network gets images at their own size")
    if weights:
        raise UserError(f"weights={weights}: your own network loads its weights itself")
