"""Evaluations: every row once and complete, whatever interrupts; errors are reported."""

import atexit
import csv
import functools
import shutil
import tempfile
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import trained_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trained_run import PREFIX, SETTINGS, damage, original

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import evaluate, records, trained
from thermo_ebm.evaluation.evaluate import Checkpoint
from thermo_ebm.metrics.summary import LinePoint
from thermo_ebm.run import lock, tables

EXTRAPOLATED = ("fid_inf", "kid_inf", "kid_rbf_inf", "mifid_inf", "is_inf")
PLAIN = ("fid", "kid", "precision", "recall", "density", "coverage")


_generate_images = evaluate.generate_images


@functools.cache
def _compiled(number, batch_size):
    return _generate_images(trained.open_run(original()), number, batch_size)


@pytest.fixture(autouse=True)
def _compile_once(monkeypatch):
    """All runs here have the same model, whose chains take a second to compile."""
    monkeypatch.setattr(
        evaluate, "generate_images", lambda run, number, batch: _compiled(number, batch)
    )


def prepare(run, tmp_path, settings=SETTINGS, calls=None):
    settings = settings._replace(cache_dir=str(tmp_path / "cache"))
    return evaluate.prepare(run, settings, trained_run.quick_network(calls))


def evaluate_all(run, prepared, settings=SETTINGS):
    done = []
    for one in evaluate.pending(run, settings):
        assert evaluate.evaluate(run, one, prepared) is not None
        done.append(one)
    return done


def table(workdir, repetition=0):
    return tables.read(workdir / f"rep_{repetition:02d}/eval.csv", columns=None)


def tree(workdir):
    """Every file that evaluations write, except events, which contain the time."""
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("eval*"))
        if path.is_file() and "tensorboard" not in path.parts
    }


def events(workdir, repetition=0, name=PREFIX):
    """(step, value) pairs by tag."""
    folder = workdir / f"rep_{repetition:02d}/tensorboard/eval_{name}"
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    tags = read.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in tags}


def test_every_checkpoint_gets_its_row_points_and_events(workdir, tmp_path):
    run = trained.open_run(workdir)
    done = evaluate_all(run, prepare(run, tmp_path))
    assert done == [Checkpoint(number, step) for step in (10, 20, 30) for number in (0, 1)]
    for number in range(2):
        rows = table(workdir, number)
        assert [(row["epoch"], row["step"]) for row in rows] == [(1, 10), (2, 20), (3, 30)]
        for row in rows:
            for metric in EXTRAPOLATED:
                assert {f"{PREFIX}_{metric}{end}" for end in ("", "_stderr", "_r_squared")} <= {
                    *row
                }
            assert all(row[f"{PREFIX}_{metric}"] is not None for metric in PLAIN)
            assert row[f"{PREFIX}_num_images"] == 40
        shown = events(workdir, number)
        assert shown[f"eval/{PREFIX}_kid"] == [
            (row["step"], pytest.approx(row[f"{PREFIX}_kid"], rel=1e-6)) for row in rows
        ]
        assert all(len(values) == 3 for values in shown.values())
    assert table(workdir, 0) != table(workdir, 1)


