"""Transposed convolution in four forms that agree to rounding, and the choice between them.

With a kernel of k x k, stride s and "same" padding, an input [num, h, w, c] gives an output
[num, s h, s w, c_out]: every input pixel adds its k x k patch to the output with stride s, and
(k - s) / 2 pixels are cropped on every side.

Weights are [k, k, c_in, c_out]. The adjoint of a transposed convolution is the strided convolution
of an encoder, in two forms.
"""

from collections.abc import Callable

from thermo_ebm.models.conv_transpose.accelerator import ROWS, dilated, row_blocks, strided
from thermo_ebm.models.conv_transpose.cpu import stamped, windowed, winograd
from thermo_ebm.types import Array

__all__ = [
    "ConvTranspose",
    "Convolution",
    "convolution_for_backend",
    "dilated",
    "for_backend",
    "on_cpu",
    "on_tpu",
    "row_blocks",
    "stamped",
    "strided",
    "windowed",
    "winograd",
]

ConvTranspose = Callable[[Array, Array, int], Array]
Convolution = Callable[[Array, Array, int], Array]  # its adjoint

# From this number of input channels on, `winograd` is faster than `stamped` (measured on a CPU).
_MANY_CHANNELS = 128
# Up to this number of output channels `row_blocks` is faster than `dilated` on a TPU, by the
# compiler's estimate; images have no more.
_FEW_CHANNELS = 4


def on_cpu(x: Array, weights: Array, stride: int) -> Array:
    """`winograd` where it applies and is faster, else `stamped`; both take these arguments."""
    possible = (
        stride == 2 and weights.shape[:2] == (4, 4) and not (x.shape[1] % 2 or x.shape[2] % 2)
    )
    pays = x.shape[-1] >= _MANY_CHANNELS
    return (winograd if possible and pays else stamped)(x, weights, stride)


def on_tpu(x: Array, weights: Array, stride: int) -> Array:
    """`row_blocks` where it applies and is faster, else `dilated`; both take these arguments.

    No TPU has run this choice; it follows the compiler's estimates.
    """
    possible = stride == 1 and x.shape[1] % ROWS == 0
    pays = weights.shape[-1] <= _FEW_CHANNELS
    return (row_blocks if possible and pays else dilated)(x, weights, stride)


def for_backend(backend: str) -> ConvTranspose:
    """Returns the form that is fastest on a backend (`jax.default_backend()`)."""
    return {"cpu": on_cpu, "tpu": on_tpu}.get(backend, dilated)


def convolution_for_backend(backend: str) -> Convolution:
    """Returns the form of the strided convolution for a backend (`jax.default_backend()`)."""
    return {"cpu": windowed}.get(backend, strided)
