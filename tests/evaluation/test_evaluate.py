"""Evaluations: each row once and complete, whatever interrupts; errors are reported."""

import csv
import functools
import re
import shutil
import threading

import jax
import numpy as np
import pytest
import trained_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trained_run import PREFIX, SETTINGS, damage, original

from docs.tools.readings import EVALUATIONS
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import evaluate, protocols, records
from thermo_ebm.evaluation.evaluate import Checkpoint
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.metrics import networks
from thermo_ebm.metrics.summary import LinePoint
from thermo_ebm.run import layout, lock, tables

EXTRAPOLATED = ("fid_inf", "kid_inf", "kid_rbf_inf", "mifid_inf", "is_inf")
PLAIN = ("fid", "kid", "cmmd", "cmmd_published", "mind", "mifid")
PLAIN += ("precision", "recall", "density", "coverage")


@functools.cache
def opened():
    """All runs here have the same model, whose chains take a second to compile."""
    return load_run(original())


@pytest.fixture
def run(workdir):
    return opened()._replace(workdir=workdir)


def prepare(run, cache_dir, settings=SETTINGS, calls=None):
    settings = settings._replace(cache_dir=str(cache_dir))
    return evaluate.prepare(run, settings, trained_run.quick_network(calls))


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    return prepare(opened(), tmp_path_factory.mktemp("cache"))


def evaluate_all(run, evaluation):
    checkpoints = []
    for checkpoint in evaluate.pending(run, SETTINGS):
        assert evaluate.evaluate(run, checkpoint, evaluation) is not None
        checkpoints.append(checkpoint)
    return checkpoints


def table(workdir, repetition=0):
    return tables.read(workdir / f"rep_{repetition:02d}/eval.csv", columns=None)


def written_files(workdir):
    """Every file that evaluations write, except events, which contain the time."""
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("eval*"))
        if path.is_file() and "tensorboard" not in path.parts
    }


