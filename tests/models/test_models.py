"""The networks of table 6, the densities, and the published configurations at full size."""

import importlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpy_networks as independent
import pytest
import smooth_network as tiny
from scipy import stats

from thermo_ebm.config.build import sampler_settings
from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
from thermo_ebm.models.conv_transpose import stamped
from thermo_ebm.models.generator import image_size, make_generator_network
from thermo_ebm.models.latent_ebm import (
    log_likelihood,
    log_power_posterior,
    log_prior,
    make_model,
    with_compute_dtype,
)
from thermo_ebm.models.prior import tilted_gaussian
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.types import Batch


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def small_network():
    config = config_of("digits")
    config.model.latent_dim = 5
    config.model.prior.features = 6
    config.model.generator.update(features=2, widths=(3, 2), strides=(1, 2, 1))
    model = make_model(config.model, channels=3)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    # Biases too: where they are zero, a wrong one would not be seen.
    params = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), shapes)
    return model, params, config.model


# The published sizes.

# k k c_in c_out weights and c_out biases a layer; k = 4, ngf = 64.
CIFAR10_GENERATOR = (
    (4 * 4 * 100 * 1024 + 1024)
    + (4 * 4 * 1024 * 512 + 512)
    + (4 * 4 * 512 * 256 + 256)
    + (4 * 4 * 256 * 128 + 128)
    + (4 * 4 * 128 * 3 + 3)
)
CELEB_A_GENERATOR = (
    (4 * 4 * 80 * 1024 + 1024)
    + (4 * 4 * 1024 * 512 + 512)
    + (4 * 4 * 512 * 256 + 256)
    + (4 * 4 * 256 * 128 + 128)
    + (4 * 4 * 128 * 64 + 64)
    + (4 * 4 * 64 * 3 + 3)
)
CIFAR10_PRIOR = (100 * 100 + 100) + (100 * 100 + 100) + (100 + 1)
CELEB_A_PRIOR = (80 * 100 + 100) + (100 * 100 + 100) + (100 + 1)
PUBLISHED = [
    ("cifar10", 100, 32, CIFAR10_PRIOR, CIFAR10_GENERATOR),
    ("celeb_a", 80, 64, CELEB_A_PRIOR, CELEB_A_GENERATOR),
]


@pytest.mark.parametrize(("name", "latent_dim", "size", "num_prior", "num_generator"), PUBLISHED)
def test_published_configurations_at_full_size(name, latent_dim, size, num_prior, num_generator):
    config = config_of(name)
    model = make_model(config.model, config.data.channels)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert count(params["prior"]) == num_prior
    assert count(params["generator"]) == num_generator
    assert model.latent_dim == config.model.latent_dim == latent_dim
    assert config.data.image_size == size
    assert (model.prior_sigma, model.likelihood_sigma) == (1.0, 0.3)
    assert config.batch_size == 75


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "celeb_a"])
def test_losses_of_the_published_configurations_can_be_traced(name):
    config = config_of(name)
    model = make_model(config.model, config.data.channels)
    params = jax.eval_shape(model.init, jax.random.key(0))
    shape, num, size = jax.ShapeDtypeStruct, config.batch_size, config.data.image_size
    batch = Batch(
        shape((num, size, size, 3), jnp.float32), shape((num,), jnp.int32), shape((num,), float)
    )
    sampler, settings = sampler_settings(config), LossSettings.from_config(config)
    losses = {
        "vanilla": lambda *a: vanilla_loss(model, *a, sampler),
        "exact": lambda *a: thermodynamic_loss(model, *a, sampler, settings),
        "langevin": lambda *a: thermodynamic_loss(
            model,
            *a,
            sampler,
            settings._replace(prior_gradient="langevin", generator_gradient="langevin"),
        ),
    }
    for loss in losses.values():
        step = jax.value_and_grad(loss, has_aux=True)
        (value, aux), grads = jax.eval_shape(step, params, batch, jax.random.key(0))
        assert value.shape == ()
        assert jax.tree.map(lambda a: (a.shape, a.dtype), grads) == jax.tree.map(
            lambda a: (a.shape, a.dtype), params
        )
    assert aux.expected_log_likelihood.shape == (settings.num_temperatures + 1,) == (11,)
    assert aux.kl_forward.shape == aux.kl_backward.shape == (10,)


