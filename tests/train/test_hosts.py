"""One run by two processes with gloo collectives: the figures of one process, and one writer."""

import shutil

import pytest
import tiny_training as tiny
from train_processes import UNEVEN, finish, start, train_as_processes

from thermo_ebm.errors import UserError
from thermo_ebm.train import hosts

CHANGES = UNEVEN | {
    "logging__writers": ("csv", "tensorboard"),
    "logging__pictures_every_epochs": 2,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_what_one_does(tmp_path):
    """By two; begun by one and ended by two; begun by two, of which one gets a signal."""
    runs = {name: tmp_path / name for name in ("one", "one_two", "two", "two_one")}
    assert finish(start([(runs["one"], None), (runs["one_two"], 3)], CHANGES)) == [
        "DONE",
        "INTERRUPTED",
    ]
    # What the first process alone cannot read, and what only it sees, ends both.
    for name in ("malformed", "apart0"):
        shutil.copytree(runs["one_two"], tmp_path / name)
    (tmp_path / "malformed" / "rep_00" / "readings.csv").write_text("odd\n")
    refused = [(tmp_path / "malformed", None), (tmp_path / "apart{}", None)]
    outcomes = train_as_processes(
        [*refused, (runs["two"], None), (runs["one_two"], None), (runs["two_one"], 3)], CHANGES
    )
    assert outcomes == [["REFUSED", "REFUSED", "DONE", "DONE", "INTERRUPTED"]] * 2
    assert finish(start([(runs["two_one"], None)], CHANGES)) == ["DONE"]
    for name in ("two", "one_two", "two_one"):
        tiny.assert_close_runs(runs[name], runs["one"], CHANGES, name)
    # One writer: one file of events a start, and one more each time a run went on.
    files = {name: list((path / "rep_00" / "tensorboard").iterdir()) for name, path in runs.items()}
    assert {name: len(found) for name, found in files.items()} == {
        "one": 1,
        "two": 1,
        "one_two": 2,
        "two_one": 2,
    }
    shown = {name: path / "rep_00" / "samples" / "epoch_0002.png" for name, path in runs.items()}
    assert all(path.is_file() for path in shown.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_with_shard_map_train_what_one_does_with_pmap(tmp_path):
    assert finish(start([(tmp_path / "one", None)], CHANGES)) == ["DONE"]
    changes = CHANGES | {"device_mapping": "shard_map"}
    assert train_as_processes([(tmp_path / "two", None)], changes) == [["DONE"]] * 2
    tiny.assert_close_runs(tmp_path / "two", tmp_path / "one", CHANGES, "shard_map")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_begin_with_the_parameters_of_one_run(tmp_path):
    changes = CHANGES | {"num_epochs": 1, "num_repetitions": 2}
    source, run = tmp_path / "source", tmp_path / "run"
    assert finish(start([(source, None)], changes)) == ["DONE"]
    outcomes = train_as_processes([(run, None)], changes, init_from=f"{source}:1")
    assert outcomes == [["DONE"]] * 2
    made = tiny.config(**changes)
    wanted = tiny.state_at(made, source, 1, 2)
    for number in range(2):
        first = tiny.state_at(made, run, number, 0)
        names = [name for name in first if name.startswith("params.")]
        tiny.assert_same({n: first[n] for n in names}, {n: wanted[n] for n in names})


def test_an_error_of_one_process_ends_all(monkeypatch):
    """Seen by the process without an error and by the one with it."""
    monkeypatch.setattr(hosts, "any_of", lambda flag: True)
    with pytest.raises(UserError, match="another process stopped"), hosts.together():
        pass
    with pytest.raises(UserError, match="my own"), hosts.together():
        raise UserError("my own")
