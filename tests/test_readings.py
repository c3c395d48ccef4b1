"""The registry of readings: one declaration gives the column, the tag, the page and the title."""

import subprocess
import sys

import pytest
import tiny_training as tiny

from docs.tools import readings as page
from thermo_ebm import readings
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.losses import LossSettings
from thermo_ebm.readings import READINGS, TEMPERATURE_READINGS, Reading
from thermo_ebm.run import tables
from thermo_ebm.train import step


def test_importing_readings_does_not_import_jax():
    code = "import sys, thermo_ebm.readings; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_declarations_have_meanings_and_distinct_tags():
    for declared in (READINGS, TEMPERATURE_READINGS):
        assert all(reading.meaning for reading in declared.values())
    assert len({readings.tag(name) for name in READINGS}) == len(READINGS)


def test_step_with_an_undeclared_reading_is_refused():
    with pytest.raises(ValueError, match="mystery"):
        readings.complete({"mystery": 1.0}, absent=0.0)
    assert readings.complete({"train_loss": 1.0}, absent=0.0)["train_grad_var"] == 0.0


@pytest.mark.slow
def test_new_reading_needs_its_declaration_and_its_value(tmp_path, monkeypatch):
    """The two files of a new reading: `readings.py` declares it, `train/step.py` computes it."""
    declaration = Reading("twice the loss", "nats", "doubled loss", per_step=True)
    monkeypatch.setitem(READINGS, "train_doubled", declaration)
    measurements = step.measurements

    def measured(gradient, *further):
        return measurements(gradient, *further) | {"train_doubled": 2 * gradient.loss}

    monkeypatch.setattr(step, "measurements", measured)
    tiny.train(tiny.config(num_epochs=1, val_batches=1, loss__kl_weight=1.75), tmp_path)
    (row,) = tables.read(tmp_path / "rep_00" / "readings.csv")
    assert row["train_doubled"] == pytest.approx(2 * row["train_loss"])
    assert "| `train_doubled`* | nats | twice the loss |" in page.page()
    assert readings.title("train_doubled") == "doubled loss"
    assert readings.tag("train_doubled") == "train/doubled"


def test_readings_apply_by_the_configuration():
    for changes, empty in [
        ({"loss__name": "vanilla"}, {"swap_rate", "global_barrier", "round_trips"}),
        ({"sampler__exchange_every": 1}, {"acceptance_prior", "acceptance_posterior"}),
        ({"sampler__prior__kernel": "mala"}, {"acceptance_posterior", "swap_rate", "round_trips"}),
    ]:
        values = dict.fromkeys(READINGS, 1.0)
        config = tiny.config(**changes)
        settings = LossSettings.from_config(config), sampler_settings(config)
        applicable = readings.applicable(READINGS, values, *settings)
        assert empty.isdisjoint(applicable)
        assert {"train_loss", "grad_noise"} <= applicable.keys()
