"""Functions and classes of a user, named as MODULE:NAME."""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from thermo_ebm.errors import UserError, one_line


def load(field: str, spec: str, kind: str, form: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Imports a module and finds a function or class in it.

    Args:
      field: the field or flag that holds `spec`, for messages.
      spec: MODULE:NAME.
      kind: "function" or "class", for messages.
      form: says what `spec` must be, for messages.

    Returns:
      The module, and the function or class.

    Raises:
      UserError: `spec` has another form, the module cannot be imported or has no such name.
    """
    module_name, _, name = spec.rpartition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not name.isidentifier():
        raise UserError(f"{field}={spec}: {form}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module can raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{field}={spec}: {module_name} cannot be imported ({reason})") from error
    value = getattr(module, name, None)
    if not callable(value):
        raise UserError(f"{field}={spec}: {module_name} has no {kind} {name}")
    return module, value


def source_digest(field: str, spec: str, module: ModuleType) -> str:
    """SHA-256 of the source of a module, from `load` with the same field and `spec`.

    Raises:
      UserError: it has no source file, or the file cannot be read.
    """
    try:
        source = Path(str(inspect.getsourcefile(module))).read_bytes()
    except (TypeError, OSError) as error:
        raise UserError(
            f"{field}={spec}: the source of {module.__name__} cannot be read"
        ) from error
    return hashlib.sha256(source).hexdigest()
