"""The jackknife: exact for a mean, safe for FID and neighbours, and no image in two groups."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import fid, jackknife, manifold
from thermo_ebm.metrics.subsets import Draw


def test_every_image_is_left_out_once():
    draws = jackknife.leave_groups_out(jax.random.key(0), 23, 31)
    assert len(draws) == jackknife.NUM_GROUPS
    for side, number in (("real", 23), ("generated", 31)):
        kept = [getattr(draw, side) for draw in draws]
        left = [np.setdiff1d(np.arange(number), one) for one in kept]
        assert sorted(np.concatenate(left)) == list(range(number))
        assert {len(one) for one in left} <= {number // 10, number // 10 + 1}
    # Which real image goes with which generated one is drawn: no order of the files is in it.
    other = jackknife.leave_groups_out(jax.random.key(1), 23, 31)
    assert any(not np.array_equal(*pair) for pair in zip(draws[0], other[0], strict=True))


def test_few_images_have_groups_of_one():
    draws = jackknife.leave_groups_out(jax.random.key(0), 4, 31)
    assert [len(draw.real) for draw in draws] == [3] * 4
    with pytest.raises(ValueError, match="no 10 groups of 1 and 31 images"):
        jackknife.leave_groups_out(jax.random.key(0), 1, 31)
    with pytest.raises(ValueError, match="at least two"):
        jackknife.stderr([1.0])


def test_of_a_mean_with_groups_of_one_it_is_the_textbook_s():
    values = np.random.default_rng(0).normal(size=12)
    replicates = [np.delete(values, i).mean() for i in range(12)]
    assert jackknife.stderr(replicates) == pytest.approx(values.std(ddof=1) / np.sqrt(12))


def estimates(metric, rng, num, dim, shift, scale):
    """A metric of two fresh sets and its standard error."""
    real = rng.normal(size=(num, dim))
    generated = scale * rng.normal(size=(num, dim)) + shift
    key = jax.random.key(int(rng.integers(1 << 30)))
    draws = jackknife.leave_groups_out(key, num, num)
    return metric(real, generated), jackknife.stderr(
        [metric(real[draw.real], generated[draw.generated]) for draw in draws]
    )


METRICS = {
    "fid": fid.frechet_distance,
    "precision": lambda real, generated: manifold.manifold_metrics(real, generated).precision,
    "coverage": lambda real, generated: manifold.manifold_metrics(real, generated).coverage,
    "difference of means": lambda real, generated: generated.mean() - real.mean(),
}


@pytest.mark.parametrize(
    ("name", "shift", "scale", "low", "high"),
    [
        ("difference of means", 0.0, 1.0, 0.8, 1.2),
        ("fid", 0.8, 1.0, 0.8, 1.3),  # apart: right
        ("fid", 0.0, 1.0, 1.0, 2.2),  # alike: safe
        ("precision", 0.8, 1.0, 0.8, 1.4),
        ("coverage", 0.8, 1.0, 0.9, 1.7),
    ],
)
def test_against_the_spread_over_fresh_sets(name, shift, scale, low, high):
    """The ratio of the two; 100 sets give the spread to 7 %, the root mean square to 3 %."""
    rng = np.random.default_rng(7)
    found = np.array([estimates(METRICS[name], rng, 60, 6, shift, scale) for _ in range(100)])
    ratio = np.sqrt(np.mean(found[:, 1] ** 2)) / found[:, 0].std(ddof=1)
    assert low < ratio < high


def test_neighbours_of_draws_from_shared_distances():
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=(40, 5)), rng.normal(size=(50, 5)) + 0.5
    real[7] = real[8]  # copies
    draws = [None, Draw(np.arange(3, 33), np.arange(20, 50))]
    whole, part = manifold.manifold_values(real, generated, draws)
    assert whole == manifold.manifold_metrics(real, generated)
    assert part == manifold.manifold_metrics(real[3:33], generated[20:])
    with pytest.raises(ValueError, match="more than 5 of either set"):
        manifold.manifold_values(real, generated, [Draw(np.arange(5), np.arange(20))])
