"""Warm starts: every repetition begins with the parameters of another run's checkpoint."""

import json
import shutil

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import warm_start
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.evaluation.warm_start import parse
from thermo_ebm.run import layout
from thermo_ebm.run import warm_start as recorded
from thermo_ebm.train import checkpoint_content, checkpoints
from thermo_ebm.train.loop import Outcome

CHANGES = {"num_epochs": 1, "checkpoint__every_steps": 0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run with checkpoints at steps 0 and 10."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    assert tiny.train(tiny.config(**CHANGES), workdir) is Outcome.DONE
    return workdir


def params_of(workdir, number, step):
    run = load_run(workdir)
    named = checkpoint_content.named_params(run.params(number, step))
    return {name: np.asarray(leaf) for name, leaf in named.items()}


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.slow
def test_every_repetition_begins_with_the_parameters_and_nothing_else(source, tmp_path, parallel):
    made = tiny.config(num_repetitions=2, parallel_repetitions=parallel, **CHANGES)
    text = f"{source}:0:10"
    assert tiny.train(made, tmp_path, init_from=text) is Outcome.DONE
    wanted = params_of(source, 0, 10)
    for number in range(2):
        tiny.assert_same(params_of(tmp_path, number, 0), wanted)
        first = tiny.state_at(made, tmp_path, number, 0)
        assert not any(leaf.any() for name, leaf in first.items() if name.startswith("optimiser."))
    assert tiny.rows(tmp_path, 0) != tiny.rows(tmp_path, 1), "their chains have their own keys"
    start = recorded.read(tmp_path)
    assert start.source == (str(source), 0, 10)
    assert start.step == 10
    tiny.assert_same(start.params, wanted)


def test_a_start_without_a_checkpoint_goes_on_without_the_source(source, tmp_path, monkeypatch):
    """Killed before the first checkpoint; then the source disappears."""
    moved = tmp_path / "source"
    shutil.copytree(source, moved)
    made, whole, run = tiny.config(**CHANGES), tmp_path / "whole", tmp_path / "run"
    assert tiny.train(made, whole, init_from=str(moved)) is Outcome.DONE

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(made, run, init_from=str(moved))
    assert checkpoints.all_steps_in(layout.checkpoints_dir(run, 0)) == []
    shutil.rmtree(moved)
    assert tiny.train(made, run, init_from=str(moved)) is Outcome.DONE
    tiny.assert_equal_runs(whole, run)


def test_a_later_repetition_begins_with_the_same_parameters(source, tmp_path):
    assert tiny.train(tiny.config(**CHANGES), tmp_path, init_from=str(source)) is Outcome.DONE
    assert tiny.train(tiny.config(num_repetitions=2, **CHANGES), tmp_path) is Outcome.DONE
    tiny.assert_same(params_of(tmp_path, 1, 0), params_of(source, 0, 10))


def test_another_source_is_refused_when_a_run_goes_on(source, tmp_path):
    made, plain = tiny.config(**CHANGES), tmp_path / "plain"
    run = tmp_path / "run"
    assert tiny.train(made, run, dispatches=1, init_from=str(source)) is Outcome.INTERRUPTED
    for text in (f"{source}:1", f"{source}:0:0", f"{tmp_path}/other"):
        with pytest.raises(
            UserError, match=r"began with the parameters of .*:0:10; omit init_from"
        ):
            tiny.train(made, run, init_from=text)
    assert tiny.train(made, plain, dispatches=1) is Outcome.INTERRUPTED
    with pytest.raises(UserError, match="began with random parameters"):
        tiny.train(made, plain, init_from=str(source))
    for text in (f"{source}:0:10", str(source)):  # the same checkpoint
        assert warm_start.find(text, made, run) is None


def test_start_without_init_from_removes_what_a_killed_start_left(source, tmp_path):
    (tmp_path / layout.INIT_FROM).write_bytes(b"left by a killed start")
    (tmp_path / layout.CONFIG).write_text(json.dumps(tiny.configuration.as_json(tiny.config())))
    assert tiny.train(tiny.config(**CHANGES), tmp_path, dispatches=0) is Outcome.INTERRUPTED
    assert not (tmp_path / layout.INIT_FROM).exists()


def test_a_model_of_other_shapes_is_refused_by_its_fields(source, tmp_path):
    other = tiny.config(model__latent_dim=5, model__prior__features=6)
    message = (
        "its model has other shapes: model.latent_dim is 4 there and 5 here, "
        "model.prior.features is 8 there and 6 here"
    )
    with pytest.raises(UserError, match=message):
        warm_start.find(str(source), other, tmp_path)
    assert warm_start.find(str(source), tiny.config(model__prior__leak=0.3), tmp_path).step == 10


def test_damaged_parameters_are_refused(source, tmp_path):
    made = tiny.config(**CHANGES)
    start = warm_start.find(str(source), made, tmp_path)
    recorded.write(tmp_path, start)
    content = (tmp_path / layout.INIT_FROM).read_bytes()
    middle = len(content) // 2
    for damaged in (b"no archive", content[:middle], content[: middle - 9] + content[middle:]):
        (tmp_path / layout.INIT_FROM).write_bytes(damaged)
        with pytest.raises(UserError, match=r"init_from\.npz: cannot be read"):
            recorded.read(tmp_path)


def test_errors_of_init_from_are_one_line(source, tmp_path):
    for text, message in [
        ("/nowhere", "init_from=/nowhere: .*not a run directory"),
        ("{source}:7", "repetition=7: .* has the repetitions 0$"),
        ("{source}:0:5", "step=5: no such checkpoint; there are 0, 10$"),
        ("{source}:a", r"must be RUN\[:REPETITION\[:STEP\]\]"),
        ("{source}:0:last", r"must be RUN\[:REPETITION\[:STEP\]\]"),
        ("", r"must be RUN\[:REPETITION\[:STEP\]\]"),
    ]:
        with pytest.raises(UserError, match=message):
            warm_start.find(text.format(source=source), tiny.config(), tmp_path)


def test_init_from_is_split_into_its_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path.absolute())
    assert parse("runs/a") == (f"{here}/runs/a", 0, None)
    assert parse("runs/a:3") == (f"{here}/runs/a", 3, None)
    assert parse("/runs/a:3:20") == ("/runs/a", 3, 20)
    assert parse("/runs/a:3:best") == ("/runs/a", 3, "best")
    (tmp_path / "a:b").mkdir()
    assert parse("a:b") == (f"{here}/a:b", 0, None)
