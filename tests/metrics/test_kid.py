"""KID against a double loop over the definition; unbiased, and with an error that covers."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import kid, subsets
from thermo_ebm.metrics.arrays import FeaturePair
from thermo_ebm.metrics.subsets import Draw


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
def test_kid_agrees_with_the_double_loop(kernel):
    rng = np.random.default_rng(0)
    for num_real, num_generated in ((30, 30), (2, 3), (40, 21)):
        x = rng.standard_normal((num_real, 7))
        y = 1.5 * rng.standard_normal((num_generated, 7)) + 0.3
        expected = loop_distance(x, y, kernel)
        assert kid.kernel_distance(x, y, kernel=kernel) == pytest.approx(expected, rel=1e-11)


@KERNELS
def test_more_images_than_a_block_agree_with_complete_matrices(kernel):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((530, 5)), rng.standard_normal((1040, 5)) + 0.3

    def matrix(a, b):
        if kernel == "polynomial":
            return (a @ b.T / 5 + 1) ** 3
        return np.exp(-np.sum((a[:, None] - b) ** 2, axis=-1) / 5)

    def mean_off_diagonal(a):
        values = matrix(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    expected = mean_off_diagonal(x) + mean_off_diagonal(y) - 2 * matrix(x, y).mean()
    assert kid.kernel_distance(x, y, kernel) == pytest.approx(expected, rel=1e-10)


@KERNELS
def test_kid_is_unbiased_over_small_subsets_of_one_distribution(kernel):
    """The mean over 2,000 pairs of 12 points is 0 within 3.5 of its standard errors."""
    rng = np.random.default_rng(2)
    values = np.array(
        [kid.kernel_distance(*rng.standard_normal((2, 12, 6)), kernel) for _ in range(2000)]
    )
    stderr = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * stderr
    # The biased form, with the diagonal, would be off by about E[k(x, x) - k(x, y)] 2 / 12.
    assert stderr < 0.02 * (0.5 if kernel == "rbf" else 3)
    assert (values < 0).mean() > 0.3  # never clamped


def test_float32_and_jax_arrays_are_computed_in_float64():
    x = jax.random.normal(jax.random.key(0), (20, 4))
    y = jax.random.normal(jax.random.key(1), (20, 4)) + 0.5
    exact = loop_distance(np.asarray(x, np.float64), np.asarray(y, np.float64), "polynomial")
    assert kid.kernel_distance(x, y) == pytest.approx(exact, rel=1e-11)


@KERNELS
def test_subset_distances_equal_the_distance_of_each_subset(kernel):
    rng = np.random.default_rng(3)
    features = FeaturePair(rng.standard_normal((30, 5)), rng.standard_normal((25, 5)) + 0.2)
    by_size = subsets.draw_subsets(jax.random.key(0), (5, 12, 25), 30, 25, draws_per_size=2)
    draws = [draw for draws_of_size in by_size for draw in draws_of_size]
    values = kid.subset_distances(features, draws)[kernel].values
    expected = [
        loop_distance(features.real[draw.real], features.generated[draw.generated], kernel)
        for draw in draws
    ]
    assert len(values) == 6
    np.testing.assert_allclose(values, expected, rtol=1e-10)


@KERNELS
@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["equal", "apart"])
def test_covariance_equals_the_covariance_of_fresh_sets(kernel, shift):
    """Against the covariance over 300 fresh pairs of sets, within 4 of its standard errors."""
    rng = np.random.default_rng(4)
    draws = [  # overlapping subsets, disjoint subsets, all images
        Draw(np.arange(12), np.arange(20)),
        Draw(np.arange(25, 40), np.arange(20, 30)),
        subsets.all_images(40, 30),
    ]
    values, estimated = [], []
    for _ in range(300):
        features = FeaturePair(rng.gamma(2.0, 0.5, (40, 3)), rng.gamma(2.0, 0.5, (30, 3)) + shift)
        distances = kid.subset_distances(features, draws, (kernel,))[kernel]
        values.append(distances.values)
        estimated.append(distances.covariance)
    values, estimated = np.array(values), np.array(estimated)
    deviation = values - values.mean(axis=0)
    products = deviation[:, :, None] * deviation[:, None, :]
    error = np.sqrt((products.var(axis=0) + estimated.var(axis=0)) / len(values))
    # The lower limit of the linear part makes the estimate a little large for equal sets.
    surplus = 0.0 if shift else 0.25 * estimated.mean(axis=0)
    difference = estimated.mean(axis=0) - products.mean(axis=0)
    assert (difference > -4 * error).all()
    assert (difference < 4 * error + surplus).all()


def test_constant_kernel_has_no_variance():
    """All images are infinitely far apart: the kernel is constant off the diagonal."""
    rng = np.random.default_rng(5)
    features = FeaturePair(1e3 * rng.standard_normal((6, 2)), 1e3 * rng.standard_normal((5, 2)))
    distances = kid.subset_distances(features, [subsets.all_images(6, 5)], ("rbf",))["rbf"]
    assert distances.values == pytest.approx([0.0], abs=1e-12)
    assert distances.covariance == pytest.approx(np.zeros((1, 1)), abs=1e-12)


def test_kid_refuses_wrong_arguments():
    x = np.zeros((4, 2))
    with pytest.raises(ValueError, match="kernel"):
        kid.kernel_distance(x, x, kernel="linear")
    with pytest.raises(ValueError, match="at least 2"):
        kid.kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match="two images"):
        kid.subset_distances(FeaturePair(x, x), [Draw(np.arange(1), np.arange(4))])
