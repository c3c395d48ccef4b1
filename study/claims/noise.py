"""Claims on the gradient's noise: what sets it, and whether it alone decides the metric.

Each factor of an experiment on the noise (`noise.families`) is tested: does it move the noise as
it should, does the metric follow, and are its cells like those of the other factors at equal noise?
"""

from collections.abc import Iterator, Mapping

import pandas as pd

from study.cells import VANILLA
from study.claims.evidence import Sample, at_equal_noise, quality_trend, variance_trend
from study.claims.verdicts import NOT_IN_PAPER, Claim
from study.noise import AMPLIFICATION, FACTORS, Family, families
from study.titles import UPDATE_NOISE

# A batch of images and as many accumulated batches are one way of averaging over images.
KINDS = {"batch": "batch and accumulation", "accumulation": "batch and accumulation"}


def noise_claims(
    cells: pd.DataFrame, samples: Mapping[str, Sample], metric: str
) -> Iterator[Claim]:
    """Yields the claims of each experiment on the noise whose cells are there.

    Args:
      cells: of one data set.
      samples: of each cell, with the noise of the update as the variance.
      metric: title of the metric, lower is better.
    """
    experiments = families(cells)
    for family in experiments:
        for text, reading, evidence in [
            *_factor_claims(family, samples, metric),
            *_equal_noise_claims(family, samples, metric),
        ]:
            if evidence is not None:
                variant = f"noise, {family.name}"
                yield Claim(NOT_IN_PAPER, variant, metric, reading, text, evidence)
    vanilla = [family for family in experiments if family.loss == VANILLA]
    for family in experiments:
        if not vanilla or family.loss == VANILLA:
            continue
        groups = {
            name: {cell: samples[cell] for cell in cells}
            for name, cells in (("vanilla", vanilla[0].cells), (family.name, family.cells))
        }
        evidence = at_equal_noise(groups, 0, metric)
        if evidence is not None:
            text = f"noise alone predicts {metric}: {family.name} is like vanilla at equal noise"
            yield Claim(NOT_IN_PAPER, "noise, losses compared", metric, metric, text, evidence)


def _factor_claims(family: Family, samples: Mapping[str, Sample], metric: str) -> Iterator[tuple]:
    """Yields (text, reading, evidence): what each factor does to the noise and to the metric."""
    for name, cells in family.levels.items():
        factor = FACTORS[name]
        groups = {name: {value: samples[cell] for cell, value in cells.items()}}
        moves = "rises" if factor.sign > 0 else "falls"
        text = f"the noise {moves} with {factor.title}"
        yield text, UPDATE_NOISE, variance_trend(groups, factor.sign, metric)
        text = f"less noise by {factor.title} improves {metric}"
        if name == AMPLIFICATION:
            text = f"less noise by amplification improves {metric}"
        yield text, metric, quality_trend(groups, factor.sign, metric)


def _equal_noise_claims(
    family: Family, samples: Mapping[str, Sample], metric: str
) -> Iterator[tuple]:
    """Yields the same: whether the cells of each factor are like all others at equal noise."""
    for kind in dict.fromkeys(KINDS.get(factor, factor) for factor in family.levels):
        changed = {
            cell
            for factor, cells in family.levels.items()
            if KINDS.get(factor, factor) == kind
            for cell in cells
            if cell != family.centre
        }
        groups = {
            "others": {cell: samples[cell] for cell in family.cells if cell not in changed},
            kind: {cell: samples[cell] for cell in family.cells if cell in changed},
        }
        text = f"noise alone predicts {metric}: {kind} is like the other factors at equal noise"
        yield text, metric, at_equal_noise(groups, 0, metric)
