"""The step in PyTorch against ours: same parameters, images and noise, same values and updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_paper
from thermo_ebm.config.build import make_loss
from thermo_ebm.errors import UserError
from thermo_ebm.gradients import optimisers
from thermo_ebm.gradients.optimisers import NoisyGradient
from thermo_ebm.losses import LossSettings
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.randomness import STEP_NOISE, all_chain_keys, normal
from thermo_ebm.thermo import ratios
from thermo_ebm.train import task
from thermo_ebm.types import make_batch

torch = pytest.importorskip("torch")

from benchmarks import torch_peer, torch_ratios  # noqa: E402

NUM = 5
# Of the largest entry. Float32 keeps 1e-7 an operation; chains add up thousands and amplify.
FLOAT32 = 2e-5

VARIANTS = [
    {"name": "vanilla"},
    {"prior_gradient": "contrastive", "generator_gradient": "reweighted"},
    {"prior_gradient": "contrastive", "generator_gradient": "posterior"},
]
SLOW_VARIANTS = [
    {"kl_weight": 0.5, "power": 3.0},
    {"correction": "none", "quadrature": "left", "num_temperatures": 1},
]


def small_config(**loss):
    """Layers of every kind, 4 - 8 - 8 pixels, with few channels and short chains."""
    config = cifar10_paper.get_config()
    config.data.image_size = 8
    config.model.latent_dim = 6
    # Wide enough for neighbouring temperatures to overlap, so that the ratios are well defined.
    config.model.likelihood_sigma = 1.5
    config.model.generator.update({"features": 2, "widths": (3, 2), "strides": (1, 2, 1)})
    config.sampler.prior.num_steps = 4
    config.sampler.posterior.num_steps = 3
    config.loss.num_temperatures = 3
    config.loss.update(loss)
    return config


def problem(config):
    key_params, key_images, key = jax.random.split(jax.random.key(0), 3)
    params = make_model(config).init(key_params)
    # Biases are zero at the start, which would hide a bias in the wrong place.
    params = jax.tree.map(
        lambda w: w + 0.1 * jax.random.normal(key_params, w.shape) if w.ndim == 1 else w, params
    )
    images = jax.random.uniform(key_images, (NUM, 8, 8, 3), minval=-1.0)
    return params, make_batch(images), key


def same_noise(config, key):
    """The numbers that our chains draw from `key`."""
    num = LossSettings.from_config(config).num_temperatures
    per_image, dim = config.sampler.chains_per_image, config.model.latent_dim
    keys = all_chain_keys(key, jnp.arange(num + 1), jnp.arange(NUM), per_image)

    def of(keys, steps):
        draws = [normal(keys.reshape(-1), STEP_NOISE + k, dim) for k in range(steps + 1)]
        return torch.from_numpy(np.array(draws))

    prior, posterior = config.sampler.prior.num_steps, config.sampler.posterior.num_steps
    return torch_peer.Noise(of(keys[0], prior), of(keys[1:], posterior))


def in_our_layout(layers):
    """Tensors of the peer as a tree of the library."""

    def arrays(layer, axes):
        weights, bias = (tensor.detach().numpy() for tensor in layer)
        return {"w": weights.transpose(axes), "b": bias}

    names = ("hidden_0", "hidden_1", "tilt")
    dense = {name: arrays(layer, (1, 0)) for name, layer in zip(names, layers.alpha, strict=True)}
    convolutions = {
        f"layer_{i}": arrays(layer, (2, 3, 0, 1)) for i, layer in enumerate(layers.beta)
    }
    return {"prior": dense, "generator": convolutions}


def gradients(layers):
    return torch_peer.Params(*([(w.grad, b.grad) for w, b in part] for part in layers))


def without_constant(grads):
    """A gradient without that of the tilt's last bias, which is E_1[1] - E_0[1] = 0."""
    rest = jax.tree.map(np.asarray, grads)
    assert abs(rest["prior"]["tilt"].pop("b")) <= FLOAT32  # what rounding leaves of two means of 1
    return rest


