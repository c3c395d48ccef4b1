"""Schedules that adapt: equal rejection rates where those are known, and nothing strange."""

import itertools

import numpy as np
import plane_model as plane
import pytest

from thermo_ebm.thermo.schedule import annealed_power, equalised, make_schedule

NUM = 10


@pytest.fixture(scope="module")
def grid():
    params = plane.parameters()
    return plane.make_grid(params, plane.simulated_images(params, 4)[1])


def rejection(grid, temperatures):
    """The exact mean rates at which neighbours refuse an exchange, [NUM]."""
    t = np.asarray(temperatures, np.float64)
    pairs = itertools.pairwise(t)
    return np.array([1 - plane.swap_probability(grid, *pair).mean() for pair in pairs])


@pytest.mark.parametrize(("name", "power"), [("equal_barrier", 1.0), ("equal_barrier", 6.0)])
def test_rejection_rates_become_equal(grid, name, power):
    schedule = make_schedule(name, NUM, power)
    before = rejection(grid, schedule.temperatures)
    assert before.max() / before.min() > 3
    for _ in range(4):
        schedule = equalised(schedule, rejection(grid, schedule.temperatures))
        t = np.asarray(schedule.temperatures)
        assert (t[0], t[-1]) == (0.0, 1.0)
        assert np.all(np.diff(t) > 0)
    after = rejection(grid, schedule.temperatures)
    assert np.all(np.abs(after / after.mean() - 1) < 0.1)
    # The barrier, their sum, is nearly a property of the model: it does not depend on the schedule.
    assert after.sum() == pytest.approx(before.sum(), rel=0.25)


def test_slopes_are_those_of_the_adapted_curve(grid):
    schedule = make_schedule("equal_barrier", NUM, 3.0)
    schedule = equalised(schedule, rejection(grid, schedule.temperatures))
    slopes = np.asarray(schedule.slopes, np.float64)
    assert np.all(slopes >= 0)
    assert np.isfinite(slopes).all()
    # Simpson's rule over u: the slopes integrate to about the whole interval.
    assert slopes.sum() - (slopes[0] + slopes[-1]) / 2 == pytest.approx(NUM, rel=0.1)


def test_adapted_temperatures_rise_strictly_whatever_was_measured():
    alternating = np.where(np.arange(NUM) % 2, 1.0, 0.0)
    extreme = (np.zeros(NUM), np.eye(NUM)[0], np.eye(NUM)[-1], np.full(NUM, 1e-30), alternating)
    for rates, power in itertools.product(extreme, (0.1, 1.0, 10.0)):
        schedule = make_schedule("equal_barrier", NUM, power)
        for _ in range(20):
            schedule = equalised(schedule, rates)
        t = np.asarray(schedule.temperatures)
        assert t.dtype == np.float32
        assert (t[0], t[-1]) == (0.0, 1.0)
        assert np.all(np.diff(t) > 0)
        assert np.isfinite(schedule.slopes).all()


def test_equal_rejection_rates_change_no_temperature():
    schedule = make_schedule("equal_barrier", NUM, 3.0)
    again = equalised(schedule, np.full(NUM, 0.4))
    np.testing.assert_allclose(again.temperatures, schedule.temperatures, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rejection_rates_that_are_not_finite_change_no_temperature(bad):
    schedule = make_schedule("equal_barrier", NUM, 3.0)
    assert equalised(schedule, np.append(np.full(NUM - 1, 0.4), bad)) is schedule


def test_annealed_power_goes_from_one_to_the_other_along_half_a_cosine():
    progress = np.array([-1.0, 0.0, 0.5, 1.0, 7.0])
    powers = annealed_power(2.0, 0.5, progress)
    np.testing.assert_allclose(powers, [2.0, 2.0, 1.25, 0.5, 0.5], rtol=1e-6)
    assert annealed_power(2.0, 0.5, np.array(0.25)) > 1.625  # slow at first
