"""The knobs that set the noise of the learning gradient, and which of them each cell turns.

An experiment on the noise changes one knob at a time from a centre, for each variant of the loss.
The centre is found from the cells themselves: it is the cell that most others differ from in one
knob alone.
"""

from collections.abc import Mapping
from typing import NamedTuple

from study.settings import Settings, cell_key, other_fields

AMPLIFICATION = "amplification"


class Knob(NamedTuple):
    """A setting that changes the noise."""

    title: str  # of an axis
    field: str  # of `Settings`, or a further field of the configuration
    sign: int  # +1: the noise is claimed to rise with it, -1: to fall


KNOBS = {
    AMPLIFICATION: Knob("amplification", "dial.amplification", +1),
    "p": Knob("power p", "power", +1),
    "M": Knob("chains per image M", "sampler.chains_per_image", -1),
    "batch": Knob("batch size", "batch_size", -1),
    "accumulation": Knob("batches per update", "dial.accumulate", -1),
}


class Family(NamedTuple):
    """The cells of one variant of the loss, by the knob that each one turns."""

    settings: Settings  # of the centre
    centre: str  # its cell
    levels: dict[str, dict[str, float]]  # {knob: {cell: its value}}, rising, the centre in each

    @property
    def cells(self) -> list[str]:
        """All cells, the centre first."""
        turned = (key for cells in self.levels.values() for key in cells)
        return list(dict.fromkeys([self.centre, *turned]))


def families(cells: Mapping[str, Settings]) -> list[Family]:
    """Returns the experiments on the noise among the cells of one data set.

    Args:
      cells: {cell: settings}, as `cells_of` returns them.

    Returns:
      One family per variant of the loss in which some knob has two values or more.
    """
    groups: dict[str, dict[str, Settings]] = {}
    for key, settings in cells.items():
        groups.setdefault(_without_knobs(settings), {})[key] = settings
    made = [_family(group) for group in groups.values()]
    return [family for family in made if family.levels]


def _family(group: Mapping[str, Settings]) -> Family:
    values = {key: _values(settings) for key, settings in group.items()}

    def turned(centre: str, knob: str) -> dict[str, float]:
        """The cells that differ from the centre in this knob alone, or not at all."""
        rest = {k: v for k, v in values[centre].items() if k != knob}
        found = {
            key: one[knob]
            for key, one in values.items()
            if knob in one and {k: v for k, v in one.items() if k != knob} == rest
        }
        return dict(sorted(found.items(), key=lambda pair: pair[1]))

    def levels(centre: str) -> dict[str, dict[str, float]]:
        found = {knob: turned(centre, knob) for knob in KNOBS}
        return {knob: cells for knob, cells in found.items() if len(cells) > 1}

    centre = max(values, key=lambda key: sum(len(cells) for cells in levels(key).values()))
    return Family(group[centre], centre, levels(centre))


def _values(settings: Settings) -> dict[str, float]:
    """The value of every knob that the settings have; those that no cell turns are left out."""
    known = {**settings._asdict(), **other_fields(settings)}
    found = {name: known.get(knob.field) for name, knob in KNOBS.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _without_knobs(settings: Settings) -> str:
    fields = {knob.field for knob in KNOBS.values()}
    rest = {name: value for name, value in other_fields(settings).items() if name not in fields}
    further = "; ".join(f"{name}={value}" for name, value in rest.items()) or None
    own = [name for name in Settings._fields if name in fields]
    return cell_key(settings._replace(other=further), own)
