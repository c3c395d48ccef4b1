"""The generator g_beta: transposed convolutions from a latent to an image (table 6)."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose import ConvTranspose
from thermo_ebm.types import Array

_MOST_WIDTH = 16  # the paper's largest, in units of ngf
_MOST_FIRST_SIZE = 15  # pixels of the first layer, whose weights grow with their square


class Layers(NamedTuple):
    """Layers of a generator, as `make_generator_network` takes them."""

    first_size: int
    strides: tuple[int, ...]
    widths: tuple[int, ...]


def image_size(strides: Sequence[int], first_size: int) -> int:
    """Height and width of the image: those of the first layer's output, times the strides."""
    return first_size * math.prod(strides[1:])


def check_layers(widths: Sequence[int], strides: Sequence[int], kernel_size: int) -> None:
    """Refuses layers that do not fit together.

    Raises:
      ValueError: there is not one more stride than widths, the first stride is not 1, or a stride
        is larger than the kernel.
    """
    if len(strides) != len(widths) + 1 or strides[0] != 1:
        raise ValueError(
            f"strides {tuple(strides)} must start with 1 and have one more entry than the widths "
            f"{tuple(widths)}."
        )
    if any(not 1 <= stride <= kernel_size for stride in strides):
        raise ValueError(
            f"strides {tuple(strides)} must be between 1 and kernel_size, {kernel_size}."
        )


def layers_of(size: int) -> Layers:
    """The layers of a generator of images of this size.

    All strides are 2 but the first and the last, and the first layer makes 4 to 15 pixels. Widths
    double from the last layer to the first, up to 16: of 64 pixels these are table 6 for CelebA.

    Args:
      size: height and width of the images in pixels.

    Raises:
      ValueError: halving the size leaves an odd number above 15.

    >>> layers_of(64)
    Layers(first_size=4, strides=(1, 2, 2, 2, 2, 1), widths=(16, 8, 4, 2, 1))
    >>> layers_of(28)
    Layers(first_size=7, strides=(1, 2, 2, 1), widths=(4, 2, 1))
    """
    first_size = _halved(size)
    if first_size > _MOST_FIRST_SIZE:
        nearest = sorted(
            (n for n in range(1, 2 * size) if _halved(n) <= _MOST_FIRST_SIZE),
            key=lambda other: abs(other - size),
        )
        raise ValueError(
            f"halving {size} does not come below {_MOST_FIRST_SIZE + 1} pixels, those of the first "
            f"layer: choose {' or '.join(map(str, sorted(nearest[:2])))}"
        )
    num_doublings = (size // first_size).bit_length() - 1
    strides = (1, *(2,) * num_doublings, 1)
    widths = tuple(min(2**layer, _MOST_WIDTH) for layer in reversed(range(num_doublings + 1)))
    return Layers(first_size, strides, widths)


def _halved(size: int) -> int:
    """The size, halved as long as it is even and above 7."""
    while size > 7 and size % 2 == 0:
        size //= 2
    return size


def make_generator_network(
    features: int,
    widths: Sequence[int],
    strides: Sequence[int],
    channels: int,
    kernel_size: int,
    first_size: int,
    leak: float,
    conv_transpose: ConvTranspose,
    output: Callable[[Array], Array] = jnp.tanh,
) -> Callable[[Array], Array]:
    """Returns g_beta as a Haiku function, to be passed to `hk.transform`.

    Args:
      features: the paper's ngf; layer i has widths[i] * features channels.
      widths: multipliers of every layer but the last.
      strides: one per layer, including the last layer (to the image's channels). The first layer
        turns 1 x 1 into first_size x first_size pixels and its stride is 1.
      channels: channels of the image.
      kernel_size: side of every kernel but the first layer's.
      first_size: side of the first layer's output, and of its kernel.
      leak: slope of the leaky ReLU below zero.
      conv_transpose: the form of the transposed convolution, from `models/conv_transpose/`.
      output: of the last layer's values, what the likelihood takes.

    Returns:
      A function from latents [num, latent_dim] to outputs; by default images [num, size, size,
      channels] in (-1, 1).

    Raises:
      ValueError: layers that do not fit together (`check_layers`).
    """
    check_layers(widths, strides, kernel_size)
    layer_channels = [width * features for width in widths] + [channels]

    def generator_network(z: Array) -> Array:
        chex.assert_rank(z, 2)
        weights, bias = _weights(0, first_size, z.shape[1], layer_channels[0], z.shape[1])
        # A 1 x 1 input: the transposed convolution is one matrix product.
        x = jnp.einsum("nc,hwcd->nhwd", z, weights) + bias
        for i in range(1, len(layer_channels)):
            x = jax.nn.leaky_relu(x, leak)
            # An output pixel of a transposed convolution meets (k / s)^2 of the input's pixels.
            fan_in = x.shape[-1] * (kernel_size / strides[i]) ** 2
            weights, bias = _weights(i, kernel_size, x.shape[-1], layer_channels[i], fan_in)
            x = conv_transpose(x, weights, strides[i]) + bias
        return output(x)

    return generator_network


def _weights(
    layer: int, kernel_size: int, c_in: int, c_out: int, fan_in: float
) -> tuple[Array, Array]:
    """Weights [k, k, c_in, c_out] and a zero bias [c_out].

    As in Haiku's own layers, the weights are normal with variance 1 / fan_in before truncation at
    two standard deviations.
    """
    init = hk.initializers.TruncatedNormal(stddev=fan_in**-0.5)
    with hk.experimental.name_scope(f"layer_{layer}"):
        weights = hk.get_parameter("w", (kernel_size, kernel_size, c_in, c_out), init=init)
        bias = hk.get_parameter("b", (c_out,), init=jnp.zeros)
    return weights, bias
