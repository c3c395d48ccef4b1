"""Cells as processes and as SLURM jobs: reasons of failures, and signals that let a cell save."""

import json
import signal

import pytest
import trained_run

from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.sweep import cells, executors
from thermo_ebm.train.loop import Outcome


@pytest.fixture
def received():
    """The signals that reach the handlers set here, in the place of submitit's handlers."""
    signals, before = [], {}
    for number in (signal.SIGUSR2, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, frame: signals.append(number))
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


def test_training_saves_before_a_requeue(received):
    with executors.save_before_requeue() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGUSR2)
        assert interrupted()
        assert received == []  # not yet: the checkpoint is written now
    assert received == [signal.SIGUSR2]
    signal.raise_signal(signal.SIGTERM)
    assert received[1:] == [signal.SIGTERM]


def test_cancelled_job_saves_and_is_not_requeued(received):
    with executors.save_before_requeue() as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    assert received == []


def _fail_after_a_signal():
    with executors.save_before_requeue():
        signal.raise_signal(signal.SIGUSR2)
        raise ValueError("of training")


def test_requeue_does_not_hide_an_error_of_training(received):
    with pytest.raises(ValueError, match="of training"):
        _fail_after_a_signal()
    assert received == []
    signal.raise_signal(signal.SIGUSR2)
    assert received == [signal.SIGUSR2]


def test_failures_of_processes_are_explained(tmp_path):
    log = tmp_path / "cell.log"
    for code, content, reason in [
        (0, "", ""),
        (2, "20:00 epoch 1\nerror: loss.power=-1: must be positive\n", "loss.power=-1: must be"),
        (3, "", "interrupted; checkpoints are written"),
        (4, "", "a repetition diverged and was given up; see its rollbacks.json"),
        (1, "Traceback\nValueError: odd\n", "ValueError: odd"),
        (1, "", "no output"),
        (-9, "20:00:00 epoch 1\n", "killed by SIGKILL"),
    ]:
        log.write_text(content)
        failure = executors.failure(code, log)
        assert failure.startswith(reason), code
        assert failure == "" or failure.endswith(f"(see {log})"), code


def as_json(cell):
    return json.loads(json.dumps(cell.config.to_dict()))


def test_a_cell_reaches_its_process_unchanged(tmp_path):
    (cell,) = cells.make_cells(trained_run.config(), [{"loss.power": 0.5}])
    settings = MetricSettings(features="inception_v3", num_images=9)
    root, decoded, decoded_settings = executors.decode(executors.encode(tmp_path, cell, settings))
    assert (root, decoded.name, decoded_settings) == (tmp_path, cell.name, settings)
    assert as_json(decoded) == as_json(cell)
    # The name depends on nothing that the way through JSON changes.
    (again,) = cells.make_cells(decoded.config, [{"loss.power": 0.5}])
    assert again.name == cell.name


def test_slurm_job_reports_how_its_cell_ended(monkeypatch, tmp_path):
    (cell,) = cells.make_cells(trained_run.config(), [{}])
    encoded = executors.encode(tmp_path, cell, MetricSettings())
    job = executors.CellJob()
    monkeypatch.setattr(executors, "run_cell", lambda *arguments: Outcome.DONE)
    job(encoded)
    monkeypatch.setattr(executors, "run_cell", lambda *arguments: Outcome.DIVERGED)
    assert executors.run_encoded(encoded, executors.save_before_requeue) == 4
    with pytest.raises(RuntimeError, match="diverged and was given up"):
        job(encoded)
    again = job.checkpoint(encoded)
    assert isinstance(again.function, executors.CellJob)
    assert again.args == (encoded,)


def test_jobs_of_an_earlier_start_are_those_still_in_the_queue(tmp_path):
    queue = {"7_1", "8_0"}
    (tmp_path / ".jobs").mkdir()
    assert executors.submitted(tmp_path, lambda: queue) == {}
    (tmp_path / ".jobs/submitted.json").write_text('{"a": "7_0", "b": "7_1", "c": "6_0"}')
    jobs = executors.submitted(tmp_path, lambda: queue)
    assert set(jobs) == {"b"}
    assert not jobs["b"].is_over()
    queue = None  # SLURM does not answer: no job is taken to be over
    assert set(executors.submitted(tmp_path, lambda: queue)) == {"a", "b", "c"}
    assert not jobs["b"].is_over()
    queue = set()
    assert jobs["b"].is_over()
    assert jobs["b"].failure().startswith("ended with no message: killed or cancelled (see ")
