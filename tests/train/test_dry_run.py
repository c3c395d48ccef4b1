"""A dry run: its counts are those of the trained run, and it writes nothing."""

import pytest
import tiny_training as tiny
import trained_run

from thermo_ebm.errors import UserError
from thermo_ebm.train import checkpoints, dry_run, start
from thermo_ebm.train.loop import Outcome


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.slow
def test_dry_run_counts_as_the_trained_run_does(tmp_path):
    made = tiny.config(num_repetitions=2, num_epochs=1, loss__name="vanilla")
    run = tmp_path / "run"
    planned = dry_run.plan_run(made, run)
    assert list(tmp_path.iterdir()) == []
    assert (planned.steps_done, planned.repetitions) == (0, [0, 1])
    assert tiny.train(made, run, prepare=start.prepare) is Outcome.DONE
    rows = [row for number in range(2) for row in tiny.rows(run, number)]
    assert planned.steps == sum(row["step"] for row in rows)
    assert {planned.flops_per_step} == {row["flops_per_step"] for row in rows}
    assert planned.flops == sum(row["flops_per_step"] * row["step"] for row in rows)
    state = tiny.end_state(made, run)
    sizes = {
        part: sum(leaf.size for name, leaf in state.items() if name.startswith(f"params.{part}."))
        for part in ("prior", "generator")
    }
    assert planned.parameters == sizes
    before = snapshot(run)
    after = dry_run.plan_run(made, run)
    assert snapshot(run) == before
    assert (after.steps, after.flops) == (planned.steps, planned.flops)
    assert (after.steps_done, after.flops_left, after.repetitions) == (after.steps, 0, [])


@pytest.mark.slow
def test_dry_run_counts_what_is_left_of_an_interrupted_run(tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1)
    assert tiny.train(one_by_one, tmp_path, dispatches=7) is Outcome.INTERRUPTED
    before = snapshot(tmp_path)
    planned = dry_run.plan_run(one_by_one, tmp_path)
    assert (planned.steps, planned.steps_done) == (30, 7)
    assert dry_run.lines(planned, tmp_path)[-1].startswith("left        23 steps, ")
    # The checkpoint of the signal is damaged: training would go on from the one before.
    trained_run.damage(tmp_path / "rep_00" / checkpoints.INTERRUPTED)
    before = snapshot(tmp_path)
    assert dry_run.plan_run(one_by_one, tmp_path).steps_done == 4
    assert snapshot(tmp_path) == before
    trained_run.damage(tmp_path / "rep_00/checkpoints")
    with pytest.raises(UserError, match="none of its 3 checkpoints can be read"):
        dry_run.plan_run(one_by_one, tmp_path)
