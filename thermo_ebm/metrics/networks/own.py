"""A user's own network: any function from images to features, named MODULE:FUNCTION.

The function takes uint8 images [num, height, width, 3] and returns features [num, num_features],
or a pair of features and logits [num, num_classes]. Arrays may be of any library that numpy can
read. It is given one batch at a time and images at their own size.
"""

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm import plugins
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.metrics.networks.network import Network, Outputs

_DIGITS = 8  # of the source's hash in the name


class _Own(NamedTuple):
    spec: str  # MODULE:FUNCTION
    function: Callable[[np.ndarray], Any]
    fingerprint: str  # SHA-256 of the module's source


def is_own(spec: str) -> bool:
    """Whether a name means a user's own network."""
    return ":" in spec


def label(spec: str) -> str:
    """Returns the prefix of its columns and files: the function's name and its source's hash.

    Raises:
      UserError: as for `load`.
    """
    own = _find(spec)
    return f"{spec.rpartition(':')[2]}_{own.fingerprint[:_DIGITS]}"


def load(spec: str) -> Network:
    """Imports the function.

    Raises:
      UserError: the module cannot be imported, has no such function, or has no source file.
    """
    own = _find(spec)
    return Network(label(spec), "bilinear", own.fingerprint, None, partial(_outputs, own))


def _find(spec: str) -> _Own:
    form = "an own network is MODULE:FUNCTION, as in nets.vgg:apply"
    module, function = plugins.find("features", spec, "function", form)
    try:
        source = Path(str(inspect.getsourcefile(module))).read_bytes()
    except (TypeError, OSError) as error:
        raise UserError(
            f"features={spec}: the source of {module.__name__} cannot be read"
        ) from error
    return _Own(spec, function, hashlib.sha256(source).hexdigest())


def _outputs(own: _Own, images: np.ndarray, batch_size: int) -> Outputs:
    """Applies the function batch by batch and checks what it returns.

    Raises:
      UserError: the function raises something, or returns anything but features and logits.
    """
    starts = range(0, len(images), batch_size)
    parts = [_batch(own, images[start : start + batch_size]) for start in starts]
    features, logits = (
        [np.asarray(getattr(part, name)) for part in parts] for name in ("features", "logits")
    )
    widths = {(one.shape[1], other.shape[1]) for one, other in zip(features, logits, strict=True)}
    if len(widths) > 1:
        raise UserError(f"features={own.spec}: batches have different numbers of features")
    return Outputs(np.concatenate(features), np.concatenate(logits))


def _batch(own: _Own, images: np.ndarray) -> Outputs:
    try:
        returned = own.function(images)
        pair = returned if isinstance(returned, tuple | list) else (returned, None)
        features = np.asarray(pair[0])
        # Without logits there is no Inception Score.
        logits = np.zeros((len(images), 0)) if pair[1] is None else np.asarray(pair[1])
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise UserError(f"features={own.spec}: the function failed ({reason})") from error
    for name, values in (("features", features), ("logits", logits)):
        if values.ndim != 2 or len(values) != len(images) or values.dtype.kind != "f":
            raise UserError(
                f"features={own.spec}: {name} of {len(images)} images must be floating-point"
                f" [{len(images)}, number], not {values.dtype} {values.shape}"
            )
        if not np.isfinite(values).all():
            raise UserError(f"features={own.spec}: {name} have values that are not finite")
    if features.shape[1] < 1:
        raise UserError(f"features={own.spec}: no features")
    return Outputs(features, logits)
