"""Vision transformers against `transformers` with random weights, live and as stored outputs."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from thermo_ebm.metrics import networks
from thermo_ebm.metrics.networks import vision_transformer
from thermo_ebm.metrics.networks.vision_transformer import Architecture
from thermo_ebm.metrics.networks.weights import read_state_dict

from . import random_weights

STORED = Path(__file__).with_name("data") / "transformer_features.npz"
DINOV2, CLIP = Architecture(128, 2, 56), Architecture(128, 2, 56, is_clip=True, num_outputs=96)
# Architecture, layout, patches along a side for which the file has positions.
CASES = {
    "dinov2": (DINOV2, "dinov2_transformers", 4),
    "interpolated": (DINOV2, "dinov2_transformers", 7),
    "registers": (DINOV2._replace(num_registers=3), "dinov2_transformers", 7),
    "clip": (CLIP, "clip_transformers", 4),
}


def state_dict(case):
    return random_weights.transformer_state_dict(*CASES[case])


def inputs():
    images = random_weights.random_images(2, 56, 56).astype(np.float32)
    return (images - 120) / 60


def features(params, architecture):
    return np.asarray(
        jax.jit(partial(vision_transformer.outputs, architecture=architecture))(params, inputs())[0]
    )


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("case", CASES)
def test_features_agree_with_stored_outputs_of_transformers(case):
    """`data/make_transformer_features.py` writes them."""
    architecture = CASES[case][0]._replace(num_registers=0)  # which the file has
    params = vision_transformer.params_from_torch(state_dict(case), architecture, offset=0.0)
    actual = features(params, architecture)
    with np.load(STORED) as stored:
        assert relative_error(actual, stored[case]) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_features_agree_with_transformers(case):
    pytest.importorskip("transformers")
    from . import transformer_models

    kind = "dinov2" if case == "interpolated" else case
    expected = transformer_models.outputs(kind, state_dict(case), inputs(), CASES[case][2])
    architecture = CASES[case][0]._replace(num_registers=0)
    params = vision_transformer.params_from_torch(state_dict(case), architecture, offset=0.0)
    assert relative_error(features(params, architecture), expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "offset", "antialias"), [("release", 0.1, False), ("registers", 0, True)]
)
def test_positions_are_interpolated_as_the_release_does(name, offset, antialias):
    positions = random_weights.transformer_state_dict(DINOV2, "dinov2_transformers", 37)[
        "embeddings.position_embeddings"
    ]
    kernel = (
        vision_transformer._antialiased
        if antialias
        else partial(vision_transformer._cubic, offset=offset)
    )
    actual = vision_transformer._interpolated(positions[0], 16, kernel)
    np.testing.assert_array_equal(actual[0], positions[0, 0])
    with np.load(STORED) as stored:
        np.testing.assert_allclose(actual[1:, :3], stored[f"positions/{name}"], atol=1e-5)


def release_names(state, case):
    """The same arrays under the names of the models' own releases."""
    architecture, layout_name, _ = CASES[case]
    theirs = vision_transformer.LAYOUTS[layout_name]
    ours = vision_transformer.LAYOUTS[layout_name.removesuffix("_transformers")]
    renamed = {
        getattr(ours, field): state[getattr(theirs, field)]
        for field in ("class_token", "positions", "registers", "projection")
        if getattr(theirs, field) in state
    }
    if ours.projection:
        renamed[ours.projection] = renamed[ours.projection].T
    pairs = [
        (getattr(ours, field), getattr(theirs, field))
        for field in ("patch", "last_norm", "first_norm")
        if getattr(ours, field)
    ]
    for number in range(architecture.depth):
        blocks = ours.block.format(number), theirs.block.format(number)
        for field in ("norms", "hidden", "output", "scales"):
            names = [getattr(layout, field) or () for layout in (ours, theirs)]
            names = [(name,) if isinstance(name, str) else name for name in names]
            for both in zip(*names, strict=True):
                if field == "scales":
                    old, new = (f"{block}.{name}" for block, name in zip(blocks, both, strict=True))
                    renamed[old] = state[new]
                else:
                    pairs.append(
                        tuple(f"{block}.{name}" for block, name in zip(blocks, both, strict=True))
                    )
        joint = "_" if architecture.is_clip else "."
        for kind in ("weight", "bias"):
            renamed[f"{blocks[0]}.{ours.attention[0]}{joint}{kind}"] = np.concatenate(
                [state[f"{blocks[1]}.{name}.{kind}"] for name in theirs.attention]
            )
    for old, new in pairs:
        for kind in ("weight", "bias"):
            if f"{new}.{kind}" in state:
                renamed[f"{old}.{kind}"] = state[f"{new}.{kind}"]
    return renamed


