"""Every choice of gradient against central differences of what it must be the derivative of.

All random keys are fixed, so that a loss is a smooth function of the parameters. Under "langevin"
that function is the loss itself. Under the others it is written out here over chains frozen at the
base parameters.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smooth_network as tiny
from jax.flatten_util import ravel_pytree

from thermo_ebm.losses import (
    GENERATOR_GRADIENTS,
    PRIOR_GRADIENTS,
    LossSettings,
    thermodynamic,
    thermodynamic_loss,
    vanilla_loss,
)
from thermo_ebm.randomness import chain_keys
from thermo_ebm.sampling.chains import (
    posterior_chains,
    prior_chains,
    tempered_chains,
)
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import Schedule

KEY = jax.random.key(5)
NUM = 16
STEP = 1e-5  # errors of the order of STEP^2 and of 1e-15 / STEP: 1e-10
TRAPEZIUM = LossSettings(3, power=2.0, quadrature="trapezium", correction="pooled_gaussian")
LEFT = TRAPEZIUM._replace(power=0.5, quadrature="left", kl_weight=1.5)
RIGHT = LossSettings(3, power=1.0, quadrature="right", correction="none")

pytestmark = pytest.mark.usefixtures("x64")


def loss_of(params, settings):
    batch = tiny.make_batch(NUM, padding=1)
    return thermodynamic_loss(tiny.make_model(), params, batch, KEY, tiny.SAMPLER, settings)


def central_differences(function, at):
    """The gradient of a scalar function of a tree, entry by entry."""
    flat, unravel = ravel_pytree(at)
    shifts = STEP * jnp.eye(flat.size)
    points = jnp.concatenate([flat + shifts, flat - shifts])
    values = jax.jit(lambda p: jax.lax.map(lambda row: function(unravel(row)), p))(points)
    upper, lower = values.reshape(2, -1)
    return np.asarray((upper - lower) / (2 * STEP))


def assert_close(gradient, expected):
    gradient = ravel_pytree(gradient)[0]
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def frozen_chains(settings):
    """Latents [N + 1, NUM, 3] of the examples alone, at the base parameters."""
    batch = tiny.make_batch(NUM)
    temperatures = (np.arange(4) / 3) ** settings.power
    chains = partial(tempered_chains, tiny.make_model(), settings=tiny.SAMPLER)
    z = jax.jit(chains)(tiny.parameters(), batch, Ladder(Schedule(temperatures)), key=KEY)
    return temperatures, z.latents[:, 0]


def log_likelihoods(beta, z):
    """log p_beta(x | z) of each image, up to a constant."""
    error = tiny.make_batch(NUM).images - tiny.generator(beta, z)
    return -(error**2).sum((1, 2, 3)) / (2 * 0.4**2)


def mean_log_likelihood(beta, z):
    return log_likelihoods(beta, z).mean()


def weights_of(z, temperatures):
    """Of every chain as a sample of its image's posterior, [N, NUM]; proved in `test_ratios.py`."""
    values = jnp.stack([log_likelihoods(tiny.parameters()["generator"], rows) for rows in z[1:]])
    weigh = jax.jit(ratios.posterior_weights, static_argnums=2)
    hot = jnp.asarray(temperatures[1:])
    of_image = weigh(hot, values.T[..., None], thermodynamic.MBAR_ITERATIONS)
    return np.asarray(of_image[..., 0]).T


def contrast(alpha, z_posterior, z_prior):
    """What "contrastive" differentiates: minus (E_1[f] - E_0[f])."""
    return -(tiny.tilt(alpha, z_posterior).mean() - tiny.tilt(alpha, z_prior).mean())


def quadrature_sum(beta, z, temperatures, settings):
    """What "detached" differentiates: minus the quadrature of E_i over frozen chains."""
    intervals = np.diff(temperatures)
    left, right = np.append(intervals, 0), np.insert(intervals, 0, 0)
    weights = {"left": left, "right": right, "trapezium": (left + right) / 2}
    terms = zip(weights[settings.quadrature], z, strict=True)
    return -sum(weight * mean_log_likelihood(beta, rows) for weight, rows in terms)


