"""Tables in Markdown, for the pages that are generated."""

from collections.abc import Iterable, Sequence


def table(titles: Iterable[object], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table with a line for each row."""
    lines = [list(map(str, titles))]
    lines += [["---"] * len(lines[0]), *(list(map(str, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
