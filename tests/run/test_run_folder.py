"""The run's folder: configurations held against each other, and versions."""

import ast
import errno
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run import configuration, layout, lock, provenance, records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config():
    config = importlib.import_module("configs.base").get_config()
    config.loss.power = 6.0
    return config


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


DEVICE = provenance.Device("cpu", "cpu")
MEANS, VALIDATION = [0.0, 17.25, 200.0], [50.0, 60.0]


def start(folder, config, means=MEANS, validation=VALIDATION, epoch=0, step=0):
    levels = provenance.ImageLevels(means, validation)
    provenance.record_start(folder, config, levels, DEVICE, (epoch, step))


def check_images(folder, means=MEANS, validation=VALIDATION):
    provenance.check_images(folder, provenance.ImageLevels(means, validation))


def begin(folder, config):
    """A run that has begun: until a repetition has, its configuration binds nobody."""
    configuration.check_config(folder, config)
    start(folder, config)
    (folder / "rep_00").mkdir()


def test_config_json_of_a_new_folder_is_exact(tmp_path, config):
    workdir = tmp_path / "a" / "b"
    assert configuration.check_config(workdir, config) == []
    assert not list(workdir.iterdir())
    start(workdir, config)
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["optimizer"]["prior"]["learning_rate"] == 2e-5
    assert stored["model"]["generator"]["strides"] == [1, 2, 2, 2, 1]
    assert stored.pop("version") == 3
    assert stored == configuration.read_config(workdir) == configuration.as_json(config)


def test_the_same_configuration_changes_nothing(tmp_path, config):
    begin(tmp_path, config)
    before = (tmp_path / "config.json").stat().st_mtime_ns
    assert configuration.check_config(tmp_path, config) == []
    start(tmp_path, config)
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_free_fields_may_change_and_are_written(tmp_path, config):
    begin(tmp_path, config)
    before = snapshot(tmp_path)
    config.num_epochs = 60
    config.data.data_dir = "elsewhere"
    config.logging.pictures_every_epochs = 7
    changed = configuration.check_config(tmp_path, config)
    assert changed == [
        ("data.data_dir", "", "elsewhere"),
        ("logging.pictures_every_epochs", 5, 7),
        ("num_epochs", 50, 60),
    ]
    assert snapshot(tmp_path) == before
    start(tmp_path, config)
    assert configuration.read_config(tmp_path) == configuration.as_json(config)


def test_other_changes_are_refused_with_a_table(tmp_path, config):
    begin(tmp_path, config)
    before = snapshot(tmp_path)
    config.num_epochs = 60
    config.loss.power = 3.0
    config.model.generator.widths = (8, 4)
    with pytest.raises(UserError) as error:
        configuration.check_config(tmp_path, config)
    lines = str(error.value).split("\n")
    assert [line.split(maxsplit=1) for line in lines[2:4]] == [
        ["loss.power", "6.0            3.0"],
        ["model.generator.widths", "[16, 8, 4, 2]  [8, 4]"],
    ]
    assert (
        lines[-1] == "Use another folder: model.generator.widths cannot change in an existing run"
    )
    assert "num_epochs" not in str(error.value)
    assert snapshot(tmp_path) == before


def test_fixed_fields_never_change(tmp_path, config):
    begin(tmp_path, config)
    before = snapshot(tmp_path)
    config.batch_size = 25
    with pytest.raises(UserError, match="batch_size cannot change in an existing run"):
        configuration.check_config(tmp_path, config, allow=["batch_size"])
    assert snapshot(tmp_path) == before


def test_config_json_of_another_program_is_left_alone(tmp_path, config):
    (tmp_path / "config.json").write_text('{"architectures": ["Other"], "model": {}}')
    before = snapshot(tmp_path)
    with pytest.raises(
        UserError, match=r"config\.json: not the configuration of a run; choose another folder"
    ):
        configuration.check_config(tmp_path, config)
    assert snapshot(tmp_path) == before


