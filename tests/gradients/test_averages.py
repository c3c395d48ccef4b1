"""The average of the parameters, against its sum written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
import train_processes

from thermo_ebm.evaluation.run import load_run
from thermo_ebm.gradients.averages import update_average
from thermo_ebm.train import checkpoint_content
from thermo_ebm.train.loop import Outcome

RUN = {
    "optimizer__ema_decay": 0.8,
    "data__flip": True,
    "optimizer__warm_up_epochs": 0.5,
    "optimizer__decay__name": "cosine",
    "optimizer__decay__end_epoch": 2,
    "num_epochs": 2,
    "data__num_train": 60,  # four steps per epoch
    "checkpoint__every_steps": 1,
    "checkpoint__keep": 9,
}


def weighted_mean(values, decay):
    """sum_j d^(k - j) theta_j / sum_j d^(k - j), in float64."""
    weights = decay ** np.arange(len(values))[::-1].astype(np.float64)
    return np.tensordot(weights / weights.sum(), np.asarray(values, np.float64), axes=1)


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_the_average_is_the_weighted_mean_of_all_updates(decay):
    values = np.random.default_rng(0).normal(3.0, 1.0, (12, 5)).astype(np.float32)
    average = jnp.full(5, 100.0)  # of before the first update, which has no weight
    update = jax.jit(functools.partial(update_average, decay=decay))
    for number, value in enumerate(values, 1):
        average = update(average, jnp.asarray(value), updates=jnp.int32(number))
        expected = weighted_mean(values[:number], decay)
        np.testing.assert_allclose(average, expected, rtol=2e-5)


def test_states_without_an_average_have_no_array_for_it():
    names = checkpoint_content.flatten(tiny.shapes(tiny.config()))
    averaged = checkpoint_content.flatten(tiny.shapes(tiny.config(optimizer__ema_decay=0.9)))
    added = {name for name in averaged if name.startswith("average.")}
    assert averaged.keys() - names.keys() == added
    assert {name.replace("average.", "params.") for name in added} == {
        name for name in names if name.startswith("params.")
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("averaged")
    assert tiny.train(tiny.config(**RUN), workdir) is Outcome.DONE
    return workdir


@pytest.mark.slow
def test_a_run_keeps_the_average_of_its_parameters(trained):
    last, averaged = load_run(trained), load_run(trained, "averaged")
    steps = range(1, 9)
    params = [last.params(step=step) for step in steps]
    for number in steps:
        expected = jax.tree.map(
            lambda *leaves: weighted_mean(leaves, RUN["optimizer__ema_decay"]), *params[:number]
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
            averaged.params(step=number),
            expected,
        )
    assert averaged.load().title() == "repetition 0, step 8, averaged parameters"


@pytest.mark.slow
def test_averages_flips_and_schedules_change_nothing_in_a_resumed_run(trained, tmp_path):
    stopping = tiny.config(**RUN | {"steps_per_dispatch": 1})
    for steps in (1, 4):
        assert tiny.train(stopping, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert tiny.train(stopping, tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(trained, tmp_path, **RUN)


@pytest.mark.slow
def test_flips_change_the_images_of_training_alone(trained, tmp_path):
    config = tiny.config(**RUN | {"data__flip": False, "num_epochs": 1})
    assert tiny.train(config, tmp_path) is Outcome.DONE
    (row,) = tiny.rows(tmp_path)
    assert row["train_loss"] != tiny.rows(trained)[0]["train_loss"]
    assert row["learning_rate_generator"] == tiny.rows(trained)[0]["learning_rate_generator"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_devices_train_what_one_does(trained, tmp_path):
    """Batches of 15 images: seven shares of two and one of one, each with its flips."""
    assert train_processes.finish(train_processes.start([(tmp_path, None)], RUN, 8)) == ["DONE"]
    tiny.assert_close_runs(tmp_path, trained, RUN, "8 devices")
