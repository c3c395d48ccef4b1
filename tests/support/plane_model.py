"""A nonlinear model with two latents, all of whose expectations are sums over a grid.

    f_alpha(z) = tanh(z A) a        g_beta(z) = tanh(z W + b) V

Everything about the grid is plain numpy in float64 and shares no code with the library. The grid is
a model by itself, with finitely many latents, so that identities hold on it to rounding; as an
integral over the plane it is exact to 1e-7.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from thermo_ebm.models.latent_ebm import LatentEBM

LATENT_DIM, DATA_DIM, HIDDEN = 2, 12, 8
PRIOR_SIGMA, LIKELIHOOD_SIGMA = 1.0, 0.4
EDGE, POINTS = 6.0, 161


def tilt(alpha, z):
    return jnp.tanh(z @ alpha["hidden"]) @ alpha["out"]


def generator(beta, z):
    return jnp.tanh(z @ beta["hidden"] + beta["bias"]) @ beta["out"]


def parameters(seed=0):
    """Parameters in float64, as numpy arrays."""
    rng = np.random.default_rng(seed)
    alpha = {"hidden": rng.normal(size=(LATENT_DIM, 4)), "out": rng.normal(size=4)}
    beta = {
        "hidden": rng.normal(size=(LATENT_DIM, HIDDEN)),
        "bias": rng.normal(size=HIDDEN) / 2,
        "out": rng.normal(size=(HIDDEN, DATA_DIM)) / np.sqrt(HIDDEN),
    }
    return {"prior": alpha, "generator": beta}


def make_model():
    return LatentEBM(
        tilt, generator, lambda key: parameters(), LATENT_DIM, PRIOR_SIGMA, LIKELIHOOD_SIGMA
    )


def float32(params):
    return jax.tree.map(jnp.float32, params)


def features(params, z):
    """tanh(z A) [num, 4] and tanh(z W + b) [num, HIDDEN] of latents."""
    alpha, beta = params["prior"], params["generator"]
    return np.tanh(z @ alpha["hidden"]), np.tanh(z @ beta["hidden"] + beta["bias"])


def log_likelihoods(params, images, z):
    """log p(x | z) of every image and latent, [num_images, num]."""
    means, variance = features(params, z)[1] @ params["generator"]["out"], LIKELIHOOD_SIGMA**2
    squares = (images**2).sum(1)[:, None] + (means**2).sum(1) - 2 * images @ means.T
    return -squares / (2 * variance) - DATA_DIM / 2 * np.log(2 * np.pi * variance)


class Grid(NamedTuple):
    """The latents and, for given images, what is known of each of them."""

    z: np.ndarray  # [num, 2]
    log_prior: np.ndarray  # log of the prior's probabilities, [num]
    log_likelihood: np.ndarray  # [num_images, num]


def make_grid(params, images):
    axis = np.linspace(-EDGE, EDGE, POINTS)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_prior = features(params, z)[0] @ params["prior"]["out"] - (z**2).sum(1) / 2 / PRIOR_SIGMA**2
    return Grid(z, log_prior - special.logsumexp(log_prior), log_likelihoods(params, images, z))


def simulated_images(params, num, seed=1):
    """(z, x) that the model itself made."""
    rng = np.random.default_rng(seed)
    grid = make_grid(params, np.zeros((1, DATA_DIM)))
    z = grid.z[rng.choice(len(grid.z), num, p=np.exp(grid.log_prior))]
    means = features(params, z)[1] @ params["generator"]["out"]
    return z, means + LIKELIHOOD_SIGMA * rng.normal(size=means.shape)


def log_ratio(grid, temperature):
    """log Z_t / Z_0 of each image; at t = 1 it is log p(x)."""
    return special.logsumexp(grid.log_prior + temperature * grid.log_likelihood, axis=1)


def probabilities(grid, temperature):
    """Of the power posterior of each image, [num_images, num]."""
    log_joint = grid.log_prior + temperature * grid.log_likelihood
    return np.exp(log_joint - special.logsumexp(log_joint, axis=1, keepdims=True))


def path(grid, temperatures):
    """E_i [num_images, T] and both divergences between neighbours [num_images, T - 1], exactly."""
    laws = [probabilities(grid, t) for t in temperatures]
    expected = np.stack([(law * grid.log_likelihood).sum(1) for law in laws], axis=1)
    ratios = np.stack([log_ratio(grid, t) for t in temperatures], axis=1)
    # log p_i(z) - log p_(i+1)(z) = (t_i - t_(i+1)) l(z) + log Z_(i+1) / Z_i.
    steps, between = np.diff(temperatures), np.diff(ratios, axis=1)
    return expected, between - steps * expected[:, :-1], steps * expected[:, 1:] - between


def sample(grid, temperatures, num_chains, seed=0):
    """Independent exact samples, places on the grid [T, num_chains, num_images]."""
    rng = np.random.default_rng(seed)
    places = np.empty((len(temperatures), num_chains, len(grid.log_likelihood)), int)
    for i, t in enumerate(temperatures):
        for n, law in enumerate(probabilities(grid, t)):
            cumulative = np.cumsum(law)
            draws = rng.random(num_chains) * cumulative[-1]
            places[i, :, n] = np.searchsorted(cumulative, draws)
    return places


def swap_probability(grid, temperature, higher):
    """E min(1, exp((t - t') (l' - l))) over independent l at t and l' at t', of each image.

    Where l' > l the exponential turns p_t(z) p_t'(z') into p_t'(z) p_t(z'), so that it is
    P(l' <= l) and, with the two laws swapped, P(l' > l).
    """
    rates = []
    low, high = probabilities(grid, temperature), probabilities(grid, higher)
    for values, at_low, at_high in zip(grid.log_likelihood, low, high, strict=True):
        order = np.argsort(values)
        at_low, at_high = at_low[order], at_high[order]
        up_to = np.cumsum(at_high)
        above = at_low[::-1].cumsum()[::-1] - at_low
        rates.append(at_low @ up_to + at_high @ above)
    return np.array(rates)
