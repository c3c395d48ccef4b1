"""Checkpoints: restored bit for bit; damage is found and moved away; other states are refused."""

import shutil

import jax
import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.train import checkpoint_content, checkpoints, programs
from thermo_ebm.train.state import init_state
from thermo_ebm.train.task import make_task

# Of damaged files Orbax leaves errors that nobody asks for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STEPS = (10, 20, 30)


@pytest.fixture(scope="module")
def states():
    """A state for each of STEPS, all of them different."""
    task = make_task(tiny.config())
    first = jax.jit(lambda seed: init_state(task, seed))(0)

    def at(step):
        key = jax.random.key(step)
        leaves, structure = jax.tree.flatten(first._replace(key=jax.random.key_data(first.key)))
        moved = [
            leaf + jax.random.normal(jax.random.fold_in(key, i), leaf.shape).astype(leaf.dtype)
            for i, leaf in enumerate(leaves)
        ]
        state = jax.tree.unflatten(structure, moved)
        state = state._replace(step=np.int32(step), key=key)
        return jax.device_put(state, programs.replicated())

    return {step: at(step) for step in STEPS}


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory):
    """A repetition's folder with a checkpoint of each state."""
    folder = tmp_path_factory.mktemp("rep") / "checkpoints"
    opened = checkpoints.open_checkpoints(folder)
    for step, state in states.items():
        checkpoints.save(opened, state, seconds=step / 7)
    checkpoints.close(opened)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the folder, to be damaged."""
    shutil.copytree(saved, tmp_path / "rep" / "checkpoints")
    return tmp_path / "rep" / "checkpoints"


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_the_newer_api_of_orbax_reads_a_checkpoint(states, saved):
    from orbax.checkpoint.experimental import v1  # may move: no program needs it

    restored = v1.load_checkpointables(saved / str(STEPS[1]))
    expected = checkpoint_content.flatten(states[STEPS[1]])
    assert restored["state"].keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(restored["state"][name], leaf)
    assert restored["meta"]["seconds"] == STEPS[1] / 7


def restore_newest(folder, made=None):
    opened = checkpoints.open_checkpoints(folder)
    try:
        shapes = tiny.shapes(made or tiny.config())
        return checkpoints.restore_newest(opened, shapes, programs.replicated())
    finally:
        checkpoints.close(opened)


def same(state, other):
    one, two = checkpoint_content.flatten(state), checkpoint_content.flatten(other)
    return all(np.array_equal(one[name], two[name], equal_nan=True) for name in two)


def set_aside(folder):
    damaged = folder.parent / checkpoints.DAMAGED
    return sorted(path.name for path in damaged.iterdir()) if damaged.exists() else []


def test_a_checkpoint_comes_back_bit_for_bit(states, saved):
    restored = restore_newest(saved)
    assert same(restored.state, states[30])
    assert restored.seconds == 30 / 7
    assert set_aside(saved) == []


def test_empty_folder_has_no_checkpoint(tmp_path):
    assert restore_newest(tmp_path / "checkpoints") is None


def test_old_checkpoints_are_removed_except_periodic_ones(states, tmp_path):
    opened = checkpoints.open_checkpoints(tmp_path / "checkpoints", keep=1, keep_period=20)
    for state in states.values():
        checkpoints.save(opened, state, 0.0)
        checkpoints.save(opened, state, 0.0)  # the same step again is the same state
    checkpoints.wait(opened)
    assert checkpoints.steps(opened) == [20, 30]
    checkpoints.close(opened)


@pytest.mark.parametrize(
    ("name", "by_link"),
    [("a[b]", False), ("a[b]", True), ("**", False), ("[!x] lr=1e-3? é #1%20:\n", False)],
)
def test_any_path_can_be_saved_to_and_restored_from(states, tmp_path, monkeypatch, name, by_link):
    if by_link:
        monkeypatch.setattr(files, "OPEN_FILES", tmp_path / "absent")
    folder = tmp_path / name / "rep" / "checkpoints"
    opened = checkpoints.open_checkpoints(folder, keep=1)
    for state in states.values():
        checkpoints.save(opened, state, 3.0)
    checkpoints.save_interrupted(opened, state_at(states[30], 31), 4.0)
    checkpoints.close(opened)
    assert sorted(path.name for path in folder.iterdir()) == ["30"]
    restored = restore_newest(folder)
    assert int(restored.state.step) == 31
    shutil.move(tmp_path / name, tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain" / "rep" / checkpoints.INTERRUPTED)
    assert same(restore_newest(tmp_path / "plain" / "rep" / "checkpoints").state, states[30])
    shutil.move(tmp_path / "plain", tmp_path / "moved[1]*")
    folder = tmp_path / "moved[1]*" / "rep" / "checkpoints"
    assert same(restore_newest(folder).state, states[30])
    assert set_aside(folder) == []
    sharding, template = programs.replicated(), tiny.shapes(tiny.config())
    params = checkpoint_content.restore_field(folder, 30, "params", template.params, sharding)
    jax.tree.map(np.testing.assert_array_equal, params, states[30].params)
    with pytest.raises(FileNotFoundError):
        checkpoint_content.restore_field(folder, 29, "params", template.params, sharding)


def state_at(state, step):
    return state._replace(step=np.int32(step) + 0 * state.step)


@pytest.mark.parametrize("damaged", ["manifest.ocdbt", "d"])
def test_unreadable_checkpoints_do_not_count_when_older_ones_are_removed(states, folder, damaged):
    (folder / "30" / "state" / damaged).rename(folder.parent / "removed")
    (folder / "20" / "meta" / "metadata").write_text("{}")
    opened = checkpoints.open_checkpoints(folder, keep=2)
    checkpoints.save(opened, state_at(states[30], 40), 1.0)
    checkpoints.wait(opened)
    assert checkpoints.steps(opened) == [10, 20, 30, 40]
    checkpoints.save(opened, state_at(states[30], 50), 1.0)
    checkpoints.close(opened)
    assert checkpoints.steps_in(folder) == [40, 50]


def test_a_checkpoint_that_cannot_be_read_back_removes_no_older_one(states, folder):
    opened = checkpoints.open_checkpoints(folder, keep=1)
    checkpoints.save(opened, state_at(states[30], 40), 1.0)
    opened.manager.wait_until_finished()
    (folder / "40" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(UserError, match=r"could not be written \(read back, 40 has .* absent"):
        checkpoints.wait(opened)
    checkpoints.close(opened)
    assert checkpoints.steps_in(folder) == [30, 40]
    assert same(restore_newest(folder).state, states[30])
    assert set_aside(folder) == ["40"]


def test_an_old_checkpoint_that_cannot_be_removed_is_named_once(states, folder, caplog):
    (folder / "10").rename(folder.parent / "archived")
    (folder / "10").symlink_to(folder.parent / "archived")
    opened = checkpoints.open_checkpoints(folder, keep=1)
    with caplog.at_level("WARNING"):
        for step in (40, 50, 60):
            checkpoints.save(opened, state_at(states[30], step), 1.0)
        checkpoints.close(opened)
    assert checkpoints.steps_in(folder) == [10, 60]
    warnings = [record.getMessage() for record in caplog.records if "removed" in record.msg]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{folder / '10'}: old checkpoint not removed: ")
    assert (folder.parent / "archived" / "meta").is_dir()


def damages():
    """(name, content -> damaged content or None for no file at all)."""
    yield "removed", lambda content: None
    yield "halved", lambda content: content[: len(content) // 2]
    for where in (0.25, 0.5, 0.9):
        yield f"bit flipped at {where}", lambda content, where=where: _flipped(content, where)


def _flipped(content, where):
    changed = bytearray(content)
    changed[int(where * (len(changed) - 1))] ^= 0x10
    return bytes(changed)


@pytest.mark.slow
def test_damage_to_any_file_of_a_checkpoint_is_survived(states, saved, tmp_path):
    """Either the damage does not matter, or the checkpoint is moved away and 20's is used."""
    files = sorted(
        path.relative_to(saved) for path in (saved / "30").rglob("*") if path.stat().st_size
    )
    files = [path for path in files if (saved / path).is_file()]
    assert len(files) > 8
    found = set()
    for number, (path, (name, damage)) in enumerate(
        (path, damaged) for path in files for damaged in damages()
    ):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(saved, folder)
        content = damage((folder / path).read_bytes())
        (folder / path).unlink()
        if content is not None:
            (folder / path).write_bytes(content)
        restored = restore_newest(folder)
        if set_aside(folder) == ["30"]:
            assert same(restored.state, states[20]), (path, name)
            assert restored.seconds == 20 / 7
            found.add(path)
        else:  # Orbax writes some files that it does not need
            assert same(restored.state, states[30]), (path, name)
            assert restored.seconds == 30 / 7
        shutil.rmtree(tmp_path / str(number))
    names = {path.relative_to("30").parts[:2] for path in found}
    assert {("meta", "metadata"), ("state", "d"), ("state", "manifest.ocdbt")} <= names


