"""Steps that are not finite: skipped, counted, rolled back, and finally given up."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.train import checkpoints, recovery, step
from thermo_ebm.train.loop import Outcome

# Three skipped steps in a row are too many; checkpoints at 4, 8, 10, 12, ...
MAX_SKIPPED_STEPS = 3
CHANGES = {"divergence__max_rollbacks": 2}
RECORD = [{"from_step": 16, "to_step": 12, "branch": 1}]


def is_bad(state):
    """Steps 5 and 6; from 13 on until a rollback; from 24 on in any case."""
    once = (state.step == 5) | (state.step == 6)
    return once | ((state.step >= 13) & (state.branch == 0)) | (state.step >= 24)


@pytest.fixture(scope="module", autouse=True)
def _sick_steps():
    """Makes parameters NaN in the steps above, before the gradient of the step."""
    healthy = step.train_step

    def sick(task, state, batches):
        bad = is_bad(state)
        params = jax.tree.map(lambda leaf: jnp.where(bad, jnp.nan, leaf), state.params)
        after = healthy(task, state._replace(params=params), batches)
        unchanged = jax.tree.map(lambda a, b: jnp.where(bad, a, b), state.params, after.params)
        return after._replace(params=unchanged)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(step, "train_step", sick)
        yield


prepare = functools.partial(tiny.prepare, max_skipped_steps=MAX_SKIPPED_STEPS)
train = functools.partial(tiny.train, prepare=prepare)


@pytest.fixture(scope="module")
def recovered(tmp_path_factory):
    """Two epochs, in which one rollback helps."""
    workdir = tmp_path_factory.mktemp("recovered")
    assert train(tiny.config(num_epochs=2, **CHANGES), workdir) is Outcome.DONE
    return workdir


def record(workdir):
    return json.loads((workdir / "rep_00" / "rollbacks.json").read_text())


def test_skipped_steps_are_counted_and_reach_no_parameter(recovered):
    first, second = tiny.rows(recovered)
    assert first["skipped_steps"] == 2
    assert np.isfinite(first["train_loss"])
    assert first["step"] == 10
    # The one at step 12, the checkpoint's; the three before the rollback happened in no epoch.
    assert second["skipped_steps"] == 0
    assert all(
        np.isfinite(leaf).all() for leaf in tiny.end_state(tiny.config(), recovered).values()
    )


def test_skipped_steps_do_not_update_the_optimisers(recovered):
    state = tiny.end_state(tiny.config(), recovered)
    assert state["optimiser.prior.0.count"] == state["step"] - 2


def test_too_many_skipped_steps_in_a_row_go_back_to_the_newest_checkpoint(recovered):
    assert record(recovered) == RECORD
    assert tiny.end_state(tiny.config(), recovered)["branch"] == 1


@pytest.mark.slow
def test_a_rollback_is_the_same_when_interrupted_at_every_step(recovered, tmp_path):
    """Each signal writes a checkpoint that no rollback uses and that displaces no other."""
    made = tiny.config(num_epochs=2, checkpoint__keep=1, **CHANGES)
    outcomes = [train(made, tmp_path, dispatches=1)]
    while outcomes[-1] is Outcome.INTERRUPTED and len(outcomes) < 100:
        outcomes.append(train(made, tmp_path, dispatches=1))
    assert outcomes[-1] is Outcome.DONE
    assert len(outcomes) > 20
    assert record(tmp_path) == RECORD
    tiny.assert_equal_runs(recovered, tmp_path)
    assert not (tmp_path / "rep_00" / checkpoints.INTERRUPTED).exists()


def test_a_rollback_is_the_same_when_killed_once_it_is_recorded(recovered, tmp_path, monkeypatch):
    made = tiny.config(num_epochs=2, **CHANGES)

    def killed(one, state):
        if one.rollbacks:
            raise KeyboardInterrupt
        return state

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_with_branch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(made, tmp_path)
    assert record(tmp_path) == RECORD
    assert train(made, tmp_path) is Outcome.DONE
    assert record(tmp_path) == RECORD
    tiny.assert_equal_runs(recovered, tmp_path)


def test_rollbacks_after_a_damaged_checkpoint_happen_again(recovered, tmp_path):
    """Killed after the rollback to 12, whose checkpoint is then found damaged: back to 10."""
    made = tiny.config(num_epochs=2, steps_per_dispatch=1, **CHANGES)
    assert train(made, tmp_path, dispatches=17) is Outcome.INTERRUPTED
    assert record(tmp_path) == RECORD
    for path in (tmp_path / "rep_00").glob("*/1*"):  # 12, and where it was interrupted
        if int(path.name) > 10:
            (path / "meta" / "metadata").unlink()
    assert train(made, tmp_path) is Outcome.DONE
    assert record(tmp_path) == RECORD
    tiny.assert_equal_runs(recovered, tmp_path)


def test_too_many_rollbacks_end_the_repetition(tmp_path, caplog):
    made = tiny.config(**CHANGES)
    assert train(made, tmp_path) is Outcome.DIVERGED
    assert Outcome.DIVERGED.value == 4
    expected = [*RECORD, {"from_step": 27, "to_step": 24, "branch": 2}]
    assert record(tmp_path) == expected
    assert "repetition 0 diverged at step 27 and is given up after 2 rollbacks" in caplog.text
    assert "optimizer.clip_norm" in caplog.text
    assert len(tiny.rows(tmp_path)) == 2
    # The same command again finds the same, and a longer leash goes on.
    assert train(made, tmp_path) is Outcome.DIVERGED
    assert record(tmp_path) == expected
    longer = tiny.config(**CHANGES | {"divergence__max_rollbacks": 3})
    assert train(longer, tmp_path) is Outcome.DIVERGED
    assert len(record(tmp_path)) == 3


def test_other_repetitions_continue_after_one_diverged(tmp_path, monkeypatch):
    made = tiny.config(
        num_epochs=2, num_repetitions=2, **CHANGES | {"divergence__max_rollbacks": 0}
    )
    assert train(made, tmp_path) is Outcome.DIVERGED
    assert len(tiny.rows(tmp_path, 0)) == len(tiny.rows(tmp_path, 1)) == 1


@pytest.mark.slow
def test_a_finite_gradient_that_would_ruin_the_parameters_is_skipped(tmp_path, monkeypatch):
    """Adam's step at such a rate overflows: what is kept is the state before it."""
    monkeypatch.setattr(tiny.checks, "check", lambda *_: None)  # it is refused
    rate = {"optimizer__generator__learning_rate": 1e300}
    made = tiny.config(num_epochs=1, **CHANGES | rate)
    assert train(made, tmp_path) is Outcome.DIVERGED
    kept = tiny.end_state(made, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in kept.values())


