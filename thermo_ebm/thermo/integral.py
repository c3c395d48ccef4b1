"""The thermodynamic integral: log p(x) from expected log-likelihoods (eq. 20-27)."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.thermo.cholesky import cholesky_and_inverse
from thermo_ebm.types import Array


class Moments(NamedTuple):
    """Mean and covariance of the latents at each temperature."""

    mean: Array  # [num_temperatures + 1, latent_dim]
    cov: Array  # [num_temperatures + 1, latent_dim, latent_dim], positive definite


# Quadratures: the weight of each E_i, [num_temperatures + 1] -> [num_temperatures + 1].


def trapezium_weights(temperatures: Array) -> Array:
    """w_i = (dt_i + dt_(i+1)) / 2, the trapezium rule of eq. 24."""
    return (left_weights(temperatures) + right_weights(temperatures)) / 2


def left_weights(temperatures: Array) -> Array:
    """w_i = t_(i+1) - t_i: the left sum, a lower bound on log p(x) since E_t rises with t."""
    return jnp.append(jnp.diff(temperatures), 0.0)


def right_weights(temperatures: Array) -> Array:
    """w_i = t_i - t_(i-1): the right sum, an upper bound; the prior's chains have no weight."""
    return jnp.insert(jnp.diff(temperatures), 0, 0.0)


QUADRATURES: dict[str, Callable[[Array], Array]] = {
    "trapezium": trapezium_weights,
    "left": left_weights,
    "right": right_weights,
}

# The factor of KL(p_(i+1), p_i) beside KL(p_i, p_(i+1)) in the correction of the trapezium rule.
# "difference" makes the estimate exact; "sum" is eq. 24 as the paper prints it.
KL_FORMS: dict[str, float] = {"difference": -1.0, "sum": 1.0}


def gaussian_kl(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Array:
    """KL(p, q) of two Gaussians, in nats (eq. 25), by Cholesky factors and log-determinants.

    Args:
      mean_p: [dim].
      cov_p: [dim, dim], positive definite.
      mean_q: [dim].
      cov_q: [dim, dim], positive definite.

    Returns:
      A scalar.
    """
    mean_p, cov_p, mean_q, cov_q = map(jnp.asarray, (mean_p, cov_p, mean_q, cov_q))
    chex.assert_rank([mean_p, cov_p, mean_q, cov_q], [1, 2, 1, 2])
    chex.assert_equal_shape([cov_p, cov_q])
    chex.assert_shape([mean_p, mean_q], (cov_p.shape[0],))
    chol_p, chol_q = jnp.linalg.cholesky(cov_p), jnp.linalg.cholesky(cov_q)
    return _kl_from_cholesky((mean_p, chol_p), (mean_q, chol_q))


def _kl_from_cholesky(p: tuple[Array, Array], q: tuple[Array, Array]) -> Array:
    """KL(p, q) from (mean [dim], lower Cholesky factor [dim, dim]) of each."""
    (mean_p, chol_p), (mean_q, chol_q) = p, q
    # One solve for L_q^-1 [L_p, mu_q - mu_p]: its squared norm is the trace plus the distance.
    both = jnp.column_stack([chol_p, mean_q - mean_p])
    whitened = jax.scipy.linalg.solve_triangular(chol_q, both, lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diag(chol_q)) - jnp.log(jnp.diag(chol_p)))
    return (jnp.sum(whitened**2) + log_det - mean_p.shape[0]) / 2


