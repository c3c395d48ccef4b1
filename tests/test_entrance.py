"""The library's entrance: its names, what importing does, runs read back, and the wheel's files."""

import ast
import doctest
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_run
import wheel
from ml_collections import ConfigDict
from patience import PATIENCE

import thermo_ebm as te
from thermo_ebm.data import to_uint8
from thermo_ebm.evaluation import evaluate
from thermo_ebm.models.latent_ebm import ModelSettings, _fields
from thermo_ebm.sampling.samples import reconstruct

ROOT = Path(__file__).resolve().parents[1]
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "thermo_ebm").rglob("*.py")
    if ">>> " in path.read_text()
)


def test_every_name_is_there_and_documented():
    missing = [name for name in te.__all__ if not getattr(te, name).__doc__]
    assert missing == []
    assert {"make_model", "LatentEBM", "thermodynamic_loss", "load_run"} <= set(dir(te))
    with pytest.raises(AttributeError, match="nothing"):
        _ = te.nothing


def test_the_three_lists_of_names_agree():
    """`__all__` for readers, imports for type checkers, and where each name is loaded from."""
    tree = ast.parse(Path(te.__file__).read_text())
    imports = {
        alias.name: node.module.removeprefix("thermo_ebm.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert imports == te._MODULES
    assert te.__all__ == sorted(te.__all__)
    assert set(te.__all__) == set(imports)


def python(code, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "NPROC"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_importing_loads_nothing_and_touches_no_device():
    code = """
import sys, thermo_ebm as te
assert "jax" not in sys.modules and "numpy" not in sys.modules
for name in te.__all__:
    getattr(te, name)
print("imported")
import jax
jax.numpy.zeros(1)
"""
    result = python(code, JAX_PLATFORMS="no_such_backend")
    assert result.stdout == "imported\n", result.stderr
    assert "no_such_backend" in result.stderr


@pytest.mark.parametrize(("environment", "least"), [({}, 8), ({"NPROC": "3"}, 3)])
def test_importing_gives_xla_enough_threads(environment, least):
    result = python("import os, thermo_ebm; print(os.environ['NPROC'])", **environment)
    number = int(result.stdout)
    assert number == 3 if environment else number >= least


def test_examples_are_found():
    assert len(WITH_EXAMPLES) >= 16


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


# Models and batches.


def shapes(model):
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0)))


def test_make_model_takes_a_configuration_or_keywords():
    config = trained_run.config()
    by_keywords = te.make_model(
        channels=1,
        latent_dim=4,
        prior_features=8,
        generator_features=4,
        generator_widths=(2, 1),
        generator_strides=(1, 2, 1),
    )
    expected = shapes(te.make_model(config.model, 1))
    assert shapes(te.make_model(config)) == expected  # a whole configuration
    assert shapes(by_keywords) == expected
    assert shapes(te.make_model(config, latent_dim=3)) != expected
    # The paper's CIFAR-10 by default: 8 x 8 x 1024 outputs of the first layer, three channels.
    assert shapes(te.make_model())["generator"]["layer_0"]["w"] == (4, 4, 100, 1024)
    assert shapes(te.make_model())["generator"]["layer_4"]["b"] == (3,)


def test_make_model_fields_are_the_base_configuration():
    base = importlib.import_module("configs.base").get_config()
    fields = _fields(base.model)
    assert fields.pop("factory") == ""  # of networks of one's own, which have no such settings
    assert ModelSettings(**fields) == ModelSettings()


def test_make_model_names_an_unknown_field():
    with pytest.raises(ValueError, match=r"latent: not a field of the model; there are latent_dim"):
        te.make_model(latent=3)
    with pytest.raises(ValueError, match="not a field"):
        te.make_model(trained_run.config(), widths=(1,))
    with pytest.raises(ValueError, match="depth: not a field"):
        te.make_model(ConfigDict({"latent_dim": 3, "depth": 3}))


def test_make_batch():
    images = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2, 1)
    batch = te.make_batch(images)
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.position, [0, 1, 2])
    np.testing.assert_array_equal(batch.mask, [1, 1, 1])


def test_make_batch_refuses():
    for images, message in [
        (np.zeros((2, 8, 8, 1), np.uint8), "uint8, must be floating-point .*to_unit"),
        (np.zeros((0, 8, 8, 1), np.float32), "num >= 1"),
        (np.zeros(3, np.float32), r"shape \(3,\)"),
        (np.full((2, 8, 8, 1), 255.0, np.float32), r"from 255 to 255, must be .*to_unit"),
        (np.full((2, 8, 8), np.nan, np.float32), r"from nan to nan, must be in \[-1, 1\]"),
        (te.make_batch(np.zeros((2, 3), np.float32)), "a Batch, must be an array"),
    ]:
        with pytest.raises(ValueError, match=message):
            te.make_batch(images)


