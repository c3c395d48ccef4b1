"""What distinguishes one cell of a sweep from another: its settings, their names and labels.

A *cell* is one combination of settings; its repetitions differ by seed alone. A *variant* is every
setting but the one that an experiment varies (the batch size, or the power of the schedule).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

VANILLA = "vanilla"
THERMODYNAMIC = "thermodynamic"
PUBLISHED = "published"
RUNS = "runs"

REGIMES = ("vanilla", "p > 1", "0 < p ≤ 1")

DATASET_TITLES = {
    "celeb_a": "CelebA",
    "cifar10": "CIFAR-10",
    "svhn_cropped": "SVHN",
    "digits": "digits",
}


class Settings(NamedTuple):
    """The settings of one cell; None where the setting has no meaning or is not known."""

    dataset: str
    origin: str  # PUBLISHED or RUNS
    loss: str  # VANILLA or THERMODYNAMIC
    batch_size: float
    power: float | None = None
    schedule: str | None = None
    num_temperatures: float | None = None
    posterior_steps: float | None = None
    prior_steps: float | None = None
    kl_weight: float | None = None
    kl_form: str | None = None
    quadrature: str | None = None
    prior_gradient: str | None = None
    generator_gradient: str | None = None
    other: str | None = None  # "name=value; name=value" of any further field that a sweep varies


SYMBOLS = {
    "loss": "loss",
    "batch_size": "batch",
    "power": "p",
    "schedule": "schedule",
    "num_temperatures": "N_t",
    "posterior_steps": "K",
    "prior_steps": "K_z",
    "kl_weight": "η",
    "kl_form": "KL form",
    "quadrature": "quadrature",
    "prior_gradient": "prior gradient",
    "generator_gradient": "generator gradient",
    "other": "other",
}

# What every caption says: the settings that decide what the loss's gradient is.
PROVENANCE = ("prior_gradient", "generator_gradient", "quadrature", "kl_form")


def dataset_title(dataset: str) -> str:
    """Returns the data set's name as papers write it; what tells its images apart stays."""
    name, space, rest = dataset.partition(" ")
    return f"{DATASET_TITLES.get(name, name)}{space}{rest}"


def section_title(settings: Settings) -> str:
    """Returns the heading of all cells of one data set and one origin."""
    source = "published readings" if settings.origin == PUBLISHED else "own runs"
    return f"{dataset_title(settings.dataset)}, {source}"


def regime(settings: Settings) -> str:
    """Returns which of the paper's three regimes (figure 10) a cell belongs to."""
    if settings.loss == VANILLA:
        return REGIMES[0]
    return REGIMES[1] if (settings.power or 0.0) > 1.0 else REGIMES[2]


def cell_key(settings: Settings, without: Iterable[str] = ()) -> str:
    """Returns a string equal for equal settings, leaving out the ones named in `without`."""
    skip = frozenset(without)
    fields = settings._asdict().items()
    return "|".join(f"{name}={_text(value)}" for name, value in fields if name not in skip)


def varied(cells: Iterable[Settings]) -> tuple[str, ...]:
    """Returns the names of the settings that differ between cells that have them."""
    seen: dict[str, set[Any]] = {name: set() for name in SYMBOLS}
    for settings in cells:
        for name in SYMBOLS:
            value = getattr(settings, name)
            if value is not None:
                seen[name].add(value)
    return tuple(name for name, values in seen.items() if len(values) > 1)


def describe(settings: Settings, names: Iterable[str]) -> str:
    """Returns a label of the named settings, e.g. ``p = 0.1, N_t = 30``; unset ones are skipped."""
    parts = []
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if name == "loss":
            parts.append("vanilla" if value == VANILLA else "TI")
        elif name == "other":
            parts.append(str(value))
        elif isinstance(value, str):
            parts.append(f"{SYMBOLS[name]} {value}")
        else:
            parts.append(f"{SYMBOLS[name]} = {_text(value)}")
    return ", ".join(parts)


def other_fields(settings: Settings) -> dict[str, str]:
    """Returns the further fields of a cell by name, and their values as text."""
    parts = (settings.other or "").split("; ")
    return dict(part.split("=", 1) for part in parts if part)


