"""A hook of MkDocs: turns $...$ into MathML while the site is built.

Browsers draw MathML by themselves, so that equations need neither a script nor a network.
"""

import html
import re
from typing import Any

from latex2mathml import converter

_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replaces each equation that `pymdownx.arithmatex` has marked."""
    return _MATH.sub(_to_mathml, content)


def _to_mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    return converter.convert(html.unescape(match[2]).strip(), display=display)