def read_events(workdir, repetition=0):
    """(step, value) pairs by tag."""
    folder = workdir / f"rep_{repetition:02d}/tensorboard/eval_{PREFIX}"
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def reference(tmp_path_factory, evaluation):
    """The folder of a run that was evaluated without interruption. Not to be changed."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    shutil.copytree(original(), folder)
    evaluated = evaluate_all(opened()._replace(workdir=folder), evaluation)
    assert evaluated == [Checkpoint(number, step) for step in (10, 20, 30) for number in (0, 1)]
    return folder


def test_each_checkpoint_gets_its_row_points_and_events(reference):
    for repetition in range(2):
        rows, events = table(reference, repetition), read_events(reference, repetition)
        assert [(row["epoch"], row["step"]) for row in rows] == [(1, 10), (2, 20), (3, 30)]
        for row in rows:
            for metric in EXTRAPOLATED:
                columns = {f"{PREFIX}_{metric}{end}" for end in ("", "_stderr", "_r_squared")}
                assert columns <= row.keys()
            assert all(row[f"{PREFIX}_{metric}"] is not None for metric in PLAIN)
            assert row[f"{PREFIX}_num_images"] == 40
        assert events[f"eval/{PREFIX}_kid"] == [
            (row["step"], pytest.approx(row[f"{PREFIX}_kid"], rel=1e-6)) for row in rows
        ]
        assert all(len(values) == 3 for values in events.values())
    assert table(reference, 0) != table(reference, 1)


def test_every_column_is_described(reference):
    """On docs/readings.md, by its name or as a kind of columns."""
    described = "|".join(map(re.escape, EVALUATIONS)).replace("METRIC", "[a-z_]+")
    described = re.compile(described.replace("NETWORK", re.escape(PREFIX)) + "|.+_stderr")
    with open(reference / "rep_00/eval.csv", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert [name for name in header if not described.fullmatch(name)] == []


def test_lines_go_through_the_points(reference):
    with open(reference / f"rep_00/eval_points_{PREFIX}.csv", encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    assert tuple(points[0]) == records.POINT_COLUMNS
    assert len(points) == 3 * 3 * len(EXTRAPOLATED)
    for row in table(reference):
        for metric in EXTRAPOLATED:
            line = [
                (int(point["size"]), float(point["value"]))
                for point in points
                if int(point["epoch"]) == row["epoch"]
                and point["metric"] == metric.removesuffix("_inf")
            ]
            sizes, values = zip(*line, strict=True)
            assert sizes == (9, 24, 40)
            _, intercept = np.polyfit(1 / np.array(sizes), values, 1)
            assert row[f"{PREFIX}_{metric}"] == pytest.approx(intercept, rel=1e-6, abs=1e-9)


def test_evaluating_again_changes_nothing(reference, tmp_path, evaluation):
    workdir = tmp_path / "run"
    shutil.copytree(reference, workdir)
    run = opened()._replace(workdir=workdir)
    assert evaluate_all(run, evaluation) == []
    evaluate.evaluate(run, Checkpoint(0, 20), evaluation)
    assert written_files(workdir) == written_files(reference)
    assert all(len(values) == 3 for values in read_events(workdir).values())
    assert len(list((workdir / f"rep_00/tensorboard/eval_{PREFIX}").iterdir())) == 1


STAGES = {
    "images": (evaluate, "generate_images"),
    "points": (tables, "write_cells"),
    "events": (records.events, "write_scalars"),
    "row": (tables, "update_row"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("before", [True, False])
def test_interrupted_anywhere_the_result_is_the_same(
    run, reference, evaluation, monkeypatch, stage, before
):
    """Interrupted in the second row, before or after each write, and continued."""
    shutil.rmtree(run.workdir / "rep_01")
    module, name = STAGES[stage]
    function, calls = getattr(module, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2 and before:
            raise KeyboardInterrupt
        result = function(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_all(run, evaluation)
    monkeypatch.setattr(module, name, function)
    evaluate_all(run, evaluation)
    expected = written_files(reference).items()
    assert written_files(run.workdir) == {
        path: content for path, content in expected if path.startswith("rep_00")
    }
    assert read_events(run.workdir) == read_events(reference)
    names = [path.name for path in (run.workdir / "rep_00").iterdir()]
    assert [name for name in names if name.endswith("tmp")] == []


def test_networks_resizings_and_numbers_are_distinguished(run, tmp_path, evaluation):
    workdir, first = run.workdir, Checkpoint(0, 10)
    evaluate.evaluate(run, first, evaluation)
    kid = table(workdir)[0][f"{PREFIX}_kid"]
    antialias = SETTINGS._replace(resize="antialias")
    assert first not in evaluate.unevaluated(run, SETTINGS)
    assert first in evaluate.unevaluated(run, antialias)
    evaluate.evaluate(run, first, prepare(run, tmp_path, antialias))
    rows = table(workdir)
    assert [row["epoch"] for row in rows] == [1, 1]
    assert rows[0][f"{PREFIX}_kid"] == kid == rows[1][f"{PREFIX}_antialias_kid"]
    assert rows[1][f"{PREFIX}_kid"] is None
    assert (workdir / f"rep_00/eval_points_{PREFIX}_antialias.csv").exists()
    assert evaluate.other_rows(run, SETTINGS) is None
    # The metrics of fewer images have their own row and points.
    fewer = SETTINGS._replace(num_images=30)
    assert first in evaluate.unevaluated(run, fewer)
    evaluate.evaluate(run, first, prepare(run, tmp_path, fewer))
    rows = table(workdir)
    assert [row[f"{PREFIX}_num_images"] for row in rows] == [40, None, 30]
    assert rows[0][f"{PREFIX}_kid"] == kid != rows[2][f"{PREFIX}_kid"]
    with open(workdir / f"rep_00/eval_points_{PREFIX}.csv", encoding="utf-8") as file:
        numbers = [point["num_images"] for point in csv.DictReader(file)]
    assert numbers == ["40"] * 3 * len(EXTRAPOLATED) + ["30"] * 3 * len(EXTRAPOLATED)
    with open(workdir / "rep_00/eval.csv", encoding="utf-8") as file:
        networks = [row["network"] for row in csv.DictReader(file)]
    assert networks == [PREFIX, f"{PREFIX}_antialias", PREFIX]
    assert evaluate.other_rows(run, fewer) == (
        f"eval.csv keeps its rows of {PREFIX} with 40 images and 3 sizes; rows with 30 images and "
        "3 sizes are added"
    )
    assert read_events(workdir)[f"eval/{PREFIX}_num_images"] == [(10, 30.0)]
    assert not {first} & {*evaluate.unevaluated(run, SETTINGS), *evaluate.unevaluated(run, fewer)}
    # Another number of sizes gives another line.
    assert first in evaluate.unevaluated(run, fewer._replace(num_sizes=fewer.num_sizes + 1))
    assert first not in evaluate.unevaluated(run, fewer)


def test_tables_of_earlier_versions_are_continued(run, evaluation):
    """They have a row per epoch, no column of networks, and points of one evaluation per epoch."""
    folder, extent = run.workdir / "rep_00", records.extent(PREFIX, 40, 3)
    old = {"epoch": 1, "step": 10, f"{PREFIX}_kid": 0.5, "other_num_images": 20} | extent
    tables.update_row(folder / "eval.csv", old)
    points = folder / f"eval_points_{PREFIX}.csv"
    points.write_text("epoch,metric,size,value\n1,kid,40,0.5\n")
    assert Checkpoint(0, 10) not in evaluate.unevaluated(run, SETTINGS)
    row = {"epoch": 1, "step": 10, f"{PREFIX}_kid": 0.25}
    records.write(folder, PREFIX, row | records.extent(PREFIX, 30, 3), (), False)
    assert [row[f"{PREFIX}_kid"] for row in table(run.workdir)] == [0.5, 0.25]
    assert points.read_text().splitlines()[1:] == ["1,kid,40,0.5,40,3"]
    records.write(folder, PREFIX, row | extent, (), False)
    assert [row[f"{PREFIX}_kid"] for row in table(run.workdir)] == [0.25, 0.25]
    assert [row["other_num_images"] for row in table(run.workdir)] == [20, None]
    assert points.read_text().splitlines()[1:] == []


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
        ("eval.csv", b"epoch,step\n1,10\n2\n", r"eval\.csv:3: 1 fields"),
    ],
)
def test_a_damaged_table_is_refused_before_the_work(
    run, evaluation, monkeypatch, name, content, message
):
    (run.workdir / "rep_00" / name).write_bytes(content)
    monkeypatch.setattr(evaluate, "generate_images", lambda *_: pytest.fail("work was done"))
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(run, Checkpoint(0, 10), evaluation)


def test_a_folder_that_cannot_be_written_is_named(run, evaluation):
    (run.workdir / "rep_00" / layout.EVALUATION_LOCK).mkdir()
    with pytest.raises(UserError, match=r"\.eval\.lock: evaluations cannot be written: Is a dir"):
        evaluate.evaluate(run, Checkpoint(0, 10), evaluation)
    (run.workdir / f"rep_01/eval_points_{PREFIX}.csv").mkdir()
    with pytest.raises(UserError, match=r"eval_points.*cannot be read"):
        evaluate.evaluate(run, Checkpoint(1, 10), evaluation)
    assert not (run.workdir / "rep_01/eval.csv").exists()


def test_programs_that_write_at_the_same_time_lose_no_row(workdir):
    folder = workdir / "rep_00"

    def write(network):
        for epoch in range(1, 16):
            row = {"epoch": epoch, "step": 10 * epoch, f"{network}_kid": float(epoch)}
            row |= records.extent(network, 40, 3)
            records.write(folder, network, row, [LinePoint("kid", 9, 1.0)], False)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = table(workdir)
    assert len(rows) == 3 * 15
    for name in "abc":
        values = [row[f"{name}_kid"] for row in rows if row[f"{name}_kid"] is not None]
        assert values == list(range(1, 16))


def test_a_checkpoint_that_vanishes_or_is_damaged_is_skipped_with_a_warning(
    run, evaluation, caplog
):
    damage(run.workdir / "rep_00/checkpoints/20")
    summaries = {}
    for checkpoint in evaluate.pending(run, SETTINGS):
        if checkpoint == Checkpoint(1, 20):
            shutil.rmtree(run.workdir / "rep_01/checkpoints/20")
        summaries[checkpoint] = evaluate.evaluate(run, checkpoint, evaluation)
    assert len(summaries) == 6
    skipped = [checkpoint for checkpoint, summary in summaries.items() if summary is None]
    assert skipped == [Checkpoint(0, 20), Checkpoint(1, 20)]
    assert "rep_01/checkpoints/20: was removed before it could be evaluated" in caplog.text
    assert "rep_00/checkpoints/20 cannot be read (" in caplog.text
    assert [row["step"] for row in table(run.workdir, 0)] == [10, 30]


def test_samples_that_are_not_finite_are_skipped_with_a_warning(run, evaluation, caplog):
    diverged = run._replace(sampler=run.sampler._replace(prior=run.sampler.prior._replace(
        step_size=float("nan")
    )))  # fmt: skip
    assert evaluate.evaluate(diverged, Checkpoint(0, 10), evaluation) is None
    assert "repetition 0, step 10: some of its samples are not finite" in caplog.text
    assert not (run.workdir / "rep_00/eval.csv").exists()


def test_checkpoints_within_an_epoch_are_left_out(run):
    for step in (10, 20):
        folder = run.workdir / f"rep_00/checkpoints/{step}"
        folder.rename(folder.with_name(str(step + 3)))
    newest = evaluate.unevaluated(run, SETTINGS, newest_only=True)
    assert newest == [Checkpoint(0, 30), Checkpoint(1, 30)]
    steps = [step for repetition, step in evaluate.unevaluated(run, SETTINGS) if repetition == 0]
    assert steps == [30]


def test_watching_ends_with_training_and_misses_nothing(run, monkeypatch):
    """Checkpoints come while another is evaluated, while waiting, and at the end of training."""
    training = iter([True] * 4 + [False] * 6)
    monkeypatch.setattr(lock, "is_held", lambda folder: next(training))
    shutil.rmtree(run.workdir / "rep_01")
    checkpoints, hidden = run.workdir / "rep_00/checkpoints", run.workdir / "hidden"
    hidden.mkdir()
    for step in ("20", "30"):
        (checkpoints / step).rename(hidden / step)
    waits = []

    def watch():
        waits.append(1)
        if len(waits) == 2:
            (hidden / "20").rename(checkpoints / "20")

    steps = []
    for checkpoint in evaluate.pending(run, SETTINGS, watch=watch):
        steps.append(checkpoint.step)
        if checkpoint.step == 20:
            (hidden / "30").rename(checkpoints / "30")
    assert steps == [10, 20, 30]
    assert len(waits) == 2


def test_real_features_are_computed_once(tmp_path):
    calls = []
    first = prepare(opened(), tmp_path, calls=calls)
    second = prepare(opened(), tmp_path, calls=calls)
    assert calls == [40]
    np.testing.assert_array_equal(first.real.features, second.real.features)
    prepare(opened(), tmp_path, SETTINGS._replace(num_images=30), calls)
    assert calls == [40, 30]
    assert len(list((tmp_path / "features").glob("*.npz"))) == 2


def test_generated_images_depend_on_the_key_and_not_on_the_batches():
    run, key = opened(), jax.random.key(5)
    params = run.params(0, 30)
    images = evaluate.generate_images(run, params, key, 20)
    batches = evaluate.generate_images(run, params, key, 20, batch_size=7)
    assert images.shape == batches.shape == (20, 8, 8, 1)
    assert np.abs(images.astype(int) - batches.astype(int)).max() <= 1  # by rounding
    assert (images != evaluate.generate_images(run, params, jax.random.key(6), 20)).mean() > 0.5


def test_the_number_of_images_is_checked_and_limited():
    config = trained_run.config()
    for changes, message in (
        ({"num_images": 41}, "num_images=41: more than the 40 validation images"),
        ({"num_images": 8, "num_sizes": 10}, "num_images: 8 images are too few"),
    ):
        with pytest.raises(UserError, match=message):
            SETTINGS._replace(**changes).extent(config)
    config.data.num_val = 10_000
    assert MetricSettings().extent(config).num_images == 4500
    assert MetricSettings(num_images=10_000).extent(config).num_images == 10_000


def test_copies_of_training_images_are_counted(workdir, tmp_path, monkeypatch):
    """A generator that draws training images: no image is authentic, and MIFID is infinite."""
    run = load_run(workdir)
    settings = SETTINGS._replace(memorization=True, cache_dir=str(tmp_path))
    evaluation = evaluate.prepare(run, settings, trained_run.quick_network())
    assert evaluation.training.features.shape == (150, 12)
    first, second, *_ = evaluate.unevaluated(run, settings)
    fresh = evaluate.evaluate(run, first, evaluation).values
    assert fresh["training_copies"] == 0
    assert fresh["mifid_training"] > 0
    assert first not in evaluate.unevaluated(run, settings)
    images = read(run.training_set())
    monkeypatch.setattr(evaluate, "generate_images", lambda *_: images[:40])
    copied = evaluate.evaluate(run, second, evaluation).values
    assert copied["training_copies"] == 40
    assert copied["authenticity"] < 0.2
    assert copied["mifid_training"] == np.inf
    # Without the columns a checkpoint counts as evaluated, with them it does not.
    third = evaluate.unevaluated(run, settings)[0]
    evaluate.evaluate(run, third, evaluation._replace(training=None))
    assert third in evaluate.unevaluated(run, settings)
    assert third not in evaluate.unevaluated(run, settings._replace(memorization=False))


def test_a_protocol_has_columns_of_its_own(workdir, tmp_path, monkeypatch):
    """Against all training images; of many images only the FID."""
    run = load_run(workdir)
    settings = MetricSettings(
        protocol="pang2020", num_sizes=3, num_images=40, cache_dir=str(tmp_path)
    ).with_protocol()
    assert settings.label() == "pang2020_inception_v3_tensorflow"
    evaluation = evaluate.prepare(run, settings, trained_run.quick_network())
    assert (len(evaluation.real.features), evaluation.num_images) == (150, 40)
    checkpoint = evaluate.unevaluated(run, settings)[0]
    evaluate.evaluate(run, checkpoint, evaluation)
    (row,) = tables.read(workdir / "rep_00/eval.csv", columns=None)
    assert {name.partition("_inception")[0] for name in row} == {"epoch", "step", "pang2020"}
    monkeypatch.setattr(protocols, "MAX_ALL_METRICS", 30)
    alone = evaluate.prepare(run, settings, trained_run.quick_network())
    assert alone.sizes == ()
    values = evaluate.evaluate(run, checkpoint, alone).values
    assert values.keys() == {"fid", "fid_stderr"}
    assert values["fid"] == pytest.approx(row["pang2020_inception_v3_tensorflow_fid"], rel=1e-6)
    assert settings._replace(num_images=0).extent(run.config).num_images == 50_000
    assert any("only the FID" in note for note in evaluate.notes(alone))


def test_protocols_that_disagree_with_a_setting_are_refused():
    for changes, message in (
        ({"protocol": "fid"}, "protocol=fid: must be one of default, pang2020"),
        ({"protocol": "clean_fid", "resize": "bilinear"}, "clean_fid has resize=antialias"),
        ({"protocol": "dgm_eval", "features": "inception_v3"}, "has features=dinov2_vitl14"),
    ):
        with pytest.raises(UserError, match=message):
            MetricSettings(**changes).with_protocol()
    for name, protocol in protocols.PROTOCOLS.items():
        settings = MetricSettings(protocol=name).with_protocol()
        assert settings.features == protocol.features or name == "default"
        assert settings.features in networks.NETWORKS
