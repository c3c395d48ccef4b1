"""The paper's tables 2 and 3, claim by claim, decided by `evidence.RULE`.

Each claim is tested wherever the cells it needs are there: on the paper's own readings and on any
sweep alike.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from thermo_ebm.analysis import evidence as ev
from thermo_ebm.analysis import statistics
from thermo_ebm.analysis.evidence import VARIANCE, Claim, Sample
from thermo_ebm.analysis.settings import (
    THERMODYNAMIC,
    VANILLA,
    Settings,
    cells_of,
    describe,
    group_cells,
    varied,
)
from thermo_ebm.analysis.variants import variant_claims

BEST_POWER = 6.0  # where the paper sees the minimum of KID
VANILLA_VARIANT = "vanilla"

COLUMNS = ["table", "claim", "reading", "variant", "comparison", "test", "effect", "ci_low"]
COLUMNS += ["ci_high", "unit", "claimed", "p_value", "p_holm", "verdict", "reason"]

# setting: (its name in the claims, the table that holds them)
CHANGES = {
    "num_temperatures": ("N_t", "Table 3"),
    "posterior_steps": ("K", "Table 3"),
    "kl_weight": ("η", "Table 3"),
    "prior_steps": ("K_z", ev.NOT_IN_PAPER),
}


def decide(final: pd.DataFrame, metric: str, title: str) -> pd.DataFrame:
    """Tests every claim on the last epochs of one data set.

    Args:
      final: one row a repetition (`readings.final`) of one data set and origin.
      metric: the column of the image metric (lower is better).
      title: what to call it in the table.

    Returns:
      One row a claim and variant with the columns `COLUMNS`. Claims without the cells they need
      are left out.
    """
    cells = cells_of(final)
    samples = {
        str(key): Sample(rows["train_grad_var"].to_numpy(float), rows[metric].to_numpy(float))
        for key, rows in final.groupby("cell", sort=False)
    }
    rows: list[dict[str, object]] = []
    for variant, claims in _families(cells, samples, title):
        tested = [(claim, claim.evidence) for claim in claims if claim.evidence is not None]
        for table in sorted({claim.table for claim, _ in tested}):
            rows += _rows(variant, [pair for pair in tested if pair[0].table == table])
    return pd.DataFrame(rows, columns=COLUMNS)


def vanilla_claims(by_batch: Mapping[float, Sample], title: str) -> list[Claim]:
    """Table 2's first row: what the batch size does to the vanilla model."""
    variance, quality = _split(by_batch)
    improves, until = f"smaller batches improve {title}", f"... until a minimum of {title}"
    return [
        Claim(
            "Table 2",
            "the variance falls with the batch size",
            VARIANCE,
            ev.variance_trend(variance, "batch", -1),
        ),
        Claim("Table 2", improves, title, ev.quality_trend(quality, "batch", +1, title)),
        Claim("Table 2", until, title, ev.smallest_is_worse(quality, "batch", title)),
    ]


def power_claims(by_power: Mapping[float, Sample], title: str) -> list[Claim]:
    """Table 2's other rows: what the power p does to the thermodynamic model."""
    above = {p: sample for p, sample in by_power.items() if p > 1.0}
    below = {p: sample for p, sample in by_power.items() if p <= 1.0}
    rising, falling = _split(above), _split(below)
    to_best = {p: q for p, q in rising[1].items() if p <= BEST_POWER}
    from_best = {p: q for p, q in rising[1].items() if p >= BEST_POWER}
    if BEST_POWER not in by_power:
        to_best, from_best = {}, {}
    best = f"{BEST_POWER:g}"
    entries: list[tuple[str, str, ev.Evidence | None]] = [
        ("p > 1: the variance rises with p", VARIANCE, ev.variance_trend(rising[0], "p", +1)),
        (
            f"p > 1: {title} improves up to p = {best}",
            title,
            ev.quality_trend(to_best, "p", -1, title),
        ),
        (f"... and worsens beyond p = {best}", title, ev.quality_trend(from_best, "p", +1, title)),
        ("p ≤ 1: the variance rises as p falls", VARIANCE, ev.variance_trend(falling[0], "p", -1)),
        (f"p ≤ 1: raising p improves {title}", title, ev.quality_trend(falling[1], "p", -1, title)),
        (
            f"p ≤ 1: poorer {title} than p > 1",
            title,
            ev.quality_difference(
                list(rising[1].values()), list(falling[1].values()), ("p > 1", "p ≤ 1"), +1, title
            ),
        ),
    ]
    return [Claim("Table 2", *entry) for entry in entries]


