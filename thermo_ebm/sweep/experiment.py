"""Reads an experiment's file: the cells of a sweep, as changes to one configuration."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from thermo_ebm.errors import UserError, one_line


def read_changes(path: Path, config: ConfigDict) -> list[dict[str, Any]]:
    """Runs an experiment's file and returns its cells' changes of the configuration.

    Args:
      path: a Python file with `get_cells()` or `get_cells(config)`, which returns or yields a dict
        for each cell: fields with dots, such as "loss.power", and their values.
      config: the argument of `get_cells(config)`.

    Raises:
      UserError: the file does not exist, defines no such function, or raises an error.
    """
    if not path.is_file():
        raise UserError(f"experiment={path}: there is no such file")
    spec = importlib.util.spec_from_file_location("experiment", path)
    if spec is None or spec.loader is None:
        raise UserError(f"experiment={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_cells = getattr(module, "get_cells", None)
        if not callable(get_cells):
            raise UserError(
                f"experiment={path}: defines no function get_cells(), which returns a list of "
                'cells such as {"loss.power": 6.0}; see configs/experiment1.py'
            )
        takes_config = bool(inspect.signature(get_cells).parameters)
        return list(get_cells(config) if takes_config else get_cells())
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"experiment={path}: {what}") from error
