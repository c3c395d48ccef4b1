"""The generator g_beta: transposed convolutions from a latent to an image (table 6)."""

import math
from collections.abc import Callable, Sequence

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose import ConvTranspose
from thermo_ebm.types import Array


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


def make_generator_network(
    features: int,
    widths: Sequence[int],
    strides: Sequence[int],
    channels: int,
    kernel_size: int,
    first_size: int,
    leak: float,
    conv_transpose: ConvTranspose,
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

    Returns:
      A function from latents [num, latent_dim] to images [num, size, size, channels] in (-1, 1).

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
        return jnp.tanh(x)

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
