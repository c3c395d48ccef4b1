"""Claims on the gradient's noise: what sets it, and whether it alone decides the metric.

Every knob of an experiment on the noise (`knobs.families`) is tested: does it move the noise as it
should, does the metric follow, and are its cells like those of the other knobs at equal noise?
"""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from study.claims import evidence as ev
from study.claims.evidence import Sample
from study.claims.verdicts import NOT_IN_PAPER, Claim
from study.knobs import AMPLIFICATION, KNOBS, Family, families
from study.names import UPDATE_NOISE
from study.settings import VANILLA, Settings, describe, varied

NOISE = "train_update_noise"
# A batch of images and as many accumulated batches are one way of averaging over images.
KINDS = {"batch": "batch and accumulation", "accumulation": "batch and accumulation"}


def noise_claims(
    cells: Mapping[str, Settings], final: pd.DataFrame, title: str, column: str
) -> Iterator[tuple[str, Claim]]:
    """Yields (variant, claim) of every experiment on the noise; none without its readings.

    Args:
      cells: the settings of each cell of one data set.
      final: one row per repetition.
      title: of the metric, lower is better.
      column: of the metric.
    """
    if NOISE not in final:
        return
    samples = {
        str(key): Sample(rows[NOISE].to_numpy(float), rows[column].to_numpy(float))
        for key, rows in final.groupby("cell", sort=False)
    }
    found = families(cells)
    names = variant_names(found)
    for family, name in zip(found, names, strict=True):
        for claim in [*_turned(family, samples, title), *_alone(family, samples, title)]:
            yield f"noise, {name}", claim
    for claim in _losses(found, names, samples, title):
        yield "noise, losses compared", claim


def variant_names(found: Iterable[Family]) -> list[str]:
    """Names each family by its loss and by the settings in which those of that loss differ."""
    found, names = list(found), []
    for family in found:
        peers = [one.settings for one in found if one.settings.loss == family.settings.loss]
        shown = [name for name in varied(peers) if name not in ("loss", "batch_size", "power")]
        loss = "vanilla" if family.settings.loss == VANILLA else "TI"
        names.append(f"{loss} {describe(family.settings, shown)}".strip())
    return names


def _turned(family: Family, samples: Mapping[str, Sample], title: str) -> Iterator[Claim]:
    """What each knob does to the noise and to the metric."""
    for knob, cells in family.levels.items():
        sign = KNOBS[knob].sign
        noise = {value: samples[key].variance for key, value in cells.items()}
        quality = {value: samples[key].quality for key, value in cells.items()}
        moves = "rises" if sign > 0 else "falls"
        text = f"the noise {moves} with {KNOBS[knob].title}"
        yield Claim(NOT_IN_PAPER, text, UPDATE_NOISE, ev.variance_trend(noise, knob, sign))
        text = f"less noise by {KNOBS[knob].title} improves {title}"
        if knob == AMPLIFICATION:
            text = f"less noise, all else equal, improves {title} (amplification)"
        yield Claim(NOT_IN_PAPER, text, title, ev.quality_trend(quality, knob, sign, title))


def _alone(family: Family, samples: Mapping[str, Sample], title: str) -> Iterator[Claim]:
    """Whether the cells of each knob are like all others of the same loss at equal noise."""
    for kind in dict.fromkeys(KINDS.get(knob, knob) for knob in family.levels):
        own = [
            key
            for knob, cells in family.levels.items()
            if KINDS.get(knob, knob) == kind
            for key in cells
            if key != family.centre
        ]
        others = [key for key in family.cells if key not in own]
        found = ev.alike_at_equal_noise(
            [samples[key] for key in others], [samples[key] for key in own], ("others", kind), title
        )
        text = f"noise alone predicts {title}: {kind} is like the other knobs at equal noise"
        yield Claim(NOT_IN_PAPER, text, title, found)


def _losses(
    found: Iterable[Family], names: Iterable[str], samples: Mapping[str, Sample], title: str
) -> Iterator[Claim]:
    """Whether each thermodynamic variant is like the vanilla loss at equal noise."""
    pairs = list(zip(found, names, strict=True))
    vanilla = [family for family, _ in pairs if family.settings.loss == VANILLA]
    for family, name in pairs:
        if not vanilla or family.settings.loss == VANILLA:
            continue
        first, second = ([samples[key] for key in one.cells] for one in (vanilla[0], family))
        text = f"noise alone predicts {title}: {name} is like vanilla at equal noise"
        like = ev.alike_at_equal_noise(first, second, ("vanilla", name), title)
        yield Claim(NOT_IN_PAPER, text, title, like)
