"""How well chains mix: effective sample size and split R-hat, rank-normalised.

Draws are [num_chains, num_draws, ...]: each entry along the further axes is a separate quantity.
The definitions are those of Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), "Rank-
normalization, folding, and localization: an improved R-hat"; equation numbers are theirs. Computed
in float64 on the host.
"""

import numpy as np
from scipy import fft, stats

from thermo_ebm.types import Array

MIN_DRAWS = 4  # draws of each chain: two for each half
_NEVER = 1e-12  # variances below this share of the squared scale are rounding


def effective_sample_size(draws: Array | np.ndarray, rank_normalise: bool = True) -> np.ndarray:
    """The number of independent draws that would estimate the mean equally well.

        ESS = M N / tau,    tau = -1 + 2 sum_k (rho_2k + rho_2k+1)    (eq. 11 and 13)

    over the split chains, with Geyer's (1992) initial monotone sequence of the sums of pairs of
    autocorrelations.

    >>> independent = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < effective_sample_size(independent) < 5000)
    True

    Args:
      draws: [num_chains, num_draws, ...], at least 4 draws of each chain.
      rank_normalise: the "bulk" form; False takes the draws as they are.

    Returns:
      [...], for all chains together; at most M N log10(M N), for anticorrelated draws. NaN where
      draws are not finite or all equal.

    Raises:
      ValueError: fewer than 4 draws of each chain.
    """
    halves = _split(draws)
    num = halves.shape[0] * halves.shape[1]
    rho = _autocorrelation(_rank_normalised(halves) if rank_normalise else halves)
    with np.errstate(invalid="ignore"):
        tau = np.maximum(_autocorrelation_time(rho), 1 / np.log10(num))
    return np.where(_usable(halves), num / tau, np.nan)


def split_r_hat(draws: Array | np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat (eq. 4): 1 for chains that agree, larger otherwise.

    The larger of two values, for the draws and for their distances from the median, so that chains
    with equal location and different scales are detected too. Chains that agree have at most 1.01.

    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(split_r_hat(draws) < 1.01), bool(split_r_hat(draws + np.arange(4)[:, None]) > 1.1)
    (True, True)

    Args:
      draws: [num_chains, num_draws, ...], at least 4 draws of each chain.

    Returns:
      [...]. NaN where draws are not finite or all equal.

    Raises:
      ValueError: fewer than 4 draws of each chain.
    """
    halves = _split(draws)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    bulk, tail = (_r_hat(_rank_normalised(part)) for part in (halves, folded))
    return np.where(_usable(halves), np.fmax(bulk, tail), np.nan)


def _split(draws: Array | np.ndarray) -> np.ndarray:
    """Each chain split into two, without the middle draw if N is odd: [2 M, N // 2, ...]."""
    draws = np.asarray(draws, np.float64)
    if draws.ndim < 2 or draws.shape[1] < MIN_DRAWS:
        raise ValueError(f"draws must be [num_chains, at least {MIN_DRAWS}], not {draws.shape}.")
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _rank_normalised(draws: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks over all chains (eq. 14)."""
    flat = draws.reshape(-1, *draws.shape[2:])
    ranks = stats.rankdata(flat, axis=0)
    return stats.norm.ppf((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(draws.shape)


def _usable(draws: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        spread = draws.var(axis=(0, 1))
        return np.isfinite(spread) & (spread > _NEVER * np.square(draws).mean(axis=(0, 1)))


def _variances(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W and var+ (eq. 2 and 3), [...] each."""
    num = draws.shape[1]
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    between = draws.mean(axis=1).var(axis=0, ddof=1)  # B / N
    return within, (num - 1) / num * within + between


def _r_hat(draws: np.ndarray) -> np.ndarray:
    within, total = _variances(draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(total / within)


def _autocorrelation(draws: np.ndarray) -> np.ndarray:
    """rho_t of all chains together (eq. 10), [num_draws, ...]."""
    num = draws.shape[1]
    with np.errstate(invalid="ignore"):
        centred = draws - draws.mean(axis=1, keepdims=True)
    size = fft.next_fast_len(2 * num)
    power = np.abs(fft.rfft(centred, size, axis=1)) ** 2
    covariance = fft.irfft(power, size, axis=1)[:, :num].mean(axis=0) / num
    within, total = _variances(draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    return rho


def _autocorrelation_time(rho: np.ndarray) -> np.ndarray:
    """tau from rho_t [num_draws, ...] by Geyer's initial monotone sequence: [...]."""
    pairs = rho[: len(rho) // 2 * 2].reshape(-1, 2, *rho.shape[1:])
    sums = pairs.sum(axis=1)
    sums[max((len(rho) - 3) // 2, 1) :] = -1  # the last lags come from too few draws
    positive = np.logical_and.accumulate(sums > 0, axis=0)
    monotone = np.minimum.accumulate(np.where(positive, sums, np.inf), axis=0)
    tau = -1 + 2 * np.where(positive, monotone, 0.0).sum(axis=0)
    # The even lag of the first excluded pair still counts if it is positive.
    first = np.pad(positive, [(1, 0), *[(0, 0)] * (rho.ndim - 1)], constant_values=True)[:-1]
    return tau + np.where(first & ~positive, np.maximum(pairs[:, 0], 0.0), 0.0).sum(axis=0)
