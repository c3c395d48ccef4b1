"""A run as one file: parameters, configuration, and what is refused."""

import json

import jax
import numpy as np
import pytest
import trained_run

import thermo_ebm as te
from thermo_ebm.run import layout


@pytest.fixture(scope="module")
def run():
    return te.load_run(trained_run.original())


@pytest.fixture
def file(run, tmp_path):
    run.export(tmp_path / "model.safetensors", repetition=1, step=20)
    return tmp_path / "model.safetensors"


def test_an_exported_run_has_the_parameters_and_the_configuration(run, file):
    again = te.load_run(file)
    assert again.config == run.config
    assert again.model == run.model or again.model.latent_dim == run.model.latent_dim
    jax.tree.map(np.testing.assert_array_equal, again.params(), run.params(1, 20))
    jax.tree.map(np.testing.assert_array_equal, again.params(1, 20), run.params(1, 20))
    key = jax.random.key(0)
    np.testing.assert_array_equal(again.sample(3, key), run.sample(3, key, 1, 20))
    np.testing.assert_array_equal(again.validation_images(), run.validation_images())
    assert repr(again).splitlines()[2] == "repetition 1, step 20"
    with pytest.raises(te.UserError, match="step=30: no such checkpoint; there are 20"):
        again.params(1, 30)
    with pytest.raises(te.UserError, match="repetition=0"):
        again.params(0, 30)


def test_the_file_is_one_of_safetensors(run, file):
    numpy_format = pytest.importorskip("safetensors.numpy")
    arrays = numpy_format.load_file(file)
    weights = run.params(1, 20)["generator"]["layer_0"]["w"]
    np.testing.assert_array_equal(arrays["generator.layer_0.w"], weights)


def test_an_exported_file_can_be_exported_again(file, tmp_path):
    te.load_run(file).export(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()


def test_what_is_written_of_a_file_stands_beside_it(file, tmp_path):
    assert layout.repetition_dir(file, 1) == tmp_path / "model" / "rep_01"


def rewrite(file, change):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    file.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])


def other_model(header):
    config = json.loads(header["__metadata__"]["config"])
    config["model"]["latent_dim"] += 1
    header["__metadata__"]["config"] = json.dumps(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("__metadata__"), "is not an exported run: it has no config"),
        (lambda header: header["__metadata__"].update(format="x"), "its format is 'x', this prog"),
        (lambda header: header["__metadata__"].update(config="{}"), "not the configuration of a"),
        (other_model, "is not that of the model of its configuration"),
    ],
)
def test_other_files_are_refused(file, change, message):
    rewrite(file, change)
    with pytest.raises(te.UserError, match=f"^{file}: .*{message}"):
        te.load_run(file)


def test_damaged_files_and_folders_that_are_missing_are_refused(run, file, tmp_path):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(te.UserError, match=r"is not an exported run: .*outside the file"):
        te.load_run(file)
    with pytest.raises(te.UserError, match=r"none/model: cannot be written: No such file"):
        run.export(tmp_path / "none" / "model")