def neighbour_kl(moments: Moments) -> tuple[Array, Array]:
    """KL(p_i, p_(i+1)) and KL(p_(i+1), p_i) of neighbours, [num_temperatures] each."""
    chol, inverse = jax.vmap(cholesky_and_inverse)(moments.cov)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(chol, axis1=1, axis2=2)), axis=-1)

    def divergence(p: slice, q: slice) -> Array:
        spread = jnp.sum((inverse[q] @ chol[p]) ** 2, axis=(-2, -1))
        shift = jnp.einsum("tij,tj->ti", inverse[q], moments.mean[q] - moments.mean[p])
        log_det = 2 * (half_log_det[q] - half_log_det[p])
        return (spread + jnp.sum(shift**2, axis=-1) + log_det - chol.shape[-1]) / 2

    lower, upper = slice(None, -1), slice(1, None)
    return divergence(lower, upper), divergence(upper, lower)


def thermodynamic_integral(
    temperatures: Array,
    expected_log_likelihood: Array,
    kl_forward: Array | None = None,
    kl_backward: Array | None = None,
    kl_weight: float = 1.0,
    kl_form: str = "difference",
    quadrature: str = "trapezium",
) -> Array:
    """The estimate of log p(x) in nats (eq. 24 and 27).

    sum_i w_i E_i + eta / 2 sum_i [KL(p_i, p_(i+1)) -+ KL(p_(i+1), p_i)]

    The paper prints a plus between the two divergences. The identity it comes from has a minus:
    with it, exact E and KL give log p(x) exactly for every schedule and every N_t, since

        KL(p_i, p_(i+1)) - KL(p_(i+1), p_i) = 2 [int E dt over the interval - its trapezium].

    The left and the right sum have identities of their own, with one divergence each:

        int E dt = left + KL(p_i, p_(i+1)) = right - KL(p_(i+1), p_i),

    which is what "difference" adds to them; "sum" goes with the trapezium alone.

    >>> temperatures = jnp.array([0.0, 0.25, 1.0])
    >>> expected_log_likelihood = jnp.array([-8.0, -4.0, -2.0])
    >>> float(thermodynamic_integral(temperatures, expected_log_likelihood))  # -1.5 - 2.25
    -3.75

    Args:
      temperatures: t_0 .. t_N, [num_temperatures + 1].
      expected_log_likelihood: E_i, [num_temperatures + 1].
      kl_forward: KL(p_i, p_(i+1)), [num_temperatures]; None for no correction.
      kl_backward: KL(p_(i+1), p_i), [num_temperatures]; None for no correction.
      kl_weight: eta. Anything but 1 is no longer an estimate of log p(x).
      kl_form: "difference", or "sum" as printed.
      quadrature: "trapezium", "left" or "right".

    Returns:
      A scalar.

    Raises:
      ValueError: for an unknown name, for one divergence without the other, or for "sum" with
        another quadrature than the trapezium.
    """
    temperatures = jnp.asarray(temperatures)
    expected_log_likelihood = jnp.asarray(expected_log_likelihood)
    chex.assert_rank([temperatures, expected_log_likelihood], 1)
    chex.assert_equal_shape([temperatures, expected_log_likelihood])
    weights = QUADRATURES[_known("quadrature", quadrature, QUADRATURES)](temperatures)
    integral = jnp.sum(weights * expected_log_likelihood)
    if kl_forward is None and kl_backward is None:
        return integral
    if kl_forward is None or kl_backward is None:
        raise ValueError("kl_forward and kl_backward must be given together.")
    chex.assert_shape([kl_forward, kl_backward], (temperatures.shape[0] - 1,))
    sign = KL_FORMS[_known("kl_form", kl_form, KL_FORMS)]
    if quadrature == "trapezium":
        correction = (jnp.sum(kl_forward) + sign * jnp.sum(kl_backward)) / 2
    elif kl_form == "sum":
        raise ValueError(f'kl_form "sum" goes with the trapezium, not with "{quadrature}".')
    else:
        correction = jnp.sum(kl_forward) if quadrature == "left" else -jnp.sum(kl_backward)
    return integral + kl_weight * correction


def _known(field: str, name: str, table: dict) -> str:
    if name not in table:
        raise ValueError(f"{field} must be one of {', '.join(table)}, not {name!r}.")
    return name
