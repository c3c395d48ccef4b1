"""The feature networks against independent PyTorch builds and photographs; their registry."""

import hashlib
import shutil
from pathlib import Path

import jax
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from thermo_ebm.errors import UserError
from thermo_ebm.metrics import networks
from thermo_ebm.metrics.networks import efficientnet, inception_v3, preprocess
from thermo_ebm.metrics.networks.network import PublishedNetwork, features_and_logits
from thermo_ebm.metrics.networks.preprocess import Scale
from thermo_ebm.metrics.networks.weights import read_state_dict

from . import random_weights, torch_files

TOLERANCE = 1e-4  # relative, of every stage; float32's floor is about 1e-6
STORED = Path(__file__).with_name("data") / "network_features.npz"


@pytest.fixture(scope="module")
def images():
    return random_weights.random_images(2, 40, 32)


@pytest.fixture(scope="module")
def inception_state():
    return random_weights.inception_state_dict()


@pytest.fixture(scope="module")
def inception_params(inception_state):
    return inception_v3.params_from_torch(inception_state)


@pytest.fixture(scope="module")
def lite_params():
    return efficientnet.params_from_torch(random_weights.efficientnet_state_dict())


@pytest.fixture(scope="module")
def stages(images, inception_params, lite_params):
    """Every stage of both networks, through the library's own preprocessing."""
    inputs = preprocess.resize(images, 299, "bilinear") / 127.5 - 1
    lite_inputs = (preprocess.resize(images, 224, "bilinear") - 127) / 128
    return {
        "inception_v3": jax.jit(inception_v3.stages)(inception_params, inputs),
        "efficientnet_lite0": jax.jit(efficientnet.stages)(lite_params, lite_inputs),
    }


def lite_features(params, images, **options):
    return features_and_logits(efficientnet.NETWORK, params, images, **options).features


def relative_error(actual, expected):
    return np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected)


@pytest.mark.slow
def test_every_stage_agrees_with_pytorch(stages, images, inception_state):
    pytest.importorskip("torch")
    from . import torch_networks

    expected = {
        "inception_v3": torch_networks.run(
            torch_networks.InceptionV3(), inception_state, images, 299, 127.5, 127.5
        ),
        "efficientnet_lite0": torch_networks.run(
            torch_networks.EfficientNetLite0(),
            random_weights.efficientnet_state_dict(),
            images,
            224,
            127.0,
            128.0,
        ),
    }
    for network, outputs in expected.items():
        assert set(outputs) == set(stages[network])
        for stage, values in outputs.items():
            assert relative_error(stages[network][stage], values) < TOLERANCE, (network, stage)


def test_every_stage_agrees_with_stored_outputs_of_pytorch(stages):
    """The stored form of the test above: each stage's mean over pixels."""
    with np.load(STORED) as stored:
        assert len(stored.files) == sum(map(len, stages.values()))
        for name in stored.files:
            network, stage = name.split("/")
            values = np.asarray(stages[network][stage])
            means = values.mean(axis=(1, 2)) if values.ndim == 4 else values
            assert relative_error(means, stored[name]) < TOLERANCE, name


@pytest.mark.parametrize("name", ["inception_v3", "efficientnet_lite0"])
def test_features_of_images_agree_with_stored_outputs_of_pytorch(
    images, inception_params, lite_params, name
):
    params = inception_params if name == "inception_v3" else lite_params
    outputs = features_and_logits(networks.NETWORKS[name], params, images)
    with np.load(STORED) as stored:
        expected_features, expected_logits = stored[f"{name}/features"], stored[f"{name}/logits"]
    if name == "inception_v3":  # the Inception Score takes logits without bias
        expected_logits = expected_logits - np.asarray(params["fc"]["b"])
    assert relative_error(outputs.features, expected_features) < TOLERANCE
    assert relative_error(outputs.logits, expected_logits) < TOLERANCE


def test_features_do_not_depend_on_the_batch_size(lite_params):
    images = random_weights.random_images(5, 24, 24, seed=3)
    together = lite_features(lite_params, images)
    assert together.shape == (5, 1280)
    # The last batch is padded, which must not reach the features either.
    assert relative_error(lite_features(lite_params, images, batch_size=2), together) < 1e-5


def test_the_two_ways_to_resize_differ(lite_params, images):
    plain = lite_features(lite_params, images)
    antialiased = lite_features(lite_params, images, resize="antialias")
    assert 1e-3 < relative_error(antialiased, plain) < 1


def test_images_of_other_types_and_shapes_are_refused():
    for images in (
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="images must be uint8"):
            inception_v3.features({}, images)


def test_an_unknown_resize_and_batch_size_are_refused():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="resize"):
        inception_v3.features({}, images, resize="nearest")
    with pytest.raises(ValueError, match="batch_size"):
        inception_v3.features({}, images, batch_size=0)


def test_wrong_weights_are_refused_by_name(inception_state):
    missing = {k: v for k, v in inception_state.items() if k != "Mixed_6c.branch7x7_2.bn.weight"}
    with pytest.raises(ValueError, match=r"Mixed_6c\.branch7x7_2\.bn\.weight"):
        inception_v3.params_from_torch(missing)
    # torchvision's own InceptionV3 has 1000 classes.
    torchvisions = inception_state | {
        "fc.weight": np.zeros((1000, 2048)),
        "fc.bias": np.zeros(1000),
    }
    with pytest.raises(ValueError, match="fc has the shape"):
        inception_v3.params_from_torch(torchvisions)
    nan = inception_state | {"fc.bias": np.full(1008, np.nan)}
    with pytest.raises(ValueError, match="not finite"):
        inception_v3.params_from_torch(nan)
    with pytest.raises(ValueError, match="lack"):
        efficientnet.params_from_torch(inception_state)


