"""The best checkpoint by a metric: which one is kept, that it stays, and reading it back."""

import json
import shutil

import numpy as np
import pytest
from trained_run import PREFIX, SETTINGS, damage, leaves, quick_network

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import best, evaluate, records
from thermo_ebm.evaluation.likelihood import held_out
from thermo_ebm.evaluation.run import Run, load_run
from thermo_ebm.run import tables
from thermo_ebm.run.records import read_best


def write_evaluations(workdir, values, metric="kid", num_images=40):
    """Evaluations as `launch.eval` records them: the metric by epoch."""
    for epoch, value in values.items():
        row = {"epoch": epoch, "step": 10 * epoch, f"{PREFIX}_{metric}": value}
        row[f"{PREFIX}_{metric}_stderr"] = 0.5
        row |= records.extent(PREFIX, num_images, SETTINGS.num_sizes)
        tables.update_row(workdir / "rep_00/eval.csv", row)


def keep(workdir, metric="kid", **changes):
    return evaluate.keep_best(load_run(workdir), 0, metric, SETTINGS._replace(**changes))


def names_in_best(workdir):
    return sorted(path.name for path in (workdir / "rep_00/best").iterdir())


def test_checkpoint_of_the_best_metric_is_kept_with_its_record(workdir):
    write_evaluations(workdir, {1: 0.3, 2: 0.1, 3: 0.2})
    record = keep(workdir)
    assert (record.step, record.value, record.stderr) == (20, 0.1, 0.5)
    assert json.loads((workdir / "rep_00/best/best.json").read_text()) == {
        "metric": "kid",
        "network": PREFIX,
        "num_images": 40,
        "num_sizes": 3,
        "value": 0.1,
        "stderr": 0.5,
        "step": 20,
        "source": str(workdir / "rep_00/checkpoints/20"),
        "reported": None,
        "reported_stderr": None,
    }
    write_evaluations(workdir, {1: 0.3, 2: 0.1, 3: 0.2}, "recall")
    assert keep(workdir, "recall").step == 10
    assert names_in_best(workdir) == ["10", "best.json"]


def test_one_half_of_the_images_chooses_and_the_other_is_reported(workdir):
    write_evaluations(workdir, {1: 0.3, 2: 0.1, 3: 0.2})
    assert keep(workdir).step == 20  # rows of an earlier version
    write_evaluations(workdir, {1: 0.1, 2: 0.4, 3: 0.3}, "kid_half_1")
    write_evaluations(workdir, {1: 0.5, 2: 0.2, 3: 0.3}, "kid_half_2")
    record = keep(workdir)
    assert (record.step, record.value, record.reported) == (10, 0.1, 0.5)
    assert (record.stderr, record.reported_stderr) == (0.5, 0.5)
    # The one that is kept is compared by its choosing half.
    shutil.rmtree(workdir / "rep_00/checkpoints/10")
    assert keep(workdir).step == 10
    write_evaluations(workdir, {2: 0.05}, "kid_half_1")
    assert keep(workdir).reported == 0.2


def test_halves_of_an_evaluation_are_of_other_images(workdir, tmp_path):
    """The mean over many checkpoints is the same; chosen by the one, the other is unbiased."""
    run, settings = load_run(workdir), SETTINGS._replace(keep_best="fid", cache_dir=str(tmp_path))
    network = quick_network()
    first, *_ = evaluate.unevaluated(run, settings)
    evaluation = evaluate.prepare(run, settings, network)
    measured = evaluate.evaluate(run, first, evaluation)
    assert measured.values["fid_half_1"] != measured.values["fid_half_2"]
    for half in ("fid_half_1", "fid_half_2"):
        assert measured.values[half] > 0.5 * measured.values["fid"]
        assert measured.values[f"{half}_stderr"] > 0
    assert first not in evaluate.unevaluated(run, settings)
    # A row without the halves is evaluated again when they are asked for.
    other = settings._replace(keep_best="kid_inf")
    assert first in evaluate.unevaluated(run, other)
    measured = evaluate.evaluate(run, first, evaluate.prepare(run, other, network))
    assert np.isfinite(measured.values["kid_inf_half_2"])


