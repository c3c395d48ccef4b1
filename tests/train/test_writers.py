"""Writers of readings: a user's own class, Weights & Biases, and what is said when one fails."""

import json
import sys
import types

import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.run import tables
from thermo_ebm.train import writers
from thermo_ebm.train.loop import Outcome

MODULE = """
import json
import os


class Lines:
    def __init__(self, folder):
        self.file = open(folder / "lines.txt", "a")

    def write(self, step, readings):
        if os.environ.get("FAIL_AT") == str(step):
            raise RuntimeError("no connection\\nto the server")
        self.file.write(json.dumps([step, readings]) + "\\n")

    def close(self):
        self.file.close()


class Silent:
    def write(self, step, readings):
        pass

    def close(self):
        raise OSError("cannot close")


class Mute:
    def close(self):
        pass
"""
OWN = ("csv", "own_writers:Lines")


@pytest.fixture(autouse=True)
def own_writers(tmp_path, monkeypatch):
    (tmp_path / "own_writers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_writers", raising=False)


def received(workdir, number=0):
    lines = (workdir / f"rep_{number:02d}/lines.txt").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(workdir, number=0):
    table = tables.read(workdir / f"rep_{number:02d}/readings.csv")
    full = [{name: value for name, value in row.items() if value is not None} for row in table]
    return [[row["step"], row] for row in full]


@pytest.mark.slow
def test_a_writer_gets_the_rows_of_its_repetition(tmp_path):
    """Stopped in an epoch and continued to the end."""
    run = tmp_path / "run"
    config = tiny.config(logging__writers=OWN, num_repetitions=2, parallel_repetitions=2)
    assert tiny.train(config, run, dispatches=4) is Outcome.INTERRUPTED
    assert tiny.train(config, run) is Outcome.DONE
    for number in range(2):
        assert received(run, number) == rows(run, number)


def test_a_writer_that_raises_is_named_and_the_run_goes_on_without_loss(tmp_path, monkeypatch):
    config, run = tiny.config(logging__writers=OWN), tmp_path / "run"
    monkeypatch.setenv("FAIL_AT", "20")
    message = (
        r"^logging.writers=own_writers:Lines: could not be written to \(RuntimeError: no "
        r"connection to the server\); when that is fixed run the same command again$"
    )
    with pytest.raises(UserError, match=message):
        tiny.train(config, run)
    monkeypatch.delenv("FAIL_AT")
    assert tiny.train(config, run) is Outcome.DONE
    assert [step for step, _ in received(run)] == [10, 20, 30]


def test_a_writer_that_cannot_be_closed_is_named(tmp_path):
    made = tiny.config(logging__writers=("csv", "own_writers:Silent"), num_epochs=1)
    with pytest.raises(UserError, match=r"own_writers:Silent: could not be closed .*cannot close"):
        tiny.train(made, tmp_path / "run")
    assert len(tiny.rows(tmp_path / "run")) == 1


def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    for name, message in [
        ("nowhere:Class", "nowhere cannot be imported .*ModuleNotFoundError"),
        ("own_writers:Absent", "own_writers has no class Absent"),
        ("own_writers:Mute", "the class has no method write"),
        ("own_writers:", "must be csv, tensorboard, wandb or MODULE:CLASS"),
        ("wandb", "is not installed; run `pip install wandb`"),
    ]:
        monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
        made, run = tiny.config(logging__writers=("csv", name)), tmp_path / "run"
        with pytest.raises(UserError, match=f"^logging.writers={name}: {message}"):
            tiny.train(made, run)
        assert not run.exists()


def test_a_repetition_is_one_run_at_weights_and_biases(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, readings, step):
            calls.append(("log", step, readings["train_loss"]))

        def finish(self):
            calls.append(("finish",))

    def init(**settings):
        calls.append(("init", settings["id"], settings["resume"], settings["name"]))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    made, run = tiny.config(logging__writers=("csv", "wandb")), tmp_path / "run"
    assert tiny.train(made, run, dispatches=4) is Outcome.INTERRUPTED
    assert tiny.train(made, run) is Outcome.DONE
    losses = [row["train_loss"] for row in tiny.rows(run)]
    first, second = (call for call in calls if call[0] == "init")
    assert first == second
    assert first[2:] == ("allow", "run/rep_00")
    assert [call[1:] for call in calls if call[0] == "log"] == [
        *zip((10, 20, 30), losses, strict=True)
    ]
    assert calls.count(("finish",)) == 2
