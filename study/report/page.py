"""The report as one HTML page that needs nothing else: pictures, style and script are inside.

The parts of a page are plain data; how each one looks is in `templates/`.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import pandas as pd


class Heading(NamedTuple):
    """A heading; a target of the table of contents if it has an anchor."""

    level: int
    text: str
    anchor: str = ""


class Paragraph(NamedTuple):
    """A paragraph of plain text."""

    text: str
    note: bool = False


class Items(NamedTuple):
    """A list of plain lines."""

    lines: Sequence[str]


class Terms(NamedTuple):
    """Terms and what each means."""

    meanings: Mapping[str, str]


class Text(NamedTuple):
    """Plain text with its own line breaks."""

    text: str


class Details(NamedTuple):
    """Parts that a click on the summary opens."""

    summary: str
    parts: Sequence["Part"]


class Picture(NamedTuple):
    """A PNG inside the page."""

    data: str  # base64
    title: str


class Cell(NamedTuple):
    """One cell of a table: its class in the style sheet, what it shows, and what it sorts by."""

    style: str
    shown: str
    value: str


class Table(NamedTuple):
    """A table that sorts by a click on a column's title; numbers sort by their value."""

    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Interval(NamedTuple):
    """A confidence interval to draw, in pixels from the left; the null value in the middle."""

    width: float
    null: float
    side: float  # where the claimed side begins, half of the width; the whole width: there is none
    margin_at: float  # the effects on the claimed side, or on both, that are too small to matter
    margin_width: float
    low: float
    high: float
    effect: float
    words: str  # for those who cannot see it


class ClaimLine(NamedTuple):
    """One claim on one line."""

    verdict: str
    claim: str
    effect: str
    interval: Interval | None
    one_family: str  # the verdict with all claims of the data set as one family
    recent: str  # the verdict by the means over the last epochs; empty where it is not tested


class Family(NamedTuple):
    """The claims that are corrected together."""

    title: str
    lines: Sequence[ClaimLine]


class Claims(NamedTuple):
    """All claims of one data set, one per line."""

    families: Sequence[Family]
    has_recent: bool


Part = Heading | Paragraph | Items | Terms | Text | Details | Picture | Table | Claims


class Shown(NamedTuple):
    """A number with its uncertainty as a table shows it; it sorts by the number."""

    value: float
    text: str


def render(title: str, parts: Sequence[Part], links: Mapping[str, str]) -> str:
    """Returns the whole page; every text is escaped.

    Args:
      title: of the page.
      parts: of the body, in order.
      links: {anchor: label} of the table of contents.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("study.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda part: type(part).__name__.lower()
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, parts=parts, links=links)


def picture(png: bytes, title: str) -> Picture:
    """Returns a picture of the page."""
    return Picture(base64.b64encode(png).decode("ascii"), title)


def table(frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Table:
    """Returns a data frame as a table, its columns renamed by `titles`."""
    names = [str((titles or {}).get(name, name)) for name in frame.columns]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return Table(names, rows)


def plus_minus(mean: float, sd: float) -> Shown | None:
    """Returns mean ± standard deviation, rounded for reading; None without a mean."""
    if math.isnan(mean):
        return None
    spread = "" if math.isnan(sd) else f" ± {sd:.3g}"
    return Shown(mean, f"{number(mean)}{spread}")


def between(value: float, low: float, high: float) -> Shown:
    """Returns an effect with its interval's ends."""
    return Shown(value, f"{value:.3g} [{low:.3g}, {high:.3g}]")


def number(value: float) -> str:
    """Returns a number as tables show it."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def drawn_interval(
    effect: float, ends: tuple[float, float], null: float, margin: float, claimed: int
) -> Interval | None:
    """Returns an interval's places, each interval with a scale of its own around its null value.

    Args:
      effect: the estimate.
      ends: of the confidence interval.
      null: the value that the claim denies.
      margin: the smallest distance from it that would matter.
      claimed: +1 where the claim is that the effect is above `null`, -1 below, 0 neither.

    Returns:
      None where a number is not finite or nothing has any extent.
    """
    reach = max(abs(ends[0] - null), abs(ends[1] - null), margin)
    if not math.isfinite(reach + effect) or reach == 0.0:
        return None
    width, middle = 160.0, 80.0
    scale = 0.94 * middle / reach
    low, high, at = (round(middle + scale * (x - null), 2) for x in (*ends, effect))
    band = round(scale * margin, 2)
    words = f"{effect:.3g}, from {ends[0]:.3g} to {ends[1]:.3g}; null value {null:.3g}"
    side, margin_at = (middle, middle) if claimed > 0 else (0.0, middle - band)
    if claimed == 0:
        side, band = width, 2.0 * band
    return Interval(width, middle, side, margin_at, band, low, high, at, words)


def _cell(value: object) -> Cell:
    if isinstance(value, Shown):
        return Cell("number", value.text, repr(float(value.value)))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("short", "", "")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell("number", number(float(value)), repr(float(value)))
    word = str(value)
    verdicts = {"supported", "not supported", "undecided"}
    style = word.replace(" ", "-") if word in verdicts else "words" if len(word) > 24 else ""
    return Cell(style or "short", word, word)
