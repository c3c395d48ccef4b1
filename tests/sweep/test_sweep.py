"""Sweeps: names that distinguish cells, the status of a cell, and a trained and evaluated cell."""

import contextlib
import importlib
import itertools
import shutil

import pytest
import trained_run
from ml_collections import ConfigDict
from trained_run import SETTINGS, config, damage

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import evaluate, trained
from thermo_ebm.metrics import networks
from thermo_ebm.run import configuration, lock
from thermo_ebm.sweep import cells
from thermo_ebm.sweep.cells import Cell, Status
from thermo_ebm.train import loop
from thermo_ebm.train.loop import Outcome


def name_of(change, base=None):
    (cell,) = cells.make_cells(base or config(), [change])
    return cell.name


def other_value(field, value):
    """A value of the same type, and not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, 1]
    return {"str": f"{value}x"}.get(type(value).__name__) or value + 1


def fields():
    return configuration.flatten(configuration.as_json(config()))


def test_every_field_of_a_cell_is_in_its_name_but_those_that_may_change():
    """Each field is changed in turn, alone and under an equal change of another field."""
    for change in ({}, {"loss.power": 9.0}):
        names = {"none": name_of(change)}
        for field, value in fields().items():
            if field in change:
                continue
            names[field] = name_of(change | {field: other_value(field, value)})
        free = {field for field in names if configuration.is_free(field)}
        assert {"num_epochs", "checkpoint.keep", "data.data_dir"} <= free
        assert {names[field] for field in free} == {names["none"]}
        computed = [name for field, name in names.items() if field not in free]
        assert len(set(computed)) == len(computed) > 30


def test_the_base_counts_as_much_as_the_change():
    one, other = config(), config()
    other.optimizer.clip_norm = 1.0
    assert name_of({"loss.power": 2.0}, one) != name_of({"loss.power": 2.0}, other)
    other.optimizer.clip_norm = 0.0
    other.num_epochs = 17
    assert name_of({"loss.power": 2.0}, one) == name_of({"loss.power": 2.0}, other)


def test_an_int_for_a_float_is_the_same_cell():
    assert name_of({"loss.power": 2}) == name_of({"loss.power": 2.0})


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({}, "digits_"),
        ({"loss.power": 3.0, "num_repetitions": 5}, "digits_power=3.0_"),
        ({"sampler.prior.num_steps": 5}, "digits_prior.num_steps=5_"),
        ({"sampler.posterior.num_steps": 5}, "digits_posterior.num_steps=5_"),
        ({"loss.name": "vanilla", "data.data_dir": "/data/x"}, "digits_loss.name=vanilla_"),
        ({"model.generator.widths": (3, 1)}, "digits_widths=-3-1-_"),
        ({"data.name": "../a b/c"}, "..-a-b-c_data.name=..-a-b-c_"),
    ],
)
def test_names_can_be_read_and_are_folders(change, start):
    name = name_of(change)
    assert name.startswith(start)
    assert len(name) == len(start) + 8
    assert "/" not in name
    assert " " not in name


def test_a_long_name_stays_a_file_system_s():
    name = name_of({"data.name": "x" * 300})
    assert len(name) < 200
    assert name != name_of({"data.name": "x" * 301})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "experiment: has no cells"),
        ([{}, {"loss.pwoer": 1.0}], r"no field loss.pwoer; did you mean loss\.power\?"),
        ([{"loss": {"power": 1.0}}], 'loss is a group of fields; name each: ."loss.power": '),
        ([{"model": 3}], 'model is a group of fields; name each: ."model'),
        ([{"batch_size": 2.5}], "experiment: .*batch_size"),
        ([{"batch_size": "many"}], "experiment: .*batch_size"),
        ([3], "a cell is a dict of fields and values, not 3"),
        ([{}, {"loss.power": 1.0}, {"loss.power": 1}], "cells 2 and 3 are the same run, digits_"),
        ([{}, {"num_epochs": 7}], "cells 1 and 2 are the same run, digits_"),
    ],
)
def test_bad_cells(changes, message):
    with pytest.raises(UserError, match=message):
        cells.make_cells(config(), changes)


def test_a_cell_leaves_the_base_alone():
    base = config().lock()
    (cell,) = cells.make_cells(base, [{"loss.power": 0.1}])
    assert cell.config.loss.power == 0.1
    assert base.loss.power == config().loss.power


def experiment(name, data):
    base = importlib.import_module(f"configs.{data}").get_config()
    get_cells = importlib.import_module(f"configs.{name}").get_cells
    changes = get_cells(base) if name == "experiment2" else get_cells()
    return cells.make_cells(base, changes)


@pytest.mark.parametrize("data", ["digits", "cifar10", "svhn", "celeb_a", "folder"])
@pytest.mark.parametrize("name", ["experiment1", "experiment2", "study"])
def test_the_experiments_go_with_all_data(name, data):
    from thermo_ebm.config import checks

    reference = importlib.import_module("configs.base").get_config()
    cells = experiment(name, data)
    for cell in cells:
        checks.check(cell.config, reference)
    assert len(cells) == {"experiment1": 11, "experiment2": 7, "study": 34}[name]


def test_experiment_1_is_the_paper_s():
    cells = [cell.config for cell in experiment("experiment1", "cifar10")]
    vanilla = [one.batch_size for one in cells if one.loss.name == "vanilla"]
    thermodynamic = [one for one in cells if one.loss.name == "thermodynamic"]
    assert vanilla == [25, 50, 75, 150]
    assert [one.loss.power for one in thermodynamic] == [0.1, 0.3, 1, 2, 3, 6, 10]
    assert {one.batch_size for one in thermodynamic} == {75}
    assert {one.num_repetitions for one in cells} == {5}


def test_experiment_2_is_the_paper_s_on_its_data():
    cells = [cell.config for cell in experiment("experiment2", "celeb_a")]
    assert {(one.loss.power, one.num_repetitions, one.batch_size) for one in cells} == {
        (0.1, 3, 75)
    }
    found = [
        (
            one.loss.num_temperatures,
            one.sampler.posterior.num_steps,
            one.sampler.prior.num_steps,
            one.loss.kl_weight,
        )
        for one in cells
    ]
    assert found == [
        (10, 20, 60, 1),
        (20, 20, 60, 1),
        (30, 20, 60, 1),
        (10, 40, 60, 1),
        (10, 20, 80, 1),
        (10, 20, 60, 2),
        (10, 20, 60, 4),
    ]


@pytest.fixture
def trained_cell(workdir):
    """The trained run as a cell: its root and itself."""
    (cell,) = cells.make_cells(config(), [{}])
    workdir.rename(workdir.with_name(cell.name))
    return workdir.parent, cell


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Settings of an evaluation that costs nothing."""
    monkeypatch.setattr(networks, "choose", lambda *rest: trained_run.quick_network())
    return SETTINGS._replace(cache_dir=str(tmp_path / "cache"))


