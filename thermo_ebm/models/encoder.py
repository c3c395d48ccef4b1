"""The encoder q(z | x), a Gaussian with independent dimensions; `ENCODERS` has them by name.

    q_phi(z | x) = N(m_phi(x), diag(s_phi(x)^2))        z = m + s u,  u ~ N(0, I)

Kingma and Welling 2014. Losses with an encoder (`losses/elbo.py`) train it beside the generator;
chains and log p(x) do not need it.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose import Convolution
from thermo_ebm.models.generator import check_layers
from thermo_ebm.types import Array


class Encoding(NamedTuple):
    """q(z | x) of some images."""

    mean: Array  # m, [num, latent_dim]
    log_sigma: Array  # log s, [num, latent_dim]


def draw(encoding: Encoding, noise: Array) -> Array:
    """z = m + s u, differentiable in both.

    Args:
      encoding: of the images.
      noise: u, [..., num, latent_dim].

    Returns:
      [..., num, latent_dim].
    """
    return encoding.mean + jnp.exp(encoding.log_sigma) * noise


def log_density(encoding: Encoding, z: Array) -> Array:
    """log q(z | x) in nats, normalised: [..., num, latent_dim] -> [..., num].

    >>> import jax.numpy as jnp
    >>> encoding = Encoding(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    >>> print(log_density(encoding, jnp.zeros((1, 2))))  # -log(2 pi)
    [-1.837877]
    """
    scaled = (z - encoding.mean) * jnp.exp(-encoding.log_sigma)
    constant = z.shape[-1] / 2 * math.log(2 * math.pi)
    return -jnp.sum(scaled**2 / 2 + encoding.log_sigma, axis=-1) - constant


def make_mirror_network(
    features: int,
    widths: Sequence[int],
    strides: Sequence[int],
    kernel_size: int,
    first_size: int,
    leak: float,
    latent_dim: int,
    convolution: Convolution,
) -> Callable[[Array], Encoding]:
    """Returns the mirror image of a generator as a Haiku function, to be passed to `hk.transform`.

    Each convolution takes an image of the size and channels that the generator's layer makes to
    those that it is made of; the last, of the generator's first layer, gives m and log s.

    Args:
      features: the generator's, as all arguments up to `leak` (`make_generator_network`).
      widths: multipliers of every layer but the last.
      strides: one per layer.
      kernel_size: side of every kernel but that of the generator's first layer.
      first_size: side of the first layer's output.
      leak: slope of the leaky ReLU below zero.
      latent_dim: D.
      convolution: its form, from `models/conv_transpose/`.

    Returns:
      A function from images [num, *image_shape] to q(z | x).

    Raises:
      ValueError: layers that do not fit together (`check_layers`).
    """
    check_layers(widths, strides, kernel_size)

    def encoder_network(x: Array) -> Encoding:
        chex.assert_rank(x, 4)
        for i in reversed(range(len(widths))):
            # The kernel of the transposed convolution, whose own result stands last.
            shape = (kernel_size, kernel_size, widths[i] * features, x.shape[-1])
            fan_in = kernel_size**2 * x.shape[-1]
            with hk.experimental.name_scope(f"layer_{i + 1}"):
                init = hk.initializers.TruncatedNormal(stddev=fan_in**-0.5)
                weights = hk.get_parameter("w", shape, init=init)
                bias = hk.get_parameter("b", shape[2:3], init=jnp.zeros)
            x = jax.nn.leaky_relu(convolution(x, weights, strides[i + 1]) + bias, leak)
        chex.assert_shape(x, (None, first_size, first_size, None))
        outputs = hk.Linear(2 * latent_dim, name="encoding")(x.reshape(len(x), -1))
        return Encoding(*jnp.split(outputs, 2, axis=1))

    return encoder_network


# By the names of `model.encoder.name`; None: the model has no encoder.
ENCODERS: dict[str, Callable[..., Callable[[Array], Encoding]] | None] = {
    "none": None,
    "mirror": make_mirror_network,
}
