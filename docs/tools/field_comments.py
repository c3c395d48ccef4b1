"""An extension of griffe: shows the comment beside a field as its description.

NamedTuples here say shapes and units in a comment after each field, which Python does not keep.
"""

import re
import tokenize
from typing import Any

import griffe

_SYMBOL = re.compile(r"[A-Za-z]+_\w|\w\d?\b(?! )")


class FieldComments(griffe.Extension):
    """Gives attributes without a docstring their trailing comment."""

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
            if not _SYMBOL.match(text):  # a symbol keeps its case: g_beta, sigma_0
                text = text[:1].upper() + text[1:]
            attr.docstring = griffe.Docstring(text, parent=attr)
