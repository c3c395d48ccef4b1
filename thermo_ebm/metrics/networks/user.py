"""A user's own network: any function from images to features, named MODULE:FUNCTION.

The function takes uint8 images [num, height, width, 3] and returns features [num, num_features],
or a pair of features and logits [num, num_classes]. Arrays may be of any library that numpy can
read. The function is called with one batch at a time, and with images at their own size.

Weights in another file, or in another module, can change while the source of the module does not.
Features are therefore cached, and columns of different weights told apart, only where the module
defines `cache_key()`, without arguments: a text (or bytes) that changes with everything on which
the features depend besides this source, such as the SHA-256 of the file of weights.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm import plugins
from thermo_ebm.errors import UserError, reason_of
from thermo_ebm.metrics.networks.network import Network, Outputs

_NUM_DIGITS = 8  # of the fingerprint in the name
_CACHE_KEY = "cache_key"  # the function of a module that says what features depend on


class UserFunction(NamedTuple):
    """A function from images to features, and what it depends on."""

    function: Callable[[np.ndarray], Any]
    fingerprint: str  # SHA-256 of its module's source and, where there is one, of `cache_key()`
    has_cache_key: bool


def is_user_network(spec: str) -> bool:
    """Returns whether a name has the form MODULE:FUNCTION."""
    return ":" in spec


def label(spec: str) -> str:
    """Returns the prefix of columns and files: the function's name and its fingerprint's digits.

    Raises:
      UserError: as for `import_network`.
    """
    return _label(spec, _import_function(spec).fingerprint)


def import_network(spec: str) -> Network:
    """Returns the network of a function, imported from its module.

    Raises:
      UserError: the module cannot be imported, has no such function or no source file, or its
        `cache_key()` fails or returns neither text nor bytes.
    """
    function, fingerprint, has_cache_key = _import_function(spec)

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        return _outputs(spec, function, images, batch_size)

    name = _label(spec, fingerprint)
    return Network(name, "bilinear", fingerprint, None, apply, is_cacheable=has_cache_key)


def _label(spec: str, fingerprint: str) -> str:
    return f"{spec.rpartition(':')[2]}_{fingerprint[:_NUM_DIGITS]}"


def _import_function(spec: str) -> UserFunction:
    form = "your own network is MODULE:FUNCTION, as in nets.vgg:apply"
    module, function = plugins.load("features", spec, "function", form)
    digest = plugins.source_digest("features", spec, module)
    cache_key = getattr(module, _CACHE_KEY, None)
    if cache_key is None:
        return UserFunction(function, digest, has_cache_key=False)
    try:
        key = cache_key()
    except Exception as error:  # a user's function can raise anything
        raise UserError(f"features={spec}: {_CACHE_KEY}() failed ({reason_of(error)})") from error
    if not isinstance(key, str | bytes) or not key:
        raise UserError(
            f"features={spec}: {_CACHE_KEY}() must return text or bytes, not {type(key).__name__}"
        )
    content = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    fingerprint = hashlib.sha256(bytes.fromhex(digest) + content).hexdigest()
    return UserFunction(function, fingerprint, has_cache_key=True)


def _outputs(
    spec: str, function: Callable[[np.ndarray], Any], images: np.ndarray, batch_size: int
) -> Outputs:
    """Applies the function batch by batch and checks what it returns.

    Raises:
      UserError: the function raises something, or returns anything but features and logits.
    """
    starts = range(0, len(images), batch_size)
    parts = [_batch(spec, function, images[start : start + batch_size]) for start in starts]
    if len({(part.features.shape[1], part.logits.shape[1]) for part in parts}) > 1:
        raise UserError(f"features={spec}: batches have different numbers of features")
    features = np.concatenate([part.features for part in parts])
    return Outputs(features, np.concatenate([part.logits for part in parts]))


def _batch(spec: str, function: Callable[[np.ndarray], Any], images: np.ndarray) -> Outputs:
    try:
        returned = function(images)
        pair = returned if isinstance(returned, tuple | list) else (returned, None)
        features = np.asarray(pair[0])
        # Without logits there is no Inception Score.
        logits = np.zeros((len(images), 0)) if pair[1] is None else np.asarray(pair[1])
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"features={spec}: the function failed ({reason_of(error)})") from error
    for name, values in (("features", features), ("logits", logits)):
        if values.ndim != 2 or len(values) != len(images) or values.dtype.kind != "f":
            raise UserError(
                f"features={spec}: {name} of {len(images)} images must be floating-point"
                f" [{len(images)}, number], not {values.dtype} {values.shape}"
            )
        if not np.isfinite(values).all():
            raise UserError(f"features={spec}: {name} have values that are not finite")
    if features.shape[1] < 1:
        raise UserError(f"features={spec}: no features")
    return Outputs(features, logits)