def test_images_have_the_size_the_configuration_says():
    for name in ["base", "cifar10", "svhn", "celeb_a", "folder", "digits", "fashion_mnist_28"]:
        config = config_of(name)
        model = make_model(config.model, config.data.channels)
        params = jax.eval_shape(model.init, jax.random.key(0))
        z = jax.ShapeDtypeStruct((2, model.latent_dim), jnp.float32)
        size, channels = config.data.image_size, config.data.channels
        assert jax.eval_shape(model.generator, params["generator"], z).shape == (
            2,
            size,
            size,
            channels,
        )
        assert image_size(config.model.generator.strides, 7 if size == 28 else 4) == size


def test_the_shape_of_the_published_code_is_one_override_away():
    config = config_of("cifar10")
    config.model.generator.strides = (1, 2, 2, 2, 2)
    model = make_model(config.model, 3)
    params = jax.eval_shape(model.init, jax.random.key(0))
    z = jax.ShapeDtypeStruct((2, 100), jnp.float32)
    assert jax.eval_shape(model.generator, params["generator"], z).shape == (2, 64, 64, 3)


# The networks.


def test_tilt_is_the_network_in_numpy():
    model, params, config = small_network()
    z = np.random.default_rng(0).normal(size=(7, 5))
    alpha = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["prior"])
    expected = independent.tilt(alpha, z, config.prior.leak)
    assert config.prior.leak == 0.1
    np.testing.assert_allclose(
        model.tilt(params["prior"], jnp.float32(z)), expected, rtol=1e-4, atol=1e-5
    )


def test_generator_is_the_network_in_numpy():
    model, params, config = small_network()
    z = np.random.default_rng(0).normal(size=(3, 5))
    leaves = {str(path): leaf for path, leaf in jax.tree.leaves_with_path(params["generator"])}
    shapes = [(4, 4, 5, 6), (4, 4, 6, 4), (4, 4, 4, 3)]
    layers = []
    for i, shape in enumerate(shapes):
        (weights,) = (v for k, v in leaves.items() if f"layer_{i}" in k and v.ndim == 4)
        (bias,) = (v for k, v in leaves.items() if f"layer_{i}" in k and v.ndim == 1)
        assert weights.shape == shape
        layers.append((np.asarray(weights, np.float64), np.asarray(bias, np.float64)))
    assert config.generator.leak == 0.2
    expected = independent.generator(layers, z, config.generator.strides, 0.2)
    images = jax.jit(model.generator)(params["generator"], jnp.float32(z))
    assert images.shape == (3, 8, 8, 3)
    assert np.abs(images).max() <= 1
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-5)


def test_initial_images_are_neither_flat_nor_saturated():
    config = config_of("digits")
    model = make_model(config.model, config.data.channels)
    params = jax.jit(model.init)(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (64, model.latent_dim))
    spread = float(jnp.std(jax.jit(model.generator)(params["generator"], z)))
    assert 0.1 < spread < 0.8
    # An output pixel meets (k / s)^2 of the input's: 32, 64 x 2^2 and 32 x 4^2 products a sum.
    # Haiku's normals are cut off at two standard deviations, which leaves 0.88 of them.
    for i, fan_in in enumerate((32, 64 * 4, 32 * 16)):
        (weights,) = (
            leaf
            for path, leaf in jax.tree.leaves_with_path(params["generator"])
            if f"layer_{i}" in str(path) and leaf.ndim == 4
        )
        np.testing.assert_allclose(np.std(weights), 0.88 * fan_in**-0.5, rtol=0.05)
    other = jax.jit(model.init)(jax.random.key(1))
    assert count(other) == count(params)
    assert np.abs(other["prior"]["tilt"]["w"] - params["prior"]["tilt"]["w"]).max() > 0


def test_refuses_strides_that_do_not_fit_the_widths():
    for strides in ((1, 2), (2, 2, 1)):
        with pytest.raises(ValueError, match="must start with 1 and have one more entry"):
            make_generator_network(2, (2, 1), strides, 3, 4, 4, 0.2, stamped)


# The densities.


@pytest.mark.usefixtures("x64")
def test_log_likelihood_is_the_normal_density():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    z = np.random.default_rng(0).normal(size=(5, 3))
    mean = np.tanh(z @ params["generator"]["weights"] + params["generator"]["bias"])
    x = np.asarray(batch.images).reshape(5, 4)
    expected = stats.norm.logpdf(x, mean, 0.4).sum(-1)
    values = log_likelihood(model, params["generator"], batch.images, z)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_log_prior_and_power_posterior_are_the_gaussians_up_to_a_constant():
    model, params, x = lg.make_model(), lg.parameters(), lg.observation()
    z = np.random.default_rng(0).normal(size=(6, 3))
    images = np.broadcast_to(x, (6, lg.DATA_DIM))
    for temperature in (0.0, 0.3, 1.0):
        law = lg.power_posterior(params, x, temperature)
        expected = stats.multivariate_normal.logpdf(z, law.mean, law.cov)
        value = log_power_posterior(model, params, images, z, temperature)
        np.testing.assert_allclose(np.ptp(value - expected), 0, atol=1e-10)
    prior = lg.power_posterior(params, x, 0.0)
    expected = stats.multivariate_normal.logpdf(z, prior.mean, prior.cov)
    np.testing.assert_allclose(
        np.ptp(log_prior(model, params["prior"], z) - expected), 0, atol=1e-10
    )


