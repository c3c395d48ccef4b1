"""Images from files or from memory train the same model bit for bit, whatever stops the run."""

import jax
import numpy as np
import pytest
import tiny_training as tiny
from image_sources import save_images
from train_processes import finish, train_as_processes
from train_processes import start as start_process

from thermo_ebm.cost import memory
from thermo_ebm.errors import UserError
from thermo_ebm.run import layout
from thermo_ebm.train import checkpoints, feed, start
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.task import make_task

FROM_FILES = {"data__streaming": True, "steps_per_dispatch": 3}  # one program for most tests


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("in_memory")
    assert tiny.train(tiny.config(), workdir) is Outcome.DONE
    return workdir


def test_streamed_run_equals_the_run_in_memory(in_memory, tmp_path):
    assert tiny.train(tiny.config(**FROM_FILES), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(in_memory, tmp_path)


@pytest.mark.slow
def test_streamed_batches_are_accumulated(tmp_path):
    accumulated = {"gradient_noise__accumulate": 2, "num_epochs": 2}
    assert tiny.train(tiny.config(**accumulated), tmp_path / "in_memory") is Outcome.DONE
    made, from_files = tiny.config(**accumulated, **FROM_FILES), tmp_path / "from_files"
    assert tiny.train(made, from_files, dispatches=3) is Outcome.INTERRUPTED
    assert tiny.train(made, from_files) is Outcome.DONE
    tiny.assert_equal_runs(tmp_path / "in_memory", from_files, **accumulated)


@pytest.mark.slow
def test_streamed_run_is_the_same_after_stops_anywhere(in_memory, tmp_path):
    # Dispatches end at checkpoints and epochs too: after 1, 4, 7, 8, 10, ... steps.
    for dispatches in (0, 1, 1, 2, 1, 1, 0, 3):
        made = tiny.config(**FROM_FILES)
        assert tiny.train(made, tmp_path, dispatches=dispatches) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(**FROM_FILES), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(in_memory, tmp_path)


def test_streamed_run_is_the_same_after_a_kill(in_memory, tmp_path, monkeypatch):
    save = checkpoints.save

    def killed(opened, state, seconds):
        if int(state.step) == 16:
            raise KeyboardInterrupt
        save(opened, state, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(tiny.config(**FROM_FILES), tmp_path)
    assert tiny.train(tiny.config(**FROM_FILES), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(in_memory, tmp_path)


def test_run_begun_in_memory_continues_from_files_and_back(in_memory, tmp_path):
    for changes in ({"steps_per_dispatch": 3}, FROM_FILES, {}):
        made = tiny.config(**changes)
        assert tiny.train(made, tmp_path, dispatches=3) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(**FROM_FILES), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(in_memory, tmp_path)


@pytest.mark.slow
def test_streamed_repetitions_train_together(tmp_path):
    """Each has its own order of images; when resumed, one is further than the other."""
    changes = {"num_repetitions": 2, "num_epochs": 2, "parallel_repetitions": 2}
    assert tiny.train(tiny.config(**changes), tmp_path / "in_memory") is Outcome.DONE
    alone = tiny.config(**changes | {"parallel_repetitions": 1}, **FROM_FILES)
    apart = tmp_path / "apart"
    assert tiny.train(alone, apart, dispatches=4) is Outcome.INTERRUPTED
    alone = tiny.config(**changes | {"parallel_repetitions": 1, "steps_per_dispatch": 3})
    apart_in_memory = tmp_path / "apart_in_memory"
    assert tiny.train(alone, apart_in_memory, dispatches=4) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(**changes), apart_in_memory) is Outcome.DONE
    for workdir in (tmp_path / "from_files", apart):
        assert tiny.train(tiny.config(**changes, **FROM_FILES), workdir) is Outcome.DONE
    for number in range(2):
        # Programs that the compiler may round differently: the same runs to a few last places.
        tiny.assert_close_runs(tmp_path / "from_files", tmp_path / "in_memory", {}, number=number)
        tiny.assert_close_runs(apart, apart_in_memory, {}, number=number)


MANY = {
    "batch_size": 30,  # on 4 devices: shares of 8, and one of 6
    "data__num_train": 151,
    "data__num_val": 79,
    "num_epochs": 2,
    "steps_per_dispatch": 2,
    "checkpoint__every_steps": 0,
}
MANY_FROM_FILES = MANY | {"data__streaming": True}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_streamed_run_on_several_devices(tmp_path):
    runs = {name: tmp_path / name for name in ("in_memory", "from_files")}
    assert finish(start_process([(runs["in_memory"], None)], MANY, 4)) == ["DONE"]
    outcomes = finish(
        start_process([(runs["from_files"], 2), (runs["from_files"], None)], MANY_FROM_FILES, 4)
    )
    assert outcomes == ["INTERRUPTED", "DONE"]
    tiny.assert_equal_runs(runs["in_memory"], runs["from_files"], **MANY)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_streamed_run_on_two_processes(tmp_path):
    """Each reads its own share; an image that only one of them cannot read ends both."""
    images = tmp_path / "images"
    save_images(images, np.random.default_rng(0).integers(0, 256, (240, 8, 8), np.uint8))
    changes = MANY | {"data__name": "folder", "data__data_dir": str(images)}
    runs = {name: tmp_path / name for name in ("in_memory", "from_files", "refused")}
    assert train_as_processes([(runs["in_memory"], None)], changes) == [["DONE"]] * 2
    begun = [(runs["from_files"], 2), (runs["from_files"], None), (runs["refused"], 2)]
    outcomes = train_as_processes(begun, changes | {"data__streaming": True})
    assert outcomes == [["INTERRUPTED", "DONE", "INTERRUPTED"]] * 2
    tiny.assert_equal_runs(runs["in_memory"], runs["from_files"], **changes)
    for path in sorted(images.iterdir())[:200]:
        path.write_bytes(b"broken")
    assert (
        train_as_processes([(runs["refused"], None)], changes | {"data__streaming": True})
        == [["REFUSED"]] * 2
    )


def test_an_image_damaged_during_the_run_is_named(tmp_path, monkeypatch):
    """Nothing is lost: once the image is repaired, the same command continues."""
    images = tmp_path / "images"
    save_images(images, np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8))
    fields = {"data__name": "folder", "data__data_dir": str(images), "num_epochs": 2}
    assert tiny.train(tiny.config(**fields), tmp_path / "in_memory") is Outcome.DONE
    read = feed.read
    with monkeypatch.context() as patch:
        count = iter(range(10**6))

        def torn(images):
            if next(count) == 12:
                raise UserError("data.data_dir: cannot read the image")
            return read(images)

        patch.setattr(feed, "read", torn)
        with pytest.raises(UserError, match="cannot read the image"):
            tiny.train(tiny.config(**fields, **FROM_FILES), tmp_path / "run")
    assert tiny.train(tiny.config(**fields, **FROM_FILES), tmp_path / "run") is Outcome.DONE
    tiny.assert_equal_runs(tmp_path / "in_memory", tmp_path / "run")


def test_what_the_source_left_out_is_printed(tmp_path, capsys):
    images = tmp_path / "images"
    save_images(images, np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8))
    (images / "labels.csv").write_text("")
    made = tiny.config(data__name="folder", data__data_dir=str(images))
    start.load(make_task(made), tmp_path / "run")
    assert capsys.readouterr().err == "data        left out: 1 file (.csv 1)\n"


