"""An extension of griffe: shows the comment beside a field as its description.

NamedTuples here say shapes and units in a comment after each field, which Python does not keep.
"""

import tokenize
from typing import Any

import griffe


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
            attr.docstring = griffe.Docstring(text[:1].upper() + text[1:], parent=attr)
