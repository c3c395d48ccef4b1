"""A short form of `python -m benchmarks.crash_test`: killed real processes lose nothing."""

import numpy as np
import pytest

from benchmarks import crash_test


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_times_ends_like_an_uninterrupted_run(tmp_path, capsys):
    report = crash_test.crash(tmp_path, kills=3, seed=4)
    print("\n".join(map(str, report.kills)))
    assert [kill.kind for kill in report.kills] == ["start", "training", "save"]
    assert report.differences == []
    # A lost row would show in one of these, and a lost array in the other.
    run = tmp_path / "killed"
    names = " ".join(crash_test._newest_arrays(run))
    assert "params" in names
    assert "path.moments" in names
    assert len((run / "rep_00" / "readings.csv").read_text().splitlines()) == report.epochs + 1


def test_an_unfinished_checkpoint_of_an_earlier_kill_is_told_from_a_new_one(tmp_path):
    for name in ("4", "8.tmp"):
        (tmp_path / name).mkdir()
    leftovers = crash_test._unfinished(tmp_path)
    assert {name for name, _ in leftovers} == {"8.tmp"}
    assert crash_test._unfinished(tmp_path) - leftovers == set()
    (tmp_path / "8.tmp").rename(tmp_path / "8")
    (tmp_path / "8.tmp").mkdir()  # of the same step, begun anew
    assert {name for name, _ in crash_test._unfinished(tmp_path) - leftovers} == {"8.tmp"}


def test_comparison_of_runs_detects_differences(tmp_path, monkeypatch):
    """Two made-up runs that differ in one reading, one array and one temperature."""
    arrays = {"one": {"a": np.zeros(2)}, "other": {"a": np.zeros(2)}}
    monkeypatch.setattr(crash_test, "_newest_arrays", lambda run: arrays[run.name])
    runs = [tmp_path / name for name in arrays]
    for run in runs:
        write_files(run, [1, 2], 0.5)
    assert crash_test.differences(*runs) == []
    write_files(runs[1], [1, 2], 0.25)
    arrays["other"]["a"] = np.ones(2)
    (runs[1] / "rep_00" / "temperatures.csv").write_text("another\n")
    assert crash_test.differences(*runs) == ["readings", "temperatures", "a"]
    write_files(runs[0], [1, 3], 0.5)
    assert crash_test.differences(*runs)[0] == f"{runs[0] / 'rep_00'}: readings lost or doubled"


def write_files(run, epochs, loss):
    from thermo_ebm.run import tables

    folder = run / "rep_00"
    (folder / "readings.csv").unlink(missing_ok=True)
    for epoch in epochs:
        row = {"epoch": epoch, "train_loss": loss, "seconds": np.random.default_rng().random()}
        tables.append_row(folder / "readings.csv", row)
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "samples" / "epoch_0001.png").write_bytes(b"same")
    (folder / "temperatures.csv").write_text("same\n")
