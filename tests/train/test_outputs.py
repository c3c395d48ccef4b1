"""What a run writes: readings, temperatures, gradient noise, pictures, events, its record."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training as tiny
from PIL import Image

from thermo_ebm.cost import memory
from thermo_ebm.readings import READINGS, TEMPERATURE_READINGS
from thermo_ebm.run import tables
from thermo_ebm.train import task
from thermo_ebm.train.loop import Outcome

CHANGES = {
    "num_epochs": 2,
    "logging__pictures_every_epochs": 2,
    "logging__writers": ("csv", "tensorboard"),
    "logging__grad_noise_every_epochs": 2,
    "checkpoint__every_steps": 0,
    "optimizer__decay__begin_epoch": 0,
}
REPORTS = (None, {"peak_bytes_in_use": 2**20}, {"peak_bytes_in_use": 3 * 2**20})
PARTS = ("grad_noise_batch", "grad_noise_mcmc", "grad_noise_interaction")
NOISE = ("grad_noise", *PARTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("outputs")
    assert tiny.train(tiny.config(**CHANGES), workdir) is Outcome.DONE
    return workdir / "rep_00"


def test_readings_have_all_columns_and_sensible_values(run):
    table = tables.read(run / "readings.csv")
    assert list(table[0]) == list(READINGS)
    assert [row["epoch"] for row in table] == [1, 2]
    assert [row["step"] for row in table] == [10, 20]
    for row in table:
        assert row["train_loss_per_dim"] == pytest.approx(row["train_loss"] / 64)
        assert row["val_loss_per_dim"] == pytest.approx(row["val_loss"] / 64)
        assert row["skipped_steps"] == 0
        assert row["images_per_second"] == pytest.approx(150 / row["seconds"])
        assert row["flops_per_step"] > 0
    assert table[1]["train_loss"] < table[0]["train_loss"]


def test_memory_reading_is_what_the_devices_report(run):
    """A CPU reports none: its cells are empty."""
    assert [row["device_memory_mib"] for row in tables.read(run / "readings.csv")] == [None] * 2
    silent, some, more = (SimpleNamespace(memory_stats=lambda n=n: n) for n in REPORTS)
    assert memory.peak_mib([silent]) is None
    assert memory.peak_mib([silent, some, more]) == 3


def test_learning_rates_are_those_that_each_epochs_last_update_used(run):
    """Step 10, the last of epoch 1, is the tenth update: the rate falls only after it."""
    first, second = tables.read(run / "readings.csv")
    for network in ("prior", "generator"):
        rate = tiny.config().optimizer[network].learning_rate
        assert first[f"learning_rate_{network}"] == pytest.approx(rate)
        assert second[f"learning_rate_{network}"] == pytest.approx(0.975 * rate)


def test_learning_rates_follow_the_updates_of_the_optimiser():
    made = tiny.config(optimizer__decay__begin_epoch=0)
    optimisers = task.make_optimisers(made.optimizer, steps_per_epoch=10)
    rates = [
        task.last_rates(optimisers, dict.fromkeys(optimisers, number))["generator"]
        for number in (0, 1, 10, 11, 21)
    ]
    decayed = np.array([1, 1, 1, 0.975, 0.975**2]) * made.optimizer.generator.learning_rate
    np.testing.assert_allclose(rates, decayed, rtol=1e-6)


def test_gradient_noise_is_measured_when_asked_for(run):
    first, second = tables.read(run / "readings.csv")
    assert all(first[name] is None for name in NOISE)
    assert second["grad_noise"] > 0
    # The parts add up, each with a standard error of its own.
    assert sum(second[name] for name in PARTS) == pytest.approx(second["grad_noise"], rel=1e-4)
    assert all(second[f"{name}_stderr"] > 0 for name in NOISE)


def test_noise_of_every_steps_gradient_is_among_the_readings(run):
    for row in tables.read(run / "readings.csv"):
        noise = row["train_grad_noise"]
        assert 0 < noise < 10 * row["train_grad_var"]
        between = sorted([row["train_grad_noise_prior"], row["train_grad_noise_generator"]])
        assert between[0] <= noise <= between[1]  # a mean over the entries of both
        assert row["gradient_noise_amplification"] == 1
        assert row["gradient_noise_saturated"] == 0


def test_temperatures_are_of_the_schedule(run):
    table = tables.read(run / "temperatures.csv", TEMPERATURE_READINGS)
    assert [(row["epoch"], row["index"]) for row in table] == [
        (epoch, index) for epoch in (1, 2) for index in range(4)
    ]
    np.testing.assert_allclose(
        [row["temperature"] for row in table[:4]],
        (np.arange(4) / 3) ** tiny.config().loss.power,
        rtol=1e-6,
    )
    assert all((row["kl_forward"] is None) == (row["index"] == 3) for row in table)


def test_pictures_are_written(run):
    assert [path.name for path in (run / "samples").iterdir()] == ["epoch_0002.png"]
    with Image.open(run / "samples" / "epoch_0002.png") as image:
        assert np.asarray(image).std() > 10


def test_events_hold_the_readings(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    table = tables.read(run / "readings.csv")
    expected = [(row["step"], np.float32(row["train_loss"])) for row in table]
    assert losses == expected
    assert events.Images("samples")[0].step == 20


def test_configuration_is_beside_the_readings(run):
    stored = json.loads((run.parent / "config.json").read_text())
    assert stored["model"]["latent_dim"] == 4
    assert stored == {"version": 3} | tiny.configuration.as_json(tiny.config(**CHANGES))


@pytest.mark.slow
def test_a_vanilla_run_with_clipped_gradients(tmp_path):
    changes = {"loss__name": "vanilla", "optimizer__clip_norm": 0.5, "num_epochs": 1}
    made = tiny.config(checkpoint__every_steps=1, **changes)
    assert tiny.train(made, tmp_path, dispatches=1) is Outcome.INTERRUPTED
    # After one step Adam's first moment is (1 - b1) times the gradient it was given.
    state = tiny.end_state(made, tmp_path)
    moments = np.concatenate([leaf.ravel() for name, leaf in state.items() if ".mu." in name])
    assert np.linalg.norm(moments) == pytest.approx((1 - 0.5) * 0.5, rel=1e-5)
    assert tiny.train(made, tmp_path) is Outcome.DONE
    (row,) = tables.read(tmp_path / "rep_00" / "readings.csv")
    assert np.isfinite(row["train_loss"])
    assert row["train_grad_var"] > 1, "the statistics are those of the gradient before"
    assert not (tmp_path / "rep_00" / "temperatures.csv").exists()


@pytest.mark.slow
def test_checkpoints_kept_for_good_are_written_whatever_the_others_do(tmp_path):
    changes = {"every_epochs": 3, "every_steps": 0, "keep_every_epochs": 2, "keep": 1}
    made = tiny.config(num_epochs=4, **{f"checkpoint__{name}": v for name, v in changes.items()})
    tiny.train(made, tmp_path)
    found = {path.name for path in (tmp_path / "rep_00/checkpoints").iterdir()}
    assert {"20", "40"} <= found
    assert "30" not in found
