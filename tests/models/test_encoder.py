"""The encoder: a Gaussian whose network is the generator's mirror image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from thermo_ebm.models import encoder
from thermo_ebm.models.conv_transpose import dilated, stamped, strided, windowed
from thermo_ebm.models.encoder import Encoding
from thermo_ebm.models.latent_ebm import make_model

SMALL = {
    "latent_dim": 3,
    "generator_features": 2,
    "generator_widths": (2, 1),
    "generator_strides": (1, 2, 1),
}


@pytest.mark.parametrize(("transposed", "form"), [(stamped, windowed), (dilated, strided)])
@pytest.mark.parametrize("stride", [2, 3])
def test_convolution_is_the_adjoint_of_the_transposed_one(transposed, form, stride):
    rng, k = np.random.default_rng(0), 4
    x, image, weights = (
        jnp.float32(rng.normal(size=shape))
        for shape in ((2, 3, 3, 5), (2, 3 * stride, 3 * stride, 4), (k, k, 5, 4))
    )

    @jax.jit
    def products():
        forward, backward = transposed(x, weights, stride), form(image, weights, stride)
        return jnp.vdot(forward, image), jnp.vdot(x, backward)

    np.testing.assert_allclose(*products(), rtol=1e-4)


def test_draws_and_densities_are_those_of_a_gaussian():
    rng = np.random.default_rng(1)
    mean, log_sigma, noise = rng.normal(size=(3, 4, 2))
    encoding = Encoding(jnp.float32(mean), jnp.float32(log_sigma))
    z = encoder.draw(encoding, jnp.float32(noise))
    np.testing.assert_allclose(z, mean + np.exp(log_sigma) * noise, rtol=1e-5)
    expected = stats.norm(mean, np.exp(log_sigma)).logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(encoder.log_density(encoding, z), expected, rtol=1e-4)


def test_mirror_has_the_kernels_of_the_generator():
    for channels in (1, 3):
        model = make_model(channels=channels, encoder_name="mirror", **SMALL)
        params = jax.eval_shape(model.init, jax.random.key(0))
        layers = {
            group: sorted(leaf.shape for leaf in jax.tree.leaves(tree) if len(leaf.shape) == 4)
            for group, tree in params.items()
        }
        # But the first, from the latent to 4 x 4 pixels, which is a matrix here.
        assert layers["encoder"] == [shape for shape in layers["generator"] if shape[2] != 3]
        images = jax.ShapeDtypeStruct((5, 8, 8, channels), "float32")
        encoding = jax.eval_shape(model.encoder, params["encoder"], images)
        assert [leaf.shape for leaf in encoding] == [(5, 3), (5, 3)]


@pytest.mark.slow
def test_encoder_leaves_the_first_parameters_of_the_others():
    models = [make_model(channels=1, encoder_name=name, **SMALL) for name in ("none", "mirror")]
    params, more = jax.jit(lambda key: [model.init(key) for model in models])(jax.random.key(2))
    assert more.keys() - params.keys() == {"encoder"}
    for group, tree in params.items():
        jax.tree.map(np.testing.assert_array_equal, tree, more[group])


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="encoder_name must be one of none, mirror"):
        make_model(encoder_name="other")
