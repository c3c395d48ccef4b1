"""Training in one call, from a configuration to a trained run.

>>> import thermo_ebm as te
>>> from thermo_ebm.configs import digits
>>> run = te.train_run(digits.get_config(), "runs/digits")  # doctest: +SKIP
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config import checks
from thermo_ebm.errors import UserError, printable
from thermo_ebm.evaluation.run import Run, load_run
from thermo_ebm.run import configuration, lock
from thermo_ebm.train import loop, sizes
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.report import say


def train_run(config: ConfigDict, workdir: str | os.PathLike[str]) -> Run:
    """Trains all repetitions of a configuration, or continues, and opens the run.

    The same as `python -m launch.train`, on this process's devices.

    Args:
      config: such as `configs.digits.get_config()`.
      workdir: the run's folder, created if needed. A run of the same configuration is continued.

    Raises:
      UserError: the configuration, the data or the folder cannot be used, the folder has a run of
        another configuration, or a repetition diverged.
      KeyboardInterrupt: after Ctrl-C, once checkpoints are written; the same call continues.
    """
    folder = Path(workdir)
    config, notes = sizes.complete(config)
    checks.check(config)
    data.check_output(config.data, folder, "workdir")
    with lock.hold(folder):
        configuration.check_config(folder, config)
        for note in notes:
            say(printable(note))
        outcome = loop.train(config, folder)
    if outcome is Outcome.INTERRUPTED:
        raise KeyboardInterrupt(f"{folder}: checkpoints are written; the same call continues")
    if outcome is Outcome.DIVERGED:
        raise UserError(f"{folder}: a repetition diverged; its readings say when")
    return load_run(folder)
