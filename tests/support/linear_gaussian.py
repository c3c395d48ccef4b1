"""A model with closed forms: linear generator, quadratic tilt, and so all densities Gaussian.

    f_alpha(z)    = a . z - z' A z / 2       g_beta(z) = W z + b
    p_alpha       = N(L0^-1 a, L0^-1)        with L0  = I / sigma_0^2 + A
    p(z | x, t)   = N(L^-1 (a + t W' (x - b) / sigma_l^2), L^-1)   with L = L0 + t W' W / sigma_l^2
    log p(x)      = log N(x; W m + b, W L0^-1 W' + sigma_l^2 I)

The closed forms are plain numpy in float64 and share no code with the library.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import stats

from thermo_ebm.models.latent_ebm import LatentEBM

LATENT_DIM = 3
DATA_DIM = 7
PRIOR_SIGMA = 0.9
LIKELIHOOD_SIGMA = 0.8


class Gaussian(NamedTuple):
    mean: np.ndarray  # [dim]
    cov: np.ndarray  # [dim, dim]


def tilt(alpha, z):
    return z @ alpha["linear"] - 0.5 * ((z @ alpha["quadratic"]) * z).sum(-1)


def generator(beta, z):
    return z @ beta["weights"].T + beta["bias"]


def parameters(seed=0):
    """Parameters in float64, as numpy arrays."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(LATENT_DIM, LATENT_DIM)) / 2
    alpha = {"linear": rng.normal(size=LATENT_DIM), "quadratic": root @ root.T}
    beta = {
        "weights": rng.normal(size=(DATA_DIM, LATENT_DIM)) / 2,
        "bias": rng.normal(size=DATA_DIM) / 3,
    }
    return {"prior": alpha, "generator": beta}


def make_model():
    return LatentEBM(
        tilt=tilt,
        generator=generator,
        init=lambda key: parameters(),
        latent_dim=LATENT_DIM,
        prior_sigma=PRIOR_SIGMA,
        likelihood_sigma=LIKELIHOOD_SIGMA,
    )


def observation(seed=1):
    """One x that the prior did not make: the tempered posteriors move a long way."""
    return np.random.default_rng(seed).normal(size=DATA_DIM) * 1.5


def natural(params, x, temperature):
    """Precision L and L m of the power posterior at t (of the prior at t = 0)."""
    alpha, beta = params["prior"], params["generator"]
    # The tilt sees the symmetric part of A alone.
    precision = (
        np.eye(LATENT_DIM) / PRIOR_SIGMA**2 + (alpha["quadratic"] + alpha["quadratic"].T) / 2
    )
    weights, variance = beta["weights"], LIKELIHOOD_SIGMA**2
    precision = precision + temperature * weights.T @ weights / variance
    return precision, alpha["linear"] + temperature * weights.T @ (x - beta["bias"]) / variance


def power_posterior(params, x, temperature):
    precision, shift = natural(params, x, temperature)
    cov = np.linalg.inv(precision)
    return Gaussian(cov @ shift, cov)


def log_evidence(params, x):
    """log p(x), in the space of the data."""
    prior, weights = power_posterior(params, x, 0.0), params["generator"]["weights"]
    cov = weights @ prior.cov @ weights.T + LIKELIHOOD_SIGMA**2 * np.eye(DATA_DIM)
    return stats.multivariate_normal.logpdf(
        x, weights @ prior.mean + params["generator"]["bias"], cov
    )


def expected_log_likelihood(params, x, latents):
    """E[log p(x | z)] for z from a Gaussian."""
    weights, variance = params["generator"]["weights"], LIKELIHOOD_SIGMA**2
    residual = x - weights @ latents.mean - params["generator"]["bias"]
    square = residual @ residual + np.trace(weights @ latents.cov @ weights.T)
    return -square / (2 * variance) - DATA_DIM / 2 * np.log(2 * np.pi * variance)


def kl(p, q):
    """KL(p, q) as the textbooks print it, with an inverse and determinants."""
    inverse, distance = np.linalg.inv(q.cov), q.mean - p.mean
    log_ratio = np.linalg.slogdet(q.cov)[1] - np.linalg.slogdet(p.cov)[1]
    quadratic = np.trace(inverse @ p.cov) + distance @ inverse @ distance
    return (quadratic - len(p.mean) + log_ratio) / 2


def chain_law(precision, shift, step_size, num_steps):
    """The law of a Langevin chain after K steps from N(0, sigma_0^2 I): step by step, exactly."""
    mean, cov = np.zeros(len(shift)), PRIOR_SIGMA**2 * np.eye(len(shift))
    transition = np.eye(len(shift)) - step_size * precision
    for _ in range(num_steps):
        mean = transition @ mean + step_size * shift
        cov = transition @ cov @ transition.T + 2 * step_size * np.eye(len(shift))
    return Gaussian(mean, cov)


def path(params, x, temperatures):
    """E_i and both divergences between neighbours of the exact power posteriors."""
    laws = [power_posterior(params, x, t) for t in temperatures]
    return path_of(params, x, laws)


def path_of(params, x, laws):
    """The same for any Gaussians in their place: (E [N + 1], forward [N], backward [N])."""
    pairs = list(itertools.pairwise(laws))
    return (
        np.array([expected_log_likelihood(params, x, law) for law in laws]),
        np.array([kl(p, q) for p, q in pairs]),
        np.array([kl(q, p) for p, q in pairs]),
    )
