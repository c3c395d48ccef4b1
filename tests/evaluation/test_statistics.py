"""Files of statistics: what they are of, and what is said of files that do not tell."""

import json

import numpy as np
import pytest
import trained_run

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import compare, sets, statistics
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.statistics import Statistics
from thermo_ebm.metrics import networks

WIDTH = 2048  # of InceptionV3's features
PREFIX = trained_run.PREFIX


def write(path, width, scale=1.0, **texts):
    """A file as other programs write it, with a diagonal covariance for the sake of time."""
    np.savez(path, mu=np.zeros(width), sigma=scale * np.eye(width), **texts)
    return path


def compared(first, second, features=PREFIX, **changes):
    settings = MetricSettings(features=features, num_sizes=4, **changes)
    return compare.compare(*(sets.open_set(str(path)) for path in (first, second)), settings)


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    return tmp_path / "images.npz"


@pytest.fixture
def use_network(monkeypatch):
    """Puts quick networks in the place of those with weights."""

    def use(**changes):
        network = trained_run.quick_network()._replace(**changes)
        monkeypatch.setattr(networks, "choose", lambda *arguments: network)

    use()
    return use


def saved(images, path, settings):
    opened = sets.open_set(str(images))
    statistics.save(path, compare.compute_statistics(opened, settings.choose_network(), settings))
    return path


def test_a_file_says_what_it_is_of(images, tmp_path, use_network):
    use_network(fingerprint="f" * 64)
    path = saved(images, tmp_path / "saved.npz", MetricSettings(cache_dir=str(tmp_path)))
    opened = sets.open_set(str(path))
    assert isinstance(opened, Statistics)
    assert (opened.network, opened.weights, opened.resize) == (PREFIX, "f" * 64, "bilinear")
    assert (opened.num_images, opened.image_form) == (40, "8 x 8 pixels in colour")
    comparison = compared(path, images, cache_dir=str(tmp_path))
    assert comparison.features == PREFIX
    assert comparison.values["fid"] == pytest.approx(0, abs=1e-9)
    assert f"A: {path} (statistics of 40 images)" in compare.table(comparison)
    assert comparison.from_cache == (False, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fingerprint": "e" * 64}, f"made with other weights of {PREFIX} .*ffffffff"),
        ({"resize": "antialias"}, f"made with the features of {PREFIX}, not of {PREFIX}_antialias"),
    ],
)
def test_statistics_of_other_weights_or_preprocessing_are_refused(
    images, tmp_path, use_network, settings, message
):
    use_network(fingerprint="f" * 64)
    path = saved(images, tmp_path / "saved.npz", MetricSettings(cache_dir=str(tmp_path)))
    use_network(**{"fingerprint": "f" * 64, **settings})
    with pytest.raises(UserError, match=f"saved.npz: {message}"):
        compared(path, images, cache_dir=str(tmp_path), resize=settings.get("resize", "bilinear"))


def test_a_changed_file_is_refused(images, tmp_path, use_network):
    del use_network
    path = saved(images, tmp_path / "saved.npz", MetricSettings(cache_dir=str(tmp_path)))
    with np.load(path) as file:
        content = dict(file)
    for name, value in (
        ("mu", content["mu"] + 1e-9),
        ("num_images", 41),
        ("network", "inception_v3"),
    ):
        np.savez(tmp_path / "changed.npz", **{**content, name: value})
        with pytest.raises(UserError, match=r"changed\.npz: its checksum is not that"):
            sets.open_set(str(tmp_path / "changed.npz"))


def test_a_file_that_does_not_say_is_of_an_unknown_network(tmp_path):
    comparison = compared(write(tmp_path / "a.npz", 12), write(tmp_path / "b.npz", 12, 4.0))
    assert comparison.values["fid"] == pytest.approx(12)  # (2 - 1)^2 for each feature
    assert comparison.features == "unknown (12 features)"
    text = compare.table(comparison)
    assert "\nfeatures: unknown (12 features), seed 0" in text
    assert text.count("does not say which network") == 2  # a note for each file
    assert PREFIX not in text
    assert "inception" not in text
    compare.write_json(tmp_path / "out.json", comparison)
    assert json.loads((tmp_path / "out.json").read_text())["features"] == "unknown (12 features)"
    wide = sets.open_set(str(write(tmp_path / "wide.npz", WIDTH)))
    assert "--features=inception_v3" in statistics.unknown_note(wide, MetricSettings())
    assert statistics.features_name(wide, MetricSettings()) == "unknown (2048 features)"
    asked = MetricSettings(features="inception_v3")
    name = "unknown (2048 features), taken for inception_v3"
    assert statistics.features_name(wide, asked) == name


def test_names_of_both_files_are_shown_where_one_says_less(tmp_path):
    known = write(tmp_path / "known.npz", 12, 4.0, network="inception_v3")
    unknown = write(tmp_path / "unknown.npz", 12)
    comparison = compared(unknown, known)
    assert comparison.features == "A unknown (12 features), B inception_v3"
    assert any(note.startswith(f"{unknown} does not say which") for note in comparison.notes)
    # The network of the settings does not matter to files.
    assert compared(known, known).features == "inception_v3"
    other = write(tmp_path / "other.npz", 12, network=PREFIX)
    with pytest.raises(UserError, match="features of different networks"):
        compared(known, other)
    with pytest.raises(UserError, match=r"statistics of 12 features, but .*wide.npz has 13"):
        compared(write(tmp_path / "wide.npz", 13), unknown)


def test_a_wider_file_than_the_networks_features_names_inception(images, tmp_path, use_network):
    del use_network
    message = (
        f"statistics of 2048 features, but features={PREFIX} has 12; .*--features=inception_v3"
    )
    with pytest.raises(UserError, match=message):
        compared(write(tmp_path / "a.npz", WIDTH), images)


def test_statistics_against_themselves_have_a_distance_of_0(tmp_path):
    path = write(tmp_path / "a.npz", 12, 0.3)
    comparison = compared(path, path)
    assert comparison.values == {"fid": 0.0}
    assert "A and B are the same statistics" in comparison.notes


def test_files_of_other_programs_may_hold_further_arrays(tmp_path):
    path = write(tmp_path / "a.npz", 12, weights=np.ones(3), num_images=np.zeros((2, 2)))
    assert sets.open_set(f"{path}:mu").num_images is None