def expected_gradients(settings):
    """Central differences for every choice: ({prior choice: grad}, {generator choice: grad})."""
    base, (temperatures, z) = tiny.parameters(), frozen_chains(settings)
    total = central_differences(lambda params: loss_of(params, settings)[0], base)
    size = ravel_pytree(base["generator"])[0].size  # flattened first: groups are sorted
    contrastive = central_differences(lambda a: contrast(a, z[-1], z[0]), base["prior"])
    detached = central_differences(
        lambda b: quadrature_sum(b, z, temperatures, settings), base["generator"]
    )
    posterior = central_differences(lambda b: -mean_log_likelihood(b, z[-1]), base["generator"])
    weights = weights_of(z, temperatures)

    def reweighted_sum(fn):
        terms = zip(weights, z[1:], strict=True)
        return sum((weight * fn(rows)).sum() for weight, rows in terms) / NUM

    reweighted = central_differences(
        lambda b: -reweighted_sum(lambda rows: log_likelihoods(b, rows)), base["generator"]
    )
    reweighted_contrast = central_differences(
        lambda a: tiny.tilt(a, z[0]).mean() - reweighted_sum(lambda rows: tiny.tilt(a, rows)),
        base["prior"],
    )
    return (
        {
            "langevin": total[size:],
            "contrastive": contrastive,
            "none": None,
            # What "contrastive" is where the generator's gradient is reweighted.
            "reweighted": reweighted_contrast,
        },
        {
            "langevin": total[:size],
            "detached": detached,
            "posterior": posterior,
            "reweighted": reweighted,
        },
    )


def all_choices(settings, choices):
    """{choice: ((loss, aux), gradient)}, compiled together."""

    @jax.jit
    def run(params):
        return [
            jax.value_and_grad(loss_of, has_aux=True)(
                params, settings._replace(prior_gradient=prior, generator_gradient=generator)
            )
            for prior, generator in choices
        ]

    return dict(zip(choices, run(tiny.parameters()), strict=True))


def check(settings, choices):
    of_prior, of_generator = expected_gradients(settings)
    results = all_choices(settings, choices)
    (reference, reference_aux), _ = results[choices[0]]
    for (prior, generator), ((loss, aux), grads) in results.items():
        # The value does not depend on the choice,
        np.testing.assert_allclose(loss, reference, rtol=1e-13)
        of_gradient = ("effective_sample_size", "tilt_prior", "tilt_posterior")
        aux = aux._replace(**{name: getattr(reference_aux, name) for name in of_gradient})
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-13), aux, reference_aux)
        # and each network's gradient on its own choice alone, but for weights that are shared.
        shared = prior == "contrastive" and generator == "reweighted"
        if prior == "none":
            assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads["prior"]))
        else:
            assert_close(grads["prior"], of_prior["reweighted" if shared else prior])
        assert_close(grads["generator"], of_generator[generator])
    return of_prior, of_generator


def test_shrinkage_is_not_at_its_bounds():
    # Where it is, its derivative, which the differences are to see, is zero.
    for settings in (TRAPEZIUM, LEFT):
        z = frozen_chains(settings)[1]
        weighted = shrunk_moments(z, jnp.ones(NUM)).cov
        plain = np.stack([np.cov(rows.T, ddof=0) for rows in z])
        intensity = 1 - weighted[:, 0, 1] / plain[:, 0, 1]
        assert np.sum((intensity > 0.01) & (intensity < 0.99)) >= 2


@pytest.mark.slow
def test_gradients_of_all_settings_under_the_trapezium():
    choices = list(itertools.product(PRIOR_GRADIENTS, GENERATOR_GRADIENTS))
    assert len(choices) == 12
    of_prior, of_generator = check(TRAPEZIUM, choices)
    # The choices are not alike: no case passes in another's place.
    for table in (of_prior, of_generator):
        gradients = [gradient for gradient in table.values() if gradient is not None]
        for first, second in itertools.combinations(gradients, 2):
            assert np.abs(first - second).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("settings", [LEFT, RIGHT], ids=["left", "right"])
def test_gradients_under_other_quadratures(settings):
    check(settings, [("langevin", "langevin"), ("none", "detached")])


def test_gradient_of_the_vanilla_loss():
    # Eq. 6 and 7 over chains frozen at the base parameters.
    base, batch, model = tiny.parameters(), tiny.make_batch(NUM), tiny.make_model()
    keys = [chain_keys(KEY, i, batch.position) for i in range(2)]
    z_prior = prior_chains(model, base["prior"], keys[0], tiny.SAMPLER.prior).latents
    z_posterior = posterior_chains(
        model, base, batch.images, jnp.ones(NUM), keys[1], tiny.SAMPLER.posterior
    ).latents

    def loss(params):
        padded = tiny.make_batch(NUM, padding=1)
        return vanilla_loss(model, params, padded, KEY, tiny.SAMPLER)[0]

    def frozen(params):
        likelihood = -mean_log_likelihood(params["generator"], z_posterior)
        return likelihood + contrast(params["prior"], z_posterior, z_prior)

    gradient = jax.jit(jax.grad(loss))(base)
    assert_close(gradient, central_differences(frozen, base))
    assert gradient.keys() == {"prior", "generator"}
