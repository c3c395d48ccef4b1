"""The claims of the paper's tables 2 and 3, as rows, and those on variants of the loss.

Each claim is tested wherever the cells it needs are there: on the paper's own readings and on any
sweep alike. A row says which test decides it, on which groups of cells, and the sign of the claimed
effect.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from study import statistics
from study.cells import (
    SYMBOLS,
    THERMODYNAMIC,
    VANILLA,
    agree,
    describe,
    groups_without,
    varied,
    with_loss,
)
from study.claims.evidence import (
    Evidence,
    Groups,
    Levels,
    Sample,
    at_equal_variance,
    narrower_spread,
    no_better,
    quality_difference,
    quality_margin,
    quality_trend,
    smallest_is_worse,
    variance_trend,
)
from study.claims.verdicts import NOT_IN_PAPER, Claim
from study.titles import ENTRY_VARIANCE

BEST_POWER = 6.0  # where the paper sees the minimum of KID
PUBLISHED_FORM = {"loss.prior_gradient": "none", "loss.quadrature": "trapezium"}


class Row(NamedTuple):
    """One claim: words in braces stand for the metric's title and for values of the cells."""

    text: str
    test: Callable[[Groups, int, str], Evidence | None]
    groups: Mapping[str, str]  # {words in the comparison: name of a group of cells}
    sign: int


BATCHES = {"batch": "batches"}
VANILLA_ROWS = (
    Row("the variance falls with the batch size", variance_trend, BATCHES, -1),
    Row("smaller batches improve {metric}", quality_trend, BATCHES, +1),
    Row("the smallest batch is past the best {metric}", smallest_is_worse, BATCHES, +1),
)
POWER_ROWS = (
    Row("p > 1: the variance rises with p", variance_trend, {"p": "p > 1"}, +1),
    Row("p > 1: {metric} improves up to p = 6", quality_trend, {"p": "1 < p ≤ 6"}, -1),
    Row("p > 1: {metric} worsens beyond p = 6", quality_trend, {"p": "p ≥ 6"}, +1),
    Row("p ≤ 1: the variance rises as p falls", variance_trend, {"p": "p ≤ 1"}, -1),
    Row("p ≤ 1: raising p improves {metric}", quality_trend, {"p": "p ≤ 1"}, -1),
    Row("p ≤ 1: poorer {metric} than p > 1",
        quality_difference, {"p > 1": "p > 1", "p ≤ 1": "p ≤ 1"}, +1),
    Row("p > 1: narrower spread over repetitions than batching's",
        narrower_spread, {"vanilla": "batches", "p > 1": "p > 1"}, -1),
    Row("p ≤ 1: narrower spread over repetitions than batching's",
        narrower_spread, {"vanilla": "batches", "p ≤ 1": "p ≤ 1"}, -1),
    Row("vanilla has a better {metric} than the best p at the same batch size",
        quality_difference,
        {"vanilla, batch {batch}": "vanilla at the same batch", "p = 6, batch {batch}": "p = 6"},
        +1),
    Row("vanilla has a better {metric} than TI over all cells",
        quality_difference, {"vanilla": "batches", "TI": "all p"}, +1),
    Row("variance alone does not predict {metric}: "
        "p ≤ 1 is poorer than vanilla at equal variance",
        at_equal_variance, {"vanilla": "batches", "p ≤ 1": "p ≤ 1"}, +1),
)  # fmt: skip
LOWERS_VARIANCE = Row(
    "raising {name} lowers the variance", variance_trend, {"{name}": "levels"}, -1
)
IMPROVES = Row("raising {name} improves {metric}", quality_trend, {"{name}": "levels"}, -1)
DOES_NOT_IMPROVE = Row(
    "raising {name} does not improve {metric}",
    no_better,
    {"{name} {low}": "lowest", "{name} {high}": "highest"},
    +1,
)
# field: (the table of the claims on raising it, the claims)
CHANGES = {
    "loss.num_temperatures": ("Table 3", (LOWERS_VARIANCE, IMPROVES)),
    "sampler.posterior.num_steps": ("Table 3", (LOWERS_VARIANCE, DOES_NOT_IMPROVE)),
    "loss.kl_weight": ("Table 3", (LOWERS_VARIANCE, IMPROVES)),
    "sampler.prior.num_steps": (NOT_IN_PAPER, (LOWERS_VARIANCE, IMPROVES)),
}


def paper_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """Yields the claims of tables 2 and 3 whose cells are there.

    Args:
      cells: of one data set.
      samples: of each cell.
      metric: title of the metric, lower is better.
    """
    yield from _vanilla_claims(cells, samples, metric)
    yield from _power_claims(cells, samples, metric)
    yield from _change_claims(cells, samples, metric)


def _vanilla_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """What the batch size does to the vanilla model."""
    vanilla = with_loss(cells, VANILLA)
    names = [name for name in varied(vanilla) if name != "batch_size"]
    for group in groups_without(vanilla, "batch_size"):
        variant = f"vanilla {describe(group.iloc[0], names)}".strip()
        groups = {"batches": _levels(group, "batch_size", samples)}
        yield from _test_rows(VANILLA_ROWS, groups, {"metric": metric}, "Table 2", variant)


