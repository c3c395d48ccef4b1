"""Writes docs/readings.md: every column of readings.csv and temperatures.csv and its meaning.

python -m docs.tools.readings

The columns and their meanings are those of `thermo_ebm/readings.py`.
"""

from collections.abc import Mapping
from pathlib import Path

from docs.tools.markdown import table
from thermo_ebm.readings import READINGS, TEMPERATURE_READINGS, Reading

PAGE = Path(__file__).resolve().parents[1] / "readings.md"

HEAD = """# Logged metrics

Each repetition of a run writes its logged metrics (called *readings* in the code and in the names
of files) to `rep_XX/readings.csv`, one row per epoch. Columns that a run does not measure are
empty. Columns that are marked with * are means over the epoch's steps, without skipped steps.
[The mathematics](mathematics.md) defines the quantities. The columns of `eval.csv` are described in
[Metrics](metrics.md). This page is generated from `thermo_ebm/readings.py` by
`python -m docs.tools.readings`.

## readings.csv

"""
BETWEEN = """
## temperatures.csv

`rep_XX/temperatures.csv` has one row per epoch and temperature:

"""


def page() -> str:
    """The page's text."""
    return HEAD + _columns(READINGS) + BETWEEN + _columns(TEMPERATURE_READINGS)


def _columns(readings: Mapping[str, Reading]) -> str:
    rows = [
        (f"`{name}`{'*' * reading.per_step}", reading.unit, reading.meaning)
        for name, reading in readings.items()
    ]
    return table(("column", "unit", "meaning"), rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
