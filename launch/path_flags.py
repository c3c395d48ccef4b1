"""The flag type of every path: expands `~`, and refuses what cannot be the name of a file."""

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
