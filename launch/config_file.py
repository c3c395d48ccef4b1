"""The flag --config: reads a configuration file and explains errors in it or in its fields."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from thermo_ebm import fields
from thermo_ebm.config import shipped
from thermo_ebm.errors import UserError, one_line

from . import path_flags

flags.disclaim_key_flags()

# How ml_collections begins the message for --config.field=value if the file cannot be read.
_FILE_NOT_READ = "Configuration is not available because of an earlier failure"


def define(default: str | None, meaning: str) -> None:
    """Defines the flag --config of a program; without a default the flag is required.

    Args:
      default: a file, or the name of a shipped configuration; None for no default.
      meaning: for --help.
    """
    config_flags.DEFINE_config_file("config", None, meaning)
    flags.FLAGS["config"].parser = _ConfigParser("config")
    flags.declare_key_flag("config")
    if default is None:
        flags.mark_flag_as_required("config")
    else:
        flags.FLAGS.set_default("config", default)


def define_images() -> None:
    """Defines --data_dir and --image_size, short for two fields of the configuration."""
    path_flags.DEFINE_path("data_dir", None, "Short for --config.data.data_dir: the images.")
    flags.DEFINE_integer(
        "image_size",
        None,
        "Short for --config.data.image_size: height and width in pixels; the generator's layers "
        "follow from it if those of the configuration make another size.",
        lower_bound=1,
    )


def define_model() -> None:
    """Defines --model, short for a field of the configuration."""
    flags.DEFINE_string(
        "model",
        None,
        "Short for --config.model.factory: your own networks, as MODULE:FACTORY.",
    )


class _ConfigParser(config_flags.ConfigFileFlagParser):
    """Reads a configuration's file. A class because ml_collections asks for one."""

    def parse(self, path: str) -> ConfigDict:
        """Returns what the file's get_config() returns, locked.

        Raises:
          UserError: `path` is no path, or the file returns no configuration.
        """
        try:
            path = path_flags.checked(path)
        except UserError as error:
            raise UserError(f"--config={path}: {error}") from error
        name, colon, argument = path.partition(":")
        file = shipped.find(name)
        try:
            config = super().parse(file + colon + argument)
        except AttributeError as error:
            if error.name != "get_config":
                raise
            raise UserError(f"{file}: has no function get_config()") from error
        # ml_collections keeps the error of a file that cannot be opened, for the first use.
        if isinstance(config, ConfigDict) or type(config).__name__ == "_ErrorConfig":
            return config
        kind = "nothing" if config is None else f"a value of type {type(config).__name__}"
        raise UserError(
            f"{file}:{_line_of_get_config(file)}: get_config() returns {kind}; it must end with "
            "`return config`, a ConfigDict"
        )


def _line_of_get_config(file: str) -> int:
    """The line where a configuration's file defines get_config(); 1 where it is imported."""
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    definition = re.compile(r"def\s+get_config\b")
    return next((number for number, line in enumerate(lines, 1) if definition.match(line)), 1)


def read() -> ConfigDict:
    """The configuration that --config names, with the values of --data_dir and --model, locked.

    A file that cannot be read fails only here, where the configuration is used.

    Raises:
      UserError: naming the file.
    """
    try:
        config = flags.FLAGS.config.lock()
    except OSError as error:
        raise UserError(_unreadable(_path())) from error
    values = flags.FLAGS.flag_values_dict()
    if data_dir := values.get("data_dir"):
        config.data.data_dir = data_dir
    if factory := values.get("model"):
        config.model.factory = factory
    return config


def explain(argv: Sequence[str], error: BaseException) -> str:
    """The message for an error in a configuration's file or fields while flags were parsed."""
    if isinstance(error, KeyError | AttributeError) and (message := _unknown_field(argv)):
        return message
    if isinstance(error, OSError) and str(error).startswith(_FILE_NOT_READ):
        paths = [flag.partition("=")[2] for flag in argv if flag.startswith("--config=")]
        return _unreadable(paths[-1] if paths else _path())
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    *_, frame = traceback.extract_tb(error.__traceback__)
    where = "" if "site-packages" in frame.filename else f" {frame.filename}:{frame.lineno}:"
    # If an attribute of a configuration does not exist, the message begins with its name.
    quoted = re.match(r"\W*(\w+)", str(error))
    if quoted and any(fields.is_within(former, quoted[1]) for former in fields.FORMER):
        return f"--config:{where} {quoted[1]}: {fields.unknown(quoted[1])}"
    return f"--config:{where} {type(error).__name__}: {one_line(error)}"


def suggest_field(flag: str) -> str | None:
    """The message for an unknown flag that has the name of a configuration field."""
    if "config" not in flags.FLAGS:
        return None
    options = [name for name in fields.FIELDS if name == flag or name.endswith(f".{flag}")]
    if not options:
        return None
    suggestion = " or ".join(f"--config.{name}" for name in options)
    return f"--{flag}: there is no such flag; did you mean {suggestion}?"


def _unknown_field(argv: Sequence[str]) -> str | None:
    """The message for the first flag --config.FIELD=value whose field does not exist, if any."""
    for argument in argv:
        flag = argument.partition("=")[0]
        field = flag.removeprefix("--config.")
        if field != flag and not any(fields.is_within(name, field) for name in fields.FIELDS):
            return f"{flag}: {fields.unknown(field)}"
    return None


def _path() -> str:
    return config_flags.get_config_filename(flags.FLAGS["config"])


def _unreadable(path: str) -> str:
    if Path(path).exists():
        return f"--config={path}: it cannot be read as a file"
    return f"--config={path}: there is no such file{shipped.suggest(path, 'get_config')}"
