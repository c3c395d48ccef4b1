"""What the programs of this folder share: paths as arguments, and errors in one line."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from launch.path_flags import checked
from thermo_ebm.errors import UserError


def path_argument(text: str) -> Path:
    """The type of an argument that is a path."""
    try:
        return Path(checked(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def print_all(results: Callable[[], Iterable[object]]) -> int:
    """Prints each of the results, or the user's error; returns the exit code."""
    try:
        for result in results():
            print(result)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
