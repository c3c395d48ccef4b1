"""The lock of a run's folder: one program at a time, and no trace of a start that failed."""

import importlib
import os
import signal
import subprocess
import sys

import pytest

from thermo_ebm.errors import UserError
from thermo_ebm.run import lock, provenance

HOLDER = """
import sys, time
from thermo_ebm.run import lock
with lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def begin(folder):
    """Records a start in the folder, as a run does that begins."""
    levels = provenance.ImageLevels([0.0, 17.25, 200.0], [50.0, 60.0])
    config = importlib.import_module("configs.base").get_config()
    provenance.record_start(folder, config, levels, provenance.Device("cpu", "cpu"))


def start_holder(workdir):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_holder_learns_who_holds_and_a_kill_releases(tmp_path):
    process = start_holder(tmp_path)
    try:
        with (
            pytest.raises(UserError, match=f"in use by process {process.pid} on ") as error,
            lock.hold(tmp_path),
        ):
            pass
        assert os.uname().nodename in str(error.value)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with lock.hold(tmp_path):
        begin(tmp_path)


@pytest.mark.parametrize("absent", [True, False])
def test_a_start_that_fails_leaves_no_lock(tmp_path, absent):
    folder = tmp_path / "run" if absent else tmp_path
    with pytest.raises(UserError, match="no data"), lock.hold(folder):
        raise UserError("no data")
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_lock_file(tmp_path):
    with lock.hold(tmp_path):
        begin(tmp_path)
    assert (tmp_path / ".lock").read_text() == ""
    assert not lock.is_held(tmp_path)


def test_a_folder_is_free_again_afterwards_and_after_an_error(tmp_path):
    with pytest.raises(KeyError), lock.hold(tmp_path):
        raise KeyError
    with lock.hold(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), lock.hold(tmp_path):
            pass
        with pytest.raises(UserError, match="in use"), lock.hold(tmp_path):
            pass
    assert not list(tmp_path.iterdir())  # nothing was recorded: the folder is as it was


def test_a_lock_waits_for_another_process_or_names_what_is_wrong(tmp_path):
    path = tmp_path / "file.lock"
    with lock.locked(path), pytest.raises(TimeoutError), lock.locked(path, patience=0.2):
        pass
    with lock.locked(path, patience=0.2):
        pass
    with pytest.raises(OSError, match="Is a directory"), lock.locked(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"), lock.hold(tmp_path):
        pass
