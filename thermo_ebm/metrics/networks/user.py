"""A user's own network: any function from images to features, named MODULE:FUNCTION.

The function takes uint8 images [num, height, width, 3] and returns features [num, num_features],
or a pair of features and logits [num, num_classes]. Arrays may be of any library that numpy can
read. The function is called with one batch at a time, and with images at their own size.
"""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thermo_ebm import plugins
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.metrics.networks.network import Network, Outputs

_NUM_DIGITS = 8  # of the source's hash in the name


def is_user_network(spec: str) -> bool:
    """Returns whether a name has the form MODULE:FUNCTION."""
    return ":" in spec


def label(spec: str) -> str:
    """Returns the prefix of columns and files: the function's name and its source's hash.

    Raises:
      UserError: as for `import_network`.
    """
    _, fingerprint = _import_function(spec)
    return f"{spec.rpartition(':')[2]}_{fingerprint[:_NUM_DIGITS]}"


def import_network(spec: str) -> Network:
    """Returns the network of a function, imported from its module.

    Raises:
      UserError: the module cannot be imported, has no such function, or has no source file.
    """
    function, fingerprint = _import_function(spec)

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        return _outputs(spec, function, images, batch_size)

    return Network(label(spec), "bilinear", fingerprint, None, apply)


def _import_function(spec: str) -> tuple[Callable[[np.ndarray], Any], str]:
    """Returns the function, and the SHA-256 of its module's source."""
    form = "your own network is MODULE:FUNCTION, as in nets.vgg:apply"
    module, function = plugins.load("features", spec, "function", form)
    try:
        source = Path(str(inspect.getsourcefile(module))).read_bytes()
    except (TypeError, OSError) as error:
        raise UserError(
            f"features={spec}: the source of {module.__name__} cannot be read"
        ) from error
    return function, hashlib.sha256(source).hexdigest()


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
    features, logits = zip(*parts, strict=True)
    return Outputs(np.concatenate(features), np.concatenate(logits))


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
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise UserError(f"features={spec}: the function failed ({reason})") from error
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
