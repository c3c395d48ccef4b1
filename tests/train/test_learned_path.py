"""Runs from the linear reference: what they learn of the path is part of the state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from train_processes import finish, start, train_as_processes

from thermo_ebm.config.build import image_shape
from thermo_ebm.sampling.linear_reference import PairSums
from thermo_ebm.sampling.path import Observation, updated
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.state import current_ladder, init_state
from thermo_ebm.train.task import AXIS, make_task
from thermo_ebm.types import Batch

LINEAR = {
    "loss__reference": "linear",
    "loss__num_temperatures": 2,
    "sampler__start": "reference",
    "sampler__exchange_every": 1,
    "sampler__adapt_step_sizes": True,
    "sampler__prior__kernel": "hmc",
    "sampler__prior__persistent": True,
    "sampler__prior__step_size": 0.5,
    "sampler__posterior__kernel": "hmc",
    "sampler__posterior__step_size": 0.5,
    "num_repetitions": 2,
    "checkpoint__every_steps": 0,
    "num_epochs": 2,
    "logging__gradient_bias_every_epochs": 1,
}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(tiny.config(**LINEAR), workdir) is Outcome.DONE
    return workdir


@pytest.mark.slow
def test_moments_curvature_and_step_sizes_are_learned(whole):
    row = tiny.rows(whole)[-1]
    assert 0.3 < row["acceptance_posterior"] < 0.99
    for group in ("prior", "generator"):
        assert row[f"train_gradient_bias_{group}_stderr"] > 0
    state = tiny.end_state(tiny.config(**LINEAR), whole)
    assert state["path.updates"] == state["path.moments.updates"] == 20
    assert np.abs(state["path.moments.image_products"]).max() > 0.01
    assert np.linalg.eigvalsh(state["path.curvature"]).min() > -1e-4
    assert (np.abs(state["path.log_step_size"] - np.log(0.5)) > 0.05).all()


def test_a_state_keeps_its_types():
    """Another type after the first step would compile the step again."""
    made = tiny.config(**LINEAR)
    task = make_task(made, axis_name=None)
    state = init_state(task, jnp.uint32(0))
    assert not [leaf for leaf in jax.tree.leaves(state) if leaf.aval.weak_type]
    learned = updated(
        state.path,
        Observation(
            jax.tree.map(jnp.ones_like, PairSums(0.0, *state.path.moments[1:])),
            jnp.ones_like(state.path.curvature),
            jnp.ones(()),
            jnp.ones_like(state.path.prior_latents),
        ),
        jnp.ones(3),
        task.best_acceptance,
    )
    for before, after in zip(jax.tree.leaves(state.path), jax.tree.leaves(learned), strict=True):
        assert before.aval == after.aval


@pytest.mark.slow
def test_devices_observe_together_what_one_does():
    """vmap's axis stands for devices; the last has one image and padding."""
    made = tiny.config(**LINEAR)
    tasks = {axis: make_task(made, axis_name=axis) for axis in (None, AXIS)}
    state = init_state(tasks[None], jnp.uint32(0))
    images = jax.random.uniform(jax.random.key(1), (6, *image_shape(made)), minval=-1.0)
    mask = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    batch = Batch(images, jnp.array([0, 1, 2, 3, 4, 4]), mask)
    shares = jax.tree.map(lambda leaf: leaf.reshape(3, 2, *leaf.shape[1:]), batch)
    ladder, key = current_ladder(tasks[None], state), jax.random.key(2)

    def observe(axis, batch):
        objective = tasks[axis].objective
        chains = objective.draw(state.params, batch, key, ladder)
        return objective.observe(state.params, ladder.path, chains, batch, key)

    whole = jax.jit(partial(observe, None))(batch)
    together = jax.jit(jax.vmap(partial(observe, AXIS), axis_name=AXIS))(shares)
    for one, each in zip(jax.tree.leaves(whole), jax.tree.leaves(together), strict=True):
        expected = np.broadcast_to(one, each.shape)
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-5 * np.abs(one).max())


@pytest.mark.slow
def test_stops_after_any_step_change_nothing(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1, **LINEAR)
    for steps in (0, 1, 6):
        assert tiny.train(one_by_one, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(**LINEAR), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path, **LINEAR)


@pytest.mark.slow
def test_repetitions_that_train_together_equal_those_that_train_alone(whole, tmp_path):
    together = {
        "parallel_repetitions": 2,
        "num_epochs": 1,
        "logging__gradient_bias_every_epochs": 0,
    }
    assert tiny.train(tiny.config(**LINEAR | together), tmp_path) is Outcome.DONE
    for number in range(2):
        alone, with_others = tiny.rows(whole, number)[0], tiny.rows(tmp_path, number)[0]
        for name in ("train_loss", "acceptance_posterior", "val_loss"):
            np.testing.assert_allclose(with_others[name], alone[name], rtol=1e-3)


# One update of one repetition: in a later one rounding can turn a Metropolis decision.
ONE_UPDATE = LINEAR | {
    "batch_size": 75,
    "data__num_train": 75,
    "data__num_val": 75,
    "num_repetitions": 1,
    "num_epochs": 1,
    "logging__gradient_bias_every_epochs": 0,
    "checkpoint__every_steps": 0,
    # With seed 0 an entry of the prior's gradient nearly cancels, and Adam scales its rounding.
    "seed": 1,
}


@pytest.mark.slow
def test_eight_devices(tmp_path):
    for num_devices in (1, 8):
        run = (tmp_path / f"on_{num_devices}", None)
        assert finish(start([run], ONE_UPDATE, num_devices)) == ["DONE"]
    tiny.assert_close_runs(tmp_path / "on_8", tmp_path / "on_1", ONE_UPDATE, "8 devices")


@pytest.mark.slow
def test_two_processes(tmp_path):
    assert finish(start([(tmp_path / "one", None)], ONE_UPDATE)) == ["DONE"]
    assert train_as_processes([(tmp_path / "two", None)], ONE_UPDATE) == [["DONE"]] * 2
    tiny.assert_close_runs(tmp_path / "two", tmp_path / "one", ONE_UPDATE, "two processes")
