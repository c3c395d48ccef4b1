"""Configurations and experiments that come with the package, which a name finds from any folder."""

import difflib
import re
from pathlib import Path

from thermo_ebm import configs


def find(name: str) -> str:
    """The path of the shipped file with this name; other paths as they are.

    >>> Path(find("digits")).name, find("mine/digits.py")
    ('digits.py', 'mine/digits.py')
    """
    if not name.isidentifier() or Path(name).is_file():
        return name
    path = Path(configs.__path__[0]) / f"{name}.py"
    return str(path) if path.is_file() else name


def suggest(name: str, function: str) -> str:
    """What to say of a name that finds nothing: a similar shipped name, or all of them.

    Args:
      name: a name or a path.
      function: what the file has to define, `get_config` or `get_cells`.

    >>> suggest("digit", "get_config")
    '; did you mean digits?'
    """
    names = _names(function)
    if similar := difflib.get_close_matches(Path(name).stem, names, 1, 0.75):
        return f"; did you mean {similar[0]}?"
    return f"; these come with the package: {', '.join(names)}" if name.isidentifier() else ""


def _names(function: str) -> list[str]:
    """The shipped files that define a function."""
    definition = re.compile(rf"^def {function}\b", re.MULTILINE)
    files = Path(configs.__path__[0]).glob("*.py")
    names = {file.stem for file in files if definition.search(file.read_text("utf-8"))}
    return sorted(names - {"base"})  # which is not used by itself