def test_allowed_changes_are_accepted(tmp_path, config):
    begin(tmp_path, config)
    config.loss.power = 3.0
    config.loss.quadrature = "right"
    with pytest.raises(UserError, match=r"loss\.quadrature"):
        configuration.check_config(tmp_path, config, allow=["loss.power"])
    changed = configuration.check_config(tmp_path, config, allow=["loss"])
    assert [difference.field for difference in changed] == ["loss.power", "loss.quadrature"]
    start(tmp_path, config)
    assert configuration.check_config(tmp_path, config) == []


def test_every_accepted_change_is_recorded_with_its_epoch_and_step(tmp_path, config):
    begin(tmp_path, config)
    start(tmp_path, config, epoch=1, step=160)
    assert not (tmp_path / layout.CHANGES).exists()
    config.loss.power, config.num_epochs = 3.0, 60
    start(tmp_path, config, epoch=2, step=330)
    first = [
        {"epoch": 2, "step": 330, "field": "loss.power", "old": 6.0, "new": 3.0},
        {"epoch": 2, "step": 330, "field": "num_epochs", "old": 50, "new": 60},
    ]
    assert json.loads((tmp_path / layout.CHANGES).read_text()) == first
    start(tmp_path, config, epoch=3, step=480)  # nothing changed
    config.loss.power = 6.0
    start(tmp_path, config, epoch=4, step=640)
    back = {"epoch": 4, "step": 640, "field": "loss.power", "old": 3.0, "new": 6.0}
    assert json.loads((tmp_path / layout.CHANGES).read_text()) == [*first, back]
    assert records.read_changes(tmp_path)[-1] == (4, 640, "loss.power", 3.0, 6.0)


def test_a_change_whose_start_was_killed_is_recorded_once(tmp_path, config, monkeypatch):
    begin(tmp_path, config)
    config.loss.power = 3.0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "write_config", killed)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, config, epoch=2, step=330)
    start(tmp_path, config, epoch=2, step=330)
    assert len(records.read_changes(tmp_path)) == 1


def test_a_damaged_record_of_changes_is_named_and_left(tmp_path, config):
    begin(tmp_path, config)
    config.loss.power = 3.0
    for content in ("{}x", "3", '[{"epoch": 1}]', '["x"]', "[[1]]"):
        (tmp_path / layout.CHANGES).write_text(content)
        before = snapshot(tmp_path)
        with pytest.raises(UserError, match=r"changes\.json: "):
            start(tmp_path, config, epoch=2, step=330)
        assert snapshot(tmp_path) == before


def test_configuration_binds_once_a_repetition_has_begun(tmp_path, config):
    start(tmp_path, config)
    config.loss.power = 3.0
    assert configuration.check_config(tmp_path, config) == []
    start(tmp_path, config, [1.0, 2.0])
    assert configuration.read_config(tmp_path)["loss"]["power"] == 3.0


def test_allow_config_change_must_name_a_field(tmp_path, config):
    with pytest.raises(UserError, match=r"loss\.pwoer: there is no such field"):
        configuration.check_config(tmp_path, config, allow=["loss.pwoer"])
    with pytest.raises(UserError, match="allow_config_change=los:"):
        configuration.check_config(tmp_path, config, allow=["los"])


def test_absent_fields_have_their_defaults_and_unknown_fields_are_refused(tmp_path, config):
    begin(tmp_path, config)
    stored = configuration.read_config(tmp_path)
    del stored["batch_size"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert configuration.check_config(tmp_path, config) == []
    config.batch_size = 25
    with pytest.raises(UserError, match=r"batch_size +75 +25"):
        configuration.check_config(tmp_path, config)
    config.batch_size = 75
    stored["loss"]["unknown"] = 1
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"loss\.unknown +1 +\(absent\)"):
        configuration.check_config(tmp_path, config)