def test_several_damaged_checkpoints_are_all_set_aside(states, folder):
    for step in (20, 30):
        (folder / str(step) / "meta" / "metadata").write_text("{}")
    assert same(restore_newest(folder).state, states[10])
    assert set_aside(folder) == ["20", "30"]
    assert sorted(path.name for path in folder.iterdir()) == ["10"]


def test_checkpoints_set_aside_earlier_are_not_overwritten(states, folder):
    (folder.parent / checkpoints.DAMAGED / "30").mkdir(parents=True)
    (folder / "30" / "meta" / "metadata").unlink()
    assert same(restore_newest(folder).state, states[20])
    assert set_aside(folder) == ["30", "30.1"]


def test_a_step_set_aside_can_be_saved_again(states, folder):
    (folder / "30" / "meta" / "metadata").unlink()
    opened = checkpoints.open_checkpoints(folder)
    checkpoints.restore_newest(opened, tiny.shapes(tiny.config()), programs.replicated())
    checkpoints.save(opened, states[30], 1.0)
    checkpoints.close(opened)
    assert same(restore_newest(folder).state, states[30])


def test_no_checkpoint_is_moved_when_none_can_be_read(folder):
    for step in STEPS:
        (folder / str(step) / "meta" / "metadata").write_text("{}")
    with pytest.raises(UserError, match=r"none of its 3 checkpoints can be read .*anew, remove"):
        restore_newest(folder)
    assert set_aside(folder) == []
    assert len(list(folder.iterdir())) == 3


