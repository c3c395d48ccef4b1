"""A hook of MkDocs: long names in the cells of tables may break after `_`, `.`, `/`, `=` and `,`.

Without it a phone breaks them anywhere, or the page scrolls sideways.
"""

import re
from typing import Any

_CODE_IN_CELL = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
_CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Adds the places where the names in tables may break."""
    return _CELL.sub(lambda cell: _CODE_IN_CELL.sub(_with_breaks, cell[0]), content)


def _with_breaks(code: re.Match[str]) -> str:
    return re.sub(r"(?<=\w)([_./=,])(?=\w)", r"\1<wbr>", code[0])