@pytest.mark.slow
def test_no_checkpoint_is_written_while_steps_are_skipped(tmp_path, monkeypatch):
    """Bad from step 7 on: 8 is a checkpoint's step, but 4 is the last good one."""
    monkeypatch.setattr(
        "test_divergence.is_bad", lambda state: (state.step >= 7) & (state.branch == 0)
    )
    step_before = tiny.config(num_epochs=1, loss__kl_weight=1.5, **CHANGES)
    assert train(step_before, tmp_path) is Outcome.DONE
    assert record(tmp_path) == [{"from_step": 10, "to_step": 4, "branch": 1}]


ONE_CHECKPOINT = {
    "checkpoint__keep": 1,
    "checkpoint__keep_every_epochs": 0,
    "checkpoint__every_steps": 0,
}


def test_a_missing_checkpoint_to_roll_back_to_is_reported_and_nothing_is_lost(tmp_path):
    """The only scheduled checkpoint is damaged; the run continued after a signal diverges."""
    made = tiny.config(num_epochs=2, steps_per_dispatch=1, **CHANGES | ONE_CHECKPOINT)
    assert train(made, tmp_path, dispatches=12) is Outcome.INTERRUPTED
    folder = tmp_path / "rep_00"
    (folder / "checkpoints" / "10" / "meta" / "metadata").unlink()
    with pytest.raises(UserError, match="none of its 1 checkpoints can be read"):
        train(made, tmp_path)
    left = {path.relative_to(folder).as_posix() for path in folder.glob("*/1*")}
    assert left == {"checkpoints/10", f"{checkpoints.INTERRUPTED}/12"}


def test_rollback_without_a_scheduled_checkpoint_is_an_error(tmp_path):
    """The same, with the damaged checkpoint found and moved away before."""
    made = tiny.config(num_epochs=2, steps_per_dispatch=1, **CHANGES | ONE_CHECKPOINT)
    assert train(made, tmp_path, dispatches=12) is Outcome.INTERRUPTED
    folder = tmp_path / "rep_00"
    shutil.rmtree(folder / "checkpoints" / "10")
    with pytest.raises(UserError, match="no checkpoint is left that repetition 0, which diverged"):
        train(made, tmp_path)
    assert (folder / checkpoints.INTERRUPTED / "12").is_dir()


@pytest.mark.slow
def test_a_whole_epoch_of_skipped_steps_is_too_many(tmp_path, monkeypatch):
    """Even if fewer than may be skipped in a row: nothing was trained, as the exit code shows."""
    monkeypatch.setattr("test_divergence.is_bad", lambda state: state.step >= 0)
    made = tiny.config(num_epochs=1, loss__kl_weight=1.25, data__num_train=90)
    # With the library's limit, which an epoch of 6 steps is below.
    assert tiny.train(made, tmp_path) is Outcome.DIVERGED
    assert {(one["from_step"], one["to_step"]) for one in record(tmp_path)} == {(6, 0)}
