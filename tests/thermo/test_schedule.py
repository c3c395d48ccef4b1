"""Temperature schedules: their values, their ends, and what they refuse."""

import itertools

import numpy as np
import pytest

from thermo_ebm.thermo.schedule import CURVES, make_schedule, power_schedule


def test_temperatures_by_hand():
    for num, power, expected in (
        (1, 6.0, [0.0, 1.0]),
        (4, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (4, 2.0, [0.0, 0.0625, 0.25, 0.5625, 1.0]),
        (4, 0.5, [0.0, 0.5, 0.5**0.5, 0.75**0.5, 1.0]),
        (2, 10, [0.0, 1 / 1024, 1.0]),
    ):
        np.testing.assert_allclose(power_schedule(num, power), expected, rtol=1e-6)


def test_temperatures_rise_from_exactly_zero_to_exactly_one():
    for num, power in itertools.product((1, 5, 10, 30), (0.1, 0.3, 1, 3, 6, 10)):
        temperatures = np.asarray(power_schedule(num, power))
        assert temperatures.shape == (num + 1,)
        assert temperatures[0] == 0
        assert temperatures[-1] == 1
        assert np.all(np.diff(temperatures) > 0)


def test_first_of_ten_intervals_by_hand():
    # Half of it is the trapezium's weight on the prior's chains: 0.40, 0.25, 0.05 and 5e-7.
    first = [float(power_schedule(10, power)[1]) for power in (0.1, 0.3, 1.0, 6.0)]
    np.testing.assert_allclose(np.array(first) / 2, [0.397, 0.251, 0.05, 5e-7], rtol=2e-3)


def test_powers_above_one_crowd_towards_the_prior_and_below_towards_the_posterior():
    assert np.median(power_schedule(10, 3.0)) < 0.5 < np.median(power_schedule(10, 0.3))


@pytest.mark.parametrize("name", CURVES)
def test_slopes_are_the_curves_derivatives(x64, name):
    """Against differences of a curve 1,000 times as fine."""
    num, fine = 8, 8000
    for power in (0.3, 1.0, 4.0):
        coarse, curve = (make_schedule(name, n, power) for n in (num, fine))
        inner = np.arange(1, num) * (fine // num)
        t = np.asarray(curve.temperatures)
        differences = (t[inner + 1] - t[inner - 1]) * fine / 2
        np.testing.assert_allclose(coarse.slopes[1:-1], differences, rtol=1e-5)
        np.testing.assert_allclose(coarse.temperatures, t[:: fine // num], rtol=1e-12)


def test_sigmoid_is_symmetric_and_steepest_in_the_middle():
    schedule = make_schedule("sigmoid", 10, 4.0)
    t = np.asarray(schedule.temperatures)
    assert (t[0], t[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(t + t[::-1], 1.0, atol=1e-6)
    assert np.argmax(schedule.slopes) == 5


def test_refuses_a_schedule_that_does_not_exist():
    with pytest.raises(ValueError, match="schedule must be one of power, annealed_power, sigm"):
        make_schedule("linear", 5, 1.0)


@pytest.mark.usefixtures("x64")
def test_temperatures_are_float64_where_jax_enables_it():
    temperatures = power_schedule(3, 0.1)
    assert temperatures.dtype == np.float64
    np.testing.assert_allclose(temperatures[1], (1 / 3) ** 0.1, rtol=1e-15)


def test_refuses_fewer_than_one_interval_and_powers_that_are_not_positive():
    for num in (0, -1):
        with pytest.raises(ValueError, match="num_temperatures must be at least 1"):
            power_schedule(num, 1.0)
    for power in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="power must be positive"):
            power_schedule(3, power)
