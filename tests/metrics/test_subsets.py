"""Subsets drawn without replacement, with a fresh key for each size."""

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import subsets


def test_extrapolation_sizes_are_the_papers():
    expected = (1000, 1389, 1778, 2167, 2556, 2944, 3333, 3722, 4111, 4500)
    assert subsets.extrapolation_sizes() == expected
    assert subsets.extrapolation_sizes(297, 5) == (66, 124, 182, 239, 297)
    with pytest.raises(ValueError, match="sizes"):
        subsets.extrapolation_sizes(8, 10)


def flat(draws_by_size):
    return [draw for draws_of_size in draws_by_size for draw in draws_of_size]


def test_draws_are_without_replacement_and_fresh():
    draws, again, other_key = (
        flat(subsets.draw_subsets(jax.random.key(seed), (10, 10, 40), 40, 50, draws_per_size=2))
        for seed in (0, 0, 1)
    )
    members = [side for draw in draws for side in draw]
    assert [len(side) for side in members] == [10] * 8 + [40] * 4
    assert all(len(set(side.tolist())) == len(side) for side in members)
    # All differ except the two draws of all 40 real images.
    assert len({tuple(sorted(side.tolist())) for side in members}) == 11
    assert all((a.real == b.real).all() for a, b in zip(draws, again, strict=True))
    assert not (draws[0].real == other_key[0].real).all()
    for sizes in ((), (1, 10), (10, 41)):
        with pytest.raises(ValueError, match="cannot draw"):
            subsets.draw_subsets(jax.random.key(0), sizes, 40, 50)
    with pytest.raises(ValueError, match="draws_per_size"):
        subsets.draw_subsets(jax.random.key(0), (10,), 40, 50, 0)


def test_draws_of_a_size_use_every_image_about_equally():
    (draws,) = subsets.draw_subsets(jax.random.key(2), (13,), 40, 52, draws_per_size=4)
    for number, side in ((40, 0), (52, 1)):
        counts = np.bincount(np.concatenate([draw[side] for draw in draws]), minlength=number)
        assert counts.max() - counts.min() <= 1
    # A size equal to the number of images in both sets has one draw.
    assert len(subsets.draw_subsets(jax.random.key(2), (40,), 40, 40)[0]) == 1


def test_every_image_is_drawn_equally_often():
    """Over 100 draws of 5 of 20 each image comes 25 times, within 4 standard errors."""
    draws = flat(subsets.draw_subsets(jax.random.key(2), (5,) * 100, 20, 20, 1))
    for side in zip(*draws, strict=True):
        counts = np.bincount(np.concatenate(side), minlength=20)
        assert np.abs(counts - 25).max() < 4 * np.sqrt(100 * 0.25 * 0.75)
