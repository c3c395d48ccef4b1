"""What all programs share: JAX's environment, common flags, and errors as one line.

JAX reads its environment when it is imported. Importing this module sets the environment, so that
every program imports it before anything that imports JAX.
"""

import io
import logging as python_logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NoReturn

from absl import app, flags, logging

from thermo_ebm import console, runtime
from thermo_ebm.errors import UserError, one_line, printable
from thermo_ebm.run import layout

from . import config_file, flag_errors
from .command import BAD_INPUT, COMMAND
from .path_flags import DEFINE_path

# Whether the command asks for help. Then programs skip the imports that take seconds.
HELP_ONLY = not {
    f"{dashes}{name}"
    for name in ("help", "helpfull", "helpshort", "helpxml", "?")
    for dashes in ("-", "--")
}.isdisjoint(sys.argv[1:])

runtime.prepare_jax()
# Before other imports: a library that logs while it is imported would give Python's root logger a
# handler of its own, and each warning would be printed twice.
logging.use_absl_handler()
if not HELP_ONLY:
    try:
        runtime.check_system()
        runtime.pin_settings()
    except UserError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(BAD_INPUT)  # as `refuse`, which is defined below
    import jax
    import jaxlib

flags.disclaim_key_flags()  # flags defined here belong to the program that defines them


def run(
    main: Callable[[Sequence[str]], int | None],
    define_flags: Callable[[], None],
    arguments: bool = False,
) -> None:
    """Runs `main(argv)` with parsed flags and exits with the code it returns.

    A `UserError`, a flag or config field that cannot be parsed, a file that cannot be opened, or
    running out of memory is printed as one line and the exit code is 2. `--help` and its relatives
    print help and exit with 0.

    Args:
      main: the program.
      define_flags: defines its flags.
      arguments: whether the program takes arguments besides flags; otherwise they are refused.
    """
    if HELP_ONLY:
        define_flags()
        sys.exit(_print_help(main))
    _prepare_streams()
    _silence_libraries()
    _check_flag_files(sys.argv)
    define_flags()
    app.run(lambda argv: exit_code(main, argv, arguments), flags_parser=_parse)


def exit_code(
    main: Callable[[Sequence[str]], int | None], argv: Sequence[str], arguments: bool = False
) -> int:
    """Calls `main(argv)`, prints the errors that `run` lists, and returns the exit code."""
    try:
        if len(argv) > 1 and not arguments:
            raise UserError(f"unknown argument {argv[1]!r}; flags start with --")
        code = main(argv) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:  # nothing is running that could be lost
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return _discard_output()
    except OSError as error:
        if error.filename is None and not _is_output_broken():
            raise
        name = error.filename if error.filename is not None else "standard output"
        code = _complain(printable(f"{os.fsdecode(name)}: {error.strerror}"))
        if error.filename is None:
            _discard_output()
        return code
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return _complain(
            f"out of memory ({one_line(error)}): choose a smaller batch_size, model or number "
            "of temperatures, or a smaller sampler.image_chunk"
        )


def continue_without_output() -> None:
    """From here on, text that cannot be printed does not end the program: results are in files."""
    sys.stdout = console.lenient(sys.stdout)


def define_poll_seconds(default: float, meaning: str) -> None:
    """Defines --poll_seconds, for the programs that wait for other processes."""
    flags.DEFINE_float("poll_seconds", default, meaning)
    flags.register_validator(
        "poll_seconds", lambda seconds: 0 <= seconds <= 86400, message="must be from 0 to 86400"
    )


def define_checkpoint(run: str = "workdir") -> None:
    """Defines the flags that choose a checkpoint of a run, and which of its parameters.

    Args:
      run: the name of the first flag.
    """
    DEFINE_path(run, None, "The run directory, or a file of Run.export.", required=True)
    flags.DEFINE_integer("repetition", 0, "Number of the repetition.")
    flags.DEFINE(
        _StepParser(),
        "step",
        None,
        "Step of the checkpoint, or best for the one that launch.eval --keep_best has kept; the "
        "newest by default.",
    )
    define_parameters()


def define_parameters() -> None:
    """Defines --parameters, which chooses between the parameters of a checkpoint."""
    flags.DEFINE_enum(
        "parameters",
        None,
        [layout.LAST, layout.AVERAGED],
        "Parameters of a checkpoint: after its last update (the default), or averaged over updates,"
        " for runs with optimizer.ema_decay.",
    )


def define_against_parameters() -> None:
    """Defines --against_parameters, for the programs with --against_run."""
    flags.DEFINE_enum(
        "against_parameters",
        None,
        [layout.LAST, layout.AVERAGED],
        "As --parameters, of --against_run; by default as --parameters.",
    )


def against_parameters() -> str | None:
    """The parameters of --against_run."""
    return flags.FLAGS.against_parameters or flags.FLAGS.parameters


class _StepParser(flags.ArgumentParser):
    """Reads a step: a number, or the word best. A class because absl asks for one."""

    def parse(self, argument: str) -> int | str:
        """Returns the number or the word."""
        if argument == "best":
            return argument
        try:
            return int(argument)
        except ValueError:
            raise ValueError("must be a number or best") from None

    def flag_type(self) -> str:
        """The type that --help prints."""
        return "step"


