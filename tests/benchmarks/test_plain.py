"""The fast step against the plain form of `benchmarks/plain.py`: same draws, same values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import plain
from configs import cifar10_paper
from thermo_ebm.config.build import make_loss, sampler_settings
from thermo_ebm.models import conv_transpose
from thermo_ebm.models.conv_transpose import dilated, stamped, winograd
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.sampling.chains import tempered_chains
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Batch

NUM = 5
# Tolerance of losses and gradients, relative. Float32 rounds to 1e-7 per operation; chains have
# thousands of operations and amplify their errors.
FLOAT32 = 2e-5
# Tolerance of bfloat16's chains, relative to how far the chains move: it rounds to 4e-3.
BFLOAT16 = 0.1

VARIANTS = [
    {"generator_gradient": "reweighted", "correction": "ratio"},
]
SLOW_VARIANTS = [
    {"name": "vanilla"},
    {"prior_gradient": "contrastive", "generator_gradient": "detached"},
    {"prior_gradient": "none", "generator_gradient": "posterior"},
    {"prior_gradient": "langevin", "generator_gradient": "langevin"},
    {"correction": "none", "quadrature": "left"},
    {
        "correction": "pooled_gaussian",
        "kl_form": "sum",
        "kl_weight": 2.0,
        "quadrature": "trapezium",
    },
    {"correction": "pooled_gaussian", "generator_gradient": "detached"},
]


def small_config(**loss) -> ConfigDict:
    """Layers of every kind, 4 - 8 - 8 pixels, with few channels and short chains."""
    config = cifar10_paper.get_config()
    config.data.image_size = 8
    config.model.latent_dim = 6
    config.model.generator.features = 2
    config.model.generator.widths = (3, 2)
    config.model.generator.strides = (1, 2, 1)
    config.sampler.prior.num_steps = 4
    config.sampler.posterior.num_steps = 3
    config.loss.num_temperatures = 3
    config.loss.update(loss)
    return config


def problem(config: ConfigDict):
    key_params, key_images, key = jax.random.split(jax.random.key(0), 3)
    params = make_model(config.model, 3).init(key_params)
    images = jax.random.uniform(key_images, (NUM, 8, 8, 3), minval=-1.0)
    return params, Batch(images, jnp.arange(NUM), jnp.ones(NUM)), key


def assert_gradients_close(actual, expected, tolerance):
    for path, leaf in jax.tree.leaves_with_path(expected):
        other = dict(jax.tree.leaves_with_path(actual))[path]
        error, norm = np.linalg.norm(other - leaf), np.linalg.norm(leaf)
        assert error <= tolerance * norm + 3e-7, (jax.tree_util.keystr(path), error, norm)


def assert_fast_equals_plain(config: ConfigDict, forms=(None,)):
    """Value and gradient of the fast loss, in each form, are those of the plain loss."""
    params, batch, key = problem(config)
    slow = jax.jit(jax.value_and_grad(plain.make_loss(config)))
    expected, expected_grads = slow(params, batch, key)
    for form in forms:
        loss = make_loss(config, make_model(config.model, 3, form), None)
        (value, _), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch, key)
        np.testing.assert_allclose(value, expected, rtol=FLOAT32)
        assert_gradients_close(grads, expected_grads, FLOAT32)


@pytest.mark.parametrize(
    "variant",
    [*VARIANTS, *(pytest.param(variant, marks=pytest.mark.slow) for variant in SLOW_VARIANTS)],
    ids=lambda variant: "-".join(map(str, variant.values())),
)
def test_loss_and_gradient_of_every_variant(variant):
    assert_fast_equals_plain(small_config(**variant))


@pytest.mark.slow
def test_loss_and_gradient_in_chunks():
    config = small_config(prior_gradient="langevin", generator_gradient="langevin")
    config.sampler.image_chunk = 2
    assert_fast_equals_plain(config)


@pytest.mark.slow
def test_loss_and_gradient_in_forms_that_small_models_do_not_take(monkeypatch):
    monkeypatch.setattr(conv_transpose, "_MANY_CHANNELS", 1)  # winograd for all shapes it can do
    forms = (conv_transpose.on_cpu, conv_transpose.on_tpu, dilated)
    assert_fast_equals_plain(small_config(correction="none"), forms)


def test_forms_have_the_derivatives_of_jax_transposed_convolution():
    """Values, gradients, and gradients of a gradient: what differentiated chains need."""
    key_x, key_weights = jax.random.split(jax.random.key(1))
    x = jax.random.normal(key_x, (2, 4, 6, 3))
    weights = jax.random.normal(key_weights, (4, 4, 3, 2))

    def second(form):
        def score(x, weights):
            return jax.grad(lambda x: jnp.sum(jnp.tanh(form(x, weights, 2))))(x)

        def fn(x, weights):
            value = form(x, weights, 2)
            return value, jax.grad(lambda *args: jnp.sum(jnp.sin(score(*args))), (0, 1))(x, weights)

        return jax.jit(fn)(x, weights)

    def framework(x, weights, stride):
        return jax.lax.conv_transpose(x, weights[::-1, ::-1], (stride, stride), "SAME")

    value, grads = second(framework)
    for form in (stamped, dilated, winograd):
        actual, actual_grads = second(form)
        np.testing.assert_allclose(actual, value, atol=1e-4)
        assert_gradients_close(actual_grads, grads, FLOAT32)


def test_forms_under_vmap_over_weights():
    """Repetitions that train in parallel have weights of their own."""
    x = jax.random.normal(jax.random.key(2), (3, 2, 4, 4, 3))
    weights = jax.random.normal(jax.random.key(3), (3, 4, 4, 3, 2))

    def grad(form):
        gradient = jax.grad(lambda x, w: jnp.sum(form(x, w, 2) ** 3), (0, 1))
        return jax.jit(jax.vmap(gradient))(x, weights)

    expected = grad(dilated)
    for form in (stamped, winograd):
        assert_gradients_close(grad(form), expected, FLOAT32)


def test_winograd_refuses_other_shapes():
    for input_shape, kernel_size, stride in [
        ((1, 3, 4, 2), 4, 2),
        ((1, 4, 4, 2), 3, 2),
        ((1, 4, 4, 2), 4, 1),
    ]:
        weights = jnp.ones((kernel_size, kernel_size, 2, 2))
        with pytest.raises(ValueError, match="4 x 4 kernels"):
            winograd(jnp.ones(input_shape), weights, stride)


def test_backend_chooses_the_form():
    assert conv_transpose.for_backend("cpu") is conv_transpose.on_cpu
    assert conv_transpose.for_backend("gpu") is dilated
    assert conv_transpose.for_backend("tpu") is conv_transpose.on_tpu


def test_the_cpu_form_agrees_with_the_direct_form_for_all_shapes():
    for size, channels in [(4, 128), (5, 128), (4, 2)]:
        x = jax.random.normal(jax.random.key(4), (1, size, size, channels))
        weights = jax.random.normal(jax.random.key(5), (4, 4, channels, 2))
        expected = dilated(x, weights, 2)
        scale = float(jnp.abs(expected).max())
        actual = jax.jit(conv_transpose.on_cpu, static_argnums=2)(x, weights, 2)
        np.testing.assert_allclose(actual, expected, atol=FLOAT32 * scale)


def test_bfloat16_chains_stay_near_the_float32_ones():
    config = small_config()
    params, batch, key = problem(config)
    ladder = Ladder(Schedule(jnp.array([0.0, 0.1, 0.5, 1.0])))

    def latents(precision, num_steps=3):
        config.sampler.precision = precision
        config.sampler.posterior.num_steps = num_steps
        model, settings = make_model(config.model, 3), sampler_settings(config)
        args = (batch, ladder, key, settings)
        return jax.jit(lambda: tempered_chains(model, params, *args))().latents

    exact, rounded, start = latents("float32"), latents("bfloat16"), latents("float32", 0)
    assert exact.dtype == rounded.dtype == jnp.float32
    error = np.linalg.norm(rounded - exact, axis=(1, 2))
    moved = np.linalg.norm(exact - start, axis=(1, 2))
    assert np.all(error[1:] < BFLOAT16 * moved[1:])
    assert np.all(error > 0)


def test_bfloat16_changes_neither_parameters_nor_losses_types():
    config = small_config()
    config.sampler.precision = "bfloat16"
    params, batch, key = problem(config)
    loss = make_loss(config, make_model(config.model, 3), None)
    (value, aux), grads = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), params, batch, key)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, aux, grads))} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_bfloat16_loss_stays_near_the_plain_float32_one():
    config = small_config()
    params, batch, key = problem(config)
    expected = jax.jit(plain.make_loss(config))(params, batch, key)
    config.sampler.precision = "bfloat16"
    loss = make_loss(config, make_model(config.model, 3), None)
    value, _ = jax.jit(loss)(params, batch, key)
    np.testing.assert_allclose(value, expected, rtol=0.01)
