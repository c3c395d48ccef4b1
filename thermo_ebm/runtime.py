"""Settings that JAX reads once at its start, for programs and for a user's own scripts."""

import os
from pathlib import Path


def prevent_hangs() -> None:
    """Gives XLA's CPU client enough threads, unless the user has set `NPROC`.

    XLA's CPU threads wait for each other, and with as few as two cores they can hang.
    The function has no effect once JAX has started its backend.
    """
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8)))


def prepare_jax() -> None:
    """Sets up JAX for a program: threads, a compilation cache on disk, and fewer messages."""
    prevent_hangs()
    # A program from the compilation cache makes XLA warn, at length, of features it prefers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thermo_ebm" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
