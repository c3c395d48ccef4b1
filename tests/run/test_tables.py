"""Readings: exact round trips, one row an epoch whatever is resumed, and TensorBoard events."""

import errno
import io
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.readings import READINGS, TEMPERATURE_READINGS
from thermo_ebm.run import events, tables

NUMBER = len(READINGS)


def make_row(epoch, loss=1.5):
    return {"epoch": epoch, "step": 20 * epoch, "train_loss": loss}


def epochs_and_losses(path):
    return [(row["epoch"], row["train_loss"]) for row in tables.read(path)]


def test_values_come_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "rep_00" / "readings.csv"
    row = {name: rng.normal() * 10.0 ** rng.integers(-30, 30) for name in READINGS}
    row |= {
        "epoch": 1,
        "step": 2**40,
        "skipped_steps": 0,
        "group_size": 5,
        "val_loss": float("inf"),
    }
    row |= {"train_loss": np.float32(0.1), "seconds": jnp.float32(1 / 3), "grad_noise": None}
    tables.append_row(path, row)
    (found,) = tables.read(path)
    assert found == row | {
        "train_loss": float(np.float32(0.1)),
        "seconds": float(np.float32(1 / 3)),
    }
    assert list(found) == list(READINGS)
    assert isinstance(found["step"], int)


def test_nan_and_absent_readings_come_back(tmp_path):
    tables.append_row(tmp_path / "r.csv", make_row(1, float("nan")))
    (row,) = tables.read(tmp_path / "r.csv")
    assert np.isnan(row["train_loss"])
    assert row["grad_noise"] is None


def test_a_row_for_an_epoch_that_is_there_replaces_it(tmp_path):
    path = tmp_path / "readings.csv"
    for epoch in (1, 2, 3):
        tables.append_row(path, make_row(epoch))
    tables.append_row(path, make_row(2, loss=9.0))
    assert epochs_and_losses(path) == [(1, 1.5), (2, 9.0), (3, 1.5)]


def test_rewriting_leaves_other_rows_as_they_were_written(tmp_path):
    path = tmp_path / "readings.csv"
    tables.append_row(path, make_row(1, 0.1 + 0.2))
    before = path.read_text().splitlines()
    tables.append_row(path, make_row(2))
    assert path.read_text().splitlines()[:2] == before


def test_truncate_drops_later_epochs(tmp_path):
    path = tmp_path / "readings.csv"
    tables.truncate(path, 3)
    assert not path.exists()
    for epoch in range(1, 6):
        tables.append_row(path, make_row(epoch))
    tables.truncate(path, 3)
    assert epochs_and_losses(path) == [(1, 1.5), (2, 1.5), (3, 1.5)]
    tables.truncate(path, 0)
    assert tables.read(path) == []


OLD = b"epoch,step,train_loss,of_another_version\n1,20,0.5,7.0\n2,40,0.25,8.0\n"


def test_a_table_of_another_version_opens(tmp_path):
    """Columns that came later are empty; those that only the other version has are there too."""
    path = tmp_path / "readings.csv"
    path.write_bytes(OLD)
    first = tables.read(path)[0]
    assert tuple(first) == (*READINGS, "of_another_version")
    assert (first["train_loss"], first["group_size"], first["of_another_version"]) == (0.5, None, 7)
    tables.truncate(path, 2)
    assert path.read_bytes() == OLD
    tables.truncate(path, 1)
    assert path.read_bytes() == OLD[: OLD.index(b"2,40")]


def test_a_table_of_another_version_is_rewritten_with_the_columns_of_today(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_bytes(OLD)
    tables.append_row(path, make_row(3) | {"group_size": 2})
    header = path.read_text().splitlines()[0].split(",")
    assert header == [*READINGS, "of_another_version"]
    rows = tables.read(path)
    assert [row["group_size"] for row in rows] == [None, None, 2]
    assert [row["of_another_version"] for row in rows] == [7.0, 8.0, None]
    assert [row["train_loss"] for row in rows] == [0.5, 0.25, 1.5]


def test_temperatures_have_many_rows_per_epoch(tmp_path):
    path, columns = tmp_path / "temperatures.csv", TEMPERATURE_READINGS

    def rows(epoch, kl):
        steps = [
            {"epoch": epoch, "index": i, "temperature": i / 2, "kl_forward": kl} for i in (0, 1)
        ]
        return [*steps, {"epoch": epoch, "index": 2, "temperature": 1.0}]

    tables.append_rows(path, rows(1, 0.1), columns)
    tables.append_rows(path, rows(2, 0.2), columns)
    tables.append_rows(path, rows(1, 0.3), columns)
    found = tables.read(path, columns)
    assert [(row["epoch"], row["index"], row["kl_forward"]) for row in found] == [
        (1, 0, 0.3),
        (1, 1, 0.3),
        (1, 2, None),
        (2, 0, 0.2),
        (2, 1, 0.2),
        (2, 2, None),
    ]
    tables.truncate(path, 1, columns)
    assert len(tables.read(path, None)) == 3


def test_rows_with_unknown_columns_or_no_epoch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="trian_loss"):
        tables.append_row(tmp_path / "r.csv", {"epoch": 1, "trian_loss": 1.0})
    with pytest.raises(ValueError, match="epoch"):
        tables.append_row(tmp_path / "r.csv", {"train_loss": 1.0})
    assert not (tmp_path / "r.csv").exists()


