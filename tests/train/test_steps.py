"""One step: what is accumulated, what amplification does, which gradients have noise."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.gradients import halves
from thermo_ebm.gradients.amplification import WARM_UP
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.train import step
from thermo_ebm.train.state import first_schedule, init_state
from thermo_ebm.train.step import Batches
from thermo_ebm.train.task import AXIS, make_task

NUM = 24  # images of one update

SMALL = {
    "data__num_train": 48,
    "data__num_val": 8,
    "sampler__prior__num_steps": 2,
    "sampler__posterior__num_steps": 2,
    # Images of the generator's first layer, which is its last.
    "data__image_size": 4,
    "model__generator__widths": (),
    "model__generator__strides": (1,),
}


def batches(num_batches, batch_size):
    """The first images of a data set, on one device."""
    num = num_batches * batch_size
    images = np.random.default_rng(0).integers(0, 256, (48, 4, 4, 1), np.uint8)[:num]
    return Batches(
        jnp.asarray(images.reshape(num_batches, batch_size, 4, 4, 1)),
        jnp.arange(num).reshape(num_batches, batch_size),
    )


def on_one_device(fn, *args):
    """fn(*args) inside pmap over a single device, where sums over devices have a meaning."""
    device = jax.devices()[:1]
    run = jax.pmap(lambda _: fn(*args), axis_name=AXIS, devices=device)
    return jax.tree.map(lambda leaf: leaf[0], run(jnp.zeros(1)))


def gradient_of(**changes):
    """The gradient of one update over the first images."""
    task = make_task(tiny.config(**SMALL, **changes))
    params = init_state(task, 0).params
    of_update = batches(task.gradient_noise.accumulate, task.config.batch_size)
    args = params, of_update, jax.random.key(1), Ladder(first_schedule(task))
    return on_one_device(partial(step.batch_gradient, task), *args)


def assert_close(actual, expected):
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max() + 1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"loss__name": "vanilla"}, id="vanilla"),
        pytest.param(
            {"loss__generator_gradient": "reweighted", "loss__correction": "ratio"},
            id="reweighted",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"loss__generator_gradient": "langevin", "loss__correction": "none"},
            id="langevin",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_batches_accumulated_are_one_batch_as_many_times_as_large(changes):
    whole = gradient_of(batch_size=NUM, **changes)
    parts = gradient_of(batch_size=NUM // 3, gradient_noise__accumulate=3, **changes)
    # Chains have the same keys: an image keeps its place in the whole.
    assert_close(parts.mean, whole.mean)
    assert_close(parts.difference, whole.difference)
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-5)
    # And they are not those of the first batch alone.
    first = gradient_of(batch_size=NUM // 3, **changes)
    with pytest.raises(AssertionError):
        assert_close(first.mean, whole.mean)


def test_no_noise_is_measured_if_a_gradient_is_not_a_mean_over_images():
    pooled = {"loss__generator_gradient": "langevin", "loss__correction": "pooled_gaussian"}
    shapes = jax.eval_shape(lambda: gradient_of(batch_size=NUM, **pooled))
    assert shapes.difference is None


@cache
def stepped(**changes):
    task = make_task(tiny.config(**SMALL, batch_size=NUM, **changes))
    state = init_state(task, 0)._replace(step=jnp.int32(WARM_UP))
    return on_one_device(partial(step.train_step, task), state, batches(1, NUM)), state


def test_a_step_amplifies_what_it_measures_and_nothing_else():
    plain, before = stepped(loss__name="vanilla")
    loud, _ = stepped(loss__name="vanilla", gradient_noise__amplification=9.0)
    measured, amplified = plain.sums.readings, loud.sums.readings
    names = ("loss", "grad_var", "grad_noise", "grad_noise_prior", "grad_noise_generator")
    for name in (*names, "grad_signal"):
        expected = measured[f"train_{name}"]
        np.testing.assert_allclose(amplified[f"train_{name}"], expected, rtol=1e-5)
    assert measured["gradient_noise_amplification"] == 1
    assert amplified["gradient_noise_amplification"] == 9
    noise = measured["train_grad_noise"]
    np.testing.assert_allclose(amplified["train_update_noise"], 9 * noise, rtol=1e-6)
    # Adam's first moment is (1 - b1) times the gradient it was given, here g + sqrt(8) xi d.
    added = first_moments(loud) - first_moments(plain)
    expected = (1 - 0.5) ** 2 * 8 * float(noise) * added.size
    np.testing.assert_allclose((added**2).sum(), expected, rtol=1e-4)
    assert before.step == WARM_UP
    assert plain.step == loud.step == WARM_UP + 1


def test_noise_is_that_of_the_gradient_after_clipping():
    plain, _ = stepped(loss__name="vanilla")
    clipped, _ = stepped(loss__name="vanilla", optimizer__clip_norm=0.5)
    long, short = first_moments(plain), first_moments(clipped)
    # Adam's first moment is (1 - b1) times the gradient it was given.
    np.testing.assert_allclose(np.linalg.norm(short), (1 - 0.5) * 0.5, rtol=1e-5)
    np.testing.assert_allclose(short * np.linalg.norm(long) / 0.25, long, rtol=1e-4, atol=1e-6)
    measured, before = clipped.sums.readings, plain.sums.readings
    for name in ("train_loss", "train_grad_mean", "train_grad_var"):
        np.testing.assert_allclose(measured[name], before[name])
    factor = (np.linalg.norm(short) / np.linalg.norm(long)) ** 2
    assert factor < 0.1
    groups = ("train_grad_noise_prior", "train_grad_noise_generator")
    for name in (*groups, "train_grad_noise", "train_grad_signal", "train_update_noise"):
        np.testing.assert_allclose(measured[name], factor * before[name], rtol=1e-4)
    # Noise and signal add up to the squared norm of the gradient that the optimisers were given.
    total = (measured["train_grad_noise"] + measured["train_grad_signal"]) * short.size
    np.testing.assert_allclose(total, 0.5**2, rtol=1e-5)


def test_a_target_is_the_noise_after_clipping():
    clipped, _ = stepped(loss__name="vanilla", optimizer__clip_norm=0.5)
    target = 3 * float(clipped.sums.readings["train_grad_noise"])
    held, _ = stepped(loss__name="vanilla", optimizer__clip_norm=0.5, gradient_noise__target=target)
    np.testing.assert_allclose(held.sums.readings["train_update_noise"], target, rtol=1e-5)
    np.testing.assert_allclose(held.gradient_noise.excess, 0, atol=1e-5 * target)


def test_the_second_moment_is_that_of_the_gradient_before_amplification():
    plain, before = stepped(loss__name="vanilla")
    loud, _ = stepped(loss__name="vanilla", gradient_noise__amplification=9.0)
    louder, _ = stepped(
        loss__name="vanilla",
        gradient_noise__amplification=9.0,
        gradient_noise__second_moment="amplified",
    )
    np.testing.assert_allclose(moments(loud, ".nu"), moments(plain, ".nu"), rtol=1e-5)
    expected = 0.001 * (first_moments(louder) / 0.5) ** 2
    np.testing.assert_allclose(moments(louder, ".nu"), expected, rtol=1e-3)
    # And the readings of the step are those of the displacement.
    readings = plain.sums.readings
    moved = jax.tree.map(lambda a, b: a - b, plain.params, before.params)
    for group in ("prior", "generator"):
        total = readings[f"train_step_size_{group}"] + readings[f"train_step_noise_{group}"]
        expected = halves.square(moved[group]) / halves.square(before.params[group])
        np.testing.assert_allclose(total, expected, rtol=1e-3)


def first_moments(state):
    return moments(state, ".mu")


def moments(state, kind):
    leaves = jax.tree_util.tree_leaves_with_path(state.optimiser)
    return np.concatenate(
        [np.ravel(leaf) for path, leaf in leaves if kind in jax.tree_util.keystr(path)]
    )
