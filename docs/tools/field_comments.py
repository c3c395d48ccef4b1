"""An extension of griffe: shows comments beside fields as descriptions, and examples as code.

NamedTuples here say shapes and units in a comment after each field, which Python does not keep.
Examples stand in docstrings as doctest reads them; in Markdown, `>>>` would begin a quotation.
"""

import re
import tokenize
from typing import Any

import griffe

_SYMBOL = re.compile(r"[A-Za-z]+_\w|[b-zB-Z]\d?\b")  # keeps its case: g_beta, s of eq. 9
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_OPTION = re.compile(r" *# doctest: .*$", re.MULTILINE)


class FieldComments(griffe.Extension):
    """Gives attributes without a docstring their trailing comment; fences examples."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called for every attribute that griffe finds."""
        if attr.docstring or not attr.lines:
            return
        lines = iter(f"{line.strip()}\n" for line in attr.lines)
        try:
            tokens = [token.string for token in tokenize.generate_tokens(lambda: next(lines, ""))]
        except tokenize.TokenError:  # a value over several lines
            return
        comments = [token for token in tokens if token.startswith("#")]
        if comments:
            text = comments[-1].lstrip("# ")
            if not _SYMBOL.match(text):
                text = text[:1].upper() + text[1:]
            attr.docstring = griffe.Docstring(text, parent=attr)

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute, once it is complete."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = _EXAMPLE.sub(_fence, obj.docstring.value)


def _fence(example: re.Match[str]) -> str:
    return f"```pycon\n{_OPTION.sub('', example[0])}\n```"