def comparison_claims(
    by_power: Mapping[float, Sample],
    by_batch: Mapping[float, Sample],
    batch_size: float,
    title: str,
) -> list[Claim]:
    """What the paper says of the thermodynamic model beside the vanilla one."""
    above = {p: sample for p, sample in by_power.items() if p > 1.0}
    below = {p: sample for p, sample in by_power.items() if p <= 1.0}
    batches = _split(by_batch)
    same_batch = [by_batch[batch_size].quality] if batch_size in by_batch else []
    best = [by_power[BEST_POWER].quality] if BEST_POWER in by_power else []
    at = f"batch {batch_size:g}"
    entries: list[tuple[str, str, ev.Evidence | None]] = []
    for name, part in (("p > 1", above), ("p ≤ 1", below)):
        text = f"{name}: narrower spread over repetitions than batching's"
        spread = ev.narrower_spread(
            list(batches[0].values()), list(_split(part)[0].values()), ("vanilla", name)
        )
        entries.append((text, VARIANCE, spread))
    names = (f"vanilla, {at}", f"p = {BEST_POWER:g}, {at}")
    entries += [
        (
            f"vanilla has the better {title} than the best p at the same batch size",
            title,
            ev.quality_difference(same_batch, best, names, +1, title),
        ),
        (
            f"vanilla has the better {title} over all cells",
            title,
            ev.quality_difference(
                list(batches[1].values()),
                list(_split(by_power)[1].values()),
                ("vanilla", "TI"),
                +1,
                title,
            ),
        ),
        (
            f"variance alone does not predict {title}: p ≤ 1 is poorer than vanilla at equal one",
            title,
            ev.poorer_at_equal_variance(
                _pooled(by_batch), _pooled(below), ("vanilla", "p ≤ 1"), title
            ),
        ),
    ]
    return [Claim("Table 2", *entry) for entry in entries]


def change_claims(setting: str, by_level: Mapping[float, Sample], title: str) -> list[Claim]:
    """Table 3's row on N_t, K or eta (and the same on K_z): what raising the setting does."""
    name, table = CHANGES[setting]
    variance, quality = _split(by_level)
    falls = ev.variance_trend(variance, name, -1)
    claims = [Claim(table, f"raising {name} lowers the variance", VARIANCE, falls)]
    if setting == "posterior_steps":
        low, high = min(quality), max(quality)
        names = (f"{name} {low:g}", f"{name} {high:g}")
        no_better = ev.quality_difference(
            [quality[low]], [quality[high]], names, +1, title, no_better_by=True
        )
        claims.append(Claim(table, f"raising {name} does not improve {title}", title, no_better))
    else:
        better = ev.quality_trend(quality, name, -1, title)
        claims.append(Claim(table, f"raising {name} improves {title}", title, better))
    return claims


def _families(
    cells: Mapping[str, Settings], samples: Mapping[str, Sample], title: str
) -> Iterator[tuple[str, list[Claim]]]:
    """Yields each variant's name and claims; a family is the part of them in one table."""
    vanilla = {key: s for key, s in cells.items() if s.loss == VANILLA}
    thermodynamic = {key: s for key, s in cells.items() if s.loss == THERMODYNAMIC}
    for settings, group in group_cells(vanilla, ("batch_size",)):
        by_batch = {s.batch_size: samples[key] for key, s in group.items()}
        name = describe(settings, [n for n in varied(vanilla.values()) if n != "batch_size"])
        yield f"{VANILLA_VARIANT} {name}".strip(), vanilla_claims(by_batch, title)
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
        yield f"TI {describe(settings, names)}".strip(), claims
    yield from _change_families(thermodynamic, samples, title)
    yield "TI, compared", variant_claims(thermodynamic, samples, title)


def _change_families(
    cells: Mapping[str, Settings], samples: Mapping[str, Sample], title: str
) -> Iterator[tuple[str, list[Claim]]]:
    """Groups the one-setting changes by the settings that none of them touches."""
    families: dict[str, list[Claim]] = {}
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
                claims = change_claims(setting, levels, title)
                families.setdefault(f"TI {name}".strip(), []).extend(claims)
    yield from families.items()


def _comparable(vanilla: Settings, thermodynamic: Settings) -> bool:
    """Whether two cells share the samplers' steps and every further field but the loss's own."""

    def shared(settings: Settings) -> tuple[object, ...]:
        other = (settings.other or "").split("; ")
        further = tuple(part for part in other if part and not part.startswith("loss."))
        return (settings.posterior_steps, settings.prior_steps, further)

    return shared(vanilla) == shared(thermodynamic)


def _rows(variant: str, tested: list[tuple[Claim, ev.Evidence]]) -> list[dict[str, object]]:
    adjusted = statistics.holm([evidence.p_value for _, evidence in tested])
    rows = []
    for (claim, evidence), p_holm in zip(tested, adjusted, strict=True):
        sign = ">" if evidence.claimed > 0 else "<"
        verdict, reason = ev.verdict(evidence, float(p_holm))
        rows.append(
            {
                "table": claim.table,
                "claim": claim.text,
                "reading": claim.reading,
                "variant": variant,
                "comparison": evidence.comparison,
                "test": evidence.test,
                "effect": evidence.effect,
                "ci_low": evidence.low,
                "ci_high": evidence.high,
                "unit": evidence.unit,
                "claimed": f"{sign} {evidence.null:.3g}",
                "p_value": evidence.p_value,
                "p_holm": float(p_holm),
                "verdict": verdict,
                "reason": reason,
            }
        )
    return rows


def _split(
    samples: Mapping[float, Sample],
) -> tuple[dict[float, np.ndarray], dict[float, np.ndarray]]:
    """Returns the gradient variances and the metrics by level."""
    variance = {level: sample.variance for level, sample in samples.items()}
    return variance, {level: sample.quality for level, sample in samples.items()}


def _pooled(samples: Mapping[float, Sample]) -> tuple[np.ndarray, np.ndarray]:
    if not samples:
        return np.empty(0), np.empty(0)
    variance, quality = _split(samples)
    return np.concatenate([*variance.values()]), np.concatenate([*quality.values()])
