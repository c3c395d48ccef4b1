"""Settings that JAX reads once at its start, for programs and for a user's own scripts."""

import os
from pathlib import Path


def prevent_hangs() -> None:
    """Gives XLA's CPU client enough threads, unless the user has set `NPROC`.

    XLA's CPU threads wait for each other, and with as few as two cores they can hang.
    The function has no effect once JAX has started its backend.
    """
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8)))


# Chips with 128 MiB next to a core's matrix units, as `TPU_ACCELERATOR_TYPE` begins for them.
_LARGE_MEMORY = ("v5litepod-", "v6e-")
_LIMIT = "--xla_tpu_scoped_vmem_limit_kib"


def widen_tpu_windows() -> None:
    """Lets one operation use 32 MiB of the memory next to a TPU's matrix units instead of 16.

    The compiler expects the chains to be faster then (docs/performance.md). The chip must have
    that memory, and `TPU_ACCELERATOR_TYPE` say so; a limit in `LIBTPU_INIT_ARGS` stays as it is.
    The function has no effect once JAX has started its backend.
    """
    arguments = os.environ.get("LIBTPU_INIT_ARGS", "")
    large = os.environ.get("TPU_ACCELERATOR_TYPE", "").startswith(_LARGE_MEMORY)
    if large and _LIMIT not in arguments:
        os.environ["LIBTPU_INIT_ARGS"] = f"{arguments} {_LIMIT}=32768".strip()


def prepare_jax() -> None:
    """Sets up JAX for a program: threads, memory, a cache of programs, and fewer messages."""
    prevent_hangs()
    widen_tpu_windows()
    # A program from the compilation cache makes XLA warn, at length, of features it prefers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thermo_ebm" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