def test_the_lines_go_through_the_points(workdir, tmp_path):
    run = trained.open_run(workdir)
    evaluate_all(run, prepare(run, tmp_path))
    with open(workdir / f"rep_00/eval_points_{PREFIX}.csv", encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert tuple(points[0]) == records.POINT_COLUMNS
    assert len(points) == 3 * 3 * len(EXTRAPOLATED)
    for row in table(workdir):
        mine = [one for one in points if int(one["epoch"]) == row["epoch"]]
        for metric in EXTRAPOLATED:
            line = [one for one in mine if one["metric"] == metric.removesuffix("_inf")]
            assert [int(one["size"]) for one in line] == [9, 24, 40]
            x = [1 / int(one["size"]) for one in line]
            slope, intercept = np.polyfit(x, [float(one["value"]) for one in line], 1)
            del slope
            assert row[f"{PREFIX}_{metric}"] == pytest.approx(intercept, rel=1e-6, abs=1e-9)


def test_evaluating_twice_does_nothing_twice(workdir, tmp_path):
    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    evaluate_all(run, prepared)
    before = tree(workdir)
    assert evaluate.todo(run, SETTINGS) == []
    assert evaluate_all(run, prepared) == []
    # Done again all the same, a checkpoint gives the same row in the same place.
    evaluate.evaluate(run, Checkpoint(0, 20), prepared)
    assert tree(workdir) == before
    assert all(len(values) == 3 for values in events(workdir).values())
    assert len(list((workdir / f"rep_00/tensorboard/eval_{PREFIX}").iterdir())) == 1


STAGES = {
    "generated": (evaluate, "_summarize"),
    "points": (records, "_write_points"),
    "events": (records.events, "write_scalars"),
    "row": (tables, "update_row"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("before", [True, False])
def test_interrupted_anywhere_the_result_is_the_same(
    workdir,
    tmp_path,
    monkeypatch,
    stage,
    before,
):
    """Interrupted in the second row, before or after each write, and continued."""
    shutil.rmtree(workdir / "rep_01")
    whole = uninterrupted()
    module, name = STAGES[stage]
    real, calls = getattr(module, name), []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and before:
            raise KeyboardInterrupt
        result = real(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate_all(run, prepared)
    monkeypatch.setattr(module, name, real)
    evaluate_all(run, prepared)
    assert tree(workdir) == tree(whole)
    assert events(workdir) == events(whole)
    left = [path.name for path in (workdir / "rep_00").iterdir() if path.name.endswith("tmp")]
    assert left == []


@functools.cache
def uninterrupted():
    """The first repetition, evaluated without interruption."""
    folder = Path(tempfile.mkdtemp(prefix="uninterrupted"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(original(), folder / "run")
    shutil.rmtree(folder / "run/rep_01")
    run = trained.open_run(folder / "run")
    evaluate_all(run, prepare(run, folder))
    return folder / "run"


def test_other_networks_resizings_and_numbers_are_distinguished(workdir, tmp_path):
    run = trained.open_run(workdir)
    first = Checkpoint(0, 10)
    evaluate.evaluate(run, first, prepare(run, tmp_path))
    kid = table(workdir)[0][f"{PREFIX}_kid"]
    antialias = SETTINGS._replace(resize="antialias")
    assert first not in evaluate.todo(run, SETTINGS)
    assert first in evaluate.todo(run, antialias)
    evaluate.evaluate(run, first, prepare(run, tmp_path, antialias))
    (row,) = table(workdir)
    assert row[f"{PREFIX}_kid"] == kid == row[f"{PREFIX}_antialias_kid"]
    assert (workdir / f"rep_00/eval_points_{PREFIX}_antialias.csv").exists()
    # Fewer images are another figure: evaluated anew, in the place of the first.
    fewer = SETTINGS._replace(num_images=30)
    assert first in evaluate.todo(run, fewer)
    evaluate.evaluate(run, first, prepare(run, tmp_path, fewer))
    (row,) = table(workdir)
    assert row[f"{PREFIX}_num_images"] == 30
    assert row[f"{PREFIX}_kid"] != kid == row[f"{PREFIX}_antialias_kid"]
    # Another number of sizes is another line.
    assert first in evaluate.todo(run, fewer._replace(num_sizes=fewer.num_sizes + 1))
    assert first not in evaluate.todo(run, fewer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            f"eval_points_{PREFIX}.csv",
            b"epoch,metric,size,value\ngarbage,x\n",
            ":2: 2 fields where the header has 4",
        ),
        (f"eval_points_{PREFIX}.csv", b"\xff\xfe", "cannot be read"),
        ("eval.csv", b"epoch\n1\n", "has no step"),
    ],
)
def test_a_damaged_table_is_refused_before_the_work(workdir, tmp_path, name, content, message):
    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    (workdir / "rep_00" / name).write_bytes(content)
    unused = prepared._replace(generate=lambda *arguments: pytest.fail("work was done"))
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(run, Checkpoint(0, 10), unused)


def test_programs_side_by_side_lose_nothing_of_each_other(workdir):
    folder = workdir / "rep_00"

    def write(network):
        for epoch in range(1, 16):
            row = {"epoch": epoch, "step": 10 * epoch, f"{network}_kid": float(epoch)}
            records.write(folder, network, row, [LinePoint("kid", 9, 1.0)], False)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = table(workdir)
    assert [row["epoch"] for row in rows] == list(range(1, 16))
    assert all(row[f"{name}_kid"] == row["epoch"] for row in rows for name in "abc")


def test_a_checkpoint_that_vanishes_or_is_damaged_is_skipped_with_a_warning(
    workdir,
    tmp_path,
    caplog,
):
    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    damage(workdir / "rep_00/checkpoints/20")
    done = []
    for one in evaluate.pending(run, SETTINGS):
        if one == Checkpoint(1, 20):
            shutil.rmtree(workdir / "rep_01/checkpoints/20")
        done.append((one, evaluate.evaluate(run, one, prepared) is not None))
    assert [one for one, written in done if not written] == [Checkpoint(0, 20), Checkpoint(1, 20)]
    assert len(done) == 6
    assert "rep_01/checkpoints/20: was removed before it could be evaluated" in caplog.text
    assert "rep_00/checkpoints/20 cannot be read (" in caplog.text
    assert [row["step"] for row in table(workdir, 0)] == [10, 30]


def test_samples_that_are_not_finite_are_skipped_with_a_warning(
    workdir,
    tmp_path,
    caplog,
    monkeypatch,
):
    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    params = trained.load_params(run, 0, 10)
    broken = {
        "prior": params["prior"],
        "generator": jax.tree.map(lambda leaf: leaf * np.nan, params["generator"]),
    }
    monkeypatch.setattr(trained, "load_params", lambda *arguments: broken)
    assert evaluate.evaluate(run, Checkpoint(0, 10), prepared) is None
    assert "repetition 0, step 10: some of its samples are not finite" in caplog.text
    assert not (workdir / "rep_00/eval.csv").exists()


def test_checkpoints_within_an_epoch_are_left_out(workdir):
    run = trained.open_run(workdir)
    for step in (10, 20):
        folder = workdir / f"rep_00/checkpoints/{step}"
        folder.rename(folder.with_name(str(step + 3)))
    assert evaluate.todo(run, SETTINGS, newest_only=True) == [
        Checkpoint(0, 30),
        Checkpoint(1, 30),
    ]
    assert [one.step for one in evaluate.todo(run, SETTINGS) if one.repetition == 0] == [30]


def test_watching_ends_with_training_and_misses_nothing(workdir, monkeypatch):
    """Checkpoints come while one is evaluated, while waiting, and at the very end of training."""
    held = iter([True, True, True, True, False, False, False, False, False, False])
    monkeypatch.setattr(lock, "is_held", lambda folder: next(held))
    shutil.rmtree(workdir / "rep_01")
    hidden = workdir / "hidden"
    hidden.mkdir()

    def move(step, there):
        source = workdir / "rep_00/checkpoints"
        one, other = (hidden, source) if there else (source, hidden)
        (one / str(step)).rename(other / str(step))

    move(20, there=False)
    move(30, there=False)
    waits = []

    def watch():
        waits.append(1)
        if len(waits) == 2:
            move(20, there=True)

    run, seen = trained.open_run(workdir), []
    for one in evaluate.pending(run, SETTINGS, watch=watch):
        seen.append(one.step)
        if one.step == 20:
            move(30, there=True)
    assert seen == [10, 20, 30]
    assert len(waits) == 2
    assert list(evaluate.pending(run, SETTINGS))[-1].step == 30


def test_real_features_are_computed_once(workdir, tmp_path):
    run, calls = trained.open_run(workdir), []
    first = prepare(run, tmp_path, calls=calls)
    second = prepare(run, tmp_path, calls=calls)
    assert calls == [40]
    np.testing.assert_array_equal(first.real.features, second.real.features)
    prepare(run, tmp_path, SETTINGS._replace(num_images=30), calls)
    assert calls == [40, 30]
    assert len(list((tmp_path / "cache/features").glob("*.npz"))) == 2


def test_generated_images_depend_on_the_key_and_not_on_the_batches():
    run = trained.open_run(original())
    params, key = trained.load_params(run, 0, 30), jax.random.key(5)
    whole = evaluate.generate_images(run, 20, 100)(params, key)
    parts = evaluate.generate_images(run, 20, 7)(params, key)
    assert whole.shape == parts.shape == (20, 8, 8, 1)
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1  # a rounding's worth
    other = evaluate.generate_images(run, 20, 100)(params, jax.random.key(6))
    assert (whole != other).mean() > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_images": 41}, "num_images=41: more than the 40 validation images"),
        ({"num_images": 8, "num_sizes": 10}, "num_sizes=10: 8 images are too few"),
        ({"num_images": -1}, "num_images=-1: must be at least 0"),
        ({"num_sizes": 2}, "num_sizes=2: must be at least 3"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    settings = SETTINGS._replace(**changes)
    with pytest.raises(UserError, match=message):
        evaluate.check(settings) or evaluate.num_images(40, settings)


def test_at_most_4500_images_unless_asked_for():
    assert evaluate.num_images(10_000, evaluate.Settings()) == 4500
    assert evaluate.num_images(10_000, evaluate.Settings(num_images=10_000)) == 10_000


def test_a_folder_that_cannot_be_written(workdir, tmp_path):
    run = trained.open_run(workdir)
    prepared = prepare(run, tmp_path)
    (workdir / "rep_00" / records.LOCK).mkdir()
    with pytest.raises(UserError, match=r"\.eval\.lock: evaluations cannot be written: Is a dir"):
        evaluate.evaluate(run, Checkpoint(0, 10), prepared)
    (workdir / f"rep_01/eval_points_{PREFIX}.csv").mkdir()
    with pytest.raises(UserError, match=r"eval_points.*cannot be read"):
        evaluate.evaluate(run, Checkpoint(1, 10), prepared)
    assert not (workdir / "rep_01/eval.csv").exists()


def test_a_damaged_table_is_named_with_its_line(workdir):
    (workdir / "rep_00/eval.csv").write_text("epoch,step\n1,10\n2\n")
    with pytest.raises(UserError, match=r"eval\.csv:3: 1 fields"):
        evaluate.todo(trained.open_run(workdir), SETTINGS)
