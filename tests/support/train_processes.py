"""Tiny runs in processes of their own: on virtual devices, or several processes as one run.

python train_processes.py '{"changes": {...}, "runs": [[WORKDIR, DISPATCHES], ...]}'

trains each of `runs`, for so many dispatches or, where that is null, to its end. {} in a WORKDIR is
the process's number.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import quick
from patience import PATIENCE

TESTS = Path(__file__).resolve().parent


# A run whose batches and validation images are unequal shares: 75 images on 8 devices are seven
# shares of ten and one of five.
UNEVEN = {
    "batch_size": 75,
    "data__num_train": 151,
    "data__num_val": 79,
    "num_epochs": 2,
    "steps_per_dispatch": 1,
    "checkpoint__every_steps": 0,
}


def environment(num_devices=1):
    """Of a process with virtual devices, which wait for each other on too few threads."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} {quick.XLA_FLAGS}",
        "NPROC": "32",
        "PYTHONPATH": str(TESTS.parents[1]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def start(runs, changes, num_devices=1, distributed=None, init_from=None):
    """Starts a process; `distributed` is (address, num_processes, process_id)."""
    what = {"changes": changes, "runs": [[str(workdir), n] for workdir, n in runs]}
    what |= {"distributed": distributed, "init_from": init_from}
    return subprocess.Popen(
        [sys.executable, TESTS / "train_processes.py", json.dumps(what)],
        env=environment(num_devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout=PATIENCE):
    """The outcomes of its runs; AssertionError where it failed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, output[-3000:]
    return [line for line in output.splitlines() if line.isupper()]


def free_address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def train_as_processes(runs, changes, num_processes=2, timeout=PATIENCE, init_from=None):
    """The same runs by several processes as one: the outcomes that each of them saw."""
    address = free_address()
    started = [
        start(runs, changes, 1, (address, num_processes, i), init_from)
        for i in range(num_processes)
    ]
    try:
        return [finish(process, timeout) for process in started]
    finally:
        for process in started:
            process.kill()


def main(what):
    import jax
    import tiny_training as tiny

    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import warm_start
    from thermo_ebm.run import configuration
    from thermo_ebm.train import hosts, loop

    if what["distributed"]:
        hosts.start(*what["distributed"])
    made = tiny.config(**what["changes"])
    for folder, dispatches in what["runs"]:
        workdir = folder.format(jax.process_index())
        if hosts.is_first():
            configuration.check_config(workdir, made)  # makes the folder
        # Where there are several processes, the signal reaches the last one alone.
        reached = dispatches is not None and jax.process_index() == jax.process_count() - 1
        asked = iter(range(dispatches or 0))

        def interrupted(asked=asked, reached=reached):
            return reached and next(asked, None) is None

        try:
            with hosts.together():
                found = warm_start.find(what["init_from"], made, Path(workdir))
            print(loop.train(made, Path(workdir), interrupted, found, prepare=tiny.prepare).name)
        except UserError as error:
            print(error)
            print("REFUSED")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
