"""The best checkpoint by a metric: which one is kept, that it stays, and reading it back."""

import json
import shutil

import numpy as np
import pytest
from trained_run import PREFIX, SETTINGS, damage, leaves

import thermo_ebm as te
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import best, evaluate, records, trained
from thermo_ebm.run import tables
from thermo_ebm.run.best import read


def record(workdir, values, metric="kid", num_images=40, number=0):
    """Evaluations as `launch.eval` records them: the metric by epoch."""
    for epoch, value in values.items():
        row = {"epoch": epoch, "step": 10 * epoch, f"{PREFIX}_{metric}": value}
        row[f"{PREFIX}_{metric}_stderr"] = 0.5
        row |= records.extent(PREFIX, num_images, SETTINGS.num_sizes)
        tables.update_row(workdir / f"rep_{number:02d}" / "eval.csv", row)


def keep(workdir, metric="kid", number=0, **changes):
    settings = SETTINGS._replace(**changes)
    return evaluate.keep_best(trained.open_run(workdir), number, metric, settings)


def folders(workdir):
    return sorted(path.name for path in (workdir / "rep_00/best").iterdir())


def test_the_lowest_or_the_highest_is_kept_with_its_record(workdir):
    record(workdir, {1: 0.3, 2: 0.1, 3: 0.2})
    kept = keep(workdir)
    assert (kept.step, kept.value, kept.stderr) == (20, 0.1, 0.5)
    assert json.loads((workdir / "rep_00/best/best.json").read_text()) == {
        "metric": "kid",
        "network": PREFIX,
        "num_images": 40,
        "num_sizes": 3,
        "value": 0.1,
        "stderr": 0.5,
        "step": 20,
        "source": str(workdir / "rep_00/checkpoints/20"),
    }
    record(workdir, {1: 0.3, 2: 0.1, 3: 0.2}, "recall")
    assert keep(workdir, "recall").step == 10
    assert folders(workdir) == ["10", "best.json"]


def test_it_stays_where_its_checkpoint_is_removed_and_yields_to_a_better_one(workdir):
    run = trained.open_run(workdir)
    wanted = leaves(trained.load_params(run, 0, 10))
    record(workdir, {1: 0.2})
    assert keep(workdir).step == 10
    shutil.rmtree(workdir / "rep_00/checkpoints/10")
    record(workdir, {2: 0.3, 3: float("nan")})
    assert keep(workdir).step == 10
    step, params = trained.chosen_params(run, 0, "best")
    assert step == 10
    for one in (params, te.load_run(workdir).params(step="best")):
        for leaf, expected in zip(leaves(one), wanted, strict=True):
            np.testing.assert_array_equal(leaf, expected)
    record(workdir, {3: 0.1})
    assert keep(workdir).step == 30
    assert folders(workdir) == ["30", "best.json"]


def test_evaluations_of_other_numbers_of_images_are_not_compared(workdir):
    record(workdir, {1: 0.1}, num_images=20)
    assert keep(workdir, num_images=20).step == 10
    record(workdir, {2: 0.5, 3: 0.6})
    assert keep(workdir).step == 20


def test_a_checkpoint_that_cannot_be_read_is_not_kept(workdir):
    record(workdir, {1: 0.1, 2: 0.2, 3: 0.3})
    damage(workdir / "rep_00/checkpoints/10")
    shutil.rmtree(workdir / "rep_00/checkpoints/20")
    assert keep(workdir).step == 30
    assert folders(workdir) == ["30", "best.json"]


def test_a_kill_while_copying_leaves_the_one_before(workdir, monkeypatch):
    record(workdir, {1: 0.2})
    keep(workdir)
    record(workdir, {2: 0.1})

    def killed(*_):
        raise KeyboardInterrupt

    for module, name in ((shutil, "copytree"), (trained, "load_best"), (best.best, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(KeyboardInterrupt):
                keep(workdir)
        assert read(workdir / "rep_00").step == 10
        assert trained.chosen_params(trained.open_run(workdir), 0, "best")[0] == 10
    assert keep(workdir).step == 20
    assert folders(workdir) == ["20", "best.json"]


def test_nothing_evaluated_keeps_nothing(workdir):
    assert keep(workdir) is None
    assert read(workdir / "rep_00") is None


def test_what_is_wrong_is_one_line(workdir):
    with pytest.raises(UserError, match="keep_best=loss: must be one of fid, fid_inf, kid, "):
        best.check("loss")
    run = trained.open_run(workdir)
    with pytest.raises(UserError, match=r"step=best: .*rep_00 has no best .* --keep_best=METRIC"):
        trained.chosen_params(run, 0, "best")
    record(workdir, {1: 0.2})
    with pytest.raises(UserError, match=f"keep_best=is_inf: {PREFIX} has no such metric"):
        keep(workdir, "is_inf")
    keep(workdir)
    damage(workdir / "rep_00/best/10")
    with pytest.raises(UserError, match=r"step=best: .*10 cannot be read .*; remove .*best and"):
        trained.chosen_params(run, 0, "best")
    (workdir / "rep_00/best/best.json").write_text("{}")
    with pytest.raises(UserError, match="not the record of a best checkpoint"):
        keep(workdir)