@pytest.mark.parametrize(("amplification", "expected"), [(1.0, "plain"), (4.0, "amplified")])
def test_runs_without_the_field_keep_the_second_moment_that_they_had(
    tmp_path, config, amplification, expected
):
    config.gradient_noise.amplification = amplification
    begin(tmp_path, config)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["gradient_noise"]["second_moment"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    complete = configuration.read_config(tmp_path)
    assert complete["gradient_noise"]["second_moment"] == expected


def test_configurations_of_other_versions_are_refused_in_one_line(tmp_path, config):
    begin(tmp_path, config)
    stored = json.loads((tmp_path / "config.json").read_text())
    for version in (2, 4, "x"):
        (tmp_path / "config.json").write_text(json.dumps(stored | {"version": version}))
        with pytest.raises(UserError) as error:
            configuration.read_config(tmp_path)
        assert str(error.value) == (
            f"{tmp_path / 'config.json'}: its fields have version {version!r}, this program reads "
            "version 3"
        )


def test_a_damaged_configuration_is_named_and_left(tmp_path, config):
    begin(tmp_path, config)
    for content in (b"", b'{"seed": ', b"[1, 2]", b"\xff\xfe\x00"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"config\.json"):
            configuration.check_config(tmp_path, config)
        assert (tmp_path / "config.json").read_bytes() == content


def test_other_images_are_refused_and_nothing_is_written(tmp_path, config):
    start(tmp_path, config, [1.0])
    check_images(tmp_path)  # no repetition has begun
    begin(tmp_path, config)
    check_images(tmp_path, [0.1, 17.5, 199.0])  # another version of the decoder
    before = snapshot(tmp_path)
    with pytest.raises(
        UserError, match=r"not those that the run was started with \(1 of 3 mean levels"
    ):
        check_images(tmp_path, [0.0, 21.0, 200.0])
    with pytest.raises(
        UserError, match=r"not those that the run was started with \(0 of 2 mean levels"
    ):
        check_images(tmp_path, MEANS[:2])
    assert snapshot(tmp_path) == before
    (tmp_path / "images.json").unlink()
    check_images(tmp_path, MEANS[:2])
    start(tmp_path, config, [0.0, 21.0, 200.0])
    with pytest.raises(UserError, match="not those"):
        check_images(tmp_path)
    (tmp_path / "images.json").write_text('{"odd": 1}')
    with pytest.raises(UserError, match=r"images\.json: not a list"):
        check_images(tmp_path)


def test_other_validation_images_are_refused_as_training_images_are(tmp_path, config):
    begin(tmp_path, config)
    before = snapshot(tmp_path)
    check_images(tmp_path, validation=[50.5, 59.0])
    with pytest.raises(UserError, match=r"its validation images are not those .*\(1 of 2 mean"):
        check_images(tmp_path, validation=[50.0, 90.0])
    assert snapshot(tmp_path) == before
    # A run of a version that kept no record of them goes on, and keeps one from then on.
    (tmp_path / layout.VALIDATION_IMAGES).unlink()
    check_images(tmp_path, validation=[1.0, 2.0])
    start(tmp_path, config, validation=[1.0, 2.0])
    with pytest.raises(UserError, match="validation images are not those"):
        check_images(tmp_path)


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_full_disk_at_the_record_leaves_a_folder_that_can_continue(
    tmp_path, config, monkeypatch, room
):
    """Room for so many files of it; so does a kill between two of them."""
    written, write_json = [], files.write_json

    def full(path, value):
        if len(written) == room:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", full)
        with pytest.raises(UserError, match=r"No space left on device\); .* make room"):
            start(tmp_path, config)
    with lock.hold(tmp_path):
        assert configuration.check_config(tmp_path, config) == []
        start(tmp_path, config)
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "config.json",
        "images.json",
        "validation_images.json",
        "versions.json",
    }


def test_folders_of_other_programs_are_refused(tmp_path, config):
    (tmp_path / "thesis.tex").write_text("years of work")
    for use in (
        lambda: configuration.check_config(tmp_path, config),
        lock.hold(tmp_path).__enter__,
    ):
        with pytest.raises(UserError, match="neither empty nor a run directory"):
            use()
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(UserError, match="the folder cannot be created"):
        configuration.check_config(tmp_path / "thesis.tex", config)
    with pytest.raises(UserError, match="not a run directory"):
        configuration.read_config(tmp_path)


