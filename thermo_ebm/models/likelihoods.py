"""Likelihoods p(x | z) of images, given the outputs of a generator at z; each is a value.

    gaussian(sigma)               x ~ N(g, sigma^2), a density;                     g: outputs
    learned_gaussian()            the same, with sigma among the generator's parameters
    bernoulli()                   x = 1 with probability sigmoid(g), else -1
    discretized_logistic(scale)   x = the nearest of 256 levels to g + scale * logistic noise

Images are in [-1, 1]. The data values of an image are independent given z. Each likelihood has what
chains and proposals need of it beside its log-density: simulated images for pairs (z, x), and its
Fisher information for the metric of the chains.

The levels of an 8-bit image are w = 1 / 127.5 apart. A density times this width is the probability
of a level where the density hardly changes across it: for a data value that is r sigma from the
mean of `gaussian`, its log is too large by (1 - r^2) (w / sigma)^2 / 24 nats, which is 0 on
average. With noise that is uniform across the level (dequantisation), log p is a lower bound of the
log of the probability in expectation, for any density (Theis et al. 2016). The log-likelihood of
discrete values is their log-probability itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.randomness import STEP_NOISE, normal, uniform
from thermo_ebm.types import Array, PRNGKey


class ImageLikelihood(NamedTuple):
    """p(x | z) of images x [num, *image_shape] and a generator's outputs at latents z, [num, ...].

    Outputs have the shape of the images, unless a likelihood of your own says otherwise.
    """

    log_density: Callable[[Array, Array], Array]  # (x, outputs) -> log p(x | z) in nats, [num]
    sample: Callable[[PRNGKey, Array], Array]  # (keys [num], outputs) -> x ~ p(x | z)
    mean: Callable[[Array], Array]  # outputs -> E[x | z], [num, *image_shape]
    variance: Callable[[Array], Array]  # outputs -> Var(x | z) of each data value
    # outputs -> Fisher information of each output, the expectation of (d log p / d output)^2
    information: Callable[[Array], Array]
    least_variance: float  # which `variance` exceeds, positive
    # Of a data value, evenly spaced from -1 to 1; 0: x is continuous, and log p a log-density.
    levels: int = 0
    # Of each data value; log p(x | z) less these constants is minus the error of reconstruction.
    log_constant: float = 0.0
    # (x, outputs) -> log p(x | z) of each data value, [num, *image_shape]; None: without it,
    # images of which only a part is observed are refused
    log_densities: Callable[[Array, Array], Array] | None = None


def observed_only(likelihood: ImageLikelihood, observed: Array) -> ImageLikelihood:
    """The likelihood of the observed data values alone, log p(x_O | z).

    It is that of images whose other values are 0 with certainty, so that estimates from simulated
    images learn nothing from these.

    Args:
      likelihood: of complete images.
      observed: which data values are observed, bool [*image_shape].

    Raises:
      ValueError: the likelihood has no `log_densities`.
    """
    log_densities = likelihood.log_densities
    if log_densities is None:
        raise ValueError("a mask needs a likelihood with `log_densities`, one for each data value")

    def hide(values: Array, hidden: float = 0.0) -> Array:
        return jnp.where(observed, values, hidden)

    def information(outputs: Array) -> Array:
        values = likelihood.information(outputs)
        # Outputs beyond those of the data values keep theirs: it is of the metric alone, which may
        # be any.
        num = observed.shape[-1]
        return jnp.concatenate([hide(values[..., :num]), values[..., num:]], axis=-1)

    return likelihood._replace(
        log_density=lambda x, outputs: _sum(hide(log_densities(x, outputs))),
        sample=lambda keys, outputs: hide(likelihood.sample(keys, outputs)),
        mean=lambda outputs: hide(likelihood.mean(outputs)),
        variance=lambda outputs: hide(likelihood.variance(outputs), likelihood.least_variance),
        information=information,
        log_densities=lambda x, outputs: hide(log_densities(x, outputs)),
    )


def gaussian(sigma: float) -> ImageLikelihood:
    """N(g, sigma^2 I) (eq. 2 and 8).

    Args:
      sigma: the standard deviation sigma_l.
    """
    variance = sigma**2

    def log_density(x: Array, outputs: Array) -> Array:
        chex.assert_equal_shape([x, outputs])
        dim = math.prod(x.shape[1:])
        squared_error = jnp.sum((x - outputs) ** 2, axis=tuple(range(1, x.ndim)))
        return -squared_error / (2 * variance) - dim / 2 * math.log(2 * math.pi * variance)

    def log_densities(x: Array, outputs: Array) -> Array:
        chex.assert_equal_shape([x, outputs])
        return -((x - outputs) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    def sample(keys: PRNGKey, outputs: Array) -> Array:
        noise = normal(keys, STEP_NOISE, math.prod(outputs.shape[1:]))
        return outputs + sigma * noise.reshape(outputs.shape)

    return ImageLikelihood(
        log_density,
        sample,
        mean=lambda outputs: outputs,
        variance=lambda outputs: jnp.full_like(outputs, variance),
        information=lambda outputs: jnp.full_like(outputs, 1 / variance),
        least_variance=variance,
        log_constant=-math.log(2 * math.pi * variance) / 2,
        log_densities=log_densities,
    )


_LEAST_LEARNED_VARIANCE = 1e-4


def learned_gaussian() -> ImageLikelihood:
    """N(g, sigma^2 I) with sigma^2 = exp(2 s) + 1e-4, a parameter of the generator.

    Outputs [num, height, width, channels + 1] are g and, as last channel, s everywhere.
    """

    def split(outputs: Array) -> tuple[Array, Array]:
        """g, and sigma^2 of its shape."""
        mean = outputs[..., :-1]
        variance = jnp.exp(2 * outputs[..., -1:]) + _LEAST_LEARNED_VARIANCE
        return mean, jnp.broadcast_to(variance, mean.shape)

    def log_densities(x: Array, outputs: Array) -> Array:
        mean, variance = split(outputs)
        chex.assert_equal_shape([x, mean])
        return -((x - mean) ** 2 / variance + jnp.log(2 * math.pi * variance)) / 2

    def sample(keys: PRNGKey, outputs: Array) -> Array:
        mean, variance = split(outputs)
        noise = normal(keys, STEP_NOISE, math.prod(mean.shape[1:]))
        return mean + jnp.sqrt(variance) * noise.reshape(mean.shape)

    def information(outputs: Array) -> Array:
        mean, variance = split(outputs)
        share = 1 - _LEAST_LEARNED_VARIANCE / variance[..., :1]  # d log sigma / d s
        return jnp.concatenate([1 / variance, 2 * mean.shape[-1] * share**2], axis=-1)

    return ImageLikelihood(
        _summed(log_densities),
        sample,
        mean=lambda outputs: outputs[..., :-1],
        variance=lambda outputs: split(outputs)[1],
        information=information,
        least_variance=_LEAST_LEARNED_VARIANCE,
        log_densities=log_densities,
    )


def _with_log_sigma(sigma: float, x: Array) -> Array:
    """The outputs of `learned_gaussian`: tanh(x) and s, a Haiku parameter that begins at sigma."""
    first = math.log(max(sigma**2 - _LEAST_LEARNED_VARIANCE, _LEAST_LEARNED_VARIANCE)) / 2
    log_sigma = hk.get_parameter("log_sigma", (), init=hk.initializers.Constant(first))
    return jnp.concatenate(
        [jnp.tanh(x), jnp.broadcast_to(log_sigma, (*x.shape[:-1], 1)).astype(x.dtype)], axis=-1
    )


def bernoulli() -> ImageLikelihood:
    """Values -1 and 1; outputs are the logits of 1."""

    def log_densities(x: Array, outputs: Array) -> Array:
        chex.assert_equal_shape([x, outputs])
        return (x + 1) / 2 * outputs - jax.nn.softplus(outputs)

    def sample(keys: PRNGKey, outputs: Array) -> Array:
        return jnp.where(outputs + _logistic(keys, outputs) > 0, 1.0, -1.0)

    def variance(outputs: Array) -> Array:
        return 4 * jax.nn.sigmoid(outputs) * jax.nn.sigmoid(-outputs)

    return ImageLikelihood(
        _summed(log_densities),
        sample,
        mean=lambda outputs: jnp.tanh(outputs / 2),
        variance=lambda outputs: variance(outputs) + _LEAST_BERNOULLI_VARIANCE,
        information=lambda outputs: variance(outputs) / 4,
        least_variance=_LEAST_BERNOULLI_VARIANCE,
        levels=2,
        log_densities=log_densities,
    )


_LEAST_BERNOULLI_VARIANCE = 1e-3  # added: a variance of 0 would make the linear estimate infinite


def discretized_logistic(scale: float, levels: int = 256) -> ImageLikelihood:
    """The nearest level to a logistic variable around g (Salimans et al. 2017).

    The first and the last level take what lies beyond them. `mean` and `variance` are those of a
    variable that is not cut off there.

    Args:
      scale: of the logistic distribution, in units of x.
      levels: of a data value, from -1 to 1; 256 for 8-bit images.
    """
    half = 1 / (levels - 1)
    log_width = math.log(-math.expm1(-2 * half / scale))

    def log_densities(x: Array, outputs: Array) -> Array:
        chex.assert_equal_shape([x, outputs])
        is_first, is_last = x <= -1 + half, x >= 1 - half
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        above = jnp.where(is_last, 0.0, jax.nn.log_sigmoid((x + half - outputs) / scale))
        below = jnp.where(is_first, 0.0, jax.nn.log_sigmoid((outputs - x + half) / scale))
        return above + below + jnp.where(is_first | is_last, 0.0, log_width)

    def sample(keys: PRNGKey, outputs: Array) -> Array:
        x = outputs + scale * _logistic(keys, outputs)
        return jnp.clip(jnp.round((x + 1) / (2 * half)), 0, levels - 1) * (2 * half) - 1

    def information(outputs: Array) -> Array:
        """(1 - sum of P^3) / (3 scale^2) over the levels' probabilities P.

        With u the distribution function at a level's ends, P = u_2 - u_1 and the score is
        (1 - u_1 - u_2) / scale, so that the sum of P times its square is a midpoint rule for the
        integral of (1 - 2u)^2 over u, whose error is known.
        """

        def add(level: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            before, total = carry
            edge = (2 * level + 1) * half - 1
            after = jnp.where(level == levels - 1, 1.0, jax.nn.sigmoid((edge - outputs) / scale))
            return after, total + (after - before) ** 3

        start = jnp.zeros_like(outputs), jnp.zeros_like(outputs)
        return (1 - jax.lax.fori_loop(0, levels, add, start)[1]) / (3 * scale**2)

    variance = (math.pi * scale) ** 2 / 3 + half**2 / 3
    return ImageLikelihood(
        _summed(log_densities),
        sample,
        mean=lambda outputs: jnp.clip(outputs, -1, 1),
        variance=lambda outputs: jnp.full_like(outputs, variance),
        information=information,
        least_variance=variance,
        levels=levels,
        log_densities=log_densities,
    )


class LikelihoodParts(NamedTuple):
    """What a likelihood adds to a model; sigma_l is that of the configuration."""

    make: Callable[[float], ImageLikelihood]  # sigma_l -> the likelihood
    # (sigma_l, values of the generator's last layer [num, *image_shape]) -> the generator's
    # outputs; may have Haiku parameters
    output: Callable[[float, Array], Array]


def _tanh(sigma: float, x: Array) -> Array:
    del sigma
    return jnp.tanh(x)


# By the names of `model.likelihood.name`.
LIKELIHOODS: dict[str, LikelihoodParts] = {
    "gaussian": LikelihoodParts(gaussian, _tanh),
    "learned_gaussian": LikelihoodParts(lambda sigma: learned_gaussian(), _with_log_sigma),
    "bernoulli": LikelihoodParts(lambda sigma: bernoulli(), lambda sigma, x: x),
    # A logistic variable of scale s has the standard deviation pi s / sqrt(3).
    "discretized_logistic": LikelihoodParts(
        lambda sigma: discretized_logistic(sigma * math.sqrt(3) / math.pi), _tanh
    ),
}


def _logistic(keys: PRNGKey, outputs: Array) -> Array:
    """Standard logistic numbers, of the shape of the outputs."""
    draws = uniform(keys, STEP_NOISE, math.prod(outputs.shape[1:])).reshape(outputs.shape)
    return jnp.log(draws) - jnp.log1p(-draws)


def _summed(log_densities: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda x, outputs: _sum(log_densities(x, outputs))


def _sum(values: Array) -> Array:
    """Over all axes but the first."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))
