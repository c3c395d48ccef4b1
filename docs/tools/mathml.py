"""A hook of MkDocs: turns $...$ into MathML, and log p(x) and symbols in text into formulas.

Browsers draw MathML by themselves, so that equations need neither a script nor a network. The font
is Latin Modern Math (`docs/fonts`), as set in `docs/stylesheets/extra.css`.
"""

import html
import re
from typing import Any

from latex2mathml import converter

_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_OPERATOR = r"<m[io]>(?:log|exp|min|max)</m[io]>"
# TeX puts a thin space between an operator such as log and its argument without a bracket, and
# before it, after a symbol or a closing bracket. The converter leaves both out.
_AFTER = re.compile(rf'({_OPERATOR})(?!<mo stretchy="false">&#x00028;|</m)')
_BEFORE = re.compile(rf"(</mi>|</mn>|</msub>|</msup>|&#x00029;</mo>)({_OPERATOR})")
_THIN_SPACE = '<mspace width="0.167em" />'

# Code, scripts, titles in attributes and tags stay as they are; the rest is text.
_PARTS = re.compile(r"(<(pre|code|math|svg|script|style)\b.*?</\2>|<[^>]*>)", re.DOTALL)
_LOG_P = re.compile(r"\blog (p|q|Z)(?:\((x|z)( \| | given )?(x|z)?\))?(?![\w(])")
_GREEK = {"alpha": "α", "beta": "β", "sigma": "σ"}
# N_t, sigma_l, f_alpha, as docstrings and sentences write them; names of code have longer parts.
_SYMBOL = re.compile(r"(?<![\w.])([A-Za-z]|sigma)_([\dijklxzts]|alpha|beta)(?![\w(]*_|\w)")


def on_page_content(content: str, **_: Any) -> str:
    """Replaces each equation that `pymdownx.arithmatex` has marked, and each log p(x) in text."""
    parts = _PARTS.split(_MATH.sub(_to_mathml, content))
    # Three by three: text, then the tag or element after it, then the name of that element.
    parts[0::3] = [_typeset(text) for text in parts[0::3]]
    del parts[2::3]
    return "".join(parts)


def _to_mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    equation = converter.convert(html.unescape(match[2]).strip(), display=display)
    equation = equation.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # "distributed as"
    equation = _BEFORE.sub(rf"\1{_THIN_SPACE}\2", _AFTER.sub(rf"\1{_THIN_SPACE}", equation))
    return f'<div class="equation">{equation}</div>' if display == "block" else equation


def _typeset(text: str) -> str:
    return _LOG_P.sub(_to_italics, _SYMBOL.sub(_with_subscript, text))


def _with_subscript(match: re.Match[str]) -> str:
    letter, index = (_GREEK.get(name, name) for name in match.groups())
    index = index if index.isdigit() else f"<i>{index}</i>"
    return f'<span class="formula"><i>{letter}</i><sub>{index}</sub></span>'


def _to_italics(match: re.Match[str]) -> str:
    """Keeps the text, which search and copying need; only its letters change."""
    function, first, bar, second = match.groups()
    argument = f"(<i>{first}</i>{bar or ''}{f'<i>{second}</i>' if second else ''})" if first else ""
    return f'<span class="formula">log <i>{function}</i>{argument}</span>'