def test_repetition_folders_are_numbered(tmp_path):
    folders = [layout.repetition_dir(tmp_path, number) for number in (0, 11, 100)]
    assert [folder.name for folder in folders] == ["rep_00", "rep_11", "rep_100"]
    for folder in (*folders, tmp_path / "rep_0x"):
        folder.mkdir()
    assert layout.repetitions(tmp_path) == [0, 11, 100]


def test_records_are_read_back_and_damage_is_named(tmp_path):
    assert records.read_best(tmp_path) is None
    assert records.read_rollbacks(tmp_path) == ()
    best = records.Best("kid", "inception", 100, 5, 0.25, None, 20, "checkpoints/20")
    (tmp_path / layout.BEST).mkdir()
    records.write_best(tmp_path, best)
    assert records.read_best(tmp_path) == best
    rollbacks = (records.Rollback(16, 12, 1), records.Rollback(20, 12, 2))
    records.write_rollbacks(tmp_path, rollbacks)
    assert records.read_rollbacks(tmp_path) == rollbacks
    for content in ("3", "[1]", '[{"from_step": 1}]', "{"):
        (tmp_path / layout.ROLLBACKS).write_text(content)
        with pytest.raises(UserError, match=r"rollbacks\.json: "):
            records.read_rollbacks(tmp_path)
    (tmp_path / layout.BEST / layout.BEST_RECORD).write_text('{"metric": "kid"}')
    with pytest.raises(UserError, match=r"best\.json: not a record"):
        records.read_best(tmp_path)


def test_images_are_identified_by_mean_levels_of_quarters():
    images = np.random.default_rng(0).integers(0, 256, (131, 4, 4, 3), np.uint8)
    numbers = provenance.sample_numbers(131)
    assert (numbers[0], numbers[-1], len(numbers)) == (0, 130, 64)
    assert provenance.sample_numbers(5).tolist() == [0, 1, 2, 3, 4]
    levels = np.reshape(provenance.mean_levels(images[numbers]), (64, 2, 2, 3))
    np.testing.assert_allclose(levels[0, 0, 1], images[0, :2, 2:].mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(levels[-1, 1, 0], images[130, 2:, :2].mean((0, 1)), rtol=1e-6)
    odd = np.reshape(provenance.mean_levels(images[4:5, :3, :3]), (2, 2, 3))
    np.testing.assert_allclose(odd[1, 1], images[4, 1:3, 1:3].mean((0, 1)), rtol=1e-6)
    single = np.reshape(provenance.mean_levels(images[:1, :1, :1]), (2, 2, 3))
    np.testing.assert_array_equal(single[1, 0], images[0, 0, 0])


def string_constants(path):
    """The strings in a module, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_names_of_files_stand_in_the_layout_alone():
    names = {
        value
        for name, value in vars(layout).items()
        if name.isupper() and isinstance(value, str) and "." in value
    }
    assert {"config.json", "readings.csv", "eval.csv", "best.json"} <= names
    for package in ("thermo_ebm", "study", "launch"):
        for path in (ROOT / package).rglob("*.py"):
            if path != Path(layout.__file__):
                assert not string_constants(path) & names, path


def test_versions_of_libraries_and_devices_are_recorded(tmp_path):
    import jax

    assert provenance.write_versions(tmp_path, DEVICE) == []
    stored = json.loads((tmp_path / "versions.json").read_text())
    assert stored["jax"] == jax.__version__
    assert stored["numpy"] == np.__version__
    assert stored["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stored["thermo_ebm"][0].isdigit()
    assert configuration.ABSENT not in stored.values()
    assert provenance.write_versions(tmp_path, provenance.Device("gpu", "H100")) == [
        ("backend", "cpu", "gpu"),
        ("device_kind", "cpu", "H100"),
    ]
    (tmp_path / "versions.json").write_text("damaged")
    assert provenance.write_versions(tmp_path, DEVICE) == []
