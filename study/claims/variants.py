"""Claims that the paper could not test: does another gradient or quadrature improve p ≤ 1?

Every variant of the thermodynamic loss is compared with that of the published code: chains
detached (prior gradient "none") and the trapezium.
"""

from collections.abc import Mapping

import numpy as np

from study import statistics
from study.claims.evidence import Evidence, Sample, quality_margin
from study.claims.verdicts import NOT_IN_PAPER, Claim
from study.settings import Settings, cell_key, describe, group_cells, varied

PUBLISHED_FORM = ("none", "trapezium")  # prior gradient, quadrature


def variant_claims(
    cells: Mapping[str, Settings], samples: Mapping[str, Sample], title: str
) -> list[Claim]:
    """Compares each variant with the published form, over the powers that both have.

    Two claims each: the metric at p ≤ 1 is better, and its gap to p > 1 is narrower (the collapse
    at small p goes away). None where the published form is missing or stands alone.
    """
    groups = group_cells(cells, ("power",))
    names = [name for name in varied(cells.values()) if name != "power"]
    reference = next((pair for pair in groups if _is_published_form(pair[0])), None)
    if reference is None:
        return []
    claims = []
    for settings, group in groups:
        name = describe(settings, names)
        if settings == reference[0] or not _comparable(settings, reference[0]):
            continue
        pairs = _common_powers(group, reference[1], samples)
        for gap, words in ((False, "better"), (True, "a narrower gap to p > 1 in")):
            found = _difference(pairs, gap, title)
            text = f"p ≤ 1: {words} {title} with {name} than with the published form"
            claims.append(Claim(NOT_IN_PAPER, text, title, found))
    return claims


def _is_published_form(settings: Settings) -> bool:
    return (settings.prior_gradient, settings.quadrature) == PUBLISHED_FORM


def _comparable(settings: Settings, reference: Settings) -> bool:
    """Whether two variants differ in their gradients and quadrature alone."""
    free = ("power", "quadrature", "prior_gradient", "generator_gradient")
    return cell_key(settings, free) == cell_key(reference, free)


def _common_powers(
    group: Mapping[str, Settings],
    reference: Mapping[str, Settings],
    samples: Mapping[str, Sample],
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Returns {power: (metric of the reference, metric of the variant)}, finite values alone."""
    theirs = {s.power: samples[key].quality for key, s in reference.items()}
    pairs = {}
    for key, settings in group.items():
        power = settings.power
        if power is None or power not in theirs:
            continue
        pair = [values[np.isfinite(values)] for values in (theirs[power], samples[key].quality)]
        if min(len(values) for values in pair) > 1:
            pairs[power] = (pair[0], pair[1])
    return pairs


def _difference(
    pairs: Mapping[float, tuple[np.ndarray, np.ndarray]], gap: bool, metric: str
) -> Evidence | None:
    """The variant less the reference at p ≤ 1; with `gap`, less the same at p > 1."""
    below = [power for power in pairs if power <= 1.0]
    above = [power for power in pairs if power > 1.0]
    if not below or (gap and not above):
        return None
    shares = {power: 1.0 / len(below) for power in below}
    if gap:
        shares |= {power: -1.0 / len(above) for power in above}
    groups = [values for power in shares for values in pairs[power]]
    weights = [sign * share for share in shares.values() for sign in (-1.0, 1.0)]
    effect, low, high, p_value = statistics.contrast(groups, weights)
    margin = quality_margin(metric) * float(np.mean([abs(np.mean(group)) for group in groups]))
    text = "p " + ", ".join(f"{power:g}" for power in sorted(shares))
    return Evidence(
        text, "Welch contrast", effect, low, high, p_value, "difference", -1, 0.0, margin
    )
