"""The flag --config: reads a configuration file and explains errors in it or in its fields."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from thermo_ebm import fields
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.run import upgrade

flags.disclaim_key_flags()

_CLOSE_BY = "Configuration is not available because of an earlier failure"


def define(default: str | None, what: str) -> None:
    """Defines the flag --config of a program; without a default the flag is required."""
    config_flags.DEFINE_config_file("config", default, what)
    flags.declare_key_flag("config")
    if default is None:
        flags.mark_flag_as_required("config")


def read() -> ConfigDict:
    """The configuration that --config names, locked; values of earlier versions are replaced.

    A file that cannot be read fails only here, where the configuration is used.

    Raises:
      UserError: naming the file.
    """
    try:
        config = flags.FLAGS.config.unlock()
        return upgrade.with_todays_values(config).lock()
    except AttributeError as error:
        reason = "its get_config() must return a ConfigDict"
        raise UserError(f"config={_path()}: {reason}") from error
    except OSError as error:
        raise UserError(_unreadable(_path())) from error


def _path() -> str:
    return config_flags.get_config_filename(flags.FLAGS["config"])


def _unreadable(path: str) -> str:
    what = "it cannot be read as a file" if Path(path).exists() else "there is no such file"
    return f"config={path}: {what}"


def explain(argv: Sequence[str], error: BaseException) -> str:
    """The message for an error in a configuration's file or fields while flags were parsed."""
    if isinstance(error, KeyError | AttributeError) and (unknown := _unknown_field(argv, error)):
        return unknown
    if isinstance(error, OSError) and str(error).startswith(_CLOSE_BY):
        given = [one.partition("=")[2] for one in argv if one.startswith("--config=")]
        return _unreadable(given[-1] if given else _path())
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if "site-packages" in frame.filename else f" {frame.filename}:{frame.lineno}:"
    return f"--config:{where} {type(error).__name__}: {one_line(error)}"


def meant_field(flag: str) -> str | None:
    """The message for an unknown flag that has the name of a configuration field."""
    if "config" not in flags.FLAGS:
        return None
    from configs import base

    known = fields.flatten(base.get_config())
    meant = [field for field in known if field == flag or field.endswith(f".{flag}")]
    if not meant:
        return None
    options = " or ".join(f"--config.{field}" for field in meant)
    return f"--{flag}: there is no such flag; did you mean {options}?"


def _unknown_field(argv: Sequence[str], error: BaseException) -> str | None:
    """The message for --config.FIELD=value if `error` is about this field."""
    from thermo_ebm.run import upgrade

    quoted = re.match(r"\W*(\w+)", str(error.args[0]) if error.args else "")
    for name in (argument.split("=")[0] for argument in argv if argument.startswith("--config.")):
        if quoted and quoted[1] in name.split("."):
            if successor := upgrade.REMOVED.get(name.removeprefix("--config.")):
                return f"{name}: this field was removed; set --config.{successor} instead"
            hint = re.search(r"Did you mean \W*(\w+)", str(error.args[0]))
            meant = f"; did you mean {hint[1]}?" if hint else ""
            return f"{name}: there is no such field{meant}"
    return None
