"""The cache of the features of real images."""

from pathlib import Path

import numpy as np

from thermo_ebm.metrics.networks import Network, Outputs, cache


def test_the_cache_folder_follows_the_desktops_rule(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.default_dir() == Path("/somewhere/thermo_ebm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.default_dir() == Path.home() / ".cache" / "thermo_ebm"


def counting_network(calls, **changes):
    def apply(images, batch_size):
        calls.append(len(images))
        return Outputs(images.mean(axis=(1, 2)), images[:, 0, 0].astype(float))

    return Network("small", "bilinear", "f" * 64, 3, apply)._replace(**changes)


def test_real_features_are_computed_once_for_each_content(tmp_path):
    calls = []
    network = counting_network(calls)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)).astype(np.uint8)

    def outputs(network=network, images=images, set_name="digits-validation"):
        return cache.real_outputs(network, images, set_name, tmp_path)

    first = outputs()
    again = outputs()
    assert len(calls) == 1
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.logits, first.logits)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    outputs(images=changed)
    outputs(images=images[::-1])
    outputs(set_name="digits-train")
    outputs(set_name="svhn-validation")
    outputs(network=network._replace(fingerprint="e" * 64))
    outputs(network=network._replace(resize="antialias"))
    outputs(network=network._replace(name="other"))
    assert len(calls) == 8
    outputs()
    assert len(calls) == 8


def test_features_of_a_network_that_is_not_cacheable_are_computed_each_time(tmp_path):
    calls = []
    network, images = counting_network(calls), np.zeros((4, 2, 2, 3), np.uint8)

    def from_cache(network):
        return cache.real_outputs(network, images, "digits-validation", tmp_path).from_cache

    assert [from_cache(network) for _ in range(2)] == [False, True]
    unknown = network._replace(is_cacheable=False)
    assert [from_cache(unknown) for _ in range(2)] == [False, False]
    assert len(calls) == 3


def test_features_of_a_damaged_or_foreign_file_are_computed_anew(tmp_path):
    calls = []
    network = counting_network(calls)
    images = np.zeros((4, 2, 2, 3), np.uint8)
    expected = cache.real_outputs(network, images, "digits-validation", tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    undamaged = path.read_bytes()
    for content in (b"", undamaged[:100], undamaged[:-30], b"x" * 500):
        path.write_bytes(content)
        again = cache.real_outputs(network, images, "digits-validation", tmp_path)
        np.testing.assert_array_equal(again.features, expected.features)
    with path.open("wb") as file:
        np.savez(file, key="another", features=np.ones((4, 3)), logits=np.ones((4, 3)))
    again = cache.real_outputs(network, images, "digits-validation", tmp_path)
    np.testing.assert_array_equal(again.features, expected.features)
    assert len(calls) == 6


def test_features_of_an_encrypted_or_compressed_file_are_computed_anew(tmp_path):
    calls = []
    network, images = counting_network(calls), np.zeros((4, 2, 2, 3), np.uint8)
    expected = cache.real_outputs(network, images, "digits-validation", tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    undamaged = path.read_bytes()
    for offset, value in ((6, 1), (8, 8), (8, 14), (8, 99)):
        damaged = bytearray(undamaged)
        # The first entry's header, and the same fields two bytes later in the directory.
        damaged[offset] = damaged[damaged.index(b"PK\x01\x02") + 2 + offset] = value
        path.write_bytes(damaged)
        again = cache.real_outputs(network, images, "digits-validation", tmp_path)
        np.testing.assert_array_equal(again.features, expected.features)
    assert len(calls) == 5


def test_a_cache_that_cannot_be_written_does_not_stop_the_evaluation(tmp_path):
    (tmp_path / "features").write_bytes(b"in the way")
    network = counting_network([])
    images = np.zeros((4, 2, 2, 3), np.uint8)
    outputs = cache.real_outputs(network, images, "digits-validation", tmp_path)
    assert outputs.features.shape == (4, 3)
