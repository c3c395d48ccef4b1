"""The claims of the paper and of its variants, each decided by the rule of `verdicts`.

`evidence` turns the repetitions of some cells into one line of evidence; `paper` and `noise` say
which cells each claim needs.
"""

from collections.abc import Mapping

import pandas as pd

from study.claims.evidence import Sample
from study.claims.noise import noise_claims
from study.claims.paper import paper_claims, variant_claims
from study.claims.verdicts import Claim, judge
from study.titles import ENTRY_VARIANCE, NOISE, UPDATE_NOISE

COLUMNS = [
    *("table", "claim", "reading", "variant", "comparison", "test", "effect", "ci_low", "ci_high"),
    *("unit", "claimed", "null", "margin", "p_value"),
    *("family", "p_holm", "verdict", "reason", "p_holm_one_family", "verdict_one_family"),
]


def decide(cells: pd.DataFrame, last: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    """Tests every claim on the last epochs of one data set and origin.

    Args:
      cells: configuration fields by cell.
      last: one row per repetition (`readings.final`).
      metrics: {title: column} of the image metrics (lower is better), the deciding one first.

    Returns:
      One row per claim and variant with the columns `COLUMNS`; claims on the variance over entries
      and on the noise stand once. Claims without the cells they need are left out.
    """
    claims: list[Claim] = []
    for title, column in metrics.items():
        by_variance = _samples(last, "train_grad_var", column)
        tested = [
            *paper_claims(cells, by_variance, title),
            *variant_claims(cells, by_variance, title),
            *(noise_claims(cells, _samples(last, NOISE, column), title) if NOISE in last else ()),
        ]
        repeated = (ENTRY_VARIANCE, UPDATE_NOISE) if claims else ()
        claims += [claim for claim in tested if claim.reading not in repeated]
    if not claims:
        return pd.DataFrame(columns=COLUMNS)
    variants = list(dict.fromkeys(claim.variant for claim in claims))
    titles = list(metrics)
    claims.sort(key=lambda c: (titles.index(c.metric), variants.index(c.variant), c.table))
    return pd.concat([pd.DataFrame(map(_row, claims)), judge(claims)], axis="columns")[COLUMNS]


def _samples(last: pd.DataFrame, variance: str, quality: str) -> dict[str, Sample]:
    """The repetitions of each cell, from two columns of readings."""
    return {
        str(cell): Sample(rows[variance].to_numpy(float), rows[quality].to_numpy(float))
        for cell, rows in last.groupby("cell", sort=False)
    }


def _row(claim: Claim) -> dict[str, object]:
    evidence = claim.evidence
    claimed = f"{'>' if evidence.sign > 0 else '<'} {evidence.null:.3g}"
    if evidence.sign == 0:
        claimed = f"within {evidence.margin:.3g} of {evidence.null:.3g}"
    return {
        "table": claim.table,
        "claim": claim.text,
        "reading": claim.reading,
        "variant": claim.variant,
        "comparison": evidence.comparison,
        "test": evidence.test,
        "effect": evidence.estimate.value,
        "ci_low": evidence.estimate.low,
        "ci_high": evidence.estimate.high,
        "unit": evidence.unit,
        "claimed": claimed,
        "null": evidence.null,
        "margin": evidence.margin,
        "p_value": evidence.estimate.p_value,
    }
