"""Cells: names that distinguish them, their status, and a cell that is trained and evaluated."""

import contextlib
import importlib
import itertools
import shutil

import pytest
import trained_run
from ml_collections import ConfigDict
from trained_run import SETTINGS, config, damage

from thermo_ebm.config import checks
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import evaluate
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.metrics import networks
from thermo_ebm.run import configuration, lock
from thermo_ebm.sweep import cells, plans
from thermo_ebm.sweep.cells import Cell, Status
from thermo_ebm.train import loop, start
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


def test_a_name_depends_on_every_field_that_may_not_change():
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


def test_a_name_depends_on_the_base_and_the_change():
    base, clipped, longer = config(), config(), config()
    clipped.optimizer.clip_norm = 1.0
    longer.num_epochs = 17
    assert name_of({"loss.power": 2.0}, base) != name_of({"loss.power": 2.0}, clipped)
    assert name_of({"loss.power": 2.0}, base) == name_of({"loss.power": 2.0}, longer)


def test_an_int_for_a_float_is_the_same_cell():
    assert name_of({"loss.power": 2}) == name_of({"loss.power": 2.0})


def test_names_are_readable_and_names_of_folders():
    for change, beginning in [
        ({}, "digits_"),
        ({"loss.power": 3.0, "num_repetitions": 5}, "digits_power=3.0_"),
        ({"sampler.prior.num_steps": 5}, "digits_prior.num_steps=5_"),
        ({"sampler.posterior.num_steps": 5}, "digits_posterior.num_steps=5_"),
        ({"loss.name": "vanilla", "data.data_dir": "/data/x"}, "digits_loss.name=vanilla_"),
        ({"model.generator.widths": (3, 1)}, "digits_widths=-3-1-_"),
        ({"data.name": "../a b/c"}, "..-a-b-c_data.name=..-a-b-c_"),
    ]:
        name = name_of(change)
        assert name.startswith(beginning)
        assert len(name) == len(beginning) + 8
        assert "/" not in name
        assert " " not in name


def test_long_names_fit_file_systems():
    name = name_of({"data.name": "x" * 300})
    assert len(name) < 200
    assert name != name_of({"data.name": "x" * 301})


def test_bad_cells_are_refused():
    for changes, message in [
        ([], r"experiment: get_cells\(\) returns no cell"),
        (
            [{}, {"loss.pwoer": 1.0}],
            r"loss\.pwoer: there is no such field; did you mean loss\.power\?",
        ),
        ([{"loss": {"power": 1.0}}], 'loss is a group of fields; name each: ."loss.power": '),
        ([{"model": 3}], 'model is a group of fields; name each: ."model'),
        ([{"batch_size": 2.5}], "experiment: batch_size=2.5: must be int"),
        ([{"batch_size": "many"}], "experiment: .*batch_size"),
        ([3], "a cell is a dict of fields and values, not 3"),
        ([{}, {"loss.power": 1.0}, {"loss.power": 1}], "cells 2 and 3 are the same run, digits_"),
        ([{}, {"num_epochs": 7}], "cells 1 and 2 are the same run, digits_"),
    ]:
        with pytest.raises(UserError, match=message):
            cells.make_cells(config(), changes)


def test_errors_in_experiment_files_are_explained(tmp_path):
    for content, message in {
        "def get_cells(:\n": "SyntaxError: ",
        "x = 1\n": r"defines no function get_cells\(\), which returns a list",
        "def get_cells():\n    raise KeyError('x')\n": "KeyError: 'x'",
        "def get_cells():\n    return 3\n": "TypeError: ",
        "import sys\nsys.exit('no')\n": "SystemExit: no",
    }.items():
        path = tmp_path / "experiment.py"
        path.write_text(content)
        with pytest.raises(UserError, match=f"experiment={path}: {message}"):
            cells.read_changes(path, config())
    (tmp_path / "file").write_text("")
    for name, message in {"file": "not a Python file", "gone.py": "there is no such file"}.items():
        with pytest.raises(UserError, match=f"experiment=.*: {message}"):
            cells.read_changes(tmp_path / name, config())
    path.write_text("def get_cells(config):\n    yield {'loss.power': config.loss.power}\n")
    assert cells.read_changes(path, config()) == [{"loss.power": config().loss.power}]


