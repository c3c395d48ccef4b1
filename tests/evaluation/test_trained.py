"""Loading a run: its checkpoints, its parameters bit for bit, and missing or damaged files."""

import json
import shutil

import jax
import numpy as np
import pytest
from trained_run import (
    STEPS_PER_EPOCH,
    damage,
    leaves,
    original,
    states,
)

from thermo_ebm import data
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import trained
from thermo_ebm.train import checkpoints


def test_open_run_reads_configuration_and_steps():
    run = trained.open_run(original())
    assert run.steps_per_epoch == STEPS_PER_EPOCH
    assert run.total_steps == 3 * STEPS_PER_EPOCH
    assert run.model.latent_dim == 4
    assert trained.repetitions(run) == [0, 1]
    assert trained.checkpoint_steps(run, 0) == [0, 10, 20, 30]
    assert trained.epoch_steps(run, 0) == [10, 20, 30]
    assert trained.checkpoint_steps(run, 7) == []


def test_only_whole_checkpoints_and_real_repetitions_count(workdir):
    run = trained.open_run(workdir)
    (workdir / "rep_00/checkpoints/40.orbax-checkpoint-tmp-0").mkdir()
    (workdir / "rep_00/checkpoints/15").mkdir()  # within an epoch
    (workdir / "rep_0x").mkdir()
    (workdir / "rep_12").mkdir()
    assert trained.checkpoint_steps(run, 0) == [0, 10, 15, 20, 30]
    assert trained.epoch_steps(run, 0) == [10, 20, 30]
    assert trained.repetitions(run) == [0, 1, 12]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run directory"),
        ("{", "cannot be read as JSON"),
        ("[]", "not the configuration of a run"),
        ("{}", "not the configuration of a run"),
    ],
)
def test_open_run_says_what_is_wrong_with_the_configuration(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        trained.open_run(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("seed", "abc"), ("seed", None), ("num_epochs", "abc"), ("loss", "foo")],
)
def test_a_configuration_with_a_wrong_value_is_refused(workdir, field, value):
    path = workdir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=r"config.json: not (a complete|the) configuration"):
        trained.open_run(workdir)


def test_parameters_come_back_bit_for_bit():
    run = trained.open_run(original())
    expected = leaves(list(states(1))[-1].params)
    found = leaves(trained.load_params(run, 1, 30))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    step, newest = trained.chosen_params(run, 1, None)
    assert step == 30
    for one, other in zip(found, leaves(newest), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_missing_checkpoint(workdir):
    run = trained.open_run(workdir)
    with pytest.raises(FileNotFoundError):
        trained.load_params(run, 0, 25)


def test_a_checkpoint_that_vanishes_while_it_is_read(workdir, monkeypatch):
    run = trained.open_run(workdir)

    def restore(folder, step, *rest):
        shutil.rmtree(folder / str(step))
        raise RuntimeError("half of the files are not there")

    monkeypatch.setattr(checkpoints, "restore_params", restore)
    with pytest.raises(FileNotFoundError):
        trained.load_params(run, 0, 20)


def _names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_whatever_file_of_a_checkpoint_is_damaged_it_is_a_value_error(workdir):
    """Each file is truncated in turn; the parameters may still be read if they do not need it."""
    run = trained.open_run(workdir)
    folder = workdir / "rep_00/checkpoints/20"
    expected, messages = leaves(trained.load_params(run, 0, 20)), []
    for name in _names(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        try:
            found = leaves(trained.load_params(run, 0, 20))
        except trained.UnusableCheckpoint as error:
            messages.append(str(error))
        else:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
        (folder / name).write_bytes(content)
    assert len(messages) >= 2
    assert all("20 cannot be read (" in text and "\n" not in text for text in messages)


def test_a_checkpoint_of_another_structure_is_refused(workdir):
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    fields["model"]["latent_dim"] = 5
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="a different structure"):
        trained.load_params(trained.open_run(workdir), 0, 30)


@pytest.mark.parametrize(
    ("number", "step", "message"),
    [
        (2, None, "repetition=2: .* has 0, 1$"),
        (0, 15, "step=15: no such checkpoint; there are 0, 10, 20, 30$"),
        (1, None, "30 cannot be read .*choose another step: 0, 10, 20$"),
    ],
)
def test_a_wrong_choice_names_what_there_is(workdir, number, step, message):
    damage(workdir / "rep_01/checkpoints/30")
    with pytest.raises(UserError, match=message):
        trained.chosen_params(trained.open_run(workdir), number, step)


def test_no_checkpoints_at_all(workdir):
    shutil.rmtree(workdir / "rep_00/checkpoints")
    with pytest.raises(UserError, match="no checkpoint there; train first"):
        trained.chosen_params(trained.open_run(workdir), 0, None)


def test_validation_images_are_those_that_training_held_out():
    run = trained.open_run(original())
    np.testing.assert_array_equal(
        trained.validation_images(run), data.load(run.config.data).validation
    )


def test_validation_images_where_the_data_have_moved(workdir, tmp_path):
    """With an .npz file of one split, these are the images at its end."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "there.npz", images=images)
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    fields["data"] |= {"name": "npz", "data_dir": str(tmp_path / "gone.npz")}
    path.write_text(json.dumps(fields))
    run = trained.open_run(workdir)
    with pytest.raises(UserError, match=r"gone\.npz"):
        trained.validation_images(run)
    moved = trained.validation_images(run, str(tmp_path / "there.npz"))
    run.config.data.data_dir = str(tmp_path / "there.npz")
    np.testing.assert_array_equal(moved, data.load(run.config.data).validation)


def test_each_repetition_has_a_key_of_its_own():
    run = trained.open_run(original())
    words = [jax.random.key_data(trained.repetition_key(run, number)) for number in range(2)]
    assert not np.array_equal(*words)
