"""Networks of a user whose weights lie in another file than their source."""

import re
import sys

import numpy as np
import pytest

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import cache, user

FEATURES = """
from pathlib import Path
import numpy as np

WEIGHTS = Path(__file__).with_name("weights.npy")

def features(images):
    return images.reshape(len(images), -1)[:, :4] @ np.load(WEIGHTS)
"""
CACHE_KEY = """
def cache_key():
    return WEIGHTS.read_bytes()
"""
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), np.uint8)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Writes a module of the user and returns the name of its function of features."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(source):
        names.append(f"network_{tmp_path.name}_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(source)
        return f"{names[-1]}:features"

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("source", [FEATURES, FEATURES + CACHE_KEY], ids=["plain", "cache_key"])
def test_features_follow_weights_that_change_in_another_file(write_module, tmp_path, source):
    spec, labels = write_module(source), []
    for scale in (1.0, 2.0):
        weights = scale * np.eye(4)[:, :3]
        np.save(tmp_path / "weights.npy", weights)
        expected = IMAGES.reshape(5, -1)[:, :4] @ weights
        for has_been_computed in (False, True):
            network = user.import_network(spec)
            outputs = cache.real_outputs(network, IMAGES, "digits-validation", tmp_path)
            np.testing.assert_array_equal(outputs.features, expected)
            assert outputs.from_cache == (has_been_computed and "cache_key" in source)
        assert network.name == user.label(spec)
        labels.append(network.name)
    # Only a key can tell the columns of both weights apart.
    assert (labels[0] != labels[1]) == ("cache_key" in source)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", r"cache_key\(\) must return text or bytes, not int"),
        ("return ''", r"cache_key\(\) must return text or bytes"),
        ("raise OSError('no\\nfile')", r"cache_key\(\) failed \(OSError: no file\)"),
    ],
)
def test_a_cache_key_that_says_nothing_is_an_error_of_one_line(write_module, body, message):
    spec = write_module(f"{FEATURES}\ndef cache_key():\n    {body}\n")
    with pytest.raises(UserError, match=f"features={re.escape(spec)}: {message}") as caught:
        user.import_network(spec)
    assert "\n" not in str(caught.value)
