"""Training in one call: it trains, continues, and says what it cannot do."""

import functools

import pytest
import tiny_training

import thermo_ebm as te
from thermo_ebm.evaluation import training
from thermo_ebm.train import loop
from thermo_ebm.train.loop import Outcome


@pytest.fixture
def quick(monkeypatch):
    """Programs that are compiled once for all tests of this process."""
    train = functools.partial(loop.train, prepare=tiny_training.prepare)
    monkeypatch.setattr(training.loop, "train", train)


def test_trains_and_opens_the_run(tmp_path, quick):
    config = tiny_training.config(num_epochs=2, num_repetitions=1)
    run = te.train_run(config, tmp_path / "run")
    assert run.checkpoint_steps(0)[-1] == 20
    modified = (run.workdir / "config.json").stat().st_mtime_ns
    assert te.train_run(config, run.workdir).checkpoint_steps(0)[-1] == 20
    assert (run.workdir / "config.json").stat().st_mtime_ns == modified


def test_continues_after_ctrl_c(tmp_path, quick, monkeypatch):
    config = tiny_training.config(num_epochs=2, num_repetitions=1)
    with monkeypatch.context() as patch:
        interrupted = functools.partial(loop.train, interrupted=lambda: True)
        patch.setattr(training.loop, "train", interrupted)
        with pytest.raises(KeyboardInterrupt, match="continues"):
            te.train_run(config, tmp_path)
    assert te.train_run(config, tmp_path).checkpoint_steps(0)[-1] == 20


def test_another_configuration_is_refused(tmp_path, quick):
    te.train_run(tiny_training.config(num_epochs=1, num_repetitions=1), tmp_path)
    with pytest.raises(te.UserError, match=r"loss\.power"):
        te.train_run(tiny_training.config(num_repetitions=1, loss__power=2.0), tmp_path)


def test_divergence_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(training.loop, "train", lambda config, workdir: Outcome.DIVERGED)
    with pytest.raises(te.UserError, match="diverged"):
        te.train_run(tiny_training.config(), tmp_path)
