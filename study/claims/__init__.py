"""The claims of the paper and of its variants, each decided by the rule of `verdicts`.

`evidence` turns the repetitions of some cells into one line of evidence; `paper` and `variants` say
which cells each claim needs.
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from study.claims.evidence import Evidence, Sample
from study.claims.noise import noise_claims
from study.claims.paper import (
    CHANGES,
    change_claims,
    comparison_claims,
    power_claims,
    vanilla_claims,
)
from study.claims.variants import variant_claims
from study.claims.verdicts import Claim, Tested, judge
from study.names import ENTRY_VARIANCE, UPDATE_NOISE
from study.settings import (
    THERMODYNAMIC,
    VANILLA,
    Settings,
    cells_of,
    describe,
    group_cells,
    other_fields,
    varied,
)

EVIDENCE_COLUMNS = [
    *("table", "claim", "reading", "variant", "comparison", "test", "effect", "ci_low", "ci_high"),
    *("unit", "claimed", "null", "margin", "p_value"),
]
COLUMNS = [
    *EVIDENCE_COLUMNS,
    *("family", "p_holm", "verdict", "reason", "p_holm_one_family", "verdict_one_family"),
]


def decide(final: pd.DataFrame, metrics: Mapping[str, str]) -> pd.DataFrame:
    """Tests every claim on the last epochs of one data set.

    Args:
      final: one row per repetition (`readings.final`) of one data set and origin.
      metrics: {title: column} of the image metrics (lower is better), the deciding one first.

    Returns:
      One row per claim and variant with the columns `COLUMNS`; claims on the variance over entries
      and on the noise stand once. Claims without the cells they need are left out.
    """
    tested: list[Tested] = []
    for number, (title, column) in enumerate(metrics.items()):
        for variant, claim in _claims(final, title, column):
            repeated = number > 0 and claim.reading in (ENTRY_VARIANCE, UPDATE_NOISE)
            if claim.evidence is not None and not repeated:
                tested.append(Tested(claim, claim.evidence, variant, title))
    if not tested:
        return pd.DataFrame(columns=COLUMNS)
    order = sorted(range(len(tested)), key=lambda i: _place(tested, i))
    tested = [tested[i] for i in order]
    return pd.concat([pd.DataFrame([_row(one) for one in tested]), judge(tested)], axis=1)


def _place(tested: list[Tested], index: int) -> tuple[int, int, str, int]:
    """Sorts by metric, variant (in their order) and table, and keeps the order of the claims."""
    metrics = list(dict.fromkeys(one.metric for one in tested))
    variants = list(dict.fromkeys(one.variant for one in tested))
    one = tested[index]
    return metrics.index(one.metric), variants.index(one.variant), one.claim.table, index


def _row(one: Tested) -> dict[str, object]:
    claim, evidence = one.claim, one.evidence
    values = (
        *(claim.table, claim.text, claim.reading, one.variant, evidence.comparison, evidence.test),
        *(evidence.effect, evidence.low, evidence.high, evidence.unit),
        *(_claimed(evidence), evidence.null, evidence.margin, evidence.p_value),
    )
    return dict(zip(EVIDENCE_COLUMNS, values, strict=True))


def _claimed(evidence: Evidence) -> str:
    if evidence.claimed == 0:
        return f"within {evidence.margin:.3g} of {evidence.null:.3g}"
    return f"{'>' if evidence.claimed > 0 else '<'} {evidence.null:.3g}"


def _claims(final: pd.DataFrame, title: str, column: str) -> Iterator[tuple[str, Claim]]:
    """Yields (variant, claim) of one metric."""
    cells = cells_of(final)
    samples = {
        str(key): Sample(rows["train_grad_var"].to_numpy(float), rows[column].to_numpy(float))
        for key, rows in final.groupby("cell", sort=False)
    }
    vanilla = {key: s for key, s in cells.items() if s.loss == VANILLA}
    thermodynamic = {key: s for key, s in cells.items() if s.loss == THERMODYNAMIC}
    yield from _vanilla(vanilla, samples, title)
    yield from _powers(vanilla, thermodynamic, samples, title)
    yield from _changes(thermodynamic, samples, title)
    for claim in variant_claims(thermodynamic, samples, title):
        yield "TI, compared", claim
    yield from noise_claims(cells, final, title, column)


def _vanilla(
    cells: Mapping[str, Settings], samples: Mapping[str, Sample], title: str
) -> Iterator[tuple[str, Claim]]:
    names = [name for name in varied(cells.values()) if name != "batch_size"]
    for settings, group in group_cells(cells, ("batch_size",)):
        by_batch = {s.batch_size: samples[key] for key, s in group.items()}
        for claim in vanilla_claims(by_batch, title):
            yield f"vanilla {describe(settings, names)}".strip(), claim


def _powers(
    vanilla: Mapping[str, Settings],
    thermodynamic: Mapping[str, Settings],
    samples: Mapping[str, Sample],
    title: str,
) -> Iterator[tuple[str, Claim]]:
    names = [name for name in varied(thermodynamic.values()) if name != "power"]
    for settings, group in group_cells(thermodynamic, ("power",)):
        if len(group) < 2:
            continue
        by_power = {s.power: samples[key] for key, s in group.items() if s.power is not None}
        like = {
            s.batch_size: samples[key] for key, s in vanilla.items() if _comparable(s, settings)
        }
        claims = power_claims(by_power, title)
        claims += comparison_claims(by_power, like, settings.batch_size, title)
        for claim in claims:
            yield f"TI {describe(settings, names)}".strip(), claim


def _changes(
    cells: Mapping[str, Settings], samples: Mapping[str, Sample], title: str
) -> Iterator[tuple[str, Claim]]:
    """Yields what raising one setting does, named by the settings that none of them touches."""
    names = [name for name in varied(cells.values()) if name not in CHANGES]
    for setting in CHANGES:
        changed = [pair for pair in group_cells(cells, (setting,)) if len(pair[1]) > 1]
        short = [describe(settings, names) for settings, _ in changed]
        for i, (settings, group) in enumerate(changed):
            # In a grid of such settings each is raised at several values of the others.
            others = [name for name in varied(cells.values()) if name != setting]
            name = short[i] if short.count(short[i]) == 1 else describe(settings, others)
            levels = {getattr(s, setting): samples[key] for key, s in group.items()}
            levels = {level: sample for level, sample in levels.items() if level is not None}
            if len(levels) > 1:
                for claim in change_claims(setting, levels, title):
                    yield f"TI {name}".strip(), claim


def _comparable(vanilla: Settings, thermodynamic: Settings) -> bool:
    """Whether two cells share the samplers' steps and every further field but the loss's own."""

    def shared(settings: Settings) -> tuple[object, ...]:
        other = other_fields(settings).items()
        further = tuple(pair for pair in other if not pair[0].startswith("loss."))
        return (settings.posterior_steps, settings.prior_steps, further)

    return shared(vanilla) == shared(thermodynamic)