def centre_square(image):
    """The central square of a photograph, 256 x 256 uint8."""
    size = min(image.size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    square = image.convert("RGB").crop((left, top, left + size, top + size))
    return np.asarray(square.resize((256, 256), Image.BICUBIC))


def test_the_packaged_weights_classify_photographs():
    params = efficientnet.params_from_torch(read_state_dict(efficientnet.find_weights()))
    palace = Image.fromarray(load_sample_image("china.jpg"))
    daisy = Image.fromarray(load_sample_image("flower.jpg"))
    uniform = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg"))
    photographs = np.stack([centre_square(image) for image in (palace, daisy, uniform)])
    logits = features_and_logits(efficientnet.NETWORK, params, photographs).logits
    # ImageNet's classes: palace, daisy, military uniform.
    assert logits.argmax(axis=1).tolist() == [698, 985, 652]


def test_networks_are_found_by_name(tmp_path, inception_state):
    network = networks.choose("efficientnet_lite0")
    outputs = network.apply(random_weights.random_images(3, 16, 16), 2)
    assert outputs.features.shape == (3, network.num_features)
    assert outputs.logits.shape == (3, 1000)
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_files.state_dict_file(inception_state, torch_files.zip_file))
    network = networks.choose("inception_v3", "antialias", path)
    assert (network.name, network.resize) == ("inception_v3", "antialias")
    assert network.num_features == 2048
    assert network.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def channel_means(params, inputs):
    return params["all"]["w"] * inputs.mean(axis=(1, 2)), jax.numpy.zeros((len(inputs), 0))


def test_a_new_network_is_an_entry_of_the_registry(tmp_path, monkeypatch):
    """With another scale for each channel, no logits, and its weights in a file."""
    scale = Scale((10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    channels = PublishedNetwork(
        name="channels",
        num_features=3,
        input_size=8,
        bilinear=scale,
        others=scale,
        params_from_torch=lambda state_dict: {"all": {"w": state_dict["weight"]}},
        outputs=channel_means,
        find_weights=lambda path, cache_dir: Path(path or cache_dir / "channels.pth"),
    )
    monkeypatch.setitem(networks.NETWORKS, "channels", channels)
    weight = np.array([1.0, -1.0, 2.0], np.float32)
    (tmp_path / "channels.pth").write_bytes(torch_files.state_dict_file({"weight": weight}))
    network = networks.choose("channels", cache_dir=tmp_path)
    images = np.full((5, 4, 6, 3), (12, 26, 50), np.uint8)
    outputs = network.apply(images, 2)
    np.testing.assert_allclose(outputs.features, np.tile([2.0, -3.0, 10.0], (5, 1)), rtol=1e-6)
    assert outputs.logits.shape == (5, 0)
    assert networks.label("channels", "antialias") == "channels_antialias"
    with pytest.raises(UserError, match=r"must be one of .*channels, or MODULE:FUNCTION"):
        networks.choose("chanels")


def test_other_weights_have_names_of_their_own(tmp_path, caplog):
    """The published file has no suffix, wherever it is; another has the digits of its SHA-256."""
    published = networks.NETWORKS["efficientnet_lite0"].find_weights(None, tmp_path)
    shutil.copy(published, tmp_path / "copy.pth")
    state_dict = read_state_dict(published)
    name = next(iter(state_dict))
    state_dict[name] = 2 * state_dict[name]
    (tmp_path / "other.pth").write_bytes(torch_files.state_dict_file(state_dict))
    digits = hashlib.sha256((tmp_path / "other.pth").read_bytes()).hexdigest()[:8]
    labels = [
        networks.label("efficientnet_lite0", resize, tmp_path / f"{file}.pth")
        for resize in ("bilinear", "antialias")
        for file in ("copy", "other")
    ]
    assert labels == [
        "efficientnet_lite0",
        f"efficientnet_lite0_weights_{digits}",
        "efficientnet_lite0_antialias",
        f"efficientnet_lite0_antialias_weights_{digits}",
    ]
    copied = networks.choose("efficientnet_lite0", weights=tmp_path / "copy.pth")
    assert not caplog.records
    other = networks.choose("efficientnet_lite0", weights=tmp_path / "other.pth")
    assert "cannot be compared with published ones" in caplog.text
    assert f"_weights_{digits}" in caplog.text
    assert other.fingerprint != copied.fingerprint
    inception = networks.NETWORKS["inception_v3"]
    assert inception.sha256 == "6726825d"


def test_users_mistakes_are_reported_in_one_line(tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04")
    for arguments, message in (
        (("vgg",), "features=vgg"),
        (("efficientnet_lite0", "nearest"), "resize=nearest"),
        (("efficientnet_lite0", "bilinear", tmp_path / "none.pth"), "no such file"),
        (("inception_v3", "bilinear", None, tmp_path), "fetch_weights.*--weights=PATH"),
        (("inception_v3", "bilinear", tmp_path / "none.pth"), "weights=.* no such file"),
        (("inception_v3", "bilinear", broken), r"broken\.pth: cannot be used: is not a state"),
        (("module:function", "bilinear", broken), "loads its weights itself"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            networks.choose(*arguments)
        assert "\n" not in str(caught.value)