def test_a_copy_outlives_its_checkpoint_and_is_replaced_by_a_better_one(workdir):
    run = load_run(workdir)
    expected = leaves(run.params(0, 10))
    write_evaluations(workdir, {1: 0.2})
    assert keep(workdir).step == 10
    shutil.rmtree(workdir / "rep_00/checkpoints/10")
    write_evaluations(workdir, {2: 0.3, 3: float("nan")})
    assert keep(workdir).step == 10
    checkpoint = run.load(0, "best")
    assert checkpoint.step == 10
    for params in (checkpoint.params, run.params(step="best")):
        for leaf, expected_leaf in zip(leaves(params), expected, strict=True):
            np.testing.assert_array_equal(leaf, expected_leaf)
    write_evaluations(workdir, {3: 0.1})
    assert keep(workdir).step == 30
    assert names_in_best(workdir) == ["30", "best.json"]


def test_evaluations_of_other_numbers_of_images_are_not_compared(workdir):
    write_evaluations(workdir, {1: 0.1}, num_images=20)
    assert keep(workdir, num_images=20).step == 10
    write_evaluations(workdir, {2: 0.5, 3: 0.6})
    assert keep(workdir).step == 20


def test_log_p_that_cannot_be_relied_on_is_not_kept(workdir):
    """The highest of the reliable values is the best; the unreliable ones are often too high."""
    extent = held_out.HeldOut().extent(load_run(workdir).config)
    for epoch, (value, reliable) in {1: (-20.0, 1.0), 2: (-15.0, 0.9), 3: (-9.0, 0.2)}.items():
        row = {"epoch": epoch, "step": 10 * epoch, "held_out_log_marginal_likelihood": value}
        row |= {"held_out_log_marginal_likelihood_stderr": 0.1, "held_out_reliable": reliable}
        row |= records.extent(*extent)
        tables.update_row(workdir / "rep_00/eval.csv", row)
    run = load_run(workdir)
    best_of = evaluate.keep_best(run, 0, "log_marginal_likelihood", held_out.HeldOut())
    assert (best_of.step, best_of.value) == (20, -15.0)


def test_a_checkpoint_that_cannot_be_read_is_not_kept(workdir):
    write_evaluations(workdir, {1: 0.1, 2: 0.2, 3: 0.3})
    damage(workdir / "rep_00/checkpoints/10")
    shutil.rmtree(workdir / "rep_00/checkpoints/20")
    assert keep(workdir).step == 30
    assert names_in_best(workdir) == ["30", "best.json"]


def test_a_kill_while_copying_leaves_the_previous_copy(workdir, monkeypatch):
    write_evaluations(workdir, {1: 0.2})
    keep(workdir)
    write_evaluations(workdir, {2: 0.1})

    def killed(*_):
        raise KeyboardInterrupt

    for owner, name in ((shutil, "copytree"), (Run, "read_params"), (best, "write_best")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises(KeyboardInterrupt):
                keep(workdir)
        assert read_best(workdir / "rep_00").step == 10
        assert load_run(workdir).load(0, "best").step == 10
    assert keep(workdir).step == 20
    assert names_in_best(workdir) == ["20", "best.json"]


def test_run_without_evaluations_keeps_no_best_checkpoint(workdir):
    assert keep(workdir) is None
    assert read_best(workdir / "rep_00") is None


def test_errors_of_keep_best_name_the_flag_or_the_file(workdir):
    run = load_run(workdir)
    with pytest.raises(UserError, match=r"step=best: .*rep_00 has no best .* --keep_best=METRIC"):
        run.load(0, "best")
    write_evaluations(workdir, {1: 0.2})
    with pytest.raises(UserError, match=f"keep_best=is_inf: {PREFIX} has no such metric"):
        keep(workdir, "is_inf")
    keep(workdir)
    damage(workdir / "rep_00/best/10")
    with pytest.raises(UserError, match=r"step=best: .*10 cannot be read .*; remove .*best and"):
        run.load(0, "best")
    (workdir / "rep_00/best/best.json").write_text("{}")
    with pytest.raises(UserError, match="not a record that this program wrote"):
        keep(workdir)
