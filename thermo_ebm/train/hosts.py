"""Several processes that train one run together: which one writes, and what they agree on.

Every process makes the same calls in the same order. Information that only one of them has (a
signal, a file that cannot be read) is shared here before any of them acts on it: if one process
acted alone, the others would wait for it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError, first_line


def start(address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of the run; must be called before JAX starts.

    Args:
      address: address HOST:PORT of process 0; None if SLURM, a TPU pod or Open MPI provides it.
      num_processes: of the run; None likewise.
      process_id: of this process, from 0; None likewise.

    Raises:
      UserError: one of the arguments is missing, or the processes did not connect.
    """
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise UserError(f"coordinator={address}: must be HOST:PORT")
    try:
        jax.distributed.initialize(address, num_processes, process_id)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = first_line(error)[:300]
        raise UserError(
            f"distributed: {reason} (outside SLURM, TPU pods and Open MPI set coordinator, "
            "num_processes and process_id)"
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes readings, pictures and messages."""
    return jax.process_index() == 0


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process. All processes must call it."""
    return bool(of_all(flag).any())


def of_all(value: Any) -> np.ndarray:
    """The value (number or array) of each process, [num_processes, ...]; all must call it."""
    if jax.process_count() == 1:
        return np.array([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(value)))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Like `together`, for writing in a folder: errors of the system become one line."""
    with together(), files.clear_errors(folder):
        yield


@contextlib.contextmanager
def together() -> Iterator[None]:
    """If one process raises a `UserError`, all processes raise one. All processes must enter."""
    failed: UserError | None = None
    try:
        yield
    except UserError as error:
        failed = error
    if any_of(failed is not None):
        raise failed or UserError(
            f"process {jax.process_index()}: another process stopped and reports the reason"
        )