def assert_close(actual, expected, tolerance=FLOAT32):
    actual_leaves = dict(jax.tree.leaves_with_path(actual))
    leaves = jax.tree.leaves_with_path(expected)
    assert actual_leaves.keys() == {path for path, _ in leaves}
    for path, leaf in leaves:
        error, largest = np.abs(actual_leaves[path] - leaf).max(), np.abs(leaf).max()
        assert error <= tolerance * largest, (jax.tree_util.keystr(path), error, largest)


@pytest.mark.parametrize(
    "variant",
    [*VARIANTS, *(pytest.param(variant, marks=pytest.mark.slow) for variant in SLOW_VARIANTS)],
    ids=lambda variant: "-".join(map(str, variant.values())),
)
def test_step_of_the_torch_peer_equals_the_librarys(variant):
    config = small_config(**variant)
    params, batch, key = problem(config)
    loss = make_loss(config, make_model(config), None)
    (value, _), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch, key)

    peer, trained = torch_peer.make_peer(config), torch_peer.from_jax(params)
    adam = torch_peer.make_adam(config, trained)
    images = torch_peer.images_from_jax(batch.images)
    peer_value = torch_peer.update(peer, trained, adam, images, same_noise(config, key))

    np.testing.assert_allclose(peer_value, value, rtol=FLOAT32)
    peers = in_our_layout(gradients(trained))
    assert_close(without_constant(peers), without_constant(grads))
    # From one gradient: Adam's first step is its sign, which rounding can turn where it is zero.
    adams = task.make_optimisers(config.optimizer, steps_per_epoch=1)
    state = optimisers.init_optimisers(adams, params)
    updated, *_ = optimisers.update(adams, (NoisyGradient(peers),) * 2, state, params)
    assert_close(in_our_layout(trained), updated, 1e-6)


def test_a_chain_with_another_image_changes_the_gradient():
    config = small_config()
    params, batch, key = problem(config)
    peer, noise = torch_peer.make_peer(config), same_noise(config, key)
    images = torch_peer.images_from_jax(batch.images)

    def last_gradient(images):
        trained = torch_peer.from_jax(params)
        torch_peer.loss(peer, trained, images, noise)[1].backward()
        return trained.beta[-1][0].grad

    expected = last_gradient(images)
    error = (last_gradient(images.roll(1, 0)) - expected).abs().max()
    assert error > 50 * FLOAT32 * expected.abs().max()


def test_mbar_weights_of_the_torch_peer_are_the_librarys():
    for num_temperatures in [1, 2, 4]:
        rng = np.random.default_rng(0)
        t = np.linspace(0.2, 1.0, num_temperatures, dtype=np.float32)
        likelihood = -500 + 3 * rng.standard_normal((num_temperatures, 3, NUM)).astype(np.float32)
        weights = torch_ratios.posterior_weights(torch.tensor(t), torch.tensor(likelihood))
        expected = ratios.posterior_weights(jnp.array(t), jnp.moveaxis(jnp.array(likelihood), 2, 0))
        np.testing.assert_allclose(weights, np.moveaxis(expected, 0, 2), atol=1e-5)


def test_noise_of_the_torch_peer_has_the_shapes_of_a_step():
    config = small_config()
    params, batch, _ = problem(config)
    step = torch_peer.make_step(config, params, batch.images)
    step()
    step()


def test_torch_peer_refuses_steps_that_it_does_not_compute():
    for field, value in [
        ("sampler.posterior.kernel", "mala"),
        ("sampler.exchange_every", 1),
        ("loss.generator_gradient", "langevin"),
    ]:
        config = small_config()
        config.update_from_flattened_dict({field: value})
        with pytest.raises(UserError, match=field):
            torch_peer.check(config)
