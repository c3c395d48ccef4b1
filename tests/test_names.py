"""Names say what they stand for: hardly an identifier is a word that could stand for anything."""

import ast
import collections
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# fmt: off
VAGUE = frozenset((
    "one", "found", "made", "own", "whole", "held", "seen", "wanted", "chosen", "kept", "shown",
    "told", "others", "some", "every", "known", "given", "there",
))
# fmt: on
OF_OTHERS = frozenset()  # vague keywords of other libraries' functions
# Of all identifiers of a folder.
LIMITS = {"thermo_ebm": 0.002, "study": 0.002, "launch": 0.002}


def identifiers(tree):
    """(name, line) of variables, attributes, arguments, functions, classes and keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.keyword) and node.arg and node.arg not in OF_OTHERS:
            yield node.arg, node.value.lineno


def is_vague(name):
    return name.strip("_") in VAGUE


def vague_places(folder):
    """The share of vague identifiers in a folder, and the places of all of them."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    names = [
        (name, f"{path.relative_to(ROOT)}:{line}: {name}")
        for path in paths
        for name, line in identifiers(ast.parse(path.read_text(encoding="utf-8")))
    ]
    places = [place for name, place in names if is_vague(name)]
    return len(places) / len(names), places


def test_identifiers_are_collected_wherever_they_stand():
    code = "class One:\n    def made(self, given):\n        self.own = call(kept=given)\n"
    names = {name for name, _ in identifiers(ast.parse(code))}
    assert names == {"One", "made", "self", "given", "own", "call", "kept"}
    assert sorted(filter(is_vague, names)) == ["given", "kept", "made", "own"]


def test_few_identifiers_are_vague():
    for folder, limit in LIMITS.items():
        share, places = vague_places(folder)
        assert share <= limit, "\n".join(places)


def test_each_type_of_the_library_has_a_name_of_its_own():
    places = collections.defaultdict(list)
    for path in sorted((ROOT / "thermo_ebm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