def test_state_of_another_structure_is_refused_with_the_differences(folder):
    other = tiny.config(model__latent_dim=6)
    with pytest.raises(UserError, match=r"30: its state has a different structure") as caught:
        restore_newest(folder, other)
    assert "params.generator" in str(caught.value)
    assert "float32[4, 4, 4, 8] there, float32[4, 4, 6, 8] here" in str(caught.value)
    assert set_aside(folder) == []


def test_what_a_killed_save_or_removal_leaves_does_no_harm(states, folder):
    """An unfinished folder of a save, and a half-removed older checkpoint."""
    shutil.copytree(folder / "30", folder / "40.orbax-checkpoint-tmp")
    (folder / "40.orbax-checkpoint-tmp" / "state" / "_METADATA").unlink()
    shutil.rmtree(folder / "10" / "state")
    assert same(restore_newest(folder).state, states[30])
    opened = checkpoints.open_checkpoints(folder, keep=2)
    checkpoints.save(opened, states[30]._replace(step=np.int32(40) + 0 * states[30].step), 2.0)
    checkpoints.wait(opened)
    assert checkpoints.steps(opened) == [30, 40]
    checkpoints.close(opened)
    assert restore_newest(folder).seconds == 2.0


@pytest.mark.parametrize(("summed", "expected"), [(0, 0.0), (3, np.nan)])
def test_checkpoints_with_readings_of_another_version_are_read(states, tmp_path, summed, expected):
    """A reading that is missing from a checkpoint has no mean in the epoch under way."""
    state = states[10]
    sums = state.sums._replace(
        readings={"removed": np.float32(1), "train_loss": np.float32(2)}, steps=np.int32(summed)
    )
    noise = {"noise": np.float32(3), "weight": np.float32(2)}  # what a target remembered
    opened = checkpoints.open_checkpoints(tmp_path / "checkpoints")
    of_version = state._replace(sums=sums, gradient_noise=noise)
    checkpoints.save(opened, jax.device_put(of_version, programs.replicated()), 0.0)
    checkpoints.close(opened)
    newest = restore_newest(tmp_path / "checkpoints").state
    assert newest.gradient_noise.excess == 0
    restored = newest.sums.readings
    assert restored.keys() == state.sums.readings.keys()
    assert restored["train_loss"] == 2
    np.testing.assert_array_equal(restored["train_grad_var"], np.float32(expected))
