r"""Trains the repetitions of a configuration.

python -m launch.train --config=configs/digits.py --workdir=runs/digits --config.num_epochs=20
python -m launch.train --config=configs/cifar10.py --data_dir=TFDS --workdir=runs/cifar10 --dry_run
python -m launch.train --config=configs/folder.py --data_dir=IMAGES --image_size=32 \
    --workdir=runs/own

With --dry_run the program checks everything that a real start checks, prints what it would train
and what that would cost, times a few steps, and writes nothing. With --budget=20m it times a few
steps and trains for as many epochs as end within that time.
Exit codes: 0 done, 2 bad input, 3 interrupted with checkpoints written (the same command
continues), 4 a repetition diverged and was given up.
"""

if not __package__:
    __import__("not_a_script")

import contextlib
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from thermo_ebm.errors import UserError, printable

from . import config_file, program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm import data
    from thermo_ebm.config import checks
    from thermo_ebm.evaluation import warm_start
    from thermo_ebm.run import configuration, layout, lock
    from thermo_ebm.run.warm_start import describe
    from thermo_ebm.train import dry_run, hosts, loop, report, sizes, timing


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define(
        None, "Name or file of the configuration; --config.any.field=value changes a field."
    )
    config_file.define_images()
    config_file.define_model()
    DEFINE_path("workdir", None, "The run directory, created if needed.", required=True)
    flags.DEFINE_list(
        "allow_config_change",
        [],
        "Fields that may differ from the configuration of the existing run.",
    )
    DEFINE_path(
        "init_from",
        None,
        "RUN[:REPETITION[:STEP]]: a new run begins with the parameters of this checkpoint, by "
        "default the newest of repetition 0, in every repetition.",
    )
    flags.DEFINE_list(
        "profile_steps",
        None,
        "A,B: trace the dispatches that cover steps A to B into WORKDIR/profile, for TensorBoard "
        "or Perfetto.",
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Check everything as for a real start, print what would be trained (parameters, memory, "
        "steps, FLOPs) and how long it takes here by a few steps, and write nothing.",
    )
    flags.DEFINE_string(
        "budget",
        None,
        "Time of the training of all repetitions, such as 20m or 2h: sets num_epochs and stretches "
        "the decay of the learning rates; recorded in the run.",
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "Train together with other processes started with the same command. SLURM, TPU pods and "
        "Open MPI are detected; otherwise set --coordinator, --num_processes and --process_id.",
    )
    flags.DEFINE_string("coordinator", None, "Address HOST:PORT of process 0.")
    flags.DEFINE_integer("num_processes", None, "Number of processes.")
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def main(argv: Sequence[str]) -> int:
    """Checks everything that can be checked, then trains; returns the exit code."""
    del argv
    values = flags.FLAGS
    workdir = Path(values.workdir)
    config, notes = sizes.complete(config_file.read(), values.image_size)
    checks.check(config)
    data.check_output(config.data, workdir, "workdir")
    budget = values.budget and timing.parse_duration(values.budget)
    if not budget:
        report.parse_steps(values.profile_steps, config)
    _join_hosts()
    program.check_devices()
    for note in notes if hosts.is_first() else ():
        report.say(printable(note))
    if values.dry_run:
        if budget:
            config = timing.with_budget(config, workdir, budget)
        return _dry_run(config, workdir)
    program.continue_without_output()
    with contextlib.ExitStack() as stack:
        with hosts.together():
            if hosts.is_first():
                stack.enter_context(lock.hold(workdir))
        if budget:
            config = timing.with_budget(config, workdir, budget)
            checks.check(config)
        with hosts.together():
            if hosts.is_first():
                configuration.check_config(workdir, config, values.allow_config_change)
        with hosts.together():
            init_from = warm_start.find(values.init_from, config, workdir)
        profile = report.parse_steps(values.profile_steps, config)
        outcome = loop.train(config, workdir, init_from=init_from, profile=profile)
    if hosts.is_first():
        print(_summary(workdir, outcome.name.lower()))
    return outcome.value


def _dry_run(config: ConfigDict, workdir: Path) -> int:
    """Checks everything that a start checks, and prints what it would train."""
    with hosts.together():
        if hosts.is_first():
            lock.check_free(workdir)
            allow = flags.FLAGS.allow_config_change
            configuration.check_config(workdir, config, allow, make_folder=False)
    with hosts.together():
        init_from = warm_start.find(flags.FLAGS.init_from, config, workdir)
    plan = dry_run.plan_run(config, workdir)
    if hosts.is_first():
        print("\n".join(dry_run.lines(plan, workdir)), flush=True)
        if init_from is not None:
            print(describe(init_from))
    if plan.repetitions and timing.is_quick(plan.flops_per_step, plan.size):
        seconds = timing.time_config(config).seconds
        if hosts.is_first():
            steps_left = plan.steps - plan.steps_done
            print("\n".join(timing.summary(config, seconds, steps_left)))
    elif plan.repetitions and hosts.is_first():
        print("time        not measured: a step would take long on a CPU")
    return 0


def _join_hosts() -> None:
    """Joins the other processes of this training, if there are any."""
    values = flags.FLAGS
    address = (values.coordinator, values.num_processes, values.process_id)
    if values.distributed:
        hosts.start(*address)
    elif address != (None, None, None):
        raise UserError("--coordinator, --num_processes and --process_id need --distributed")


def _summary(workdir: Path, outcome: str) -> str:
    """The paths of the files that were written."""
    lines = [f"{outcome}: {workdir}"]
    for repetition in layout.repetitions(workdir):
        folder = layout.repetition_dir(workdir, repetition)
        pictures = sorted((folder / layout.SAMPLES).glob("epoch_*.png"))
        lines += [
            f"  checkpoints  {folder / layout.CHECKPOINTS}",
            f"  readings     {folder / layout.READINGS}",
        ]
        if (folder / layout.INTERRUPTED).is_dir():  # what the same command continues from
            lines.append(f"  interrupted  {folder / layout.INTERRUPTED}")
        lines += [f"  samples      {pictures[-1]}"] if pictures else []
    return "\n".join(lines)


if __name__ == "__main__":
    program.run(main, define_flags)
