"""Moments of a set's features, in files of this program and of others.

`mu` [num_features] and `sigma` [num_features, num_features] are as pytorch-fid writes them, with a
covariance that divides by N - 1. A file of this program also has the name of the network and its
weights' hash, how images were resized, their form and number, and a checksum of all of these.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm import files
from thermo_ebm.data import arrays
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.metrics.networks import NETWORKS, Network

_INCEPTION = NETWORKS["inception_v3"]  # whose statistics other programs publish
_DESCRIPTION = ("network", "weights", "resize", "image_form", "num_images")


class Statistics(NamedTuple):
    """The moments of a set's features; "" stands for a text that a file does not have."""

    name: str
    mean: np.ndarray  # [num_features]
    covariance: np.ndarray  # [num_features, num_features]
    network: str = ""  # the prefix of the network that made the features
    weights: str = ""  # SHA-256 of the network's weights, see `Network.fingerprint`
    resize: str = ""  # how images were resized to the network's input
    image_form: str = ""  # size and colour of the images, such as "32 x 32 pixels in colour"
    num_images: int | None = None  # from which they were computed; None if a file does not say
    is_file: bool = True
    from_cache: bool = False  # whether the features were read from the cache
    remarks: tuple[str, ...] = ()  # of the set of images

    @property
    def num_features(self) -> int:
        """The length of the mean."""
        return len(self.mean)


def read(name: str, path: Path) -> Statistics:
    """Reads a file of statistics.

    Args:
      name: as the user gave it, for messages.
      path: the file.

    Raises:
      UserError: it cannot be read, is damaged, or holds no moments.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[key], np.float64) for key in arrays.STATISTICS)
            checksum = str(file["checksum"]) if "checksum" in file else None
            description: dict[str, Any] = (
                {"network": str(file["network"])} if "network" in file else {}
            )
            if checksum is not None:
                description = {key: file[key].item() for key in _DESCRIPTION}
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise UserError(f"{name}: cannot be read as .npz: {one_line(error)[:200]}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise UserError(
            f"{name}: mu and sigma must be [num_features] and [num_features, num_features], not "
            f"{mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{name}: mu or sigma has values that are not finite")
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * np.trace(covariance)):
        raise UserError(f"{name}: sigma is not symmetric")
    if checksum is not None and checksum != _checksum(mean, covariance, description):
        raise UserError(
            f"{name}: its checksum is not that of its content: it was damaged or changed; write it "
            "anew with --save_statistics"
        )
    return Statistics(name, mean, covariance, **description)


def save(path: Path, statistics: Statistics) -> None:
    """Writes `mu` and `sigma` as pytorch-fid does, what they are of, and a checksum.

    Raises:
      UserError: the file cannot be written.
    """
    description = {key: getattr(statistics, key) for key in _DESCRIPTION}
    checksum = _checksum(statistics.mean, statistics.covariance, description)
    content = io.BytesIO()
    np.savez(
        content,
        mu=statistics.mean,
        sigma=statistics.covariance,
        **description,
        checksum=np.array(checksum),
    )
    try:
        files.write_bytes(path, content.getvalue())
    except OSError as error:
        raise UserError(f"save_statistics={path}: cannot be written: {error.strerror}") from error


def _checksum(mean: np.ndarray, covariance: np.ndarray, description: Mapping[str, Any]) -> str:
    """SHA-256 of the moments as float64 and of what a file says of them."""
    digest = hashlib.sha256(repr(sorted(description.items())).encode())
    for values in (mean, covariance):
        digest.update(np.ascontiguousarray(values, "<f8"))
    return digest.hexdigest()


def features_name(statistics: Statistics, settings: MetricSettings) -> str:
    """The name of the network that made the features, for the user.

    A file that does not name its network is "unknown". The network of the settings is named beside
    that word if the user has chosen it and it has as many features.
    """
    if statistics.network:
        return statistics.network
    unknown = f"unknown ({statistics.num_features} features)"
    network = NETWORKS.get(settings.features)
    if settings.features == MetricSettings().features or network is None:
        return unknown
    if network.num_features != statistics.num_features:
        return unknown
    return f"{unknown}, taken for {settings.network_label()}"


def unknown_note(statistics: Statistics, settings: MetricSettings) -> str | None:
    """Says that a file does not name its network; None where it does."""
    if statistics.network:
        return None
    note = f"{statistics.name} does not say which network made its features"
    if statistics.num_features == _INCEPTION.num_features and settings.features != _INCEPTION.name:
        note += f"; {_hint()}"
    return note


def check_network(statistics: Statistics, network: Network, settings: MetricSettings) -> None:
    """Raises UserError for statistics of another network, of other weights or of another width."""
    name, label = statistics.name, settings.network_label()
    if statistics.network not in ("", label):
        raise UserError(f"{name}: made with the features of {statistics.network}, not of {label}")
    if network.is_cacheable and statistics.weights not in ("", network.fingerprint):
        raise UserError(
            f"{name}: made with other weights of {label} (SHA-256 {statistics.weights[:8]}..., not "
            f"{network.fingerprint[:8]}...)"
        )
    if network.num_features is not None:
        check_width(statistics, network.num_features, f"features={settings.features}")


def check_width(statistics: Statistics, num_features: int, origin: str) -> None:
    """Raises UserError for statistics of another number of features than that of `origin`."""
    if statistics.num_features == num_features:
        return
    is_inception = statistics.num_features == _INCEPTION.num_features and not statistics.network
    raise UserError(
        f"{statistics.name}: statistics of {statistics.num_features} features, but {origin} has "
        f"{num_features}{f'; {_hint()}' if is_inception else ''}"
    )


def check_pair(reference: Statistics, generated: Statistics) -> None:
    """Raises UserError for two sets of statistics that cannot be of the same features."""
    check_width(generated, reference.num_features, reference.name)
    both = f"{reference.name} and {generated.name}"
    networks = {reference.network, generated.network} - {""}
    if len(networks) > 1:
        names = f"{reference.network} and {generated.network}"
        raise UserError(f"{both}: made with the features of different networks ({names})")
    if len({reference.weights, generated.weights} - {""}) > 1:
        raise UserError(f"{both}: made with different weights of {reference.network}")


def _hint() -> str:
    return f"{_INCEPTION.num_features} features are mostly InceptionV3's: --features=inception_v3"
