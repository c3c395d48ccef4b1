"""Forms of the transposed convolution against a numpy loop, gradients included."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy_networks as independent
import pytest

from thermo_ebm.models.conv_transpose import dilated, for_backend, on_tpu, row_blocks, stamped

SHAPES = [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2), (4, 3), (5, 3)]


def arrays(kernel_size, stride, num=2, height=3, width=4, c_in=2, c_out=3):
    rng = np.random.default_rng(kernel_size + 10 * stride)
    x = rng.normal(size=(num, height, width, c_in))
    weights = rng.normal(size=(kernel_size, kernel_size, c_in, c_out))
    cotangent = rng.normal(size=(num, stride * height, stride * width, c_out))
    return x, weights, cotangent


def assert_is_the_loop(form, stride, x, weights, cotangent):
    @jax.jit
    def with_gradients(x, weights):
        out, pullback = jax.vjp(lambda x, weights: form(x, weights, stride), x, weights)
        return out, *pullback(cotangent)

    out, grad_x, grad_weights = with_gradients(x, weights)
    expected = independent.conv_transpose(x, weights, stride)
    expected_gradients = independent.conv_transpose_gradients(x, weights, stride, cotangent)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(grad_x, expected_gradients[0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(grad_weights, expected_gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", [stamped, dilated])
def test_transposed_convolution_equals_a_loop_in_value_and_gradient(form):
    for kernel_size, stride in SHAPES:
        assert_is_the_loop(form, stride, *arrays(kernel_size, stride))


@pytest.mark.usefixtures("x64")
def test_transposed_convolution_in_blocks_of_rows_equals_a_loop():
    for kernel_size, height in itertools.product((1, 2, 3, 4, 5), (4, 12)):
        assert_is_the_loop(row_blocks, 1, *arrays(kernel_size, 1, height=height))


def test_a_tpu_takes_blocks_of_rows_where_they_apply():
    assert (for_backend("tpu"), for_backend("gpu")) == (on_tpu, dilated)

    def same(form, height, c_out, stride):
        x, weights, _ = arrays(4, stride, height=height, c_out=c_out)
        jaxprs = [jax.make_jaxpr(partial(fn, stride=stride))(x, weights) for fn in (on_tpu, form)]
        return str(jaxprs[0]) == str(jaxprs[1])

    assert same(row_blocks, 8, 3, 1)
    for second in ((6, 3, 1), (8, 5, 1), (8, 3, 2)):  # the height, the channels, the stride
        assert same(dilated, *second)
    with pytest.raises(AssertionError):
        row_blocks(*arrays(4, 1, height=6)[:2], 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kernel_size", "stride", "fast"), [(3, 1, row_blocks), (4, 2, dilated), (5, 3, dilated)]
)
def test_second_derivatives_of_two_forms_agree(kernel_size, stride, fast):
    # What a gradient through Langevin chains takes: the derivative of a score.
    x, weights, cotangent = arrays(kernel_size, stride, height=4)

    def of_score(form, x, weights):
        def log_density(x):
            return jnp.sum(cotangent * jnp.tanh(form(x, weights, stride)))

        return jnp.sum(jnp.sin(jax.grad(log_density)(x)))

    @jax.jit
    def both(x, weights):
        return [
            jax.grad(partial(of_score, form), argnums=(0, 1))(x, weights)
            for form in (stamped, fast)
        ]

    for first, second in zip(*both(x, weights), strict=True):
        assert np.abs(second).max() > 1e-3
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-11)


def test_transposed_convolution_of_one_pixel_by_hand():
    # 1 x 1 pixel of value 2, kernel 4, stride 2: the middle 2 x 2 of the kernel, doubled.
    weights = np.arange(16.0).reshape(4, 4, 1, 1).astype(np.float32)
    x = np.full((1, 1, 1, 1), 2.0, np.float32)
    for form in (stamped, dilated):
        np.testing.assert_allclose(form(x, weights, 2)[0, :, :, 0], [[10, 12], [18, 20]])


def test_forms_of_the_transposed_convolution_agree_in_float32():
    x, weights, _ = arrays(4, 2, num=3, height=8, width=8, c_in=32, c_out=16)
    x, weights = x.astype(np.float32), weights.astype(np.float32)
    forms = [jax.jit(form, static_argnums=2)(x, weights, 2) for form in (stamped, dilated)]
    assert forms[0].dtype == forms[1].dtype == np.float32
    # Sums of 128 products of order 1, each rounded to 6e-8.
    np.testing.assert_allclose(forms[0], forms[1], rtol=0, atol=1e-4)


def test_refuses_a_kernel_smaller_than_the_stride():
    for form in [stamped, dilated]:
        x, weights, _ = arrays(2, 2)
        with pytest.raises(ValueError, match="kernel_size 2 must be at least the stride 3"):
            form(x, weights, 3)
        with pytest.raises(AssertionError):
            form(x[0], weights, 2)
