"""Runs whose loss has an encoder: training, resumes, devices, and what is refused."""

import jax
import numpy as np
import pytest
import tiny_training as tiny
from train_processes import UNEVEN, finish, start

from thermo_ebm.config import checks
from thermo_ebm.data import to_unit
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import warm_start
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.models.latent_ebm import mean_images
from thermo_ebm.train import dry_run
from thermo_ebm.train import start as starts
from thermo_ebm.train.loop import Outcome

# A tilt whose chains persist and adapt, and all that a step can do.
ENCODER = {
    "loss__name": "importance_weighted",
    "loss__num_importance_samples": 3,
    "loss__encoder_gradient": "doubly_reparameterized",
    "loss__prior_l2": 0.01,
    "sampler__prior__kernel": "mala",
    "sampler__prior__persistent": True,
    "sampler__adapt_step_sizes": True,
    "gradient_noise__target": 20.0,
    "gradient_noise__accumulate": 2,
    "optimizer__ema_decay": 0.9,
    "logging__grad_noise_every_epochs": 3,
    "num_repetitions": 2,
    "num_epochs": 3,  # an amplification begins after ten updates
}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(tiny.config(**ENCODER), workdir) is Outcome.DONE
    return workdir


@pytest.mark.slow
def test_readings_of_an_encoder(whole):
    first, *_, last = tiny.rows(whole)
    assert last["train_loss"] < first["train_loss"]
    assert last["skipped_steps"] == 0
    for group in ("prior", "generator", "encoder"):
        assert last[f"train_grad_noise_{group}"] > 0
        assert last[f"train_grad_var_{group}"] > 0
        assert last[f"learning_rate_{group}"] > 0
    assert last["train_encoder_kl"] > 0
    assert 1 < last["effective_sample_size"] < 3
    assert 0 < last["acceptance_prior"] < 1
    assert last["acceptance_posterior"] is None
    assert last["gradient_noise_amplification"] > 1
    assert last["grad_noise"] > 0
    assert tiny.temperatures(whole) is None
    state = tiny.end_state(tiny.config(**ENCODER), whole)
    assert state["path.prior_latents"].shape == (2, 30, 4)
    step_sizes = np.exp(state["path.log_step_size"])
    np.testing.assert_allclose(step_sizes[1], 0.04, rtol=1e-5)  # there are no posterior chains
    assert abs(step_sizes[0] / 0.16 - 1) > 0.05


@pytest.mark.slow
def test_stops_after_any_step_change_nothing(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1, **ENCODER)
    for steps in (0, 1, 6):
        assert tiny.train(one_by_one, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(**ENCODER), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path, **ENCODER)


@pytest.mark.slow
def test_repetitions_that_train_together_equal_those_that_train_alone(whole, tmp_path):
    together = ENCODER | {"parallel_repetitions": 2, "logging__grad_noise_every_epochs": 0}
    assert tiny.train(tiny.config(**together), tmp_path) is Outcome.DONE
    for number in range(2):
        alone, with_others = tiny.rows(whole, number)[0], tiny.rows(tmp_path, number)[0]
        for name in ("train_loss", "train_grad_noise_encoder", "train_encoder_kl", "val_loss"):
            np.testing.assert_allclose(with_others[name], alone[name], rtol=1e-3)


@pytest.mark.slow
def test_devices_train_what_one_does(tmp_path):
    changes = UNEVEN | {
        "loss__name": "elbo",
        # Entries of a tilt's first gradients cancel; Adam scales up the rounding that is left.
        "model__prior__name": "gaussian",
    }
    for num_devices in (1, 2):
        runs = [(tmp_path / str(num_devices), None)]
        assert finish(start(runs, changes, num_devices)) == ["DONE"]
    tiny.assert_close_runs(tmp_path / "2", tmp_path / "1", changes, "2 devices")


@pytest.mark.slow
def test_reconstructions_are_those_of_the_encoder(whole):
    run, key = load_run(whole), jax.random.key(3)
    assert "an encoder, 3 samples of each image" in repr(run)
    images, params = to_unit(run.validation_images()[:6]), run.params()
    first, again, other = (run.reconstruct(images, k) for k in (key, key, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0
    mean = mean_images(
        run.model, params["generator"], run.model.encoder(params["encoder"], images).mean
    )
    draws = np.mean([run.reconstruct(images, jax.random.key(k)) for k in range(20)], axis=0)
    assert np.abs(draws - mean).mean() < np.abs(first - mean).mean()
    assert run.sample(5, key).shape == (5, 8, 8, 1)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["reparameterized", "score_function"])
def test_a_run_learns_with_every_estimator(gradient, tmp_path):
    changes = {
        "loss__name": "elbo",
        "loss__num_importance_samples": 4,
        "loss__encoder_gradient": gradient,
        "model__prior__name": "gaussian",
    }
    made = tiny.config(**changes)
    planned = dry_run.plan_run(made, tmp_path)
    assert list(planned.parameters) == ["prior", "generator", "encoder"]
    assert planned.parameters["prior"] == 0
    assert tiny.train(made, tmp_path, prepare=starts.prepare) is Outcome.DONE
    rows = tiny.rows(tmp_path)
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert rows[-1]["flops_per_step"] == planned.flops_per_step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss__reference": "linear"},
            "loss.reference=linear: belongs to chains of the posterior",
        ),
        (
            {"logging__gradient_bias_every_epochs": 2},
            "logging.gradient_bias_every_epochs=2: belongs",
        ),
        ({"loss__num_importance_samples": 0}, "loss.num_importance_samples=0: must be at least 1"),
        ({"loss__encoder_gradient": "other"}, "must be one of reparameterized, doubly"),
        ({"optimizer__encoder__final_learning_rate": 1.0}, "optimizer.encoder.final_learning_rate"),
        ({"model__factory": "own_networks:of_another_code"}, "the encoder returns [2, 9] for x"),
    ],
)
def test_what_an_encoder_does_not_have_is_refused(changes, message):
    with pytest.raises(UserError) as error:
        checks.check(tiny.config(loss__name="elbo", **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_loss_has_no_rates_of_an_encoder():
    checks.check(tiny.config(optimizer__encoder__final_learning_rate=1.0))


@pytest.mark.slow
def test_a_run_without_an_encoder_cannot_begin_one(whole):
    with pytest.raises(UserError, match=r"other shapes: loss.name is importance_weighted there"):
        warm_start.find(str(whole), tiny.config(), whole / "new")
