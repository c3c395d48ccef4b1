"""Opening a run: its checkpoints, its parameters bit for bit, and missing or damaged files."""

import json
import shutil

import jax
import numpy as np
import pytest
from trained_run import STEPS_PER_EPOCH, damage, leaves, original, states

from thermo_ebm import data
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.run import UnusableCheckpoint, load_run
from thermo_ebm.train import checkpoint_content


def assert_same_leaves(first, second):
    first, second = leaves(first), leaves(second)
    assert len(first) == len(second) > 0
    for leaf, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(leaf, other)


def change_config(workdir, **fields):
    """Changes fields of the groups named, or whole fields."""
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    for name, value in fields.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def test_repetitions_and_steps():
    run = load_run(original())
    assert run.steps_per_epoch == STEPS_PER_EPOCH
    assert run.model.latent_dim == 4
    assert run.repetitions() == [0, 1]
    assert run.checkpoint_steps(0) == [0, 10, 20, 30]
    assert run.epoch_steps(0) == [10, 20, 30]
    assert run.checkpoint_steps(7) == []


def test_digits_are_in_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"^data_dir=.*: this run's images are the digits.*omit"):
        load_run(original()).validation_images(str(tmp_path))


def test_only_complete_checkpoints_and_real_repetitions_count(workdir):
    run = load_run(workdir)
    (workdir / "rep_00/checkpoints/40.orbax-checkpoint-tmp-0").mkdir()
    (workdir / "rep_00/checkpoints/15").mkdir()  # within an epoch
    (workdir / "rep_0x").mkdir()
    (workdir / "rep_12").mkdir()
    assert run.checkpoint_steps(0) == [0, 10, 15, 20, 30]
    assert run.epoch_steps(0) == [10, 20, 30]
    assert run.repetitions() == [0, 1, 12]


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    for content, message in [
        (None, "is not a run directory"),
        ("{", "cannot be read as JSON"),
        ("[]", "not the configuration of a run"),
        ("{}", "not the configuration of a run"),
    ]:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=message):
            load_run(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"model": {"prior": None}}, "model.prior"),
    ],
)
def test_a_configuration_with_a_wrong_value_is_refused(workdir, fields, message):
    change_config(workdir, **fields)
    with pytest.raises(UserError, match=f"config.json: .*{message}"):
        load_run(workdir)


def test_parameters_are_read_bit_for_bit():
    run = load_run(original())
    expected = list(states(1))[-1].params
    assert_same_leaves(run.params(1, 30), expected)
    newest = run.load(1)
    assert (newest.repetition, newest.step, newest.title()) == (1, 30, "repetition 1, step 30")
    assert_same_leaves(newest.params, expected)


def test_a_checkpoint_that_vanishes_before_or_while_it_is_read(workdir, monkeypatch):
    run = load_run(workdir)
    with pytest.raises(FileNotFoundError):
        run.read_params(workdir / "rep_00/checkpoints/25")

    def restore(folder, step, *rest):
        shutil.rmtree(folder / str(step))
        raise RuntimeError("half of the files are not there")

    monkeypatch.setattr(checkpoint_content, "restore_field", restore)
    with pytest.raises(FileNotFoundError):
        run.read_params(workdir / "rep_00/checkpoints/20")


def test_a_damaged_file_makes_a_checkpoint_unusable_unless_it_is_not_needed(workdir):
    """Each file is cut in half in turn."""
    run, folder = load_run(workdir), workdir / "rep_00/checkpoints/20"
    expected, messages = run.read_params(folder), []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        try:
            assert_same_leaves(run.read_params(folder), expected)
        except UnusableCheckpoint as error:
            messages.append(str(error))
        path.write_bytes(content)
    assert len(messages) >= 2
    assert all("20 cannot be read (" in text and "\n" not in text for text in messages)


def test_a_checkpoint_of_another_structure_is_refused(workdir):
    change_config(workdir, model={"latent_dim": 5})
    with pytest.raises(UserError, match="a different structure"):
        load_run(workdir).params(0, 30)


def test_a_wrong_choice_names_the_existing_ones(workdir):
    damage(workdir / "rep_01/checkpoints/30")
    for repetition, step, message in [
        (2, None, "repetition=2: .* has the repetitions 0, 1$"),
        (0, 15, "step=15: no such checkpoint; there are 0, 10, 20, 30$"),
        (1, None, "30 cannot be read .*choose another step: 0, 10, 20$"),
    ]:
        with pytest.raises(UserError, match=message):
            load_run(workdir).load(repetition, step)


def test_a_run_without_checkpoints_says_so(workdir):
    shutil.rmtree(workdir / "rep_00/checkpoints")
    with pytest.raises(UserError, match="no checkpoint there; train first"):
        load_run(workdir).params()


def test_validation_images_are_those_that_training_held_out():
    run = load_run(original())
    expected = data.load(run.config.data).validation
    np.testing.assert_array_equal(run.validation_images(), expected)


def test_validation_images_can_be_read_from_another_place(workdir, tmp_path):
    """With an .npz file of one split, these are the images at its end."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "there.npz", images=images)
    change_config(workdir, data={"name": "npz", "data_dir": str(tmp_path / "gone.npz")})
    run = load_run(workdir)
    with pytest.raises(UserError, match=r"gone\.npz"):
        run.validation_images()
    moved = run.validation_images(str(tmp_path / "there.npz"))
    run.config.data.data_dir = str(tmp_path / "there.npz")
    np.testing.assert_array_equal(moved, data.load(run.config.data).validation)


def test_repetitions_have_different_keys():
    words = [jax.random.key_data(load_run(original()).key(number)) for number in range(2)]
    assert not np.array_equal(*words)
