"""What every program does before and after its work: set-up of JAX, and errors as one line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from thermo_ebm.errors import UserError

BAD_INPUT = 2


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs `main(argv)` with parsed flags and exits with the code it returns.

    A `UserError`, or a flag or config field that cannot be parsed, is printed as it is and the exit
    code is 2.
    """
    prepare_jax()

    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at INFO

    def guarded(argv: Sequence[str]) -> int:
        try:
            if len(argv) > 1:
                raise UserError(f"unknown argument {argv[1]!r}; flags start with --")
            return main(argv) or 0
        except UserError as error:
            return _complain(str(error))

    app.run(guarded, flags_parser=_parse)


def prepare_jax() -> None:
    """Sets what JAX reads once, at its start; what the user has set stays."""
    # XLA's CPU threads wait for each other; with as few as two cores they can do so for ever.
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8)))
    # A program from the compilation cache makes XLA warn, at length, of features it prefers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thermo_ebm" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(_complain(_one_line(error)))
    except SyntaxError as error:
        sys.exit(_complain(f"{error.filename}:{error.lineno}: {error.msg}"))
    except ImportError as error:
        sys.exit(_complain(f"--config: {error}"))


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_INPUT
