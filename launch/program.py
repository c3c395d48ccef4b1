"""What all programs share: set-up of JAX, common flags, and errors as one line."""

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

flags.disclaim_key_flags()  # flags defined here belong to the program that defines them

BAD_INPUT = 2


def run(main: Callable[[Sequence[str]], int | None], arguments: bool = False) -> None:
    """Runs `main(argv)` with parsed flags and exits with the code it returns.

    A `UserError`, a flag or config field that cannot be parsed, or running out of memory is printed
    as one line and the exit code is 2. `--help` and its relatives print help and exit with 0.

    Args:
      main: the program.
      arguments: whether the program takes arguments besides flags; otherwise they are refused.
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
        except KeyboardInterrupt:  # nothing is running that could be lost
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        except BrokenPipeError:
            return _without_reader()
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return _complain(
                f"out of memory ({one_line(error)}): choose a smaller batch_size, model or number "
                "of temperatures, or a smaller sampler.image_chunk"
            )

    app.run(guarded, flags_parser=_parse)


def define_poll_seconds(default: float, what: str) -> None:
    """Defines --poll_seconds, for the programs that wait for others."""
    flags.DEFINE_float("poll_seconds", default, what)
    flags.register_validator(
        "poll_seconds", lambda seconds: 0 <= seconds <= 86400, message="must be from 0 to 86400"
    )


def define_checkpoint() -> None:
    """Defines --workdir, --repetition and --step, which choose a checkpoint of a run."""
    flags.DEFINE_string("workdir", None, "The run directory.", required=True)
    flags.DEFINE_integer("repetition", 0, "Number of the repetition.")
    flags.DEFINE(
        _StepParser(),
        "step",
        None,
        "Step of the checkpoint, or best for the one that launch.eval --keep_best has kept; the "
        "newest by default.",
    )


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
        """The type that --help shows."""
        return "step"


def define_data_dir() -> None:
    """Defines --data_dir, for the programs that read a run's images."""
    flags.DEFINE_string(
        "data_dir", None, "Where the data are now; by default where the run had them."
    )


def define_seed(what: str) -> None:
    """Defines --seed, from which a program makes its random key."""
    flags.DEFINE_integer("seed", 0, what, lower_bound=0, upper_bound=2**31 - 1)


def _quieten() -> None:
    """Hides what Orbax and asyncio log and raise in addition to an error, with tracebacks."""
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs every file
    logging.get_absl_handler().addFilter(lambda record: "/orbax/" not in record.pathname)
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


def check_devices() -> None:
    """Checks that JAX has a device on which it computes correct results.

    Raises:
      UserError: no device of the requested kind, or a jaxlib that computes wrong results on CPUs.
    """
    import jax
    import jaxlib

    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that some platform was found
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = one_line(error) or f"JAX_PLATFORMS={wanted} names no platform that is installed"
        raise UserError(f"JAX finds no device: {reason}") from error
    if backend == "cpu" and jaxlib.__version__ == "0.10.2":
        raise UserError("jaxlib 0.10.2 computes wrong results on CPUs: install 0.10.1 or 0.11")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the device (recognised only by XLA's message) or the host ran out of memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; any error in them or in a configuration's file ends the program."""
    try:
        return flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        sys.exit(_complain(config_file.meant_field(error.flagname) or one_line(error)))
    except flags.Error as error:
        # An error in a configuration's file can include its traceback: the last line says why.
        last = str(error).strip().splitlines()[-1]
        sys.exit(_complain(f"--config: {last}" if "Traceback" in str(error) else one_line(error)))
    except BrokenPipeError:
        sys.exit(_without_reader())
    except (Exception, SystemExit) as error:  # a configuration's file is a program
        if _is_help(error):
            sys.exit(0)
        sys.exit(_complain(config_file.explain(argv, error)))


def _is_help(error: BaseException) -> bool:
    """Whether the program ends because of an absl flag such as --help, which has printed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ended_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, SystemExit) and ended_in.startswith("absl.")


def _without_reader() -> int:
    """Ends output that nobody reads any more, as with `| head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _complain(message: str) -> int:
    print(f"error: {_as_flags(message)}", file=sys.stderr)
    return BAD_INPUT


def _as_flags(message: str) -> str:
    """Writes the names of this program's flags with `--`; library messages have plain names."""
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
