"""What every program does before and after its work: set-up of JAX, and errors as one line."""

import logging as python_logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import TracebackType

from absl import app, flags, logging

from launch import config_file
from thermo_ebm import runtime
from thermo_ebm.errors import UserError, one_line

flags.disclaim_key_flags()  # flags defined here are those of the program that asks for them

BAD_INPUT = 2


def run(main: Callable[[Sequence[str]], int | None], arguments: bool = False) -> None:
    """Runs `main(argv)` with parsed flags and exits with the code it returns.

    A `UserError`, a flag or config field that cannot be parsed, or running out of memory is printed
    as one line and the exit code is 2. `--help` and its relatives print help and exit with 0.

    Args:
      main: the program.
      arguments: whether it takes arguments beside flags; otherwise they are refused.
    """
    runtime.prepare_jax()

    _quieten()

    def guarded(argv: Sequence[str]) -> int:
        try:
            if len(argv) > 1 and not arguments:
                raise UserError(f"unknown argument {argv[1]!r}; flags start with --")
            return main(argv) or 0
        except UserError as error:
            return _complain(str(error))
        except KeyboardInterrupt:  # where nothing is under way that could be lost
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        except BrokenPipeError:  # nobody reads on, as behind `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return _complain(
                f"out of memory ({one_line(error)}): choose a smaller batch_size, model or number "
                "of temperatures, or a smaller sampler.image_chunk"
            )

    app.run(guarded, flags_parser=_parse)


def define_poll_seconds(default: float, what: str) -> None:
    """Defines the flag of the programs that wait for others."""
    flags.DEFINE_float("poll_seconds", default, what)
    flags.register_validator(
        "poll_seconds", lambda seconds: 0 <= seconds <= 86400, message="must be from 0 to 86400"
    )


def define_seed(what: str) -> None:
    """Defines the flag of the programs that draw: what a random key is made from."""
    flags.DEFINE_integer("seed", 0, what, lower_bound=0, upper_bound=2**31 - 1)


def _quieten() -> None:
    """Leaves out what Orbax and asyncio log and raise as well, with whole tracebacks."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at INFO
    logging.get_absl_handler().addFilter(lambda record: "/orbax/" not in record.pathname)
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    sys.excepthook = _excepthook
    sys.unraisablehook = _unraisablehook


def _excepthook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Leaves out what writes of a failed save say that end after it, in threads of their own."""
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def _unraisablehook(unraisable: "sys.UnraisableHookArgs") -> None:
    """The same for reads of a damaged checkpoint that end after it was given up."""
    code = getattr(unraisable.object, "cr_code", None)  # of a coroutine
    of_orbax = code is not None and "/orbax/" in code.co_filename
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def check_devices() -> None:
    """Finds out whether JAX has devices that it computes right on.

    Raises:
      UserError: none of the kind asked for, or a jaxlib that is wrong on CPUs.
    """
    import jax
    import jaxlib

    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that some platform was found
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = one_line(error) or f"JAX_PLATFORMS={wanted} names none that is installed here"
        raise UserError(f"JAX finds no device: {reason}") from error
    if backend == "cpu" and jaxlib.__version__ == "0.10.2":
        raise UserError("jaxlib 0.10.2 computes wrong results on CPUs: install 0.10.1 or 0.11")


def _is_out_of_memory(error: Exception) -> bool:
    """Of the device, which XLA tells by its message alone, or of the host."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; whatever goes wrong in them or in a configuration's file ends the program."""
    try:
        return flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        sys.exit(_complain(config_file.meant_field(error.flagname) or one_line(error)))
    except flags.Error as error:
        # What a configuration's file raises can come with its whole traceback: the last line tells.
        last = str(error).strip().splitlines()[-1]
        sys.exit(_complain(f"--config: {last}" if "Traceback" in str(error) else one_line(error)))
    except (Exception, SystemExit) as error:  # a configuration's file is a program
        if _is_help(error):
            sys.exit(0)
        sys.exit(_complain(config_file.explain(argv, error)))


def _is_help(error: BaseException) -> bool:
    """Whether one of absl's own flags, such as --help, has printed what it is for and ends."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ended_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, SystemExit) and ended_in.startswith("absl.")


def _complain(message: str) -> int:
    print(f"error: {_as_flags(message)}", file=sys.stderr)
    return BAD_INPUT


def _as_flags(message: str) -> str:
    """The library names fields; those that are flags of this program are written as such."""
    own = [
        flag.name
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl")
        for flag in defined
    ]
    if not own:
        return message
    names = "|".join(sorted(own, key=len, reverse=True))
    message = re.sub(rf"(?<![\w.\-/])({names})(?==)", r"--\1", message)
    return re.sub(rf"^({names})(?=:)", r"--\1", message)
