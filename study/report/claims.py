"""The parts of a report on the claims: a summary, one line per claim, the table of the tests."""

from collections.abc import Iterable

import pandas as pd
from markupsafe import Markup

from study.claims.verdicts import VERDICTS
from study.report import page


def count_verdicts(verdicts: Iterable[str]) -> dict[str, int]:
    """Returns how many claims each verdict has."""
    listed = list(verdicts)
    return {verdict: listed.count(verdict) for verdict in VERDICTS}


def summarise(claims: pd.DataFrame) -> list[str]:
    """Returns the verdicts in a few sentences.

    Args:
      claims: what `claims.decide` returns, with `verdict_last_5` where it was tested.
    """
    counts = ", ".join(
        f"{count} {word}" for word, count in count_verdicts(claims["verdict"]).items()
    )
    lines = [
        f"{len(claims)} claims: {counts}.",
        f"With all claims of this data set as one family: {_changes(claims, 'one_family')}.",
    ]
    if "verdict_last_5" in claims:
        changes = _changes(claims[claims["verdict_last_5"].notna()], "last_5")
        lines.append(f"By the means over the last five epochs: {changes}.")
    return lines


def _changes(claims: pd.DataFrame, suffix: str) -> str:
    """Says which verdicts differ in the column of `suffix`."""
    column = f"verdict_{suffix}"
    changed = claims[claims[column] != claims["verdict"]]
    if changed.empty:
        return "no verdict changes"
    listed = [
        f"“{row['claim']}” ({row['variant']}: {row['verdict']}, then {row[column]})"
        for row in changed.to_dict("records")
    ]
    number = f"{len(listed)} verdict{'s change' if len(listed) > 1 else ' changes'}"
    more = f" and {len(listed) - 4} more" if len(listed) > 5 else ""
    return f"{number}: {'; '.join(listed[:4] if more else listed)}{more}"


def claim_parts(claims: pd.DataFrame) -> list[Markup]:
    """Returns the claims, one per line by families, and all their tests behind a click."""
    families: dict[str, list[dict]] = {}
    for row in claims.to_dict("records"):
        families.setdefault(row["family"], []).append(_line(row))
    note = (
        "Each interval has a scale of its own. The vertical line is the null value, the green side "
        "is the claimed one (without a green side, no effect is claimed), and effects inside the "
        "grey band are too small to matter. A verdict "
        "in light grey is the same as the one in the first column."
    )
    tests = page.table(_tests(claims))
    return [
        page.claims(families, "verdict_last_5" in claims),
        page.paragraph(note, note=True),
        page.details("Tests, intervals and p-values of every claim", [tests]),
    ]


def _line(row: dict) -> dict[str, object]:
    """What the page prints on one claim."""
    ends = (row["ci_low"], row["ci_high"])
    sign = {">": 1, "<": -1}.get(str(row["claimed"])[0], 0)
    recent = row.get("verdict_last_5")
    return {
        "verdict": row["verdict"],
        "claim": row["claim"],
        "effect": f"{page.between(row['effect'], *ends).text} {row['unit']}",
        "drawn": page.draw_interval(row["effect"], ends, row["null"], row["margin"], sign),
        "one_family": row["verdict_one_family"],
        "recent": recent if isinstance(recent, str) else "",
    }


def _tests(claims: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of the tests for a page: each effect joined with its interval."""
    ends = zip(claims["effect"], claims["ci_low"], claims["ci_high"], strict=True)
    columns = {
        "claim": claims["claim"],
        "verdict": claims["verdict"],
        "effect [95 % interval]": [page.between(*values) for values in ends],
        "claimed": claims["claimed"],
        "unit": claims["unit"],
        "p": claims["p_value"],
        "p, Holm": claims["p_holm"],
        "p, one family": claims["p_holm_one_family"],
        "why": claims["reason"],
        "compared": claims["comparison"],
        "test": claims["test"],
        "family": claims["family"],
    }
    return pd.DataFrame(columns)
