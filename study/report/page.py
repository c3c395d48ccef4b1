"""The report as one HTML page that needs nothing else: pictures, style and script are inside.

A part of a page is HTML from a macro of `templates/parts.html.jinja`, which escapes every text.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("study.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
)
_PARTS: Any = _ENVIRONMENT.get_template("parts.html.jinja").module

heading = _PARTS.heading  # (level, text, anchor=""); a target of links if it has an anchor
paragraph = _PARTS.paragraph  # (text, note=False)
items = _PARTS.items  # (lines)
terms = _PARTS.terms  # ({term: meaning})
preformatted = _PARTS.preformatted  # (text)
details = _PARTS.details  # (summary, parts), which a click opens
claims = _PARTS.claims  # ({family: rows}, has_recent); see `claims.claim_parts`


class Number(NamedTuple):
    """A number with its uncertainty as a table prints it; the table sorts by the number."""

    value: float
    text: str


class Interval(NamedTuple):
    """A confidence interval to draw, in pixels from the left; the null value in the middle."""

    width: float
    null: float
    side: float  # where the claimed side begins, half of the width; the full width: there is none
    margin_at: float  # the effects on the claimed side, or on both, that are too small to matter
    margin_width: float
    low: float
    high: float
    effect: float
    words: str  # for those who cannot see it


def render(title: str, parts: Sequence[Markup], links: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
      title: of the page.
      parts: of the body, in order.
      links: {anchor: label} of the table of contents.
    """
    template = _ENVIRONMENT.get_template("page.html.jinja")
    return template.render(title=title, parts=parts, links=links)


def picture(png: bytes, title: str) -> Markup:
    """Returns a PNG as a part of the page."""
    return _PARTS.figure(base64.b64encode(png).decode("ascii"), title)


def table(frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> Markup:
    """Returns a data frame as a table that sorts by a click on a column's title.

    Args:
      frame: its entries are numbers, texts, `Number` or empty (None, NaN).
      titles: other titles of columns.
    """
    names = [str((titles or {}).get(name, name)) for name in frame.columns]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return _PARTS.sortable(names, rows)


def _cell(value: object) -> tuple[str, str, str]:
    """Returns the class in the style sheet, the text, and the value to sort by."""
    if isinstance(value, Number):
        return "number", value.text, repr(float(value.value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "short", "", ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", number(float(value)), repr(float(value))
    word = str(value)
    verdicts = {"supported", "not supported", "undecided"}
    style = word.replace(" ", "-") if word in verdicts else "words" if len(word) > 24 else ""
    return style or "short", word, word


def plus_minus(mean: float, sd: float) -> Number | None:
    """Returns mean ± standard deviation, rounded for reading; None without a mean."""
    if math.isnan(mean):
        return None
    spread = "" if math.isnan(sd) else f" ± {sd:.3g}"
    return Number(mean, f"{number(mean)}{spread}")


def between(value: float, low: float, high: float) -> Number:
    """Returns an effect with its interval's ends."""
    return Number(value, f"{value:.3g} [{low:.3g}, {high:.3g}]")


def number(value: float) -> str:
    """Returns a number as tables print it."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def draw_interval(
    effect: float, ends: tuple[float, float], null: float, margin: float, sign: int
) -> Interval | None:
    """Returns an interval's places, each interval with a scale of its own around its null value.

    Args:
      effect: the estimate.
      ends: of the confidence interval.
      null: the value that the claim denies.
      margin: the smallest distance from it that would matter.
      sign: +1 where the claim is that the effect is above `null`, -1 below, 0 neither.

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
    side, margin_at = (middle, middle) if sign > 0 else (0.0, middle - band)
    if sign == 0:
        side, band = width, 2.0 * band
    return Interval(width, middle, side, margin_at, band, low, high, at, words)