def test_make_cells_does_not_change_the_base():
    base = config().lock()
    (cell,) = cells.make_cells(base, [{"loss.power": 0.1}])
    assert cell.config.loss.power == 0.1
    assert base.loss.power == config().loss.power


def experiment(name, data):
    base = importlib.import_module(f"configs.{data}").get_config()
    get_cells = importlib.import_module(f"configs.{name}").get_cells
    changes = get_cells(base) if name == "experiment2" else get_cells()
    return cells.make_cells(base, changes)


def test_the_experiments_are_valid_for_all_data():
    for data in ["digits_paper", "cifar10_paper", "svhn_paper", "celeb_a_paper"]:
        for name, number in {"experiment1": 11, "experiment2": 7, "study": 34}.items():
            experiment_cells = experiment(name, data)
            assert len(experiment_cells) == number
            for cell in experiment_cells:
                checks.check(cell.config)


def test_experiment_1_is_the_paper_s():
    configs = [cell.config for cell in experiment("experiment1", "cifar10_paper")]
    vanilla = [config for config in configs if config.loss.name == "vanilla"]
    thermodynamic = [config for config in configs if config.loss.name == "thermodynamic"]
    assert [config.batch_size for config in vanilla] == [25, 50, 75, 150]
    assert [config.loss.power for config in thermodynamic] == [0.1, 0.3, 1, 2, 3, 6, 10]
    assert {config.batch_size for config in thermodynamic} == {75}
    assert {config.num_repetitions for config in configs} == {5}


def test_experiment_2_is_the_paper_s_on_its_data():
    configs = [cell.config for cell in experiment("experiment2", "celeb_a_paper")]
    shared = {(c.loss.power, c.num_repetitions, c.batch_size) for c in configs}
    assert shared == {(0.1, 3, 75)}
    varied = [
        (
            config.loss.num_temperatures,
            config.sampler.posterior.num_steps,
            config.sampler.prior.num_steps,
            config.loss.kl_weight,
        )
        for config in configs
    ]
    assert varied == [
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


def test_a_dry_run_reads_images_that_cells_share_once(tmp_path, monkeypatch):
    calls, load = [], start.load
    monkeypatch.setattr(start, "load", lambda *arguments: calls.append(1) or load(*arguments))
    changes = [{"batch_size": 15}, {"batch_size": 30, "steps_per_dispatch": 3}]
    planned = plans.plan_cells(tmp_path, cells.make_cells(config(loss__name="vanilla"), changes))
    assert [cell_plan.config.batch_size for cell_plan in planned] == [15, 30]
    assert len(calls) == 1


def evaluate_cell(root, cell, settings):
    run = load_run(root / cell.name)
    prepared = evaluate.prepare(run, settings, trained_run.quick_network())
    for checkpoint in evaluate.unevaluated(run, settings, newest_only=True):
        evaluate.evaluate(run, checkpoint, prepared)


def test_status_says_whether_a_cell_is_trained_and_evaluated(trained_cell, quick):
    root, cell = trained_cell
    assert cells.status(root, Cell("another", cell.config), quick) is Status.WAITING
    assert cells.status(root, cell, quick) is Status.WAITING  # not evaluated
    with lock.hold(root / cell.name):
        assert cells.status(root, cell, quick) is Status.RUNNING
    evaluate_cell(root, cell, quick)
    assert cells.status(root, cell, quick) is Status.DONE
    # Another network, resizing or number of images asks for another evaluation.
    assert cells.status(root, cell, quick._replace(features="other")) is Status.WAITING
    assert cells.status(root, cell, quick._replace(resize="antialias")) is Status.WAITING
    assert cells.status(root, cell, quick._replace(num_images=30)) is Status.WAITING


def changed(cell, **values):
    config = ConfigDict(cell.config.to_dict())
    config.update(values)
    return Cell(cell.name, config)


def test_status_compares_epochs_and_repetitions_with_the_configuration(trained_cell, quick):
    root, cell = trained_cell
    evaluate_cell(root, cell, quick)
    assert cells.status(root, changed(cell, num_epochs=4), quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_repetitions=3), quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_epochs=2), quick) is Status.DONE
    assert cells.status(root, changed(cell, num_repetitions=1), quick) is Status.DONE
    shutil.rmtree(root / cell.name / "rep_01/checkpoints/30")
    assert cells.status(root, cell, quick) is Status.WAITING
    assert cells.status(root, changed(cell, num_repetitions=1), quick) is Status.DONE


