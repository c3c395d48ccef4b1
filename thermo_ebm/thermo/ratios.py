"""Ratios of normalising constants from chains: Bennett's ratio, MBAR and stepping stones.

The densities at two temperatures differ only by a multiple of l = log p_beta(x | z), so that every
estimator here needs only the log-likelihoods of the chains' latents:

    Z_t = int p_alpha(z) exp(t l(z)) dz,        log p(x) = log Z_1 / Z_0.

All estimates are per image; further images are leading axes. Nothing here is differentiated:
weights and ratios are constants in a loss.
"""

import math

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.cholesky import cholesky_and_inverse
from thermo_ebm.types import Array

_BISECTIONS = 50
_STEP_LENGTHS = (1.0, 0.25, 0.05, 0.01)  # of Newton's direction


def bar(forward: Array, backward: Array) -> Array:
    """log Z_(i+1) / Z_i by Bennett's acceptance ratio (1976), for one pair of temperatures.

    The root c of   sum_m 1 / (1 + exp(c - a_m)) = sum_m 1 / (1 + exp(r_m - c)).

    Args:
      forward: a = (t_(i+1) - t_i) l of samples at t_i, [..., num_chains].
      backward: r, the same of samples at t_(i+1), [..., num_chains].

    Returns:
      c, [...]. A single outlying chain has little effect on c, because all terms are bounded.

    >>> float(bar(jnp.array([1.0, 3.0]), jnp.array([1.0, 3.0])))
    2.0
    """
    chex.assert_equal_shape([forward, backward])
    num = forward.shape[-1]
    both = jax.lax.stop_gradient(jnp.concatenate([forward, backward], axis=-1))
    both = jnp.clip(both, jnp.finfo(both.dtype).min / 4, jnp.finfo(both.dtype).max / 4)
    ordered = jnp.sort(both, axis=-1)
    middle = ordered[..., num - 1], ordered[..., num]
    # Relative to the median, so that a large common offset loses no precision.
    centre = middle[0] / 2 + middle[1] / 2
    a, r = jnp.split(both - centre[..., None], 2, axis=-1)
    # The sigmoids of all samples minus c add up to half of their number: c is within log(num + 1)
    # of the two middle samples, whatever the outliers.
    low, high = (
        sample - centre + sign * math.log(num + 1)
        for sample, sign in zip(middle, (-1, 1), strict=True)
    )

    def halve(bracket: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = bracket
        c = low / 2 + high / 2
        excess = jax.nn.sigmoid(a - c[..., None]) - jax.nn.sigmoid(c[..., None] - r)
        above = jnp.sum(excess, axis=-1) > 0  # decreases with c: the root is higher
        return (jnp.where(above, c, low), jnp.where(above, high, c)), None

    (low, high), _ = jax.lax.scan(halve, (low, high), None, length=_BISECTIONS)
    return low / 2 + high / 2 + centre


def neighbour_ratios(temperatures: Array, log_likelihoods: Array) -> Array:
    """log Z_(i+1) / Z_i between all neighbours by `bar`.

    Args:
      temperatures: t_i, [num_temperatures].
      log_likelihoods: l of the chains at each temperature, [..., num_temperatures, num_chains].

    Returns:
      [..., num_temperatures - 1].
    """
    steps = jnp.diff(temperatures)[:, None]
    return bar(steps * log_likelihoods[..., :-1, :], steps * log_likelihoods[..., 1:, :])


def mbar(temperatures: Array, log_likelihoods: Array, num_iterations: int = 30) -> Array:
    """log Z_i / Z_0 from the chains of all temperatures at once (Shirts & Chodera 2008, eq. 11).

    The fixed point of   c_i = log sum_n exp(t_i l_n) / sum_k M exp(t_k l_n - c_k)   with c_0 = 0,
    where n runs over all chains. c is the minimum of a convex function, found by Newton's method
    from Bennett's ratios. Each Newton step is compared with shorter steps and with one step of the
    fixed-point iteration, and the best of these is taken.

    Args:
      temperatures: t_i, [num_temperatures].
      log_likelihoods: l of the chains at each temperature, [..., num_temperatures, num_chains].
      num_iterations: iterations of Newton's method; three or four are enough if neighbouring
        densities overlap.

    Returns:
      c, [..., num_temperatures], its first entry 0.

    >>> mbar(jnp.array([0.0, 1.0]), jnp.full((2, 3), -5.0)).tolist()
    [0.0, -5.0]
    """
    chex.assert_axis_dimension(log_likelihoods, -2, temperatures.shape[0])
    if temperatures.shape[0] == 1:
        return jnp.zeros_like(log_likelihoods[..., 0])
    log_likelihoods, centre = _centred(jax.lax.stop_gradient(log_likelihoods))
    pairs = neighbour_ratios(temperatures, log_likelihoods)
    start = jnp.concatenate([jnp.zeros_like(pairs[..., :1]), jnp.cumsum(pairs, -1)], axis=-1)
    # t_k l_n of each chain at every temperature, [..., num_samples, num_temperatures].
    samples = log_likelihoods.reshape(*log_likelihoods.shape[:-2], -1)
    logits = samples[..., None] * temperatures
    count = log_likelihoods.shape[-1]

    def improve(c: Array, _: None) -> tuple[Array, None]:
        direction = _newton_direction(logits, c, count)
        candidates = jnp.stack(
            [c - length * direction for length in _STEP_LENGTHS] + [_fixed_point_step(logits, c)]
        )
        imbalance, objective = _imbalance(logits, candidates, count)
        # Near the minimum the objective is constant up to rounding, so that the imbalance decides;
        # far from the minimum the imbalance hardly changes.
        near = jnp.min(imbalance, axis=0) < 0.1 * count
        best = jnp.argmin(jnp.where(near, imbalance, objective), axis=0)
        return jnp.take_along_axis(candidates, best[None, ..., None], axis=0)[0], None

    c, _ = jax.lax.scan(improve, start, None, length=num_iterations)
    return c + centre * temperatures


def _centred(log_likelihoods: Array) -> tuple[Array, Array]:
    """Log-likelihoods minus their median, made finite, and the median [..., 1]."""
    limit = jnp.finfo(log_likelihoods.dtype).max / 64
    finite = jnp.nan_to_num(log_likelihoods, nan=-limit, posinf=limit, neginf=-limit)
    flat = finite.reshape(*finite.shape[:-2], -1)
    centre = jnp.median(flat, axis=-1, keepdims=True)
    return jnp.clip(finite - centre[..., None], -limit, limit), centre


def _shares(logits: Array, c: Array) -> Array:
    """Weight of each sample at each temperature, [..., num_samples, num_temperatures]."""
    return jax.nn.softmax(logits - c[..., None, :], axis=-1)


def _imbalance(logits: Array, c: Array, count: int) -> tuple[Array, Array]:
    """The largest error of the fixed point, in samples, and the convex objective; [...] each."""
    error = jnp.max(jnp.abs(_shares(logits, c).sum(-2) - count), axis=-1)
    mixture = jax.nn.logsumexp(logits - c[..., None, :], axis=-1)
    objective = mixture.sum(-1) + count * c.sum(-1)
    error, objective = (jnp.where(jnp.isfinite(x), x, jnp.inf) for x in (error, objective))
    return error, objective


def _fixed_point_step(logits: Array, c: Array) -> Array:
    weight = -jax.nn.logsumexp(logits - c[..., None, :], axis=-1, keepdims=True)
    new = jax.nn.logsumexp(logits + weight, axis=-2)
    return new - new[..., :1]


def _newton_direction(logits: Array, c: Array, count: int) -> Array:
    shares = _shares(logits, c)[..., 1:]  # c_0 stays 0
    total = shares.sum(-2)
    unit = jnp.eye(total.shape[-1], dtype=total.dtype)
    hessian = total[..., None] * unit - jnp.einsum("...nk,...nj->...kj", shares, shares)
    flat = (hessian + 1e-6 * count * unit).reshape(-1, *hessian.shape[-2:])
    inverse = jax.vmap(cholesky_and_inverse)(flat)[1].reshape(hessian.shape)
    gradient = count - total
    step = jnp.einsum("...ki,...kj,...j->...i", inverse, inverse, gradient)
    return jnp.concatenate([jnp.zeros_like(c[..., :1]), step], axis=-1)


def stepping_stones(temperatures: Array, log_likelihoods: Array) -> Array:
    """log Z_(i+1) / Z_i from the samples at t_i alone: importance sampling, for comparison.

    Arguments and result as for `neighbour_ratios`. The estimate is unbiased for the ratio, and
    therefore too low on average for its logarithm.
    """
    steps = jnp.diff(temperatures)[:, None]
    values = jax.lax.stop_gradient(steps * log_likelihoods[..., :-1, :])
    return jax.nn.logsumexp(values, axis=-1) - jnp.log(values.shape[-1])


def posterior_weights(
    temperatures: Array, log_likelihoods: Array, num_iterations: int = 30
) -> Array:
    """The weight of every chain, at any temperature, as a sample of the posterior at t = 1.

    w_n proportional to   exp(l_n) / sum_k M exp(t_k l_n - c_k)   with c from `mbar`.

    Args:
      temperatures: t_i of the chains, [num_temperatures].
      log_likelihoods: l of the chains at each temperature, [..., num_temperatures, num_chains].
      num_iterations: as for `mbar`.

    Returns:
      [..., num_temperatures, num_chains]; the weights of one image add up to 1.
    """
    c = mbar(temperatures, log_likelihoods, num_iterations)
    centred, centre = _centred(jax.lax.stop_gradient(log_likelihoods))
    c = c - centre * temperatures
    samples = centred.reshape(*centred.shape[:-2], -1)
    logits = samples[..., None] * temperatures - c[..., None, :]
    weights = jax.nn.softmax(samples - jax.nn.logsumexp(logits, axis=-1), axis=-1)
    return weights.reshape(log_likelihoods.shape)


def effective_sample_size(weights: Array) -> Array:
    """1 / sum w^2 of normalised weights [..., num_temperatures, num_chains] -> [...]."""
    return 1 / jnp.sum(weights**2, axis=(-2, -1))