def test_vectors_may_have_any_range():
    """Only images have a range; the data of other models are theirs."""
    vectors = np.array([[-3.0, 200.0]], np.float32)
    np.testing.assert_array_equal(te.make_batch(vectors).images, vectors)


LINEAR = te.LatentEBM(
    tilt=lambda alpha, z: -alpha * (z**2).sum(axis=-1),
    generator=lambda beta, z: (z @ beta).reshape(-1, 2, 2, 1),
    init=lambda key: {"prior": 0.1, "generator": jax.random.normal(key, (2, 4))},
    latent_dim=2,
    prior_sigma=1.0,
    likelihood_sigma=0.5,
)
PARAMS = LINEAR.init(jax.random.key(0))
IMAGES = np.zeros((3, 2, 2, 1), np.float32)
PIXELS = np.zeros((3, 2, 2, 1), np.uint8)
SAMPLER = te.SamplerSettings(te.ChainSettings(0.1, 2), te.ChainSettings(0.1, 2), chains_per_image=1)


def thermodynamic(images, key):
    return te.thermodynamic_loss(
        LINEAR, PARAMS, images, key, SAMPLER, te.LossSettings(2, correction="none")
    )


def vanilla(images, key):
    return te.vanilla_loss(LINEAR, PARAMS, images, key, SAMPLER)


def chains(images, key, sampler=SAMPLER):
    ladder = te.Ladder(te.make_schedule("power", 2, 1.0))
    return te.tempered_chains(LINEAR, PARAMS, images, ladder, key, sampler)


def likelihood(images, key):
    return te.log_marginal_likelihood(LINEAR, PARAMS, images, key)


def test_every_entrance_refuses_what_is_no_key():
    for call, images in [
        (thermodynamic, te.make_batch(IMAGES)),
        (vanilla, te.make_batch(IMAGES)),
        (chains, te.make_batch(IMAGES)),
        (likelihood, IMAGES),
        (lambda images, key: te.load_run(trained_run.original()).sample(3, key), None),
        (lambda images, key: te.load_run(trained_run.original()).reconstruct(images, key), IMAGES),
    ]:
        for key, description in [
            (7, "of type int"),
            (jax.random.PRNGKey(7), r"uint32\[2\]"),
            (jax.random.split(jax.random.key(7)), r"key<fry>\[2\]"),
        ]:
            with pytest.raises(
                ValueError, match=rf"^key is {description}, .*jax.random.key\(seed\)"
            ):
                call(images, key)


def test_losses_and_chains_refuse_what_is_no_batch():
    for call in [thermodynamic, vanilla, chains]:
        for under in [lambda fn: fn, jax.jit]:
            message = (
                r"^batch is float32\[3,2,2,1\], must be a Batch; thermo_ebm.make_batch\(images\)"
            )
            with pytest.raises(ValueError, match=message):
                under(call)(jnp.asarray(IMAGES), jax.random.key(0))
            pixels = te.make_batch(IMAGES)._replace(images=jnp.asarray(PIXELS))
            with pytest.raises(ValueError, match=r"images are uint8, .*to_unit"):
                under(call)(pixels, jax.random.key(0))


def test_likelihood_refuses_pixels():
    with pytest.raises(ValueError, match=r"images are uint8, .*to_unit"):
        likelihood(PIXELS, jax.random.key(0))
    with pytest.raises(ValueError, match=r"from 255 to 255, must be in \[-1, 1\]; .*to_unit"):
        likelihood(IMAGES + 255, jax.random.key(0))


def test_tempered_chains_refuse_an_unknown_kernel():
    sampler = SAMPLER._replace(posterior=te.ChainSettings(0.1, 2, "hmcc"))
    with pytest.raises(ValueError, match=r"kernel must be one of .*, not 'hmcc'"):
        chains(te.make_batch(IMAGES), jax.random.key(0), sampler)


# Runs read back.


@pytest.fixture(scope="module")
def run():
    return te.load_run(trained_run.original())


def test_load_run_has_configuration_and_parameters(run):
    assert run.config.num_epochs == 3
    newest, first = run.params(), run.params(0, 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b * 1.375, rtol=1e-6), newest, first
    )  # as `trained_run` wrote them
    with pytest.raises(te.UserError, match="repetition=5"):
        run.params(5)


