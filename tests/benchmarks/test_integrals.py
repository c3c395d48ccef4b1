"""The models of the table of estimates: their truth, their exact draws, and all the names."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import integrals
from thermo_ebm.models.latent_ebm import log_likelihood
from thermo_ebm.thermo.schedule import make_schedule

CASES = {"gaussian": integrals.gaussian_case(5, 0), "nonlinear": integrals.nonlinear_case(5, 0)}


@pytest.mark.parametrize("name", CASES)
def test_the_truth_is_the_integral_of_the_exact_expectations(name):
    case = CASES[name]
    # Gauss-Legendre in u with t = u^4, on panels: independent of the library's quadratures.
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(0, 1, 9)
    u = (edges[:-1, None] + (nodes + 1) / 16).ravel()
    of_node = np.tile(weights / 16, 8) * 4 * u**3
    np.testing.assert_allclose(of_node @ case.expected(u**4), case.truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_exact_draws_have_the_exact_expectations(name):
    case, temperatures, m = CASES[name], np.array([0.0, 0.1, 1.0]), 2000
    z = case.draw(np.random.default_rng(1), temperatures, m)
    assert z.shape == (3, m, 5, case.model.latent_dim)
    x = jnp.tile(jnp.float32(case.images), (m, 1))
    for latents, exact in zip(z, case.expected(temperatures), strict=True):
        flat = jnp.float32(latents.reshape(m * 5, -1))
        drawn = np.asarray(log_likelihood(case.model, case.params["generator"], x, flat)).reshape(
            m, 5
        )
        errors = np.abs(drawn.mean(axis=0) - exact) / (drawn.std(axis=0) / np.sqrt(m))
        assert errors.max() < 4.5  # standard errors, of five images


def test_every_estimate_of_a_constant_is_that_constant():
    schedule = make_schedule("power", 4, 6.0)
    likelihood, latents = jnp.full((5, 2, 3), -5.0), jnp.zeros((5, 2, 3, 2))
    latents += jnp.asarray(np.random.default_rng(0).normal(size=latents.shape), jnp.float32)
    values = integrals.estimates(schedule, likelihood, latents)
    assert set(integrals.PRINTED) <= set(values)
    for key, value in values.items():
        if key[1] != "pooled_gaussian":  # divergences of the latents alone
            assert value == pytest.approx(-5.0, abs=1e-4), key


def test_line_of_the_table_of_estimates():
    offsets, spread = {("trapezium", "none"): -0.5, ("mbar", ""): 0.25}, {}
    line = integrals._line((10, 6.0, 0, 0), offsets, spread)
    assert line.startswith("| 10, 6 | inf | exact | -0.50 |  | ")
    spread = {("trapezium", "none"): 0.125, ("mbar", ""): 0.5}
    assert integrals._line((10, 6.0, 2, 20), offsets, spread).endswith("| +0.25 (0.50) |")
    assert integrals._header().count("|") == 2 * line.count("|")
