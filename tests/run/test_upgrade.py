"""Configurations of earlier versions are read as today's; those of later ones are refused."""

import importlib
import json

import pytest
from ml_collections import ConfigDict

from thermo_ebm.errors import UserError
from thermo_ebm.fields import flatten, get
from thermo_ebm.run import configuration, layout, upgrade

NEW = {"sampler.added_later": 1, "new_group.field": "as before", "seed_of_data": 0}


@pytest.fixture
def config():
    return importlib.import_module("configs.digits").get_config()


@pytest.fixture
def added(monkeypatch):
    """As if the fields in NEW came with this version."""
    monkeypatch.setattr(upgrade, "ADDED", upgrade.ADDED | NEW)


def store(folder, fields, **changes):
    (folder / "config.json").write_text(json.dumps(fields | changes))
    (folder / "rep_00").mkdir(exist_ok=True)


def with_new_fields(config):
    made = ConfigDict(config.to_dict())
    for field, value in NEW.items():
        group, _, name = field.rpartition(".")
        if group and group not in made:
            made[group] = ConfigDict()
        (made[group] if group else made)[name] = value
    return made


def test_a_configuration_is_written_with_its_version_and_read_without(tmp_path, config):
    configuration.write_config(tmp_path, configuration.as_json(config))
    stored = json.loads((tmp_path / layout.CONFIG).read_text())
    assert stored.pop("version") == upgrade.VERSION == 2
    assert stored == configuration.read_config(tmp_path) == configuration.as_json(config)


@pytest.mark.parametrize("version", [{}, {"version": 1}])
def test_fields_that_came_later_are_as_before(tmp_path, config, added, version):
    store(tmp_path, configuration.as_json(config), **version)
    found = configuration.read_config(tmp_path)
    assert {field: get(found, field) for field in NEW} == NEW
    assert flatten(found) == flatten(configuration.as_json(config)) | NEW
    # The same command continues; another value of the new field is a change like any other.
    asked = with_new_fields(config)
    assert configuration.check_config(tmp_path, asked) == []
    asked.sampler.added_later = 2
    with pytest.raises(UserError, match=r"sampler\.added_later"):
        configuration.check_config(tmp_path, asked)


def test_a_new_field_that_is_there_stays(tmp_path, config, added):
    fields = configuration.as_json(with_new_fields(config))
    fields["sampler"]["added_later"] = 5
    store(tmp_path, fields)
    assert get(configuration.read_config(tmp_path), "sampler.added_later") == 5


def test_fields_that_went_are_left_out(tmp_path, config, monkeypatch):
    monkeypatch.setattr(upgrade, "REMOVED", {"loss.gone": "loss.name", "gone": "seed"})
    fields = configuration.as_json(config)
    fields["loss"]["gone"] = 3
    store(tmp_path, fields, gone=4)
    assert configuration.read_config(tmp_path) == configuration.as_json(config)


def test_a_value_that_went_is_what_does_the_same_today(tmp_path, config):
    fields = configuration.as_json(config)
    fields["loss"] |= {"schedule": "linear", "power": 6.0}
    store(tmp_path, fields)
    loss = configuration.read_config(tmp_path)["loss"]
    assert (loss["schedule"], loss["power"]) == ("power", 1.0)
    config.loss.schedule = "linear"
    asked = upgrade.with_todays_values(config)
    assert (asked.loss.schedule, asked.loss.power) == ("power", 1.0)
    assert configuration.check_config(tmp_path, asked) == []


@pytest.mark.parametrize(("shown", "names"), [(True, ["csv", "tensorboard"]), (False, ["csv"])])
def test_the_field_that_writers_replaced_is_read_as_writers(tmp_path, config, shown, names):
    fields = configuration.as_json(config)
    fields["logging"] = {"tensorboard": shown}
    store(tmp_path, fields)
    assert configuration.read_config(tmp_path)["logging"] == {"writers": names}


@pytest.mark.parametrize(
    ("version", "message"),
    [(3, "written by a later version of this program"), ("two", "its version is 'two'")],
)
def test_what_this_version_cannot_know_is_refused_in_one_line(tmp_path, config, version, message):
    store(tmp_path, configuration.as_json(config), version=version)
    with pytest.raises(UserError, match=message) as error:
        configuration.check_config(tmp_path, config)
    assert str(error.value).startswith(f"{tmp_path / layout.CONFIG}: ")
    assert "\n" not in str(error.value)


def test_a_damaged_group_is_named(tmp_path, config, added):
    store(tmp_path, configuration.as_json(config), new_group=3)
    with pytest.raises(UserError, match="new_group is not a group of fields"):
        configuration.read_config(tmp_path)


def test_a_file_of_another_program_gets_no_fields(tmp_path, added):
    assert upgrade.upgrade({"model": {}, "sampler": 3}, "") == {"model": {}, "sampler": 3}


def test_added_fields_do_not_rename_cells_of_a_sweep(config, added):
    from thermo_ebm.sweep.cells import make_cells

    change = {"loss.power": 2.5}
    (before,), (after,) = (
        make_cells(config, [change]),
        make_cells(with_new_fields(config), [change]),
    )
    assert before.name == after.name
    changed = with_new_fields(config)
    changed.sampler.added_later = 2
    (other,) = make_cells(changed, [change])
    assert other.name != before.name