def _power_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """What p does to the thermodynamic model, and how the model compares with the vanilla one."""
    vanilla, thermodynamic = with_loss(cells, VANILLA), with_loss(cells, THERMODYNAMIC)
    names = [name for name in varied(thermodynamic) if name != "loss.power"]
    shared = [
        name for name in cells.columns if not name.startswith("loss.") and name != "batch_size"
    ]
    for group in groups_without(thermodynamic, "loss.power"):
        if len(group) < 2:
            continue
        cell = group.iloc[0]
        batches = _levels(vanilla[agree(vanilla, cell, shared)], "batch_size", samples)
        powers = _levels(group, "loss.power", samples)
        has_best = BEST_POWER in powers

        def within(low: float, high: float, powers: Levels = powers) -> Levels:
            return {p: sample for p, sample in powers.items() if low <= p <= high}

        above = np.nextafter(1.0, 2.0)
        groups = {
            "batches": batches,
            "vanilla at the same batch": {
                size: sample for size, sample in batches.items() if size == cell["batch_size"]
            },
            "all p": powers,
            "p ≤ 1": within(0.0, 1.0),
            "p > 1": within(above, np.inf),
            "1 < p ≤ 6": within(above, BEST_POWER) if has_best else {},
            "p ≥ 6": within(BEST_POWER, np.inf) if has_best else {},
            "p = 6": within(BEST_POWER, BEST_POWER),
        }
        words = {"metric": metric, "batch": f"{cell['batch_size']:g}"}
        variant = f"TI {describe(cell, names)}".strip()
        yield from _test_rows(POWER_ROWS, groups, words, "Table 2", variant)


def _change_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """What raising N_t, K, eta or K_z does, named by the fields that none of them changes."""
    thermodynamic = with_loss(cells, THERMODYNAMIC)
    names = [name for name in varied(thermodynamic) if name not in CHANGES]
    for field, (table, rows) in CHANGES.items():
        grid = [group for group in groups_without(thermodynamic, field) if len(group) > 1]
        short = [describe(group.iloc[0], names) for group in grid]
        for group, name in zip(grid, short, strict=True):
            if short.count(name) > 1:  # a grid: the field is raised at several values of others
                unchanged = [other for other in varied(thermodynamic) if other != field]
                name = describe(group.iloc[0], unchanged)
            levels = _levels(group, field, samples)
            if len(levels) < 2:
                continue
            low, high = min(levels), max(levels)
            groups = {
                "levels": levels,
                "lowest": {low: levels[low]},
                "highest": {high: levels[high]},
            }
            words = {"metric": metric, "name": SYMBOLS[field], "low": f"{low:g}"}
            words["high"] = f"{high:g}"
            yield from _test_rows(rows, groups, words, table, f"TI {name}".strip())


def _levels(cells: pd.DataFrame, field: str, samples: Mapping[str, Sample]) -> dict[float, Sample]:
    """The samples of some cells by the value of a field, where the field has one."""
    return {value: samples[cell] for cell, value in cells[field].dropna().items()}


def _test_rows(
    rows: tuple[Row, ...], groups: Groups, words: Mapping[str, str], table: str, variant: str
) -> Iterator[Claim]:
    for row in rows:
        cells = {name.format(**words): groups[group] for name, group in row.groups.items()}
        evidence = row.test(cells, row.sign, words["metric"])
        if evidence is not None:
            of_variance = row.test in (variance_trend, narrower_spread)
            reading = ENTRY_VARIANCE if of_variance else words["metric"]
            text = row.text.format(**words)
            yield Claim(table, variant, words["metric"], reading, text, evidence)


def variant_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """Yields claims that the paper could not test: does another gradient improve p ≤ 1?

    Each variant of the thermodynamic loss is compared with that of the published code (chains
    detached and the trapezium) over the powers that both have. Two claims each: the metric at p ≤ 1
    is better, and its gap to p > 1 is narrower (the collapse at small p goes away).
    """
    thermodynamic = with_loss(cells, THERMODYNAMIC)
    names = [name for name in varied(thermodynamic) if name != "loss.power"]
    groups = groups_without(thermodynamic, "loss.power")
    published = [
        group
        for group in groups
        if all(group[name].iloc[0] == value for name, value in PUBLISHED_FORM.items())
    ]
    if not published:
        return
    reference = published[0]
    free = (
        "loss.name",
        "loss.power",
        "loss.quadrature",
        "loss.prior_gradient",
        "loss.generator_gradient",
    )
    shared = [name for name in cells.columns if name not in free]
    for group in groups:
        if group is reference or not agree(group, reference.iloc[0], shared).all():
            continue
        pairs = _common_powers(
            _levels(reference, "loss.power", samples), _levels(group, "loss.power", samples)
        )
        name = describe(group.iloc[0], names)
        for gap, words in ((False, "better"), (True, "a narrower gap to p > 1 in")):
            evidence = _improvement(pairs, gap, metric)
            if evidence is not None:
                text = f"p ≤ 1: {words} {metric} with {name} than with the published form"
                yield Claim(NOT_IN_PAPER, "TI, compared", metric, metric, text, evidence)


def _common_powers(
    reference: Levels, variant: Levels
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Returns {power: (metric of the reference, metric of the variant)}, finite values alone."""
    pairs = {}
    for power in variant:
        if power in reference:
            first, second = (
                values[np.isfinite(values)]
                for values in (reference[power].quality, variant[power].quality)
            )
            if min(len(first), len(second)) > 1:
                pairs[power] = (first, second)
    return pairs


def _improvement(
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
    values = [values for power in shares for values in pairs[power]]
    weights = [sign * share for share in shares.values() for sign in (-1.0, 1.0)]
    margin = quality_margin(metric, [np.abs(np.mean(repetitions)) for repetitions in values])
    text = "p " + ", ".join(f"{power:g}" for power in sorted(shares))
    estimate = statistics.contrast(values, weights)
    return Evidence(text, "Welch contrast", estimate, "difference", -1, margin=margin)
