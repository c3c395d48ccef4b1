"""Schedules of the learning rates, against their formulas."""

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.train import task

FIRST, FINAL, STEPS = 4e-3, 1e-3, 10  # steps of an epoch


def rates(counts, **changes):
    """The learning rate of the generator after so many updates."""
    fields = {"learning_rate": FIRST, "final_learning_rate": FINAL}
    fields = {f"optimizer__generator__{name}": value for name, value in fields.items()}
    named = {f"optimizer__{name}": value for name, value in changes.items()}
    optimisers = task.make_optimisers(tiny.config(**fields | named).optimizer, STEPS)
    return np.array([float(optimisers["generator"].learning_rate(count)) for count in counts])


def test_cosine_falls_from_the_first_to_the_final_rate():
    counts = np.array([0, 9, 10, 15, 25, 39, 40, 41, 400])
    done = np.clip((counts - 10) / 30, 0, 1)
    expected = FINAL + (FIRST - FINAL) * (1 + np.cos(np.pi * done)) / 2
    actual = rates(counts, decay__name="cosine", decay__begin_epoch=1, decay__end_epoch=4)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_constant_rate_stays_whatever_the_decay():
    actual = rates([0, 10, 400], decay__name="constant", decay__rate=0.5)
    np.testing.assert_allclose(actual, FIRST, rtol=1e-6)


@pytest.mark.parametrize("name", ["exponential", "cosine", "constant"])
def test_a_warm_up_rises_linearly_to_the_schedule(name):
    counts = np.arange(0, 30, 3)
    fields = {"decay__name": name, "decay__begin_epoch": 0, "decay__end_epoch": 3}
    expected = rates(counts, **fields) * np.minimum((counts + 1) / 15, 1)
    np.testing.assert_allclose(rates(counts, warm_up_epochs=1.5, **fields), expected, rtol=1e-6)