@pytest.mark.usefixtures("x64")
def test_power_posterior_takes_a_temperature_for_each_row():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    z = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    temperatures = jnp.linspace(0, 1, 5)
    rows = log_power_posterior(model, params, batch.images, z, temperatures)
    one_by_one = [
        log_power_posterior(model, params, batch.images, z, t)[i]
        for i, t in enumerate(temperatures)
    ]
    np.testing.assert_allclose(rows, jnp.stack(one_by_one), rtol=1e-12)


def test_a_prior_of_ones_own_is_used_by_density_and_chains():
    """A reference N(2, 0.5^2 I) in place of the Gaussian around 0, by one field of the model."""

    def shifted(tilt, latent_dim, sigma):
        gaussian = tilted_gaussian(tilt, latent_dim, 0.5)
        return gaussian._replace(
            log_density=lambda alpha, z: tilt(alpha, z) - 2 * ((z - 2) ** 2).sum(-1),
            sample_reference=lambda keys: 2 + gaussian.sample_reference(keys),
        )

    model = tiny.make_model()._replace(make_prior=shifted)
    params, batch = tiny.parameters(), tiny.make_batch()
    z = jax.random.normal(jax.random.key(0), (5, 3))
    expected = tiny.tilt(params["prior"], z) - 2 * ((z - 2) ** 2).sum(-1)
    np.testing.assert_allclose(log_prior(model, params["prior"], z), expected, rtol=1e-5)

    def ends(steps):
        chain = ChainSettings(0.02, steps)
        sampler = SamplerSettings(chain, chain, chains_per_image=20)
        args = batch, Ladder(make_schedule("power", 1, 1.0)), jax.random.key(1)
        run = jax.jit(partial(tempered_chains, model, settings=sampler))
        return np.asarray(run(params, *args).latents)

    # 600 numbers with the reference's mean; chains of other laws leave it.
    assert abs(ends(0).mean() - 2) < 4 * 0.5 / np.sqrt(600)
    assert abs(ends(0).std() - 0.5) < 4 * 0.5 / np.sqrt(1200)
    assert np.abs(ends(10).mean((1, 2)) - 2).max() > 0.1


def test_densities_refuse_other_shapes():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch()
    with pytest.raises(AssertionError):
        log_prior(model, params["prior"], jnp.zeros((5, 4)))
    with pytest.raises(AssertionError):
        log_likelihood(model, params["generator"], batch.images, jnp.zeros((4, 3)))
    with pytest.raises(AssertionError):
        log_likelihood(model, params["generator"], batch.images[:, :1], jnp.zeros((5, 3)))


# Precision.


def test_compute_dtype_changes_the_networks_arithmetic_alone():
    model, params, _ = small_network()
    dtypes = []

    def tilt(alpha, z):
        dtypes.append((z.dtype, *{leaf.dtype for leaf in jax.tree.leaves(alpha)}))
        return model.tilt(alpha, z)

    half = with_compute_dtype(model._replace(tilt=tilt), jnp.dtype("bfloat16"))
    z = jax.random.normal(jax.random.key(0), (7, 5))
    out, grads = jax.jit(jax.value_and_grad(lambda a: half.tilt(a, z).sum()))(params["prior"])
    assert dtypes == [(jnp.bfloat16, jnp.bfloat16)]
    assert {leaf.dtype for leaf in jax.tree.leaves((out, grads))} == {jnp.dtype("float32")}
    image, exact = (jax.jit(m.generator)(params["generator"], z) for m in (half, model))
    assert image.dtype == jnp.float32
    # bfloat16 keeps 8 bits (0.4 %), three layers deep: 2 % of the image, root mean square.
    assert 1e-4 < np.sqrt(np.mean((image - exact) ** 2) / np.mean(exact**2)) < 0.02
    assert with_compute_dtype(model, jnp.dtype("float32")) is model
