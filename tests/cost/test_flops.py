"""Counted operations against counts by hand: single operations, loops, both losses."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from configs import digits_paper
from thermo_ebm import scopes
from thermo_ebm.config.build import make_loss
from thermo_ebm.cost.flops import count_flops, gradient_flops
from thermo_ebm.cost.plan import step_flops, step_flops_by_part
from thermo_ebm.models import conv_transpose
from thermo_ebm.models.conv_transpose import dilated, stamped, winograd
from thermo_ebm.models.latent_ebm import make_model

BATCH, LATENT, FEATURES, CHANNELS, K_PRIOR, K_POSTERIOR, N_T = 3, 7, 5, 2, 6, 4, 3


def product(x, y):
    return x @ y


X, Y = jnp.ones((3, 4)), jnp.ones((4, 5))
PRODUCT = 2 * 3 * 4 * 5
SQUARE = jnp.ones((4, 4))
PRODUCT_BY_SQUARE = 2 * 3 * 4 * 4


def repeated(times):
    return lambda x: jax.lax.scan(lambda c, _: (c @ SQUARE, None), x, None, length=times)[0]


def counted_loop(x):
    return jax.lax.fori_loop(0, 5, lambda _, c: c @ SQUARE, x)


def test_matmul_of_single_operations_and_control_flow():
    for fn, args, expected in [
        (product, (X, Y), PRODUCT),
        (jax.jit(product), (X, Y), PRODUCT),
        (jax.vmap(product, (0, None)), (jnp.ones((6, 3, 4)), Y), 6 * PRODUCT),
        (jax.value_and_grad(lambda x, y: (x @ y).sum(), (0, 1)), (X, Y), 3 * PRODUCT),
        (repeated(7), (X,), 7 * PRODUCT_BY_SQUARE),
        (jax.vmap(repeated(7)), (jnp.ones((2, 3, 4)),), 14 * PRODUCT_BY_SQUARE),
        (counted_loop, (X,), 5 * PRODUCT_BY_SQUARE),
        (lambda x: jax.lax.map(repeated(2), x), (jnp.ones((3, 3, 4)),), 6 * PRODUCT_BY_SQUARE),
        (
            lambda i, x: jax.lax.switch(i, [lambda x: x, repeated(9), repeated(2)], x),
            (0, X),
            9 * PRODUCT_BY_SQUARE,
        ),
    ]:
        assert count_flops(fn, *args).matmul == expected


def test_recomputation_is_counted_separately():
    def loss(x, y):
        return jnp.sum(jax.checkpoint(lambda x, y: jnp.tanh(x @ y))(x, y))

    count = count_flops(jax.grad(loss, (0, 1)), X, Y)
    assert count.matmul == 4 * PRODUCT  # forward, forward again, and two on the way back
    assert count.recomputed == PRODUCT
    assert count.useful == 3 * PRODUCT


def test_a_function_spread_over_devices_counts_on_each():
    mesh = jax.sharding.AbstractMesh((4,), ("i",))
    spec = PartitionSpec("i")
    fn = jax.shard_map(lambda x: x @ Y, mesh=mesh, in_specs=spec, out_specs=spec)
    assert count_flops(fn, jnp.ones((12, 4))).matmul == 4 * PRODUCT


def test_pmap_is_seen_through():
    assert count_flops(jax.pmap(lambda x: x @ Y), X[None]).matmul == PRODUCT


def test_while_loop_needs_a_trip_count_only_for_matrix_products():
    def loop(body):
        return lambda x: jax.lax.while_loop(lambda c: c.sum() < 9.0, body, x)

    assert count_flops(loop(lambda x: x + 1), X).matmul == 0
    with pytest.raises(ValueError, match="while_trip_count"):
        count_flops(loop(lambda x: x @ SQUARE), X)
    count = count_flops(loop(lambda x: x @ SQUARE), X, while_trip_count=5)
    assert count.matmul == 5 * PRODUCT_BY_SQUARE


def test_elementwise_operations_are_counted():
    count = count_flops(lambda x: jnp.sum(jnp.tanh(x) * x), X)
    assert count.elementwise == 3 * X.size
    assert count.matmul == 0


def test_both_forms_of_a_transposed_convolution_count_alike():
    for form in [stamped, dilated]:
        for k, stride in [(4, 2), (4, 1), (3, 1)]:
            x, weights = jnp.ones((2, 5, 6, 3)), jnp.ones((k, k, 3, 4))
            # Every tap of every output channel, for every input value.
            forward = 2 * x.size * k * k * 4

            def total(x, weights, form=form, stride=stride):
                return form(x, weights, stride).sum()

            assert count_flops(total, x, weights).matmul == forward
            assert count_flops(jax.value_and_grad(total), x, weights).matmul == 2 * forward
            assert count_flops(jax.value_and_grad(total, (0, 1)), x, weights).matmul == 3 * forward


def test_winograd_does_fewer_products_for_sixteen():
    for width, products in [(6, 9), (8, 6.25)]:
        x, weights = jnp.ones((2, 4, width, 3)), jnp.ones((4, 4, 3, 5))
        fewer = count_flops(lambda x, w: winograd(x, w, 2), x, weights).matmul
        direct = count_flops(lambda x, w: stamped(x, w, 2), x, weights).matmul
        assert 16 * fewer == products * direct


def test_readings_count_the_model_whatever_form_is_run(monkeypatch):
    config = small_config()
    counted = step_flops(config)
    monkeypatch.setattr(conv_transpose, "_MANY_CHANNELS", 1)
    assert step_flops(config) == counted
    model = make_model(config.model, CHANNELS, conv_transpose.on_cpu)
    fewer = gradient_flops(make_loss(config, model, None), model, 75, (8, 8, CHANNELS))
    assert fewer.useful < counted


def test_readings_count_no_row_that_fills_a_chunk():
    config = small_config()
    parts = step_flops_by_part(config)
    config.sampler.chain_chunk = 7
    assert step_flops_by_part(config) == parts
    assert sum(parts.values()) == step_flops(config)
    assert parts.keys() <= set(scopes.PARTS)


def small_config() -> ConfigDict:
    """Two generator layers: LATENT - 4x4x4 - 8x8xCHANNELS."""
    config = digits_paper.get_config()
    config.data.channels = CHANNELS
    config.model.latent_dim = LATENT
    config.model.prior.features = FEATURES
    config.model.generator.features = 4
    config.model.generator.widths = (1,)
    config.model.generator.strides = (1, 2)
    config.sampler.prior.num_steps = K_PRIOR
    config.sampler.posterior.num_steps = K_POSTERIOR
    config.loss.num_temperatures = N_T
    config.sampler.chains_per_image = 1
    config.loss.quadrature, config.loss.correction = "trapezium", "pooled_gaussian"
    return config


# By hand, for one example. The derivative of a network by its input, and the one by its weights,
# are as many operations as its value each; only a first layer's input needs no derivative where the
# latents are fixed.
GEN_FIRST = 2 * LATENT * 16 * 4
GEN = GEN_FIRST + 2 * 16 * 4 * 16 * CHANNELS
EBM_FIRST = 2 * LATENT * FEATURES
EBM = EBM_FIRST + 2 * FEATURES * FEATURES + 2 * FEATURES
PRIOR_CHAIN = K_PRIOR * 2 * EBM
POSTERIOR_CHAIN = K_POSTERIOR * 2 * (EBM + GEN)
# The means over the batch are products with the mask: two operations for each example of a row.
MEAN = 2


def test_vanilla_loss_and_gradient_by_hand():
    config = small_config()
    config.loss.name = "vanilla"
    model = make_model(config.model, CHANNELS)
    count = gradient_flops(make_loss(config, model, None), model, BATCH, (8, 8, CHANNELS))
    # Means of E_i, acceptance, rejection, round trips, sizes, both tilts, the value, and what is
    # differentiated.
    means = (2 + 2 + 1 + 1 + 1 + 2 + 1 + 1) * MEAN
    loss = PRIOR_CHAIN + POSTERIOR_CHAIN + GEN + 2 * EBM + means
    backward = 2 * GEN - GEN_FIRST + 2 * (2 * EBM - EBM_FIRST) + MEAN
    assert count.matmul == BATCH * (loss + backward)
    assert count.recomputed == 0


def thermodynamic_by_hand() -> int:
    """The loss alone, for the whole batch: chains, likelihoods, tilts at both ends, KL."""
    chains = PRIOR_CHAIN + N_T * POSTERIOR_CHAIN
    moments = (N_T + 1) * (MEAN * LATENT + 2 * LATENT**2)
    likelihoods = (N_T + 1) * (GEN + 2)  # and times the quadrature's weights
    # Of E_i, acceptance, rejection, swaps; of round trips, sizes, both tilts and what is
    # differentiated.
    means = (2 * (N_T + 1) + N_T + (N_T - 1) + 5) * MEAN
    # L_q^-1 L_p and L_q^-1 (mu_q - mu_p), both ways; factorisations are no matrix products.
    divergences = N_T * 2 * (2 * LATENT**3 + 2 * LATENT**2)
    return BATCH * (chains + likelihoods + 2 * EBM + means + moments) + divergences


def test_thermodynamic_loss_and_gradient_by_hand():
    for chunk in [0, 1, 2]:
        config = small_config()
        config.loss.prior_gradient, config.loss.generator_gradient = "contrastive", "detached"
        config.sampler.image_chunk = chunk
        model = make_model(config.model, CHANNELS)
        loss = make_loss(config, model, None)
        count = gradient_flops(loss, model, BATCH, (8, 8, CHANNELS))
        backward = (N_T + 1) * (2 * GEN - GEN_FIRST + 2) + 2 * (2 * EBM - EBM_FIRST) + MEAN
        assert count.useful == thermodynamic_by_hand() + BATCH * backward
        # The generator's activations may be computed again on the way back, and nothing else.
        assert count.recomputed in (0, BATCH * (N_T + 1) * GEN)


def test_no_gradient_is_computed_where_it_is_zero():
    """Of l at t = 0 with reweighted chains, and of all but t = 1 with the posterior's alone."""
    config = small_config()
    config.loss.prior_gradient, config.loss.correction = "none", "none"
    model, counts = make_model(config.model, CHANNELS), {}
    for gradient in ("detached", "reweighted", "posterior"):
        config.loss.generator_gradient = gradient
        loss = make_loss(config, model, None)
        counts[gradient] = gradient_flops(loss, model, BATCH, (8, 8, CHANNELS)).useful
    backward = 2 * GEN - GEN_FIRST
    for gradient, without in (("reweighted", 1), ("posterior", N_T)):
        saved = (counts["detached"] - counts[gradient]) / BATCH
        # The weights of temperatures and chains take a few products, too.
        assert abs(saved - without * backward) < GEN / 4, gradient