def test_a_damaged_cell_is_waiting_and_fails_when_it_runs(trained_cell, quick):
    root, cell = trained_cell
    (root / cell.name / "config.json").write_text("{")
    assert cells.status(root, cell, quick) is Status.WAITING
    with pytest.raises(UserError, match=r"config.json: cannot be read as JSON"):
        cells.run_cell(root, cell, quick)


@contextlib.contextmanager
def catch(events):
    events.append("in")
    yield lambda: True
    events.append("out")


def test_run_cell_trains_then_evaluates_the_newest_checkpoints(trained_cell, quick, monkeypatch):
    root, cell = trained_cell
    events = []

    def train(cell_config, folder, interrupted):
        assert interrupted()
        assert lock.is_held(folder)
        events.append((cell_config.to_dict(), folder))
        return Outcome.DONE

    monkeypatch.setattr(loop, "train", train)
    assert cells.run_cell(root, cell, quick, lambda: catch(events)) is Outcome.DONE
    assert events == ["in", (cell.config.to_dict(), root / cell.name), "out"]
    assert cells.status(root, cell, quick) is Status.DONE
    run = load_run(root / cell.name)
    assert [checkpoint.step for checkpoint in evaluate.unevaluated(run, quick)] == [10, 10, 20, 20]
    assert (root / cell.name / "versions.json").exists()


@pytest.mark.parametrize(
    ("outcome", "evaluated"), [(Outcome.INTERRUPTED, False), (Outcome.DIVERGED, True)]
)
def test_run_cell_returns_how_training_ended(trained_cell, quick, monkeypatch, outcome, evaluated):
    root, cell = trained_cell
    monkeypatch.setattr(loop, "train", lambda *arguments: outcome)
    assert cells.run_cell(root, cell, quick) is outcome
    assert (root / cell.name / "rep_00/eval.csv").exists() == evaluated


def test_run_cell_names_checkpoints_that_could_not_be_evaluated(trained_cell, quick, monkeypatch):
    root, cell = trained_cell
    damage(root / cell.name / "rep_01/checkpoints/30")
    monkeypatch.setattr(loop, "train", lambda *arguments: Outcome.DONE)
    with pytest.raises(UserError, match="not evaluated: repetition 1 at step 30; the log says why"):
        cells.run_cell(root, cell, quick)
    assert (root / cell.name / "rep_00/eval.csv").exists()


def test_run_cell_refuses_locked_folders_and_other_configurations(trained_cell, quick):
    root, cell = trained_cell
    with lock.hold(root / cell.name), pytest.raises(UserError, match="in use by process"):
        cells.run_cell(root, cell, quick)
    changed_cell = changed(cell, seed=5)
    with pytest.raises(UserError, match="started with another configuration"):
        cells.run_cell(root, changed_cell, quick)
    with pytest.raises(UserError, match="batch_size=0: must be at least 1"):
        cells.run_cell(root, changed(cell, batch_size=0), quick)


def test_a_short_name_ends_no_other_field():
    names = list(fields())
    for field, other in itertools.permutations(names, 2):
        assert not other.endswith(f".{cells.short_name(field, names)}")
