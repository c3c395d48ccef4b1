"""The L2 of the tilt: what it adds to the gradient, and what refuses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smooth_network as tiny
import tiny_training

from thermo_ebm.losses import LossSettings, check_settings, is_vanilla, thermodynamic_loss
from thermo_ebm.losses.thermodynamic import Latents, make_objective
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule

SETTINGS = LossSettings(num_temperatures=2, generator_gradient="posterior", correction="none")


def test_it_adds_the_mean_squares_of_the_tilt_to_the_gradient():
    model, params, batch = tiny.make_model(), tiny.parameters(), tiny.make_batch(6)
    weight, key = 0.3, jax.random.key(0)

    def gradient(settings):
        def value(params):
            return thermodynamic_loss(model, params, batch, key, tiny.SAMPLER, settings)[0]

        return jax.jit(jax.grad(value))(params)

    objective = make_objective(model, tiny.SAMPLER, SETTINGS)
    chains = objective.draw(params, batch, key, Ladder(make_schedule("power", 2, 1.0)))
    states = Latents(chains.latents, chains.prior)

    def squares(alpha):
        ends = states.prior[0], states.ladder[-1]
        flat = (end.reshape(-1, model.latent_dim) for end in ends)
        return sum(jnp.mean(model.tilt(alpha, z) ** 2) for z in flat)

    plain, penalised = gradient(SETTINGS), gradient(SETTINGS._replace(prior_l2=weight))
    expected = jax.grad(squares)(params["prior"])
    for a, b, c in zip(
        *map(jax.tree.leaves, (penalised["prior"], plain["prior"], expected)), strict=True
    ):
        np.testing.assert_allclose(a - b, weight * c, rtol=1e-3, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-3
    for a, b in zip(
        *map(jax.tree.leaves, (penalised["generator"], plain["generator"])), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_needs_the_contrastive_gradient():
    settings = SETTINGS._replace(prior_l2=0.1, prior_gradient="none")
    with pytest.raises(ValueError, match="prior_l2 needs prior_gradient 'contrastive'"):
        check_settings(settings, tiny.SAMPLER)


def test_the_vanilla_loss_takes_it():
    config = tiny_training.config(loss__name="vanilla", loss__prior_l2=0.2)
    assert LossSettings.from_config(config).prior_l2 == 0.2
    assert is_vanilla(LossSettings.from_config(config))