def test_files_that_are_not_readings_are_named_and_kept(tmp_path):
    for content, message in [
        (b"", r"\.csv:1: the file is empty"),
        (b"epoch,loss\n1,2\n", r"\.csv:1: the column 'step' is missing"),
        (b"epoch,step,step\n1,2,3\n", r"\.csv:1: .*a column twice"),
        (
            ",".join(READINGS).encode() + b"\n1,2\n",
            f":2: 2 fields where the header has {NUMBER}",
        ),
        (
            ",".join(READINGS).encode() + b"\n" + b"1,2,x" + b"," * (NUMBER - 3),
            ":2: .*'x'",
        ),
        (
            ",".join(READINGS).encode() + b"\n" + b",2,3" + b"," * (NUMBER - 3),
            ":2: .*epoch",
        ),
        (b"\xff\xfe", "cannot be read"),
    ]:
        path = tmp_path / "readings.csv"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            tables.append_row(path, make_row(1))
        assert str(path) in str(error.value)
        assert path.read_bytes() == content


# Atomic writing.


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "readings.csv"
    tables.append_row(path, make_row(1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left") as error:
        tables.append_row(path, make_row(2))
    assert error.value.errno == errno.ENOSPC
    assert epochs_and_losses(path) == [(1, 1.5)]
    assert [file.name for file in tmp_path.iterdir()] == ["readings.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_device_leaves_the_old_table(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text("old")
    (tmp_path / f".readings.csv.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"


def test_json_round_trip_and_damage(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, 2.5, None], "b": "é"})
    assert files.read_json(path) == {"a": [1, 2.5, None], "b": "é"}
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json"):
        files.read_json(path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "absent.json")


# TensorBoard.


def scalars(folder, name):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(name)]


def write_epochs(folder, resumed_step, epochs, loss):
    writer = events.open_events(folder, resumed_step)
    for epoch in epochs:
        events.write_scalars(writer, 20 * epoch, {"train_loss": loss + epoch, "grad_noise": None})
    events.close_events(writer)


def test_events_are_there_as_soon_as_they_are_written(tmp_path):
    writer = events.open_events(tmp_path)
    events.write_scalars(writer, 20, {"train_loss": 1.0})
    found = scalars(tmp_path, "train_loss")  # what a kill would leave
    events.close_events(writer)
    assert found == [(20, 1)]


def test_events_of_a_resumed_run_are_not_doubled(tmp_path):
    write_epochs(tmp_path, None, (1, 2, 3), 0.0)
    write_epochs(tmp_path, 40, (3, 4), 10.0)  # from a checkpoint at the end of epoch 2
    write_epochs(tmp_path, 70, (4, 5), 20.0)  # within epoch 4
    assert scalars(tmp_path, "train_loss") == [(20, 1), (40, 2), (60, 13), (80, 24), (100, 25)]


def test_events_sort_after_earlier_files_when_the_clock_went_back(tmp_path):
    write_epochs(tmp_path, None, (1, 2), 0.0)
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / "events.out.tfevents.4000000000.host.1")  # of the year 2096
    write_epochs(tmp_path, 40, (3,), 10.0)
    write_epochs(tmp_path, 60, (4,), 20.0)
    assert scalars(tmp_path, "train_loss") == [(20, 1), (40, 2), (60, 13), (80, 24)]


def test_events_of_a_run_that_starts_again_are_its_own(tmp_path):
    write_epochs(tmp_path, None, (1, 2), 0.0)
    write_epochs(tmp_path, None, (1,), 10.0)
    assert scalars(tmp_path, "train_loss") == [(20, 11)]


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        (lambda content: content[:-5], 2),  # cut short by a kill
        (lambda content: content + b"\0" * 4096, 3),  # as a crash of the machine leaves it
        (lambda content: b"junk", 0),
        (lambda content: b"", 0),
    ],
)
def test_damaged_events_hide_no_later_file(tmp_path, damage, shown):
    write_epochs(tmp_path, None, (1, 2, 3), 0.0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    write_epochs(tmp_path, 70, (4,), 10.0)
    losses = [(20, 1), (40, 2), (60, 3)]
    assert scalars(tmp_path, "train_loss") == [*losses[:shown], (80, 14)]


def test_image_events(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    writer = events.open_events(tmp_path)
    events.write_image(writer, 5, "samples", image)
    events.close_events(writer)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (event,) = accumulator.Images("samples")
    assert (event.step, event.height, event.width) == (5, 12, 20)
    found = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    np.testing.assert_array_equal(found, image)
