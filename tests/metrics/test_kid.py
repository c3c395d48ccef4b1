"""KID against a double loop over the definition; unbiased, and with an error that covers."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import kid, subsets


def loop_distance(x, y, kernel):
    """The U-statistic pair by pair, in plain numpy."""
    size = x.shape[1]

    def k(a, b):
        if kernel == "polynomial":
            return (a @ b / size + 1) ** 3
        return np.exp(-np.sum((a - b) ** 2) / size)

    def within(z):
        pairs = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return np.mean(pairs)

    between = np.mean([k(a, b) for a in x for b in y])
    return within(x) + within(y) - 2 * between


KERNELS = pytest.mark.parametrize("kernel", ["polynomial", "rbf"])


@KERNELS
@pytest.mark.parametrize(("num_real", "num_generated"), [(30, 30), (2, 3), (40, 21)])
def test_agrees_with_the_double_loop(kernel, num_real, num_generated):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_real, 7))
    y = 1.5 * rng.standard_normal((num_generated, 7)) + 0.3
    actual = kid.kernel_distance(x, y, kernel=kernel)
    assert actual == pytest.approx(loop_distance(x, y, kernel), rel=1e-11)


@KERNELS
def test_blocks_do_not_show(kernel, monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((50, 5)), rng.standard_normal((37, 5))
    whole = kid.kernel_distance(x, y, kernel)
    monkeypatch.setattr(kid, "_BLOCK", 8)
    assert kid.kernel_distance(x, y, kernel) == pytest.approx(whole, rel=1e-10, abs=1e-14)


@KERNELS
def test_unbiased_over_small_subsets_of_one_distribution(kernel):
    """The mean over 2,000 pairs of 12 points is 0 within 3.5 of its standard errors."""
    rng = np.random.default_rng(2)
    values = np.array(
        [kid.kernel_distance(*rng.standard_normal((2, 12, 6)), kernel) for _ in range(2000)]
    )
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * stderr
    # The biased form, diagonal kept, would be off by about E[k(x, x) - k(x, y)] 2 / 12.
    assert stderr < 0.02 * (0.5 if kernel == "rbf" else 3)
    assert (values < 0).mean() > 0.3  # never clamped


def test_float32_and_jax_arrays_are_computed_in_float64():
    x = jax.random.normal(jax.random.key(0), (20, 4))
    y = jax.random.normal(jax.random.key(1), (20, 4)) + 0.5
    exact = loop_distance(np.asarray(x, np.float64), np.asarray(y, np.float64), "polynomial")
    assert kid.kernel_distance(x, y) == pytest.approx(exact, rel=1e-11)


@KERNELS
def test_indicators_give_the_subsets_own_distances(kernel):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((25, 5)) + 0.2
    of_sizes = subsets.draw_subsets(jax.random.key(0), (5, 12, 25), 30, 25, draws_per_size=2)
    draws = [draw for of_size in of_sizes for draw in of_size]
    values = subsets.kid_values(x, y, draws)[kernel].values
    assert len(values) == 6
    for draw, value in zip(draws, values, strict=True):
        expected = loop_distance(x[draw.real], y[draw.generated], kernel)
        assert value == pytest.approx(expected, rel=1e-10)


def indicators_of(num, *subset_sizes):
    """Nested and apart: the first images, the last ones, all of them."""
    columns = np.zeros((num, len(subset_sizes)))
    for column, size in enumerate(subset_sizes):
        columns[: abs(size) if size > 0 else num, column] = 1
        if size < 0:
            columns[:size, column] = 0
    return columns


@KERNELS
@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["equal", "apart"])
def test_the_covariance_is_that_of_fresh_draws(kernel, shift):
    """Against the covariance over 300 fresh pairs of sets, within 4 of its standard errors."""
    rng = np.random.default_rng(4)
    chosen = indicators_of(40, 12, -15, 40), indicators_of(30, 20, -10, 30)
    values, estimated = [], []
    for _ in range(300):
        x = rng.gamma(2.0, 0.5, (40, 3))
        y = rng.gamma(2.0, 0.5, (30, 3)) + shift
        one = kid.subset_distances(x, y, *chosen, (kernel,))[kernel]
        values.append(one.values)
        estimated.append(one.covariance)
    values, estimated = np.array(values), np.array(estimated)
    deviation = values - values.mean(axis=0)
    products = deviation[:, :, None] * deviation[:, None, :]
    error = np.sqrt((products.var(axis=0) + estimated.var(axis=0)) / len(values))
    # Keeping the linear part from falling below 0 makes the estimate a little large when equal.
    surplus = 0.0 if shift else 0.25 * estimated.mean(axis=0)
    difference = estimated.mean(axis=0) - products.mean(axis=0)
    assert (difference > -4 * error).all()
    assert (difference < 4 * error + surplus).all()


def test_a_constant_kernel_has_no_variance():
    rng = np.random.default_rng(5)
    x, y = 1e3 * rng.standard_normal((6, 2)), 1e3 * rng.standard_normal((5, 2))
    one = kid.subset_distances(x, y, np.ones((6, 1)), np.ones((5, 1)), ("rbf",))["rbf"]
    # All images infinitely far apart: the kernel is constant off the diagonal.
    assert one.values == pytest.approx([0.0], abs=1e-12)
    assert one.covariance == pytest.approx(np.zeros((1, 1)), abs=1e-12)


def test_wrong_arguments_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="kernel"):
        kid.kernel_distance(x, x, kernel="linear")
    with pytest.raises(ValueError, match="at least 2"):
        kid.kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match="indicators"):
        kid.subset_distances(x, x, np.ones((3, 1)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="two images"):
        kid.subset_distances(x, x, np.eye(4)[:, :1], np.ones((4, 1)))
    with pytest.raises(ValueError, match="same number of subsets"):
        kid.subset_distances(x, x, np.ones((4, 2)), np.ones((4, 1)))