def test_streamed_run_refuses_other_images(in_memory, tmp_path):
    assert tiny.train(tiny.config(**FROM_FILES), tmp_path / "run", dispatches=3).value == 3
    images = np.random.default_rng(0).integers(0, 256, (190, 8, 8), np.uint8)
    np.savez(tmp_path / "others.npz", images=images)
    made = tiny.config(data__name="npz", data__data_dir=str(tmp_path / "others.npz"), **FROM_FILES)
    with pytest.raises(UserError, match="not those that the run was started with"):
        tiny.train(made, tmp_path / "run", allow=["data.name"])
    digits = layout.repetition_dir(in_memory, 0).parent / layout.IMAGES
    assert (tmp_path / "run" / layout.IMAGES).read_bytes() == digits.read_bytes()


def test_devices_shares_are_the_batch_in_order_and_its_last_image(monkeypatch):
    for num_devices in [1, 3, 8]:
        for batch_size in [4, 7, 24]:
            monkeypatch.setattr(jax, "local_device_count", lambda num=num_devices: num)
            monkeypatch.setattr(jax, "device_count", lambda num=num_devices: num)
            numbers = np.random.default_rng(0).permutation(3 * batch_size).reshape(3, batch_size)
            shares = feed.split(numbers)
            assert shares.shape[:2] == (3, num_devices)
            flat = shares.reshape(3, -1)
            np.testing.assert_array_equal(flat[:, :batch_size], numbers)
            assert (flat[:, batch_size:] == numbers[:, -1:]).all()


def test_numbers_travel_with_their_images():
    images = np.arange(150, dtype=np.uint8)[:, None, None, None]
    batches = feed.in_memory(images, make_task(tiny.config())).take(np.array([[7, 3, 149]]))
    assert np.asarray(batches.numbers).ravel().tolist() == [7, 3, 149]
    assert np.asarray(batches.images).ravel().tolist() == [7, 3, 149]


def test_images_that_the_memory_does_not_hold_are_refused_before_they_are_read(
    tmp_path, monkeypatch
):
    needed = 2 * (150 + 40) * 8 * 8  # on the host, and on its one device
    limit = {"bytes": 2 * needed}  # of which half is the step's
    monkeypatch.setattr(memory, "host_bytes", lambda: limit["bytes"])
    monkeypatch.setattr(jax, "local_device_count", lambda *_: 1)
    start.check_memory(tiny.config(), jax.devices()[0])
    limit["bytes"] -= 2
    with pytest.raises(UserError, match=f"{needed:,} bytes .*data.streaming=true") as error:
        start.check_memory(tiny.config(), jax.devices()[0])
    assert "\n" not in str(error.value)
    limit["bytes"] = 20_000
    few = tiny.config(**FROM_FILES | {"steps_per_dispatch": 1})
    start.check_memory(few, jax.devices()[0])
    limit["bytes"] = 10_000
    with pytest.raises(UserError, match="fewer validation images"):
        start.check_memory(few, jax.devices()[0])
    with pytest.raises(UserError, match="the images need"):
        tiny.train(tiny.config(data__name="folder", data__data_dir="/absent"), tmp_path)


def test_the_memory_of_an_accelerator_is_checked(monkeypatch):
    class Accelerator:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 20_000}

    monkeypatch.setattr(jax, "local_device_count", lambda *_: 1)
    with pytest.raises(UserError, match="12,160 bytes of the memory of each device, where 8,000"):
        start.check_memory(tiny.config(), Accelerator())
    start.check_memory(tiny.config(**FROM_FILES | {"steps_per_dispatch": 1}), Accelerator())
