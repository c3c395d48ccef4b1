"""Copies of training images: counted, measured, and told from images that are merely similar."""

import numpy as np
import pytest

from thermo_ebm.metrics import fid, memorization, mifid


def features(num, seed):
    return np.random.default_rng(seed).gamma(2.0, size=(num, 6))


def brute_force(training, generated):
    authentic = []
    for point in generated:
        distances = np.linalg.norm(training - point, axis=1)
        nearest = distances.argmin()
        between = np.linalg.norm(training - training[nearest], axis=1)
        between[nearest] = np.inf
        authentic.append(between.min() < distances[nearest])
    return np.mean(authentic)


def test_authenticity_by_hand_and_by_brute_force(monkeypatch):
    training = np.array([[0.0], [1.0], [10.0]])
    generated = np.array([[0.4], [-1.5], [10.5], [25.0]])  # nearer than 1, 9: copies are 0.4, 10.5
    result = memorization.authenticity(training, generated)
    assert result == (0.5, pytest.approx(0.25))
    training, generated = features(90, 0), features(40, 1)
    expected = brute_force(training, generated)
    assert 0 < expected < 1
    assert memorization.authenticity(training, generated).share == pytest.approx(expected)
    monkeypatch.setattr(memorization, "_BLOCK", 7)
    assert memorization.authenticity(training, generated).share == pytest.approx(expected)


def test_copies_are_found_and_fresh_images_are_not():
    training, fresh = features(200, 0), features(100, 1)
    copies = training[:100] + 1e-4
    assert memorization.authenticity(training, copies).share == 0
    assert memorization.authenticity(training, fresh).share > 0.3
    # A training image that is there twice has a distance of 0: its copies are not nearer.
    twice = np.concatenate([training, training])
    assert memorization.authenticity(twice, copies).share == 1


def test_mifid_of_the_training_images_follows_its_definition():
    """Every copy counts, as the nearest of all training images is asked for."""
    training, fresh = features(200, 0), features(100, 1)
    half = np.concatenate([training[:50], fresh[:50]])
    for generated in (fresh, half):
        summary = memorization.summarize(training, generated, [], [b""] * 100)
        distance = memorization.training_distance(training, generated)
        expected = mifid.memorization_informed_distance(training, generated)
        assert summary.training_distance == distance
        assert summary.mifid_training == pytest.approx(expected)
    assert memorization.training_distance(training, half) == pytest.approx(
        memorization.training_distance(training, fresh[:50]) / 2
    )
    ratio = summary.mifid_training / fid.frechet_distance(training, half)
    assert ratio == pytest.approx(1 / distance)
    copies = memorization.summarize(training, training[:100], [], [])
    assert copies.mifid_training == np.inf
    assert copies.training_distance == pytest.approx(0, abs=1e-12)


def test_exact_copies_are_counted_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    training = memorization.digests(images[:4])
    generated = memorization.digests(images[[0, 0, 3, 5, 5, 5]])
    assert memorization.count_copies(training, generated) == (3, 3)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert memorization.count_copies(training, memorization.digests(changed[:1])) == (0, 0)
