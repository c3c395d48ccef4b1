"""The paper's tables 2 and 3, claim by claim.

Each claim is tested wherever the cells it needs are there: on the paper's own readings and on any
sweep alike.
"""

from collections.abc import Mapping

import numpy as np

from study.claims import evidence as ev
from study.claims.evidence import Sample
from study.claims.verdicts import NOT_IN_PAPER, Claim
from study.names import ENTRY_VARIANCE

BEST_POWER = 6.0  # where the paper sees the minimum of KID

# setting: (its name in the claims, the table that holds them)
CHANGES = {
    "num_temperatures": ("N_t", "Table 3"),
    "posterior_steps": ("K", "Table 3"),
    "kl_weight": ("η", "Table 3"),
    "prior_steps": ("K_z", NOT_IN_PAPER),
}


def vanilla_claims(by_batch: Mapping[float, Sample], title: str) -> list[Claim]:
    """Table 2's first row: what the batch size does to the vanilla model."""
    variance, quality = _split(by_batch)
    improves, until = (
        f"smaller batches improve {title}",
        f"the smallest batch is past the best {title}",
    )
    return [
        Claim(
            "Table 2",
            "the variance falls with the batch size",
            ENTRY_VARIANCE,
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
        ("p > 1: the variance rises with p", ENTRY_VARIANCE, ev.variance_trend(rising[0], "p", +1)),
        (
            f"p > 1: {title} improves up to p = {best}",
            title,
            ev.quality_trend(to_best, "p", -1, title),
        ),
        (
            f"p > 1: {title} worsens beyond p = {best}",
            title,
            ev.quality_trend(from_best, "p", +1, title),
        ),
        (
            "p ≤ 1: the variance rises as p falls",
            ENTRY_VARIANCE,
            ev.variance_trend(falling[0], "p", -1),
        ),
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
        entries.append((text, ENTRY_VARIANCE, spread))
    names = (f"vanilla, {at}", f"p = {BEST_POWER:g}, {at}")
    entries += [
        (
            f"vanilla has a better {title} than the best p at the same batch size",
            title,
            ev.quality_difference(same_batch, best, names, +1, title),
        ),
        (
            f"vanilla has a better {title} than TI over all cells",
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
            f"variance alone does not predict {title}: "
            "p ≤ 1 is poorer than vanilla at equal variance",
            title,
            ev.poorer_at_equal_variance(
                list(by_batch.values()), list(below.values()), ("vanilla", "p ≤ 1"), title
            ),
        ),
    ]
    return [Claim("Table 2", *entry) for entry in entries]


def change_claims(setting: str, by_level: Mapping[float, Sample], title: str) -> list[Claim]:
    """Table 3's row on N_t, K or eta (and the same on K_z): what raising the setting does."""
    name, table = CHANGES[setting]
    variance, quality = _split(by_level)
    falls = ev.variance_trend(variance, name, -1)
    claims = [Claim(table, f"raising {name} lowers the variance", ENTRY_VARIANCE, falls)]
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


def _split(
    samples: Mapping[float, Sample],
) -> tuple[dict[float, np.ndarray], dict[float, np.ndarray]]:
    """Returns the variances over entries and the metrics by level."""
    variance = {level: sample.variance for level, sample in samples.items()}
    return variance, {level: sample.quality for level, sample in samples.items()}
