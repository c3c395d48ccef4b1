"""The report as one HTML page that needs nothing else: pictures, style and script are inside."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd


class Interval(NamedTuple):
    """A number shown with its uncertainty; it sorts by the number."""

    value: float
    shown: str


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 1320px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 2px solid #ddd; }
h3 { margin-top: 1.8rem; font-size: 1.05rem; }
nav a { margin-right: 1rem; }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: 12.5px; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid #e4e4e4; text-align: left;
         vertical-align: top; }
th { background: #f4f4f4; position: sticky; top: 0; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.short { white-space: nowrap; }
td.words { min-width: 11rem; max-width: 24rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.supported { color: #006d4e; font-weight: 600; }
td.not-supported { color: #a63d00; font-weight: 600; }
td.undecided { color: #666; font-weight: 600; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 12.5px; }
pre { font-size: 12px; background: #f7f7f7; padding: .6rem; overflow-x: auto; }
.note { color: #555; }
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function (table) {
  table.querySelectorAll("th button").forEach(function (button, column) {
    button.addEventListener("click", function () {
      var head = button.parentElement;
      var up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach(function (th) { th.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0];
      var rows = Array.prototype.slice.call(body.rows);
      rows.sort(function (a, b) {
        var x = a.cells[column].dataset.value, y = b.cells[column].dataset.value;
        if (x === "" || y === "") { return x === y ? 0 : (x === "" ? 1 : -1); }
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : Number(x) - Number(y);
        return up ? order : -order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });
});
"""


def page(title: str, parts: Sequence[str], links: Mapping[str, str]) -> str:
    """Returns the whole page.

    Args:
      title: plain text.
      parts: the HTML of the body, in order.
      links: {anchor: plain text} of the table of contents.
    """
    contents = "".join(f'<a href="#{anchor}">{text(label)}</a>' for anchor, label in links.items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{text(title)}</h1>\n<nav>{contents}</nav>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Returns plain text with HTML's own characters escaped."""
    return html.escape(str(value))


def heading(level: int, title: str, anchor: str = "") -> str:
    """Returns a heading, a target of the table of contents if it has an anchor."""
    target = f' id="{text(anchor)}"' if anchor else ""
    return f"<h{level}{target}>{text(title)}</h{level}>"


def paragraph(words: str, note: bool = False) -> str:
    """Returns a paragraph of plain text."""
    return f'<p class="note">{text(words)}</p>' if note else f"<p>{text(words)}</p>"


def items(lines: Sequence[str]) -> str:
    """Returns a list of plain lines."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def preformatted(words: str) -> str:
    """Returns plain text with its own line breaks."""
    return f"<pre>{text(words)}</pre>"


def details(summary: str, inside: str) -> str:
    """Returns HTML that a click on the summary opens."""
    return f"<details><summary>{text(summary)}</summary>{inside}</details>"


def image(png: bytes, alternative: str) -> str:
    """Returns a figure with the PNG inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(alternative)}">'
        f"<figcaption>{text(alternative)}</figcaption></figure>"
    )


def table(frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> str:
    """Returns a table that sorts by a click on a column's title; numbers sort by their value."""
    titles = titles or {}
    head = "".join(
        f'<th><button type="button">{text(titles.get(name, name))}</button></th>'
        for name in frame.columns
    )
    rows = [
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    ]
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def plus_minus(mean: float, sd: float) -> Interval | None:
    """Returns mean ± standard deviation, rounded for reading; None without a mean."""
    if math.isnan(mean):
        return None
    spread = "" if math.isnan(sd) else f" ± {sd:.3g}"
    return Interval(mean, f"{number(mean)}{spread}")


def between(value: float, low: float, high: float) -> Interval:
    """Returns an effect with its interval's ends."""
    return Interval(value, f"{value:.3g} [{low:.3g}, {high:.3g}]")


def number(value: float) -> str:
    """Returns a number as tables show it."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def _cell(value: object) -> str:
    if isinstance(value, Interval):
        return f'<td class="number" data-value="{value.value!r}">{text(value.shown)}</td>'
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '<td data-value=""></td>'
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number" data-value="{float(value)!r}">{number(float(value))}</td>'
    word = text(value)
    verdicts = {"supported", "not supported", "undecided"}
    kind = word.replace(" ", "-") if word in verdicts else "words" if len(word) > 24 else "short"
    return f'<td class="{kind}" data-value="{word}">{word}</td>'
