"""Whether estimates of log p(x) can be relied on, the reason where they cannot, and what to do."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thermo_ebm.likelihood.annealed_smc import Estimates
from thermo_ebm.likelihood.proposal import PriorConstant
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.types import Array

LEAST_SIZE = 3.0  # effective chains of an image
MOST_ERROR = 0.3  # nats, the stated standard error, or twice the error asked for
MOST_SPREAD = 1.0  # nats between islands, or three times the error that is allowed
# Nats by which draws of the prior may exceed the chains. By Markov's inequality, an unbiased
# estimate is more than twice too high in less than half of all cases, and in practice hardly ever.
MOST_EXCESS = 0.7
MOST_R_HAT = 1.05
# Of annealed chains of the prior, the share that is effective, and the standard error of log
# Z_alpha in nats; where chains at s = 1 do not mix, annealing alone finds the weights of modes.
LEAST_PRIOR_SHARE, MOST_PRIOR_ERROR = 0.05, MOST_ERROR
LEAST_SHARE_UNMIXED, MOST_ERROR_UNMIXED = 0.2, 0.1
LEAST_SHARE = 0.5  # of the images whose estimates are reliable, for their mean to be
MOST_GAP = 0.5  # nats between the mean bounds of simulated images
MOST_IMAGE_GAP = 1.5  # nats between the bounds of a simulated image


class Verdict(NamedTuple):
    """`reliable` with the reasons where it is false."""

    reliable: bool
    reasons: tuple[str, ...] = ()
    remedy: str = ""
    notes: tuple[str, ...] = ()  # to be known, though they are no reason to doubt

    def sentence(self) -> str:
        """`reliable: yes`, or no with the reasons and what to do."""
        if self.reliable:
            return "; ".join(("reliable: yes", *self.notes))
        return f"reliable: no; {'; '.join(self.reasons)}; {self.remedy}"


def are_reliable(estimates: Estimates, settings: LikelihoodSettings) -> Array:
    """Whether the estimate of each image can be relied on, bool [num]; can be jitted."""
    return ~jnp.stack(_flaws(estimates, settings)).any(axis=0)


def _flaws(estimates: Estimates, settings: LikelihoodSettings) -> list[Array]:
    """Which images have each kind of flaw, bool [num] each."""
    excess = estimates.prior_sampling - estimates.log_marginal_likelihood
    error = max(2 * settings.error, MOST_ERROR)
    return [
        estimates.effective_sample_size < LEAST_SIZE,
        estimates.island_spread > max(MOST_SPREAD, 3 * error),
        estimates.stderr > error,
        excess > MOST_EXCESS + 3 * estimates.stderr,
        ~jnp.isfinite(estimates.log_marginal_likelihood),
    ]


def _descriptions(estimates: Estimates) -> list[str]:
    """The worst of each kind of flaw."""
    excess = np.max(estimates.prior_sampling - estimates.log_marginal_likelihood)
    return [
        f"smallest effective sample size {np.min(estimates.effective_sample_size):.1f}",
        f"islands disagree by {np.max(estimates.island_spread):.1f} nats",
        f"standard error up to {np.max(estimates.stderr):.2f} nats",
        f"{excess:.1f} nats below what draws of the prior give: the chains miss a mode",
        "not a finite number",
    ]


def of_images(estimates: Estimates, gradients: np.ndarray, settings: LikelihoodSettings) -> Verdict:
    """The verdict on the estimates of some images and the gradients of a chain, [num] each."""
    flaws = [np.asarray(flaw) for flaw in _flaws(estimates, settings)]
    num = int(np.any(flaws, axis=0).sum())
    if num == 0:
        return Verdict(True)
    descriptions = zip(flaws, _descriptions(estimates), strict=True)
    worst = [description for flaw, description in descriptions if flaw.any()]
    reasons = (f"{num} of {len(gradients)} images", *worst)
    more = 4 * int(np.max(gradients))
    return Verdict(
        False, reasons, f"repeat with --error={settings.error / 2:g} --max_gradients={more}"
    )


def is_reliable_prior(prior: PriorConstant, num_chains: int) -> Array:
    """Whether log Z_alpha can be relied on; can be jitted."""
    return ~jnp.stack(_flaws_of_prior(prior, num_chains)).any()


def _flaws_of_prior(prior: PriorConstant, num_chains: int) -> list[Array]:
    """Whether few of the annealed chains are effective, and whether the error is large."""
    mixes = prior.r_hat <= MOST_R_HAT  # false for nan
    share = jnp.where(mixes, LEAST_PRIOR_SHARE, LEAST_SHARE_UNMIXED)
    error = jnp.where(mixes, MOST_PRIOR_ERROR, MOST_ERROR_UNMIXED)
    few = ~(prior.effective_sample_size >= share * num_chains)
    return [few, ~(prior.stderr <= error), ~jnp.isfinite(prior.r_hat)]


def of_prior(prior: PriorConstant, num_chains: int) -> Verdict:
    """The verdict on log Z_alpha, on which every image's log p(x) depends."""
    size, error, r_hat = (
        float(value) for value in (prior.effective_sample_size, prior.stderr, prior.r_hat)
    )
    descriptions = [
        f"log Z_alpha rests on {size:.0f} of {num_chains} chains of the prior",
        f"standard error of log Z_alpha {error:.2f} nats",
        "chains of the prior are not finite",
    ]
    flaws = zip(_flaws_of_prior(prior, num_chains), descriptions, strict=True)
    reasons = [description for flaw, description in flaws if flaw]
    unmixed = f"chains of the prior do not mix (R-hat {r_hat:.2f} in the worst direction)"
    if not reasons:
        note = f"{unmixed}: annealing from p_0 alone finds log Z_alpha, to {error:.2f} nats"
        return Verdict(True, notes=() if r_hat <= MOST_R_HAT else (note,))
    if r_hat > MOST_R_HAT:
        reasons.insert(0, unmixed)
    remedy = "log p(x) may be off by one constant for all images: compare images of this model only"
    return Verdict(False, tuple(reasons), remedy)


def of_bounds(lower: np.ndarray, upper: np.ndarray, stderr: np.ndarray) -> Verdict:
    """The verdict of the bounds of simulated images in nats, [num] each.

    Args:
      lower: the estimates.
      upper: from conditional SMC.
      stderr: of the difference.
    """
    gaps = upper - lower
    reasons = []
    if len(gaps) > 1:
        error = gaps.std(ddof=1) / np.sqrt(len(gaps))
        if abs(gaps.mean()) > MOST_GAP + 2 * error or gaps.mean() > 2 * MOST_GAP:
            reasons.append(f"bounds of simulated images are {gaps.mean():.1f} nats apart")
    far = gaps > MOST_IMAGE_GAP + 3 * stderr
    if far.any():
        reasons.append(
            f"the bounds of {far.sum()} of {len(gaps)} simulated images are more than "
            f"{MOST_IMAGE_GAP:g} nats apart"
        )
    return Verdict(not reasons, tuple(reasons), "repeat with a smaller --error" if reasons else "")


def together(verdicts: list[Verdict]) -> Verdict:
    """Reliable if all are."""
    wrong = [verdict for verdict in verdicts if not verdict.reliable]
    reasons = tuple(reason for verdict in wrong for reason in verdict.reasons)
    remedies = dict.fromkeys(verdict.remedy for verdict in wrong)
    notes = tuple(note for verdict in verdicts for note in verdict.notes)
    return Verdict(not wrong, reasons, ", ".join(remedies), notes)
