"""Cells as processes and as SLURM jobs: why one failed, and signals that let it save first."""

import json
import signal

import pytest
import trained_run

from thermo_ebm.evaluation.evaluate import Settings
from thermo_ebm.sweep import cells, jobs, slurm
from thermo_ebm.train.loop import Outcome


@pytest.fixture
def handled():
    """Notes the signals that reach the handlers set here, as submitit sets its own."""
    seen, before = [], {}
    for number in (signal.SIGUSR2, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, frame: seen.append(number))
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def test_before_a_requeue_training_saves(handled):
    with slurm.save_before_requeue() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGUSR2)
        assert interrupted()
        assert handled == []  # not yet: the checkpoint is written now
    assert handled == [signal.SIGUSR2]
    signal.raise_signal(signal.SIGTERM)
    assert handled[1:] == [signal.SIGTERM]


def test_a_cancelled_job_saves_and_is_not_requeued(handled):
    with slurm.save_before_requeue() as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    assert handled == []


def _fail_inside():
    with slurm.save_before_requeue():
        signal.raise_signal(signal.SIGUSR2)
        raise ValueError("of training")


def test_an_error_of_training_is_not_hidden_by_a_requeue(handled):
    with pytest.raises(ValueError, match="of training"):
        _fail_inside()
    assert handled == []
    signal.raise_signal(signal.SIGUSR2)
    assert handled == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("code", "log", "reason"),
    [
        (0, "", ""),
        (2, "20:00:00 epoch 1\nerror: loss.power=-1: must be positive\n", "loss.power=-1: must be"),
        (3, "", "interrupted; checkpoints are written"),
        (4, "", "a repetition diverged and was given up; see its rollbacks.json"),
        (1, "Traceback\nValueError: odd\n", "ValueError: odd"),
        (1, "", "it said nothing"),
        (-9, "20:00:00 epoch 1\n", "killed by SIGKILL"),
    ],
)
def test_why_a_process_failed(tmp_path, code, log, reason):
    (tmp_path / "cell.log").write_text(log)
    why = jobs._why(code, tmp_path / "cell.log")
    assert why.startswith(reason)
    assert why == "" or why.endswith(f"(see {tmp_path}/cell.log)")


def test_a_cell_reaches_its_process_unchanged(tmp_path, monkeypatch):
    (cell,) = cells.make_cells(trained_run.config(), [{"loss.power": 0.5}])
    settings, seen = Settings(features="inception_v3", num_images=9), []

    def run_cell(*arguments):
        seen.append(arguments)
        return Outcome.DIVERGED

    monkeypatch.setattr(cells, "run_cell", run_cell)
    encoded = jobs.encode(tmp_path, cell, settings)
    assert jobs.run(encoded, "catch") == 4
    ((root, decoded, decoded_settings, catch),) = seen
    assert (root, decoded.name, decoded_settings, catch) == (tmp_path, cell.name, settings, "catch")
    made = [json.loads(json.dumps(one.config.to_dict())) for one in (decoded, cell)]
    assert made[0] == made[1]
    # The name depends on nothing that the way through JSON changes.
    (again,) = cells.make_cells(decoded.config, [{"loss.power": 0.5}])
    assert again.name == cell.name


def test_a_slurm_job_says_how_it_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm.runtime, "prepare_jax", lambda: None)
    monkeypatch.setattr(jobs, "run", lambda encoded, catch: {"good": 0, "bad": 4}[encoded])
    job = slurm.CellJob()
    job("good")
    with pytest.raises(RuntimeError, match="diverged and was given up"):
        job("bad")
    again = job.checkpoint("good")
    assert isinstance(again.function, slurm.CellJob)
    assert again.args == ("good",)


def test_jobs_of_an_earlier_start_are_those_still_in_the_queue(monkeypatch, tmp_path):
    (tmp_path / ".jobs").mkdir()
    assert slurm.submitted(tmp_path) == {}
    (tmp_path / ".jobs/submitted.json").write_text('{"a": "7_0", "b": "7_1", "c": "6_0"}')
    monkeypatch.setattr(slurm, "_queue", lambda: {"7_1", "8_0"})
    found = slurm.submitted(tmp_path)
    assert set(found) == {"b"}
    assert not found["b"].is_over()
    # Where SLURM does not answer nothing is taken for over.
    monkeypatch.setattr(slurm, "_queue", lambda: None)
    assert set(slurm.submitted(tmp_path)) == {"a", "b", "c"}
    assert not found["b"].is_over()
    monkeypatch.setattr(slurm, "_queue", set)
    assert found["b"].is_over()
    assert found["b"].failure().startswith("ended with no message: killed or cancelled (see ")