def evaluate_cell(root, cell, settings):
    run = trained.open_run(root / cell.name)
    prepared = evaluate.prepare(run, settings, trained_run.quick_network())
    for one in evaluate.todo(run, settings, newest_only=True):
        evaluate.evaluate(run, one, prepared)


def test_status(trained_cell, quick):
    root, cell = trained_cell
    assert cells.status(root, Cell("another", cell.config), quick) is Status.WAITING
    assert cells.status(root, cell, quick) is Status.WAITING  # not evaluated
    with lock.hold(root / cell.name):
        assert cells.status(root, cell, quick) is Status.RUNNING
    evaluate_cell(root, cell, quick)
    assert cells.status(root, cell, quick) is Status.DONE
    # With another network, in another manner or with more images it is not.
    assert cells.status(root, cell, quick._replace(features="other")) is Status.WAITING
    assert cells.status(root, cell, quick._replace(resize="antialias")) is Status.WAITING
    assert cells.status(root, cell, quick._replace(num_images=30)) is Status.WAITING


def changed(cell, **values):
    made = ConfigDict(cell.config.to_dict())
    made.update(values)
    return Cell(cell.name, made)


def test_a_sweep_that_asks_for_more_finds_cells_undone_and_for_less_done(trained_cell, quick):
    root, cell = trained_cell
    evaluate_cell(root, cell, quick)
    assert cells.status(root, changed(cell, num_epochs=4), quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_repetitions=3), quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_epochs=2), quick) is Status.DONE
    assert cells.status(root, changed(cell, num_repetitions=1), quick) is Status.DONE
    shutil.rmtree(root / cell.name / "rep_01/checkpoints/30")
    assert cells.status(root, cell, quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_repetitions=1), quick) is Status.DONE


