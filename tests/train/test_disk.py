"""A disk that is really full, and a checkpoint that is really damaged, as a user meets them."""

import os
import subprocess

import pytest
import tiny_training as tiny
from patience import PATIENCE
from train_program import start


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_the_older_checkpoints(small_disk, tmp_path):
    def train(workdir):
        process = start(workdir, num_epochs=20, checkpoint__keep_every_epochs=1)
        _, stderr = process.communicate(timeout=PATIENCE)
        return process.returncode, stderr

    code, stderr = train(small_disk / "run")
    assert code == 2
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"error: {small_disk}/run/rep_00/")
    assert "no space left on device" in last.lower()
    assert "make room and run the same command again" in last
    folder = small_disk / "run" / "rep_00" / "checkpoints"
    assert any(path.name.isdigit() for path in folder.iterdir())

    # Still full, to the last byte: the same line again, wherever the start fails.
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "rest").write_bytes(bytes(1_000_000))
    code, stderr = train(small_disk / "run")
    assert (code, "Traceback" in stderr) == (2, False)
    last = stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "make room and run the same command again" in last
    code, stderr = train(small_disk / "another")
    assert (code, "Traceback" in stderr) == (2, False)
    (small_disk / "rest").unlink()

    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert train(small_disk / "run")[0] == 0
    assert train(tmp_path / "elsewhere")[0] == 0
    tiny.assert_equal_runs(small_disk / "run", tmp_path / "elsewhere", num_epochs=20)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line_of_warning(tmp_path):
    assert start(tmp_path, num_epochs=2).wait(PATIENCE) == 0
    newest = tmp_path / "rep_00" / "checkpoints" / "20"
    whole = tiny.end_state(tiny.config(num_epochs=2), tmp_path)
    path = max((newest / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:100])
    process = start(tmp_path, num_epochs=2)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    warnings = [line for line in stderr.splitlines() if "cannot be read" in line]
    assert len(warnings) == 1
    assert f"moved to {tmp_path}/rep_00/damaged_checkpoints/20" in warnings[0]
    assert "Traceback" not in stderr
    tiny.assert_same(tiny.end_state(tiny.config(num_epochs=2), tmp_path), whole)
