"""One cell of a sweep as a job: what submitit pickles, runs in its own process and requeues."""

from pathlib import Path
from typing import Any

from launch import program


class CellJob:
    """A callable that trains and evaluates one cell; requeued, it goes on from its checkpoints.

    A class because submitit asks for `checkpoint` beside the call.
    """

    def __call__(self, root: str, cell: Any, reference: Any, settings: Any) -> None:
        """Sets up JAX in the new process, then runs `thermo_ebm.sweep.run_cell`."""
        program.prepare_jax()
        from absl import logging

        from thermo_ebm import sweep

        logging.set_verbosity(logging.WARNING)
        sweep.run_cell(Path(root), cell, reference, settings)

    def checkpoint(self, *args: Any) -> Any:
        """What submitit queues when the job's time is up: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(CellJob(), *args)
