"""Settings that JAX reads once at its start, for programs and for a user's own scripts."""

import os
from pathlib import Path


def prevent_hangs() -> None:
    """Gives XLA's CPU client enough threads, unless the user has set `NPROC`.

    XLA's CPU threads wait for each other, and with as few as two cores they can hang.
    The function has no effect once JAX has started its backend.
    """
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8)))


# Of chips with 128 MiB next to a core's matrix units, by what `TPU_ACCELERATOR_TYPE` begins with:
# KiB that one operation may use.
_WINDOWS = {"v5litepod-": 40960, "v6e-": 65536}
_LIMIT = "--xla_tpu_scoped_vmem_limit_kib"


def widen_tpu_windows() -> None:
    """Lets one operation use more of the memory next to a TPU's matrix units than libtpu does.

    The compiler expects the chains to be faster then (docs/performance.md). `TPU_ACCELERATOR_TYPE`
    must name the chip; a limit in `LIBTPU_INIT_ARGS` stays as it is. The function has no effect
    once JAX has started its backend.
    """
    arguments = os.environ.get("LIBTPU_INIT_ARGS", "")
    chip = os.environ.get("TPU_ACCELERATOR_TYPE", "")
    window = next((kib for name, kib in _WINDOWS.items() if chip.startswith(name)), None)
    if window and _LIMIT not in arguments:
        os.environ["LIBTPU_INIT_ARGS"] = f"{arguments} {_LIMIT}={window}".strip()


def prepare_jax() -> None:
    """Sets up JAX for a program: threads, memory, a cache of programs, and fewer messages."""
    prevent_hangs()
    widen_tpu_windows()
    # A program from the compilation cache makes XLA warn, at length, of features it prefers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "thermo_ebm" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
