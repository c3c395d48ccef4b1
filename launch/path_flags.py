"""The flag type of every path: expands `~`, and refuses what cannot be the name of a file."""

import os
from pathlib import Path
from typing import Any

from absl import flags

from thermo_ebm import runtime
from thermo_ebm.errors import UserError

flags.disclaim_key_flags()  # the flags belong to the program that defines them


class PathParser(flags.ArgumentParser):
    """Reads a path. A class because absl asks for one."""

    def parse(self, argument: str) -> str:
        """Returns the path with the home folder in place of `~`."""
        try:
            return checked(argument)
        except UserError as error:
            raise ValueError(str(error)) from error

    def flag_type(self) -> str:
        """The type that --help prints."""
        return "path"


class OutputFileParser(PathParser):
    """Reads the path of a file to write: refused at once, not after the work."""

    def parse(self, argument: str) -> str:
        """Returns the path; its folder exists and can be written."""
        path = Path(super().parse(argument))
        if path.is_dir():
            raise ValueError("must be a file, and is a folder")
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent}; create it first")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise ValueError(f"the folder {path.parent} cannot be written")
        return str(path)


def DEFINE_output_file(name: str, meaning: str) -> None:
    """Defines a flag whose value is the path of a file that the program writes at its end."""
    serializer: flags.ArgumentSerializer[Any] = flags.ArgumentSerializer()
    flags.DEFINE(OutputFileParser(), name, None, meaning, serializer=serializer)


def DEFINE_path(name: str, default: str | None, meaning: str, required: bool = False) -> None:
    """Defines a flag whose value is a path, or a name for which a path may stand."""
    serializer: flags.ArgumentSerializer[Any] = flags.ArgumentSerializer()
    flags.DEFINE(PathParser(), name, default, meaning, serializer=serializer, required=required)


def checked(path: str) -> str:
    """The path with the home folder in place of `~`.

    Raises:
      UserError: the path is empty, is not UTF-8, or begins with a `~` that cannot be expanded.
    """
    if not path.strip():
        raise UserError("must be a path, and is empty; was a variable of the shell not set?")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError("must be a path in UTF-8; rename the file or folder") from error
    if "\0" in path:
        raise UserError("must be a path, and holds a zero byte")
    return runtime.expand_home(path)