def test_samples_are_those_of_the_programs(run):
    key = jax.random.key(3)
    samples = run.sample(5, key)
    assert samples.shape == (5, 8, 8, 1)
    assert samples.dtype == np.float32
    expected = evaluate.generate_images(run, run.params(), key, 5)
    np.testing.assert_array_equal(to_uint8(samples), expected)


def test_more_samples_begin_with_the_same(run):
    key = jax.random.key(3)
    few = run.sample(3, key)
    many = np.concatenate(list(run.sample_batches(run.params(), key, 10, batch_size=4)))
    np.testing.assert_allclose(many[:3], few, atol=1e-5)
    assert len(many) == 10
    assert len(np.unique(many.reshape(10, -1).round(5), axis=0)) == 10
    with pytest.raises(ValueError, match="num is 0"):
        run.sample(0, key)


def test_reconstructions(run):
    images = run.sample(3, jax.random.key(0), repetition=1, step=10)
    again = run.reconstruct(images, jax.random.key(1), repetition=1, step=10)
    assert again.shape == images.shape
    params = run.params(1, 10)
    expected = jax.jit(
        lambda *args: reconstruct(run.model, *args, jax.random.key(1), run.sampler.posterior)
    )(params, jnp.asarray(images))
    np.testing.assert_allclose(again, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"images have shape \(3, 4, 4, 1\).*\[num, 8, 8, 1\]"):
        run.reconstruct(images[:, ::2, ::2], jax.random.key(1))
    with pytest.raises(ValueError, match="floating-point"):
        run.reconstruct(to_uint8(images), jax.random.key(1))
    with pytest.raises(ValueError, match=r"must be in \[-1, 1\]; .*to_unit"):
        run.reconstruct(to_uint8(images).astype(np.float32), jax.random.key(1))


def test_a_run_describes_itself_in_three_lines(run):
    assert repr(run).splitlines() == [
        f"run {trained_run.original()}: digits, images 8 x 8 x 1, latents of 4",
        "loss thermodynamic, reference prior; posterior chains ula, 2 steps",
        "repetition 0 at step 30, repetition 1 at step 30, of 30",
    ]


@pytest.mark.slow
def test_draws_from_the_posterior_of_an_image(run):
    image = run.sample(1, jax.random.key(0))[0]
    draws = run.posterior(image, jax.random.key(1), 5, repetition=1)
    assert (draws.latents.shape, draws.images.shape) == ((5, 4), (5, 8, 8, 1))
    assert len(np.unique(draws.latents.round(5), axis=0)) == 5
    assert draws.reliable
    assert 0 < draws.stderr < 0.3
    generated = run.model.generator(run.params(1)["generator"], jnp.asarray(draws.latents))
    np.testing.assert_allclose(draws.images, generated, atol=1e-5)


def test_arguments_of_draws_from_a_posterior_are_checked(run):
    image = run.sample(1, jax.random.key(0))[0]
    with pytest.raises(ValueError, match="num is 0"):
        run.posterior(image, jax.random.key(1), 0)
    with pytest.raises(ValueError, match=r"key is .* must be"):
        run.posterior(image, 3, 2)
    with pytest.raises(ValueError, match=r"images have shape \(1, 4, 4, 1\)"):
        run.posterior(image[::2, ::2], jax.random.key(1), 2)
    for mask in (np.ones((8, 8)), np.ones((4, 8), bool)):
        with pytest.raises(ValueError, match=r"mask is .* must be bool \(8, 8\) or \(8, 8, 1\)"):
            run.posterior(image, jax.random.key(1), 2, mask)
    with pytest.raises(ValueError, match="floating-point"):
        run.posterior(to_uint8(image), jax.random.key(1), 2)


def test_load_run_refuses_another_folder(tmp_path):
    with pytest.raises(te.UserError):
        te.load_run(tmp_path)


# What is installed.


def test_the_wheel_holds_one_package(tmp_path):
    source, file = wheel.build(tmp_path)
    with zipfile.ZipFile(file) as packed:
        names = set(packed.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    packaged = {str(p.relative_to(source)) for p in source.glob("thermo_ebm/**/*") if p.is_file()}
    for folder in ("configs", "launch"):
        packaged |= {f"thermo_ebm/{folder}/{path.name}" for path in source.glob(f"{folder}/*.py")}
    assert names - metadata == packaged  # all of it, templates and py.typed too, and nothing else
    assert {"thermo_ebm/py.typed", "thermo_ebm/launch/train.py"} <= names
