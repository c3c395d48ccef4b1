"""A cache of the features of real images, keyed by everything from which they were computed.

The key is a hash of the network, its weights, the preprocessing, the data set's name and split and
the images themselves, so a changed image or another crop is another key, and a stale file is never
read. Features of a user's network that does not say what they depend on are not kept. Files are
written atomically; where a file cannot be read, the features are computed anew.
"""

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from absl import logging

from thermo_ebm import files, runtime
from thermo_ebm.metrics.networks.network import Network, Outputs

_FORMAT = 1  # raise it when preprocessing or networks change what they compute


def default_dir() -> Path:
    """The folder for downloaded weights and cached features: `~/.cache/thermo_ebm`.

    Without a home folder, a folder of the user's own among the temporary ones.
    """
    temporary = Path(tempfile.gettempdir()) / f"thermo_ebm_{os.getuid()}"
    return runtime.cache_folder() or temporary


def features_key(network: Network, images: np.ndarray, set_name: str) -> str:
    """Returns the key of the features of these images, 64 hexadecimal digits.

    Args:
      network: the network that computes the features.
      images: uint8 [num, height, width, 3].
      set_name: the data set and its split, such as "digits-validation".
    """
    content = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
    parts = {
        "format": _FORMAT,
        "network": network.name,
        "weights": network.fingerprint,
        "resize": network.resize,
        "set": set_name,
        "shape": images.shape,
        "dtype": str(images.dtype),
        "images": content,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def real_outputs(
    network: Network,
    images: np.ndarray,
    set_name: str,
    cache_dir: Path,
    batch_size: int = 50,
) -> Outputs:
    """Returns a network's features and logits of real images, from the cache where it has them.

    Those of a network whose `is_cacheable` is False are always computed.

    Args:
      network: the network that computes the features.
      images: uint8 [num, height, width, 3].
      set_name: the data set and its split, such as "digits-validation".
      cache_dir: the folder; a cache that cannot be written costs a warning, not the evaluation.
      batch_size: images at once.

    Raises:
      ValueError: if the images have another type or shape.
    """
    if not network.is_cacheable:
        return network.apply(images, batch_size)
    key = features_key(network, images, set_name)
    path = cache_dir / "features" / f"{network.name}-{set_name}-{key[:16]}.npz"
    cached = _read(path, key)
    if cached is not None:
        return cached
    outputs = network.apply(images, batch_size)
    try:
        _write(path, key, outputs)
    except OSError as error:
        logging.warning("cannot keep features in %s: %s", path, error)
    return outputs


def _read(path: Path, key: str) -> Outputs | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) == key:
                return Outputs(arrays["features"], arrays["logits"], from_cache=True)
    except Exception as error:  # a damaged zip raises many kinds
        logging.warning("cannot read %s (%s): computing the features anew", path, error)
    return None


def _write(path: Path, key: str, outputs: Outputs) -> None:
    content = io.BytesIO()
    np.savez(content, key=key, features=outputs.features, logits=outputs.logits)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, content.getvalue())