def short_labels(cells: Mapping[str, Settings]) -> dict[str, str]:
    """Returns a legend's label for every cell: ``vanilla, batch = 25`` or ``p = 0.1, N_t = 30``.

    A number or further field that most cells share is named only where it differs; words
    (gradients, quadratures) wherever they vary.
    """
    cells = _without_usual_fields(cells)
    names = [name for name in varied(cells.values()) if name not in ("loss", "batch_size", "power")]
    usual = {name: _usual([getattr(s, name) for s in cells.values()]) for name in names}
    thermodynamic_batches = {s.batch_size for s in cells.values() if s.loss == THERMODYNAMIC}
    batch_varies = len(thermodynamic_batches) > 1
    labels = {}
    for key, settings in cells.items():
        thermodynamic = settings.loss == THERMODYNAMIC
        extra = [name for name in names if usual[name] is None]
        extra += [n for n in names if usual[n] not in (None, getattr(settings, n))]
        first = ("loss", "batch_size") if not thermodynamic else ("power",)
        if thermodynamic and batch_varies:
            first = ("power", "batch_size")
        labels[key] = describe(settings, (*first, *extra))
    return labels


def _without_usual_fields(cells: Mapping[str, Settings]) -> dict[str, Settings]:
    """The cells without those further fields whose value more than half of the cells share."""
    fields = {key: other_fields(settings) for key, settings in cells.items()}
    counts = Counter(pair for one in fields.values() for pair in one.items())
    usual = {pair for pair, count in counts.items() if count > len(cells) / 2}
    return {
        key: settings._replace(
            other="; ".join("=".join(pair) for pair in fields[key].items() if pair not in usual)
            or None
        )
        for key, settings in cells.items()
    }


def _usual(values: Sequence[Any]) -> Any:
    """Returns the number that more than half of those that are set share; else None."""
    numbers = [value for value in values if value is not None and not isinstance(value, str)]
    common = Counter(numbers).most_common(1)
    return common[0][0] if common and common[0][1] > len(numbers) / 2 else None


def provenance(cells: Sequence[Settings]) -> str:
    """Returns which gradients and quadrature the thermodynamic cells used, for captions."""
    thermodynamic = [settings for settings in cells if settings.loss == THERMODYNAMIC]
    if not thermodynamic:
        return "Vanilla: maximum-likelihood gradients."
    parts = []
    for name in PROVENANCE:
        values = sorted({str(getattr(s, name)) for s in thermodynamic if getattr(s, name)})
        if values:
            parts.append(f"{SYMBOLS[name]} {' / '.join(values)}")
    return f"TI: {', '.join(parts)}."


def cells_of(frame: pd.DataFrame) -> dict[str, Settings]:
    """Returns the settings of every cell of a frame of readings by its key, sorted for display."""
    cells = {}
    for key, rows in frame.groupby("cell", sort=False):
        first = rows.iloc[0]
        cells[str(key)] = Settings(**{name: _none_if_nan(first[name]) for name in Settings._fields})
    return dict(sorted(cells.items(), key=lambda item: _order(item[1])))


def group_cells(
    cells: Mapping[str, Settings], without: Iterable[str]
) -> list[tuple[Settings, dict[str, Settings]]]:
    """Groups cells that agree in all settings but those in `without`.

    Returns:
      (first cell's settings, {key: settings}) for each group, in the order of `cells`.
    """
    without = tuple(without)
    groups: dict[str, dict[str, Settings]] = {}
    for key, settings in cells.items():
        groups.setdefault(cell_key(settings, without), {})[key] = settings
    return [(next(iter(group.values())), group) for group in groups.values()]


def _order(settings: Settings) -> tuple[Any, ...]:
    """Vanilla first, then by power; the paper's order of its figures."""
    numbers = (settings.power, settings.num_temperatures, settings.posterior_steps)
    further = (settings.prior_steps, settings.kl_weight, settings.batch_size)
    texts = (settings.prior_gradient, settings.generator_gradient, settings.quadrature)
    return (
        settings.dataset,
        settings.origin,
        settings.loss != VANILLA,
        *(-1.0 if value is None else float(value) for value in (*numbers, *further)),
        *(value or "" for value in (*texts, settings.kl_form, settings.schedule, settings.other)),
    )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _none_if_nan(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value
