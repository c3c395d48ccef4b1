"""Transposed convolution in three forms that agree to rounding, and the choice between them.

With a kernel of k x k, stride s and "same" padding, an input [num, h, w, c] gives an output
[num, s h, s w, c_out]: every input pixel adds its k x k patch to the output with stride s, and
(k - s) / 2 pixels are cropped on every side.

Weights are [k, k, c_in, c_out].
"""

from collections.abc import Callable

from thermo_ebm.models.conv_transpose.dilated import dilated
from thermo_ebm.models.conv_transpose.stamped import stamped
from thermo_ebm.models.conv_transpose.winograd import winograd
from thermo_ebm.types import Array

__all__ = ["ConvTranspose", "dilated", "for_backend", "on_cpu", "stamped", "winograd"]

ConvTranspose = Callable[[Array, Array, int], Array]

# From this number of input channels on, `winograd` is faster than `stamped` (measured on a CPU).
_MANY_CHANNELS = 128


def on_cpu(x: Array, weights: Array, stride: int) -> Array:
    """`winograd` where it applies and is faster, else `stamped`; both take these arguments."""
    possible = (
        stride == 2 and weights.shape[:2] == (4, 4) and not (x.shape[1] % 2 or x.shape[2] % 2)
    )
    pays = x.shape[-1] >= _MANY_CHANNELS
    return (winograd if possible and pays else stamped)(x, weights, stride)


def for_backend(backend: str) -> ConvTranspose:
    """Returns the form that is fastest on a backend (`jax.default_backend()`)."""
    return on_cpu if backend == "cpu" else dilated
