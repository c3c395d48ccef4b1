"""KID against a double loop over the definition; unbiased, also under weights and bootstraps."""

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
    draws = subsets.draw_subsets(jax.random.key(0), (5, 12, 25), 30, 25)
    values = subsets.kid_values(x, y, draws)[kernel]
    for draw, value in zip(draws, values, strict=True):
        expected = loop_distance(x[draw.real], y[draw.generated], kernel)
        assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["equal", "apart"])
def test_the_bootstraps_error(shift):
    """Against the spread over fresh draws: right for distributions apart, never small when equal.

    For equal distributions the U-statistic is degenerate and a bootstrap overstates its spread.
    """
    rng = np.random.default_rng(4)
    fresh, estimates = [], []
    for repeat in range(60):
        x, y = rng.standard_normal((100, 8)), rng.standard_normal((100, 8)) + shift
        fresh.append(kid.kernel_distance(x, y))
        if repeat < 12:
            keys = jax.random.split(jax.random.key(repeat))
            counts = [subsets.bootstrap_counts(key, 100, 100) for key in keys]
            estimates.append(kid.weighted_distances(x, y, *counts)["polynomial"].std(ddof=1))
    ratio = np.mean(estimates) / np.std(fresh, ddof=1)
    # The spread over 60 draws is known to 9 %, so 3 standard errors are 27 %.
    assert (0.73 if shift else 0.9) < ratio < (1.35 if shift else 2.2)


def test_bootstrap_counts_are_samples_of_full_size():
    counts = subsets.bootstrap_counts(jax.random.key(5), 50, 8)
    assert counts.shape == (50, 8)
    assert (counts.sum(axis=0) == 50).all()
    assert len({tuple(column) for column in counts.T}) == 8


def test_wrong_arguments_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="kernel"):
        kid.kernel_distance(x, x, kernel="linear")
    with pytest.raises(ValueError, match="at least 2"):
        kid.kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match="weights"):
        kid.weighted_distances(x, x, np.ones((3, 1)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="two images"):
        kid.weighted_distances(x, x, np.eye(4)[:, :1], np.ones((4, 1)))
    with pytest.raises(ValueError, match="same number of weightings"):
        kid.weighted_distances(x, x, np.ones((4, 2)), np.ones((4, 1)))