def test_a_damaged_cell_waits_to_say_so_itself(trained_cell, quick):
    root, cell = trained_cell
    (root / cell.name / "config.json").write_text("{")
    assert cells.status(root, cell, quick) is Status.WAITING
    with pytest.raises(UserError, match=r"config.json: cannot be read as JSON"):
        cells.run_cell(root, cell, quick)


def reference():
    return importlib.import_module("configs.base").get_config()


@contextlib.contextmanager
def caught(seen):
    seen.append("in")
    yield lambda: True
    seen.append("out")


def test_run_cell_trains_then_evaluates_the_newest_alone(trained_cell, quick, monkeypatch):
    root, cell = trained_cell
    seen = []

    def train(made, folder, interrupted):
        assert interrupted()
        assert lock.is_held(folder)
        seen.append((made.to_dict(), folder))
        return Outcome.DONE

    monkeypatch.setattr(loop, "train", train)
    assert cells.run_cell(root, cell, quick, lambda: caught(seen)) is Outcome.DONE
    assert seen == ["in", (cell.config.to_dict(), root / cell.name), "out"]
    assert cells.status(root, cell, quick) is Status.DONE
    run = trained.open_run(root / cell.name)
    assert [one.step for one in evaluate.todo(run, quick)] == [10, 10, 20, 20]
    assert (root / cell.name / "versions.json").exists()


@pytest.mark.parametrize(
    ("outcome", "evaluated"), [(Outcome.INTERRUPTED, False), (Outcome.DIVERGED, True)]
)
def test_run_cell_says_how_training_ended(trained_cell, quick, monkeypatch, outcome, evaluated):
    root, cell = trained_cell
    monkeypatch.setattr(loop, "train", lambda *arguments: outcome)
    assert cells.run_cell(root, cell, quick) is outcome
    assert (root / cell.name / "rep_00/eval.csv").exists() == evaluated


def test_run_cell_says_what_could_not_be_evaluated(trained_cell, quick, monkeypatch):
    root, cell = trained_cell
    damage(root / cell.name / "rep_01/checkpoints/30")
    monkeypatch.setattr(loop, "train", lambda *arguments: Outcome.DONE)
    with pytest.raises(UserError, match="not evaluated: repetition 1 at step 30; the log says why"):
        cells.run_cell(root, cell, quick)
    assert (root / cell.name / "rep_00/eval.csv").exists()


def test_run_cell_refuses_what_another_holds_or_what_is_another_run(trained_cell, quick):
    root, cell = trained_cell
    with lock.hold(root / cell.name), pytest.raises(UserError, match="in use by process"):
        cells.run_cell(root, cell, quick)
    changed_cell = changed(cell, seed=5)
    with pytest.raises(UserError, match="started with another configuration"):
        cells.run_cell(root, changed_cell, quick)
    with pytest.raises(UserError, match="batch_size=0: must be at least 1"):
        cells.run_cell(root, changed(cell, batch_size=0), quick)


def test_short_names_are_no_other_field_s_end():
    known = list(fields())
    for one, other in itertools.permutations(known, 2):
        assert not other.endswith(f".{cells._short(one, known)}")
