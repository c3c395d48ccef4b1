"""Trains the repetitions of a configuration.

python -m launch.train --config=configs/digits.py --workdir=runs/digits --config.num_epochs=20

Exit codes: 0 done, 2 bad input, 3 interrupted with checkpoints written, 4 diverged for good.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

from launch import program
from thermo_ebm.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The configuration's file; --config.any.field=value changes a field."
)
flags.mark_flag_as_required("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder, made if need be.", required=True)
_ALLOW = flags.DEFINE_list(
    "allow_config_change", [], "Fields that may differ from the run that the folder holds."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Train with other processes, each started with this same command; SLURM, TPU pods and Open MPI "
    "tell who they are, otherwise set the next three flags.",
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")


def main(argv: Sequence[str]) -> int:
    """Checks everything that can be checked, then trains; returns the exit code."""
    del argv
    from configs import base
    from thermo_ebm.config import checks
    from thermo_ebm.run import configuration, lock
    from thermo_ebm.train import hosts, loop

    config, workdir = _config(), Path(_WORKDIR.value)
    checks.check(config, base.get_config())
    _join(hosts)
    program.check_devices()
    with contextlib.ExitStack() as stack:
        with hosts.together():
            if hosts.is_first():
                stack.enter_context(lock.hold(workdir))
                configuration.check_config(workdir, config, _ALLOW.value)
        outcome = loop.train(config, workdir)
    if hosts.is_first():
        print(_summary(workdir, outcome.name.lower()))
    return outcome.value


def _config() -> ConfigDict:
    """The configuration; a file that cannot be read fails only here, where it is used."""
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    try:
        return _CONFIG.value.lock()
    except AttributeError as error:
        raise UserError(f"--config={path}: its get_config() must return a ConfigDict") from error
    except OSError as error:
        what = "it cannot be read as a file" if Path(path).exists() else "there is no such file"
        raise UserError(f"--config={path}: {what}") from error


def _join(hosts: ModuleType) -> None:
    explicit = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DISTRIBUTED.value:
        hosts.start(*explicit)
    elif explicit != (None, None, None):
        raise UserError("--coordinator, --num_processes and --process_id go with --distributed")


def _summary(workdir: Path, outcome: str) -> str:
    """Names what was written."""
    lines = [f"{outcome}: {workdir}"]
    for folder in sorted(workdir.glob("rep_*")):
        pictures = sorted(folder.glob("samples/epoch_*.png"))
        lines += [
            f"  checkpoints  {folder / 'checkpoints'}",
            f"  readings     {folder / 'readings.csv'}",
        ]
        lines += [f"  samples      {pictures[-1]}"] if pictures else []
    return "\n".join(lines)


if __name__ == "__main__":
    program.run(main)