def define_effort() -> None:
    """Defines the flags that say how much work an estimate of log p(x) may be."""
    flags.DEFINE_float(
        "error", 0.1, "Standard error asked for of each image's log p(x), nats.", lower_bound=1e-4
    )
    flags.DEFINE_integer(
        "max_gradients", 20_000, "Most gradients of a chain, whatever its error.", lower_bound=4
    )
    flags.DEFINE_float(
        "max_seconds",
        0.0,
        "Seconds after which no image of a table is estimated again; 0: no limit.",
        lower_bound=0.0,
    )


def define_data_dir() -> None:
    """Defines --data_dir, for the programs that read a run's images."""
    DEFINE_path("data_dir", None, "Where the data are now; by default where the run had them.")


def define_seed(meaning: str) -> None:
    """Defines --seed, from which a program makes its random key."""
    flags.DEFINE_integer("seed", 0, meaning, lower_bound=0, upper_bound=2**31 - 1)


def check_devices() -> None:
    """Checks that JAX has a device on which it computes correct results.

    Raises:
      UserError: no device of the requested kind, or a jaxlib that computes wrong results on CPUs.
    """
    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that a platform exists
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = one_line(error) or f"JAX_PLATFORMS={platforms} names no platform that is installed"
        raise UserError(f"JAX finds no device: {reason}") from error
    if backend == "cpu" and jaxlib.__version__ == "0.10.2":
        raise UserError("jaxlib 0.10.2 computes wrong results on CPUs: install 0.10.1 or 0.11")


def refuse(message: str) -> NoReturn:
    """Ends a program that cannot begin, with one line as it is."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(BAD_INPUT)


def _print_help(main: Callable[[Sequence[str]], int | None]) -> int:
    """Prints the program's docstring and flags; returns the exit code."""
    try:
        if started_by_command():
            module = sys.modules[main.__module__]
            listed = flags.FLAGS.module_help(module.__name__).partition("\n  --")
            print(in_commands(f"{module.__doc__}\nflags:\n\n{sys.argv[0]}:{''.join(listed[1:])}"))
        else:
            app.usage(shorthelp=True, writeto_stdout=True)
        sys.stdout.flush()
    except BrokenPipeError:
        return _discard_output()
    return 0


def started_by_command() -> bool:
    """Whether the command `thermo-ebm` runs this program, and not `python -m`."""
    return sys.argv[0].startswith(f"{COMMAND} ")


def in_commands(text: str) -> str:
    """A text that names modules and files of a clone, in the words of the installed command.

    >>> in_commands("python -m launch.train --config=configs/digits.py, then launch.eval")
    'thermo-ebm train --config=digits, then thermo-ebm eval'
    """
    text = re.sub(r"\b(?:python -m )?launch\.(\w+)", rf"{COMMAND} \1", text)
    return re.sub(r"\bconfigs/(\w+)\.py\b", r"\1", text)


def _prepare_streams() -> None:
    """Progress and messages never end a program; characters that cannot be printed are escaped."""
    if sys.stdout is None:  # closed by the shell with >&-
        sys.stdout = console.lenient(None)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = console.lenient(sys.stderr)


def _check_flag_files(argv: Sequence[str]) -> None:
    """Ends the program if a file of --flagfile cannot be read."""
    try:
        flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    except (flags.Error, OSError, ValueError, RecursionError) as error:
        sys.exit(_complain(f"--flagfile: {one_line(error)}"))


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; any error in them or in a configuration's file ends the program."""
    try:
        return flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        sys.exit(_complain(config_file.suggest_field(error.flagname) or flag_errors.unknown(error)))
    except flags.Error as error:
        if "Traceback" in str(error):  # of a configuration's file: the last line says why
            sys.exit(_complain(f"--config: {str(error).strip().splitlines()[-1]}"))
        sys.exit(_complain(flag_errors.explain(error)))
    except (Exception, SystemExit) as error:  # a configuration's file is a program
        sys.exit(_complain(config_file.explain(argv, error)))


def _complain(message: str) -> int:
    message = in_commands(message) if started_by_command() else message
    print(f"error: {message}", file=sys.stderr, flush=True)
    return BAD_INPUT


def _discard_output() -> int:
    """Ends output whose reader has left, as with `| head`; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _is_output_broken() -> bool:
    """Whether an error without a file's name is that of standard output."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the device (recognised only by XLA's message) or the host ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _silence_libraries() -> None:
    """Hides what libraries log and raise in addition to an error, with tracebacks."""
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs every file
    hidden = ("/orbax/", "/ml_collections/")
    logging.get_absl_logger().addFilter(
        lambda record: not any(folder in record.pathname for folder in hidden)
    )
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    sys.excepthook = _excepthook
    sys.unraisablehook = _unraisablehook


def _excepthook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Hides errors from the threads of a failed save that end after the save."""
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def _unraisablehook(unraisable: "sys.UnraisableHookArgs") -> None:
    """Hides errors from reads of a damaged checkpoint that end after the restore has failed."""
    code = getattr(unraisable.object, "cr_code", None)  # of a coroutine
    of_orbax = code is not None and "/orbax/" in code.co_filename
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
