"""The rule of the verdicts and the families of tests: stated here, and computed here alone.

A *family* is the claims of one table of the paper that one metric decides, on one data set and one
variant of the loss (the vanilla model is one variant). The claims on the variance over entries and
on the noise belong to the family of the first metric. Holm's correction runs over each family. The
verdicts with all claims of one data set as one family show how much depends on that choice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from study import statistics
from study.claims.evidence import Evidence

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "undecided"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, UNDECIDED)

ALPHA = 0.05
NOT_IN_PAPER = "not in the paper"

RULES = {
    "Supported": (
        "the Holm-adjusted p-value is below 0.05, and the 95 % confidence interval lies on the "
        "claimed side of the null value."
    ),
    "Not supported": (
        "the same holds on the other side; or the interval begins at or before the null value and "
        "ends before the smallest effect that would matter: 5 % of the variance over entries or of "
        "the mean KID and 2 % of the mean FID, over the whole range of a trend, or 20 % of a "
        "relative spread."
    ),
    "No difference": (
        "a claim that two things do not differ is supported if the 95 % confidence interval of the "
        "difference lies within the smallest effect that would matter, on either side, and not "
        "supported if it does not and the Holm-adjusted p-value is below 0.05."
    ),
    "Undecided": "anything else. It does not mean that there is no effect.",
    "Family": (
        "Holm's correction runs over the claims of one table of the paper that one metric decides, "
        "on one data set and one variant of the loss (the vanilla model is one variant). The "
        "claims on the variance over entries belong to the family of the first metric. The column "
        "'one family' shows each verdict with all claims of the data set as one family."
    ),
    "Readings": (
        "the last epoch's. The column 'last 5 epochs' shows each verdict by their means over the "
        "last five epochs."
    ),
    "Tests": (
        "a trend's interval is that of its average slope per doubling (Welch-Satterthwaite); its "
        "p-value is that of the exact Jonckheere-Terpstra test, whose D, from -1 to 1, is the "
        "trend's strength by ranks. Comparisons at equal variance or noise take cells as units "
        "(jackknife over cells). Intervals are not adjusted for the number of claims."
    ),
}


class Claim(NamedTuple):
    """One claim with its evidence."""

    table: str  # of the paper, or NOT_IN_PAPER
    variant: str  # of the loss
    metric: str  # of the family; a claim on the variance belongs to the first metric's
    reading: str  # the variance over entries, the noise, or the metric's name
    text: str
    evidence: Evidence

    @property
    def family(self) -> str:
        """The name of the claims that are corrected together."""
        return f"{self.table}, {self.variant}, {self.metric}"


def judge(claims: Sequence[Claim]) -> pd.DataFrame:
    """Decides the claims of one data set.

    Returns:
      One row per claim: family, p_holm, verdict and reason by families, and p_holm_one_family and
      verdict_one_family with all of them as one family.
    """
    frame = pd.DataFrame(
        {
            "family": [claim.family for claim in claims],
            "p_value": [claim.evidence.estimate.p_value for claim in claims],
        }
    )
    frame["p_holm"] = frame.groupby("family", sort=False)["p_value"].transform(statistics.holm)
    decisions = [
        verdict(claim.evidence, p) for claim, p in zip(claims, frame["p_holm"], strict=True)
    ]
    frame[["verdict", "reason"]] = decisions
    frame["p_holm_one_family"] = statistics.holm(frame["p_value"].tolist())
    frame["verdict_one_family"] = [
        verdict(claim.evidence, p)[0]
        for claim, p in zip(claims, frame["p_holm_one_family"], strict=True)
    ]
    return frame.drop(columns="p_value")


def verdict(evidence: Evidence, adjusted_p: float) -> tuple[str, str]:
    """Decides a claim by the rule; returns the verdict and its reason."""
    low, high = evidence.estimate.low - evidence.null, evidence.estimate.high - evidence.null
    significant = adjusted_p < ALPHA
    if evidence.sign == 0:
        if -evidence.margin < low and high < evidence.margin:
            return SUPPORTED, "any difference is too small to matter"
        if significant and (low > 0.0 or high < 0.0):
            return NOT_SUPPORTED, "there is a difference"
        return UNDECIDED, "the interval allows for both"
    low, high = sorted((evidence.sign * low, evidence.sign * high))
    if significant and low > 0.0:
        return SUPPORTED, "effect as claimed"
    if significant and high < 0.0:
        return NOT_SUPPORTED, "the opposite effect"
    if low <= 0.0 and high < evidence.margin:
        return NOT_SUPPORTED, "any such effect is too small to matter"
    return UNDECIDED, "the interval allows for both" if low <= 0.0 else "not significant"