def test_differentiated_chains_cost_more_and_recompute_their_activations():
    config = small_config()
    model = make_model(config.model, CHANNELS)
    counts = {}
    for gradient in ("detached", "langevin"):
        config.loss.prior_gradient = "none" if gradient == "detached" else "langevin"
        config.loss.generator_gradient = gradient
        loss = make_loss(config, model, None)
        counts[gradient] = gradient_flops(loss, model, BATCH, (8, 8, CHANNELS))
    steps = BATCH * N_T * K_POSTERIOR
    assert counts["langevin"].recomputed >= steps * GEN
    # A step and its derivative: of the value and of the score, by latents and by parameters.
    more = counts["langevin"].useful - counts["detached"].useful
    assert 3 * GEN < more / steps < 6 * (GEN + EBM)


def test_counts_grow_with_the_work():
    config = small_config()
    model = make_model(config.model, CHANNELS)

    def useful(**fields: int) -> int:
        copy = ConfigDict(config.to_dict())
        copy.update_from_flattened_dict(fields)
        return gradient_flops(make_loss(copy, model, None), model, BATCH, (8, 8, CHANNELS)).useful

    more = {"sampler.posterior.num_steps": K_POSTERIOR + 1}
    assert useful(**more) - useful() == BATCH * N_T * 2 * (EBM + GEN)
