"""The parts of a report on the claims: a summary, one line per claim, the table of the tests."""

from collections.abc import Iterable

import pandas as pd

from study.claims.verdicts import VERDICTS
from study.report import page


def count_verdicts(verdicts: Iterable[str]) -> dict[str, int]:
    """Returns how many claims each verdict has."""
    found = list(verdicts)
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def summarise(rows: pd.DataFrame) -> list[str]:
    """Returns what the claims come to, in a few sentences.

    Args:
      rows: what `claims.decide` returns, with `verdict_last_5` where it was tested.
    """
    lines = [f"{len(rows)} claims: {_counted(rows['verdict'])}."]
    lines.append(f"With all claims of this data set as one family: {_changed(rows, 'one_family')}.")
    if "verdict_last_5" in rows:
        told = _changed(rows[rows["verdict_last_5"].notna()], "last_5")
        lines.append(f"By the means over the last five epochs: {told}.")
    return lines


def claim_parts(rows: pd.DataFrame) -> list[page.Part]:
    """Returns the claims, one per line by families, and all their tests behind a click."""
    has_recent = "verdict_last_5" in rows
    families: dict[str, list[page.ClaimLine]] = {}
    for row in rows.to_dict("records"):
        families.setdefault(row["family"], []).append(_line(row))
    note = (
        "Each interval has a scale of its own. The vertical line is the null value, the green side "
        "is the claimed one (without a green side, no effect is claimed), and effects inside the "
        "grey band are too small to matter. A verdict "
        "in light grey is the same as the one in the first column."
    )
    return [
        page.Claims([page.Family(*pair) for pair in families.items()], has_recent),
        page.Paragraph(note, note=True),
        page.Details("Tests, intervals and p-values of every claim", [page.table(_tests(rows))]),
    ]


def _line(row: dict) -> page.ClaimLine:
    ends = (row["ci_low"], row["ci_high"])
    claimed = {">": 1, "<": -1}.get(str(row["claimed"])[0], 0)
    drawn = page.drawn_interval(row["effect"], ends, row["null"], row["margin"], claimed)
    effect = f"{page.between(row['effect'], *ends).text} {row['unit']}"
    recent = row.get("verdict_last_5")
    return page.ClaimLine(
        row["verdict"],
        row["claim"],
        effect,
        drawn,
        row["verdict_one_family"],
        recent if isinstance(recent, str) else "",
    )


def _counted(verdicts: pd.Series) -> str:
    return ", ".join(f"{count} {word}" for word, count in count_verdicts(verdicts).items())


def _changed(rows: pd.DataFrame, suffix: str) -> str:
    """Says which verdicts are another one in the column of `suffix`."""
    other = rows[f"verdict_{suffix}"]
    changed = rows[other != rows["verdict"]]
    if changed.empty:
        return "no verdict changes"
    told = [
        f"“{row['claim']}” ({row['variant']}: {row['verdict']}, then {row[f'verdict_{suffix}']})"
        for row in changed.to_dict("records")
    ]
    number = f"{len(told)} verdict{'s change' if len(told) > 1 else ' changes'}"
    more = f" and {len(told) - 4} more" if len(told) > 5 else ""
    return f"{number}: {'; '.join(told[:4] if more else told)}{more}"


def _tests(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of the tests for a page: each effect joined with its interval."""
    ends = zip(rows["effect"], rows["ci_low"], rows["ci_high"], strict=True)
    shown = {
        "claim": rows["claim"],
        "verdict": rows["verdict"],
        "effect [95 % interval]": [page.between(*values) for values in ends],
        "claimed": rows["claimed"],
        "unit": rows["unit"],
        "p": rows["p_value"],
        "p, Holm": rows["p_holm"],
        "p, one family": rows["p_holm_one_family"],
        "why": rows["reason"],
        "compared": rows["comparison"],
        "test": rows["test"],
        "family": rows["family"],
    }
    return pd.DataFrame(shown)
