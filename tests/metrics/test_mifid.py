"""MIFID of copies and of fresh images, and its nearest distances for subsets."""

import numpy as np
import pytest

from thermo_ebm.metrics import fid, mifid, subsets
from thermo_ebm.metrics.arrays import FeaturePair
from thermo_ebm.metrics.subsets import Draw


def test_mifid_is_fid_unless_images_are_copies():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 40, 64))
    assert mifid.memorization_informed_distance(x, y) == fid.frechet_distance(x, y)
    near = x + 0.05 * rng.standard_normal(x.shape)
    cosines = near @ x.T / np.outer(np.linalg.norm(near, axis=1), np.linalg.norm(x, axis=1))
    distance = np.mean((1 - np.abs(cosines)).min(axis=1))
    assert distance < mifid.THRESHOLD
    expected = fid.frechet_distance(x, near) / distance
    assert mifid.memorization_informed_distance(x, near) == pytest.approx(expected, rel=1e-9)
    assert mifid.memorization_informed_distance(x, near, threshold=1e-6) < expected


def test_exact_copies_have_a_finite_mifid_and_zeros_no_cosine():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 8))
    assert np.isfinite(mifid.memorization_informed_distance(x, x))
    zeros = FeaturePair(x, np.zeros((2, 8)))
    np.testing.assert_array_equal(mifid.cosine_distances(zeros), np.ones((2, 30)))


def test_nearest_distances_of_subsets_are_minima_over_the_subset():
    """Also where none of a generated image's 33 nearest real images was drawn."""
    rng = np.random.default_rng(2)
    features = FeaturePair(rng.standard_normal((200, 6)), rng.standard_normal((30, 6)))
    neighbours = mifid.nearest_neighbours(features)
    all_distances = mifid.cosine_distances(features)
    far = np.argsort(all_distances[0])[-20:]  # the farthest real images of the first generated one
    for draw in (
        subsets.all_images(200, 30),
        Draw(rng.permutation(200)[:50], rng.permutation(30)[:20]),
        Draw(far, np.arange(30)),
    ):
        expected = all_distances[np.ix_(draw.generated, draw.real)].min(axis=1)
        actual = mifid.nearest_distances(neighbours, draw)
        np.testing.assert_array_equal(actual, expected)
