"""Feature networks by name.

A new network is a file with its `PublishedNetwork` (see `network`) and its entry in `NETWORKS`.
"""

from pathlib import Path
from typing import cast, get_args

from absl import logging

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import (
    cache,
    download,
    efficientnet,
    inception_v3,
    network,
    user,
    vision_transformer,
)
from thermo_ebm.metrics.networks.network import Network, Outputs, PublishedNetwork
from thermo_ebm.metrics.networks.preprocess import Resize

__all__ = ["NETWORKS", "Network", "Outputs", "PublishedNetwork", "choose", "label"]

NETWORKS: dict[str, PublishedNetwork] = {
    "efficientnet_lite0": efficientnet.NETWORK,
    "inception_v3": inception_v3.NETWORK,
    **{published.name: published for published in vision_transformer.NETWORKS},
}


def choose(
    name: str,
    resize: str = "",
    weights: str | Path | None = None,
    cache_dir: Path | None = None,
) -> Network:
    """Returns the network of a name with its weights.

    Args:
      name: a name of `NETWORKS`, or MODULE:FUNCTION of a user's network (see `user`).
      resize: see `preprocess`; "" is the network's default.
      weights: the file of weights; None looks where the network's weights are by default.
      cache_dir: the folder of downloaded weights; None is `cache.default_dir()`.

    Raises:
      UserError: for another name or resize, or weights that are missing or damaged.
    """
    if resize and resize not in get_args(Resize):
        raise UserError(f"resize={resize}: must be one of {', '.join(get_args(Resize))}")
    if user.is_user_network(name):
        _check_user_options(resize, weights)
        return user.import_network(name)
    if name not in NETWORKS:
        names = ", ".join(NETWORKS)
        raise UserError(f"features={name}: must be one of {names}, or MODULE:FUNCTION")
    published = NETWORKS[name]
    path = published.find_weights(weights, cache_dir or cache.default_dir())
    if other_weights := label(name, resize, weights).removeprefix(label(name, resize)):
        reason = (
            f"is not the published file of {name}: its metrics cannot be compared with published "
            "ones"
            if published.sha256
            else f"cannot be told from other weights, as no checksum of {name} is published"
        )
        logging.warning("%s %s; their names have %s", weights, reason, other_weights)
    try:
        return network.with_weights(
            published, path, cast(Resize, resize or published.default_resize)
        )
    except ValueError as error:
        reason = str(error).removeprefix(f"{path} ")
        raise UserError(f"weights={path}: cannot be used: {reason}") from error
    except OSError as error:
        raise UserError(f"weights={path}: cannot be read: {error.strerror}") from error


def label(name: str, resize: str = "", weights: str | Path | None = None) -> str:
    """Returns the prefix of columns and files: the network, and what is not as it is by default.

    That is the resizing, and a file of weights other than the published one, by the first digits of
    its SHA-256: efficientnet_lite0_antialias_weights_1a2b3c4d.

    Raises:
      UserError: a user's network cannot be found, or is to be given resized images; there is no
        such file of weights.
    """
    if user.is_user_network(name):
        _check_user_options(resize)
        return user.label(name)
    default = NETWORKS[name].default_resize if name in NETWORKS else "bilinear"
    parts = [name] if resize in ("", default) else [name, resize]
    if weights:
        published = NETWORKS[name].sha256 if name in NETWORKS else ""
        digits = download.sha256_of(download.user_file(weights))
        if not published or not digits.startswith(published):
            parts += ["weights", digits[:8]]
    return "_".join(parts)


def _check_user_options(resize: str, weights: str | Path | None = None) -> None:
    if resize not in ("", "bilinear"):
        raise UserError(f"resize={resize}: your own network gets images at their own size")
    if weights:
        raise UserError(f"weights={weights}: your own network loads its weights itself")