@pytest.mark.parametrize("case", ["registers", "clip"])
def test_both_layouts_give_the_same_parameters(case):
    state, architecture = state_dict(case), CASES[case][0]._replace(num_registers=0)
    expected = vision_transformer.params_from_torch(state, architecture)
    actual = vision_transformer.params_from_torch(release_names(state, case), architecture)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    prefixed = {f"dinov2.{name}": array for name, array in state.items()}
    if case == "registers":
        actual = vision_transformer.params_from_torch(prefixed, architecture)
        jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_wrong_files_are_refused_by_name():
    state = state_dict("dinov2")
    missing = {k: v for k, v in state.items() if k != "encoder.layer.1.mlp.fc1.bias"}
    wrong = state | {"encoder.layer.0.norm1.weight": np.zeros(3, np.float32)}
    no_square = state | {"embeddings.position_embeddings": np.zeros((1, 12, 128), np.float32)}
    infinite = state | {"layernorm.bias": np.full(128, np.inf, np.float32)}
    for content, message in (
        (missing, r"lack encoder\.layer\.1\.mlp\.fc1\.bias"),
        (wrong, r"block_0/norm_1/scale has the shape \(3,\)"),
        (no_square, "no square"),
        (infinite, "last_norm/offset has values that are not finite"),
        (state_dict("clip"), "not the file of a dinov2 model"),
    ):
        with pytest.raises(ValueError, match=message):
            vision_transformer.params_from_torch(content, DINOV2)


def write_safetensors(path, arrays):
    """In the format of safetensors, by hand."""
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        dtype = {"float32": "F32", "float16": "F16", "int64": "I64"}[str(array.dtype)]
        offsets = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        content += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_safetensors_are_read_and_damaged_ones_refused(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([1.5], np.float16),
        "scalar": np.array(7, np.int64),
    }
    path = tmp_path / "model.safetensors"
    write_safetensors(path, arrays)
    for name, array in read_state_dict(path).items():
        np.testing.assert_array_equal(array, arrays[name])
    whole = path.read_bytes()
    bfloat = whole.replace(b'"F32"', b'"F32"')
    header = json.dumps({"b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(read_state_dict(path)["b"], [1.0, -2.0])
    for content, message in (
        (whole[:-1], "lies outside the file"),
        (whole.replace(b"[2, 3]", b"[2, 9]"), "another size"),
        (whole.replace(b"F32", b"F99"), "the type F99"),
        (b"\xff" * 7 + b"\x00" + whole[8:], "a header of"),
        (bfloat[:20], "a header of"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_state_dict(path)


@pytest.mark.parametrize("name", ["dinov2_vits14", "clip_vitl14_336"])
def test_the_registry_has_the_published_networks(name):
    """Shapes alone: nothing is computed."""
    network = networks.NETWORKS[name]
    images = jax.ShapeDtypeStruct((1, network.input_size, network.input_size, 3), np.float32)
    architecture = network.outputs.keywords["architecture"]
    transformer = partial(vision_transformer.vision_transformer, architecture=architecture)
    import haiku as hk

    shapes = jax.eval_shape(hk.transform(transformer).init, jax.random.key(0), images)
    features_shape, logits = jax.eval_shape(network.outputs, shapes, images)
    assert features_shape.shape == (1, network.num_features)
    assert logits.shape == (1, 0)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # DINOv2's published 21 million and CLIP's 304 million of the image tower.
    published = {"dinov2_vits14": 21.6e6, "clip_vitl14_336": 304.3e6}[name]
    assert num_params == pytest.approx(published, rel=0.01)
