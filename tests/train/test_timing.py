"""Seconds of a step, and the epochs that fit into a budget."""

import json

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.run import configuration
from thermo_ebm.train import programs, timing


def test_durations_that_are_none_are_refused():
    for text in ("20", "0m", "m", "1w", "-3h"):
        with pytest.raises(UserError, match=f"budget={text}: must be a time"):
            timing.parse_duration(text)


def test_a_budget_sets_epochs_and_stretches_the_decay(tmp_path, monkeypatch, capsys):
    config = tiny.config(num_repetitions=3, parallel_repetitions=2, num_epochs=10)
    # Two groups; an epoch takes 1 s, the evaluation at the end 3 s.
    monkeypatch.setattr(timing, "_epoch_seconds", lambda config, workdir, budget: (1.0, 3.0))
    chosen = timing.with_budget(config, tmp_path, 100.0)
    assert "budget      44 epochs of 1 s fit into 2 min" in capsys.readouterr().err
    assert chosen.num_epochs == 44  # 95 s, of which 6 are the evaluations'
    decay, before = chosen.optimizer.decay, config.optimizer.decay
    assert decay.begin_epoch == round(4.4 * before.begin_epoch)
    assert decay.rate**44 == pytest.approx(before.rate**10)
    fields = {"num_epochs", "optimizer.decay.rate", "optimizer.decay.begin_epoch"}
    changed = configuration.differences(*map(configuration.as_json, (config, chosen)))
    assert {difference.field for difference in changed} == fields
    falling = tiny.config(
        num_repetitions=3,
        parallel_repetitions=2,
        num_epochs=10,
        optimizer__decay__name="cosine",
        optimizer__decay__end_epoch=10,
        optimizer__warm_up_epochs=0.5,
    )
    optimizer = timing.with_budget(falling, tmp_path, 100.0).optimizer
    assert (optimizer.decay.end_epoch, optimizer.warm_up_epochs) == (44, pytest.approx(2.2))
    with pytest.raises(UserError, match=r"budget=8 s: too short; one epoch .* takes 8 s here"):
        timing.with_budget(config, tmp_path, 8.0)


def test_a_budget_that_compiling_spends_is_refused_after_one_step(tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(timing, "time_steps")
    with pytest.raises(UserError, match=r"budget=0.01 s: too short; compiling and one step take"):
        timing.with_budget(tiny.config(), tmp_path, 0.01)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("budget      compiling, then timing a few steps of ")


def test_a_run_that_has_begun_keeps_its_epochs(tmp_path, monkeypatch):
    config = tiny.config(num_epochs=1)
    stretched = tiny.config(num_epochs=7, optimizer__decay__rate=0.5)
    configuration.write_config(tmp_path, configuration.as_json(stretched))
    (tmp_path / "rep_00").mkdir()
    monkeypatch.delattr(timing, "_epoch_seconds")
    chosen = timing.with_budget(config, tmp_path, 100.0)
    assert configuration.as_json(chosen) == json.loads(json.dumps(stretched.to_dict()))


def test_timed_steps_are_steps_of_training(monkeypatch):
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.05)
    config = tiny.config()
    prepared = tiny.prepare(config, 1)
    images = timing.training_feed(prepared.task)
    state = timing.first_state(prepared, 1)
    begun = int(programs.local(state.step)[0])
    timed = timing.time_steps(prepared, images, state)
    assert 0 < timed.seconds < 60
    assert int(programs.local(timed.state.step)[0]) == begun + 1 + timed.steps
    order = np.asarray(programs.local(timed.state.order)[0])
    assert sorted(order) == list(range(config.data.num_train))


def test_the_summary_multiplies_and_warns():
    config = tiny.config(num_repetitions=5, parallel_repetitions=5, num_epochs=100)
    (line,) = timing.summary(config, 0.15, 5 * 40_000)
    assert line == (
        "time        about 0.15 s per step here, 1,000 steps: 1 h 40 min; 5 repetitions, 5 at once"
    )
    assert timing.summary(config, 15.0, 5 * 50_000)[1].startswith("warning     more than a week")
