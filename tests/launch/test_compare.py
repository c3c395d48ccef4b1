"""Comparing two sets of images: every kind of set, known answers, one line for each mistake."""

import json
import re
import shutil
import sys
import warnings
from unittest.mock import MagicMock

import numpy as np
import pytest
import trained_run
from PIL import Image
from programs import Programs

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import compare, evaluate, sets
from thermo_ebm.evaluation.evaluate import Checkpoint
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.metrics import fid, networks
from thermo_ebm.run import tables

QUICK = "use_quick_network"
FEW = "--num_sizes=4"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.close()


def pixels(num, seed=0, size=8, brightness=0):
    rng = np.random.default_rng(seed)
    return rng.integers(brightness, 200 + brightness // 4, (num, size, size, 3), dtype=np.uint8)


def write_folder(folder, images):
    """Some in subfolders; names in the images' order."""
    for number, image in enumerate(images):
        path = folder / f"part{10 * number // len(images)}" / "deep" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def settings(tmp_path, **changes):
    return MetricSettings(num_sizes=4, cache_dir=str(tmp_path / "cache"), **changes)


def compared(first, second, tmp_path, seed=0, image_size=0, **changes):
    opened = [sets.open_set(str(one), image_size=image_size) for one in (first, second)]
    return compare.compare(*opened, settings(tmp_path, **changes), seed)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(networks, "choose", lambda *arguments: trained_run.quick_network())


def test_metrics_of_equal_and_of_different_sets(tmp_path, quick):
    del quick
    folder = write_folder(tmp_path / "a", pixels(60))
    np.savez(tmp_path / "same.npz", images=pixels(60))
    np.savez(tmp_path / "bright.npz", pixels(50, 1, brightness=100))
    same = compared(folder, folder, tmp_path)
    assert {same.values[metric] for metric in compare.DISTANCES} == {0}
    assert (same.values["precision"], same.values["recall"]) == (1, 1)
    assert not any("mifid" in name for name in same.values)
    assert {name for name in same.values if name.endswith("_stderr")} == {"is_inf_stderr"}
    assert same.notes == [
        "A and B are the same images: distances are 0, without an error, and MIFID has no value"
    ]
    # A folder and an array of the same images are the same set.
    assert compared(folder, tmp_path / "same.npz", tmp_path).values == same.values
    other = compared(folder, tmp_path / "bright.npz", tmp_path)
    assert other.num_images == (60, 50)
    assert other.values["fid"] > 10 * other.values["fid_stderr"] > 0
    assert other.values["kid"] > 3 * other.values["kid_stderr"] > 0


def test_large_sets_are_subsampled_by_the_seed(tmp_path, quick):
    del quick
    np.savez(tmp_path / "a.npz", pixels(80))
    np.savez(tmp_path / "b.npz", pixels(70, 1))
    first, again, other = (
        compared(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path, num_images=75, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.num_images == (75, 70)
    assert first.values == again.values
    # The same images are drawn from a set against itself.
    itself = compared(tmp_path / "a.npz", tmp_path / "a.npz", tmp_path, num_images=75)
    assert (itself.num_images, itself.values["fid_inf"]) == ((75, 75), 0)
    assert first.values["fid"] != other.values["fid"]


def test_features_are_computed_once_and_progress_is_reported(tmp_path, monkeypatch):
    calls, reported = [], []
    monkeypatch.setattr(networks, "choose", lambda *rest: trained_run.quick_network(calls))
    np.savez(tmp_path / "a.npz", pixels(60))
    np.savez(tmp_path / "b.npz", pixels(50, 1))
    opened = [sets.open_set(str(tmp_path / name)) for name in ("a.npz", "b.npz")]
    chosen = settings(tmp_path, batch_size=5)
    first = compare.compare(*opened, chosen, report=lambda *what: reported.append(what))
    assert calls == [25, 25, 10, 25, 25]  # parts of five batches; the last has at least one
    assert reported[:3] == [(f"features of {tmp_path}/a.npz", done, 60) for done in (0, 25, 50)]
    assert reported[-1] == ("metrics", 1, 1)
    # By content, whatever the file is called.
    shutil.copy(tmp_path / "a.npz", tmp_path / "c.npz")
    third = sets.open_set(str(tmp_path / "c.npz"))
    again = compare.compare(third, opened[1], chosen)
    assert again.values == first.values
    assert (first.from_cache, again.from_cache) == ((False, False), (True, True))
    assert "c.npz (60 images; array arr_0; features from the cache)" in compare.table(again)
    compare.write_json(tmp_path / "out.json", again)
    assert json.loads((tmp_path / "out.json").read_text())["features_from_cache"] == [True, True]
    assert len(calls) == 5


def test_shared_images_are_counted_and_an_undefined_mifid_is_left_out(tmp_path, quick):
    del quick
    np.savez(tmp_path / "a.npz", images=pixels(80))
    np.savez(tmp_path / "some.npz", images=np.concatenate([pixels(80)[:7], pixels(43, 1)]))
    np.savez(tmp_path / "part.npz", images=pixels(80)[::-1][:50])
    sharing = compared(tmp_path / "a.npz", tmp_path / "some.npz", tmp_path)
    assert "7 of B's 50 images are also in A, equal in every pixel" in compare.table(sharing)
    assert sharing.values["fid_stderr"] > 0
    assert "mifid_inf" in sharing.values
    copies = compared(tmp_path / "a.npz", tmp_path / "part.npz", tmp_path)
    assert "50 of B's 50 images are also in A, equal in every pixel" in compare.table(copies)
    assert copies.values["memorization_distance"] == pytest.approx(0, abs=1e-8)
    assert copies.values["fid"] > 0
    assert not any("mifid" in name for name in copies.values)
    assert any(note.startswith("mifid: left out") for note in copies.notes)
    np.savez(tmp_path / "b.npz", images=pixels(50, 1))
    others = compared(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert not any("also in A" in note for note in others.notes)


def test_sets_of_another_size_or_without_colour_are_noted(tmp_path, quick):
    del quick
    grey = np.repeat(pixels(50, 1)[..., :1], 3, axis=-1)
    sets_of_images = {"a": pixels(60, size=16), "colour": pixels(50, 1), "grey": grey}
    for name, images in sets_of_images.items():
        np.savez(tmp_path / f"{name}.npz", images=images)
    pairs = {("a", "grey"): "A has images of 16 x 16 pixels in colour, B of 8 x 8 pixels in grey"}
    pairs["grey", "colour"] = "A has images of 8 x 8 pixels in grey, B of 8 x 8 pixels in colour"
    for (first, second), note in pairs.items():
        comparison = compared(tmp_path / f"{first}.npz", tmp_path / f"{second}.npz", tmp_path)
        assert f"note: {note}: the metrics measure this difference" in compare.table(comparison)
    comparison = compared(tmp_path / "colour.npz", tmp_path / "colour.npz", tmp_path)
    assert not any("pixels" in note for note in comparison.notes)


def test_the_bias_of_an_extrapolation_from_few_images_is_noted(tmp_path, quick):
    del quick  # 12 features
    for num, is_noted in ((41, True), (42, False)):
        np.savez(tmp_path / "a.npz", images=pixels(60))
        np.savez(tmp_path / "b.npz", images=pixels(num, 1))
        notes = compared(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path).notes
        assert any(note.startswith("fid_inf: ") for note in notes) == is_noted


def test_data_sets_are_opened_by_name_and_split(tmp_path):
    run = load_run(trained_run.original())
    held_out = sets.open_set("digits:validation")
    expected = run.validation_images()
    read = sets.read_images(held_out)
    np.testing.assert_array_equal(read[: len(expected)], np.repeat(expected, 3, axis=-1))
    assert len(read) == 297
    train = sets.open_set("digits:train")
    assert not set(train.images.indices) & set(held_out.images.indices)
    assert train.images.num == 1500
    with pytest.raises(UserError, match=r"cifar10:test: .*prepare"):
        sets.open_set("cifar10:test", str(tmp_path))


@pytest.mark.slow
def test_exported_images_of_a_run_have_the_metrics_of_its_evaluation(programs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_run.original(), workdir)
    run, folder = load_run(workdir), tmp_path / "images"
    chosen = trained_run.SETTINGS._replace(cache_dir=str(tmp_path / "cache"))
    prepared = evaluate.prepare(run, chosen, trained_run.quick_network())
    assert evaluate.evaluate(run, Checkpoint(1, 20), prepared) is not None
    command = ("sample", f"--workdir={workdir}", "--repetition=1", "--step=20", "--num=40")
    code, out, err = programs.run(*command, f"--images={folder}")
    assert (code, err) == (0, "")
    assert out == f"40 samples of repetition 1, step 20: {folder}\n"
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == [f"{number:06d}.png" for number in range(40)]
    np.savez(tmp_path / "real.npz", images=run.validation_images())
    output = tmp_path / "out.json"
    arguments = (tmp_path / "real.npz", folder, f"--json={output}", "--num_sizes=3")
    code, out, err = programs.run("compare", *arguments, before=QUICK)
    assert code == 0, err
    assert "fid_inf" in out
    found = json.loads(output.read_text())["metrics"]
    (row,) = tables.read(workdir / "rep_01/eval.csv", columns=None)
    for metric in ("fid", "kid", "kid_stderr", "precision", "recall", "density", "coverage"):
        expected = row[f"{trained_run.PREFIX}_{metric}"]
        if not metric.endswith("stderr"):
            assert found[metric] == pytest.approx(expected, rel=1e-6, abs=1e-9), metric
    # Other folders are left alone, and another seed draws others.
    code, _, err = programs.run(*command, f"--images={folder}")
    assert code == 2
    assert err == f"error: images={folder}: is not empty; choose a new folder\n"
    assert programs.run(*command, f"--images={tmp_path}/more", "--seed=1").code == 0
    first, other = (Image.open(path / "000000.png") for path in (folder, tmp_path / "more"))
    assert (np.asarray(first) != np.asarray(other)).any()


def test_statistics_give_the_fid_of_the_images(programs, tmp_path):
    np.savez(tmp_path / "a.npz", pixels(60))
    np.savez(tmp_path / "b.npz", pixels(50, 1, brightness=60))
    saved, output = tmp_path / "statistics.npz", tmp_path / "out.json"
    code, out, err = programs.run(
        "compare", tmp_path / "a.npz", f"--save_statistics={saved}", before=QUICK
    )
    assert code == 0, err
    assert out == f"statistics of {tmp_path}/a.npz: {saved}\n"
    with np.load(saved) as arrays:
        assert arrays["mu"].shape == (12,)
        assert arrays["sigma"].shape == (12, 12)
    code, out, err = programs.run(
        "compare", saved, tmp_path / "b.npz", f"--json={output}", before=QUICK
    )
    assert code == 0, err
    assert "its error and all else need the images" in out
    found = json.loads(output.read_text())
    features = [trained_run.quick_features(one) for one in (pixels(60), pixels(50, 1, 8, 60))]
    assert found["metrics"] == {"fid": pytest.approx(fid.frechet_distance(*features), rel=1e-6)}
    assert found["num_images"] == [60, 50]
    assert found["features"] == trained_run.PREFIX
    assert f"A: {saved} (statistics of 60 images)" in out


def test_statistics_of_pytorch_fid_have_its_fid(tmp_path, monkeypatch):
    """Its own functions on the same features; the files are what it writes."""
    pytest.importorskip("torch")
    for name in ("torchvision", "torchvision.transforms", "pytorch_fid.inception"):
        monkeypatch.setitem(sys.modules, name, MagicMock())  # only the network needs them
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    rng = np.random.default_rng(0)
    moments = []
    for name in ("a", "b"):
        features = rng.normal(size=(300, 20)) * rng.uniform(0.5, 2, 20)
        moments.append((features.mean(axis=0), np.cov(features, rowvar=False)))
        np.savez(tmp_path / f"{name}.npz", mu=moments[-1][0], sigma=moments[-1][1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of scipy, for its `sqrtm`
        expected = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    found = compared(tmp_path / "a.npz", tmp_path / "b.npz", tmp_path)
    assert found.values["fid"] == pytest.approx(expected, rel=1e-6)


def wrong_files(folder):
    """Files that are no sets, and what the line must say."""
    np.savez(folder / "pickled.npz", images=np.array([{}], dtype=object))
    np.savez(folder / "pickled_mu.npz", mu=np.array([{}], dtype=object), sigma=np.eye(2))
    np.savez(folder / "flat.npz", images=np.zeros((5, 8), np.uint8))
    np.savez(folder / "float.npz", images=np.zeros((5, 8, 8, 3)))
    np.savez(folder / "shapes.npz", mu=np.zeros(3), sigma=np.eye(4))
    np.savez(folder / "mu_alone.npz", mu=np.zeros(3))
    np.savez(folder / "nan.npz", mu=np.full(12, np.nan), sigma=np.eye(12))
    np.savez(folder / "skew.npz", mu=np.zeros(2), sigma=np.array([[1, 1], [0, 1.0]]))
    np.savez(folder / "width.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez(folder / "network.npz", mu=np.zeros(12), sigma=np.eye(12), network="inception_v3")
    np.savez(folder / "few.npz", images=pixels(6))
    (folder / "text.npz").write_text("no zip")
    (folder / "mixed").mkdir()
    for number, size in enumerate((8, 9, 8) * 3):
        Image.new("RGB", (size, size)).save(folder / f"mixed/{number}.png")
    (folder / "broken").mkdir()
    for number in range(9):
        (folder / f"broken/{number}.png").write_bytes(b"\x89PNG nothing")
    (folder / "empty").mkdir()
    return {
        "pickled.npz": "pickled.npz:images holds object of shape (1,)",
        "pickled_mu.npz": "pickled_mu.npz: cannot be read as .npz: Object arrays",
        "flat.npz": "holds uint8 of shape (5, 8)",
        "float.npz": "holds float64",
        "shapes.npz": "mu and sigma must be",
        "mu_alone.npz": "mu_alone.npz: cannot be read as .npz: ",
        "nan.npz": "not finite",
        "skew.npz": "sigma is not symmetric",
        "width.npz": "statistics of 2048 features",
        "network.npz": "made with the features of inception_v3, not of efficientnet_lite0",
        "few.npz": "few.npz: 6 images are too few",
        "text.npz": "text.npz",
        "mixed": "image_size=N crops",
        "broken": "cannot read 9 images",
        "empty": "no images",
        "nowhere": "no such folder or file, and no data set with its split",
        "mnist:train": "no such folder or file, and no data set with its split",
        "cifar10": "no such folder or file, and no data set with its split",
    }


def test_sets_that_cannot_be_compared_are_named_in_one_line(tmp_path, quick):
    del quick
    np.savez(tmp_path / "good.npz", images=pixels(40))
    for name, message in wrong_files(tmp_path).items():
        path = tmp_path / name
        with pytest.raises(UserError) as caught:
            compared(tmp_path / "good.npz", path if path.exists() else name, tmp_path)
        assert message in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_three_sets_are_compared_in_pairs(tmp_path, quick):
    del quick
    np.savez(tmp_path / "real.npz", pixels(60))
    np.savez(tmp_path / "near.npz", pixels(50, 1))
    np.savez(tmp_path / "far.npz", pixels(70, 2, brightness=150))
    opened = [sets.open_set(str(tmp_path / f"{name}.npz")) for name in ("real", "near", "far")]
    result = compare.compare_candidates(opened[0], opened[1:], settings(tmp_path))
    assert [comparison.num_images for comparison in result.sets] == [(60, 50), (60, 50)]
    assert result.notes == [
        "50 images are drawn from B: metrics depend on the number of images, and sets are compared "
        "with equal numbers"
    ]
    # The first set has the metrics that it has alone.
    alone = compared(*(image_set.name for image_set in opened[:2]), tmp_path)
    assert result.sets[0].values == alone.values
    assert result.sets[0].notes == alone.notes
    rows = {row.metric: row for row in result.differences}
    near, far = (comparison.values["fid"] for comparison in result.sets)
    assert rows["fid"].value == pytest.approx(near - far)
    assert (rows["fid"].first, rows["fid"].second, rows["fid"].verdict) == ("A", "B", "better")
    text = compare.table_of_differences(result)
    assert "A is better than B" in text
    letters = {line[0] for line in text.splitlines() if line[1:3] == ": "}
    assert letters == {"R", "A", "B"}
    compare.write_differences(tmp_path / "out.json", result)
    content = json.loads((tmp_path / "out.json").read_text())
    assert {row["first"] for row in content["differences"]} == {opened[1].name}
    assert [content_of_set["b"] for content_of_set in content["sets"]] == [
        opened[1].name,
        opened[2].name,
    ]
    # A set that holds the reference's images has no differences; equal sets are named.
    result = compare.compare_candidates(
        opened[0], [opened[0]._replace(name="copy"), opened[2]], settings(tmp_path)
    )
    assert result.differences == []
    text = compare.table_of_differences(result)
    assert "note: R and A are the same images" in text  # among three sets
    result = compare.compare_candidates(
        opened[0], [opened[1], opened[1]._replace(name="copy")], settings(tmp_path)
    )
    assert "A and B are the same images" in result.notes
    assert {row.value for row in result.differences} == {0}
    assert {row.verdict for row in result.differences} == {"undecided"}


def test_wrong_commands_are_one_line_and_code_2(programs, tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, images=pixels(40))
    cases = [
        ([good], "one set of images: name two or more, or one alone with --save_statistics=FILE"),
        ([good, good, good], "3 sets of images"),
        ([good, "nowhere"], "no such folder or file, and no data set with its split"),
        ([good, good, "--num_images=-1"], "--num_images=-1: must be 0 or a positive integer"),
        ([good, good, "--num_sizes=2"], "--num_sizes=2: must be an integer of at least 3"),
        ([good, good, "--features=vgg"], "features=vgg: must be one of"),
        ([good, good, "--features=no_such:net"], "no_such cannot be imported (ModuleNotFoundError"),
        ([good, good, "--json=/dev/null/x"], "--json=/dev/null/x: there is no folder /dev"),
        (
            [good, f"--save_statistics={tmp_path}/new/x"],
            f"no folder {tmp_path}/new; create",
        ),
        ([good, f"--save_statistics={tmp_path}"], "must be a file, and is a folder"),
        (
            [good, "cifar10:train", "--data_dir=/nowhere"],
            "here and set data_dir=DIR",
        ),
    ]
    processes = [programs.start("compare", FEW, *argv, before=QUICK) for argv, _ in cases]
    for process, (argv, message) in zip(processes, cases, strict=True):
        code, out, err = process.wait()
        lines = [line for line in err.splitlines() if not re.match(r"(features of|metrics)", line)]
        assert (code, out) == (2, ""), (argv, out, err)
        assert len(lines) == 1, (argv, err)
        assert lines[0].startswith("error: "), (argv, err)
        assert message in lines[0], (argv, err)


def test_image_size_crops_and_resizes_images_of_mixed_sizes(tmp_path, quick):
    del quick
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, shape in enumerate([(8, 8), (12, 9), (30, 40)] * 14):
        grey = np.full(shape, number, np.uint8)
        Image.fromarray(grey).convert("LA" if number % 2 else "L").save(
            folder / f"{number:02d}.png"
        )
    read = sets.read_images(sets.open_set(str(folder), image_size=8))
    assert read.shape == (42, 8, 8, 3)
    assert (read == np.arange(42)[:, None, None, None]).all()
    assert compared(folder, folder, tmp_path, image_size=8).num_images == (42, 42)


USER_MODULE = """
import numpy as np

def features(images):
    means = images.mean(axis=(1, 2)) / 255
    return np.concatenate([means, means**2], axis=1)

def with_logits(images):
    return features(images), features(images)[:, :3]

def fails(images):
    raise RuntimeError("out of ideas")

def counts(images):
    return images.mean(axis=(1, 2)).astype(int)
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    name = f"own_network_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


def test_a_user_network_has_its_label_and_gives_the_metrics(user_module, tmp_path):
    np.savez(tmp_path / "a.npz", pixels(60))
    np.savez(tmp_path / "b.npz", pixels(50, 1, brightness=50))
    pair = tmp_path / "a.npz", tmp_path / "b.npz"
    plain = compared(*pair, tmp_path, features=f"{user_module}:features")
    label = plain.features
    assert re.fullmatch("features_[0-9a-f]{8}", label)
    assert "is_inf" not in plain.values
    assert "is_inf: this network has no logits" in plain.notes
    means = [one.mean(axis=(1, 2)) / 255 for one in (pixels(60), pixels(50, 1, brightness=50))]
    features = [np.concatenate([one, one**2], axis=1) for one in means]
    assert plain.values["fid"] == pytest.approx(fid.frechet_distance(*features), rel=1e-6)
    both = compared(*pair, tmp_path, features=f"{user_module}:with_logits")
    assert both.values["fid"] == pytest.approx(plain.values["fid"])
    assert "is_inf" in both.values
    # Another source is another label.
    (tmp_path / "other.py").write_text(USER_MODULE + "\n# changed\n")
    assert networks.label("other:features") != label


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", r"the function failed \(RuntimeError: out of ideas\)"),
        ("counts", "features of 60 images must be floating-point"),
        ("absent", "has no function absent"),
    ],
)
def test_errors_of_a_user_network_name_it(user_module, tmp_path, function, message):
    np.savez(tmp_path / "a.npz", pixels(60))
    spec = f"{user_module}:{function}"
    with pytest.raises(UserError, match=f"features={spec}: .*{message}") as caught:
        compared(tmp_path / "a.npz", tmp_path / "a.npz", tmp_path, features=spec)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="own network gets images at their own size"):
        networks.choose(spec, "antialias")


def test_a_run_is_evaluated_with_a_user_network(user_module, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_run.original(), workdir)
    run = load_run(workdir)
    chosen = trained_run.SETTINGS._replace(
        cache_dir=str(tmp_path / "cache"), features=f"{user_module}:features"
    )
    prepared = evaluate.prepare(run, chosen, chosen.choose_network())
    one = Checkpoint(0, 10)
    assert one in evaluate.unevaluated(run, chosen)
    assert evaluate.evaluate(run, one, prepared) is not None
    assert one not in evaluate.unevaluated(run, chosen)
    (row,) = tables.read(workdir / "rep_00/eval.csv", columns=None)
    assert row[f"{networks.label(chosen.features)}_fid"] > 0


def test_the_example_with_pytorch(tmp_path):
    pytest.importorskip("torch")
    np.savez(tmp_path / "a.npz", pixels(60))
    np.savez(tmp_path / "b.npz", pixels(50, 1, brightness=100))
    found = compared(
        tmp_path / "a.npz",
        tmp_path / "b.npz",
        tmp_path,
        features="examples.own_network:features",
    )
    assert re.fullmatch("features_[0-9a-f]{8}", found.features)
    assert found.values["kid"] > 0
