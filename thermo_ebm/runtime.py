"""Settings that JAX reads once at its start, for programs and for a user's own scripts."""

import os
import sys
from pathlib import Path
from typing import Any

from thermo_ebm.errors import UserError, one_line


def check_system() -> None:
    """Checks that the programs can run on this system: they take signals that Windows lacks.

    Raises:
      UserError: it is Windows.
    """
    if sys.platform == "win32":
        raise UserError(
            "ThermoEBM runs on Linux and macOS, not on Windows itself; install it in WSL, the "
            "Windows Subsystem for Linux"
        )


def prevent_hangs() -> None:
    """Gives XLA's CPU client enough threads, unless the user has set `NPROC`.

    XLA's CPU threads wait for each other, and can hang on machines with two cores.
    The function has no effect once JAX has started its backend.
    """
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8)))


# KiB of VMEM that one operation may use, on chips with 128 MiB of it per core, by the beginning of
# `TPU_ACCELERATOR_TYPE`.
_SCOPED_VMEM_KIB = {"v5litepod-": 40960, "v6e-": 65536}
_LIMIT_FLAG = "--xla_tpu_scoped_vmem_limit_kib"


def raise_vmem_limit() -> None:
    """Raises libtpu's scoped VMEM limit: how much VMEM one operation may use.

    The compiler expects the chains to be faster then (docs/performance.md); nobody has measured it
    on a TPU. `TPU_ACCELERATOR_TYPE` must name the chip; a limit in `LIBTPU_INIT_ARGS` stays as it
    is. The function has no effect once JAX has started its backend.
    """
    arguments = os.environ.get("LIBTPU_INIT_ARGS", "")
    chip = os.environ.get("TPU_ACCELERATOR_TYPE", "")
    limit = next((kib for name, kib in _SCOPED_VMEM_KIB.items() if chip.startswith(name)), None)
    if limit and _LIMIT_FLAG not in arguments:
        os.environ["LIBTPU_INIT_ARGS"] = f"{arguments} {_LIMIT_FLAG}={limit}".strip()


# Options of JAX on which results depend, or with which the programs cannot run, and JAX's own
# defaults. Variables of the environment (JAX_ENABLE_X64=1) and other libraries may set others.
PINNED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_enable_custom_prng": False,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    "jax_allow_f16_reductions": True,
    "jax_softmax_custom_jvp": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_optimization_level": "UNKNOWN",
    "jax_transfer_guard": None,
    "jax_debug_key_reuse": False,
    # Readings that are not measured are NaN.
    "jax_debug_nans": False,
    "jax_debug_infs": False,
}
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # whose options may change results


def pin_settings() -> None:
    """Imports JAX and sets the options on which results depend, whatever the environment says.

    Raises:
      UserError: JAX does not accept a variable of the environment.
    """
    try:
        import jax
    except ValueError as error:
        reason = one_line(error)
        # JAX's message has the value and not always the variable.
        suspects = [
            f"{name}={value}"
            for name, value in os.environ.items()
            if name.startswith("JAX_") and value and value in reason
        ]
        raise UserError(f"environment: {', '.join(suspects)}: {reason}") from error
    for name, value in PINNED.items():
        if name in jax.config.values:  # options differ between versions of JAX
            jax.config.update(name, value)


def effective_settings() -> dict[str, str]:
    """The options of JAX and the variables on which results depend, as they are in effect."""
    import jax

    options = {name: jax.config.values[name] for name in PINNED if name in jax.config.values}
    return {
        **{name: str(getattr(value, "value", value)) for name, value in options.items()},
        **{name: os.environ.get(name, "") for name in _VARIABLES},
    }


def prepare_jax() -> None:
    """Sets up JAX for a program: threads, VMEM, a compilation cache, and fewer messages."""
    prevent_hangs()
    raise_vmem_limit()
    # XLA warns at length of CPU features when it loads a program from the compilation cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if cache := cache_folder():
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # Figures are only written to files. A notebook's backend, which programs inherit from it, may
    # not be installed for them.
    os.environ["MPLBACKEND"] = "agg"


def expand_home(path: str) -> str:
    """The path with the home folder in place of a leading `~`.

    Raises:
      UserError: the home folder cannot be determined, or `~NAME` names no user.
    """
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError as error:
        home = Path(path).parts[0]
        raise UserError(
            f"the folder that {home} stands for cannot be determined; write the complete path"
        ) from error


def cache_folder() -> Path | None:
    """The folder for weights, features and compiled programs; None without a home folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or expand_home("~/.cache")
        return Path(expand_home(base)) / "thermo_ebm"
    except UserError:
        return None
