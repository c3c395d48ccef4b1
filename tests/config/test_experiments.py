"""The experiments of the study: cells that can be trained, unique, and on the grids they state."""

import importlib

import pytest

from thermo_ebm.config import checks
from thermo_ebm.sweep.cells import make_cells

CONFIGS = ("digits_small", "fashion_small", "cifar10_small", "cifar10")
EXPERIMENTS = (
    *("experiment3", "experiment3_short", "experiment3_least"),
    *("settings_study", "settings_study_short", "settings_study_powers"),
    *("experiment2",),
)
POWERS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 6.0)


def load(name):
    return importlib.import_module(f"configs.{name}")


def cells(experiment, config="digits_small"):
    config = load(config).get_config()
    changes = load(experiment).get_cells(config)
    return changes, [cell.config for cell in make_cells(config, changes)]


def by_loss(experiment):
    """{loss: its cells' configurations}."""
    found = {"vanilla": [], "thermodynamic": []}
    for config in cells(experiment)[1]:
        found[config.loss.name].append(config)
    return found


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_cell_can_be_trained_and_is_another_run(experiment, config):
    made = make_cells(load(config).get_config(), cells(experiment, config)[0])
    for cell in made:
        checks.check(cell.config)
    assert len({cell.name for cell in made}) == len(made)


@pytest.mark.parametrize("loss", ["vanilla", "thermodynamic"])
def test_noise_by_every_knob(loss):
    found = by_loss("experiment3")[loss]

    def values(read):
        return sorted({read(config) for config in found})

    assert values(lambda c: c.batch_size) == [25, 50, 75, 150]
    assert values(lambda c: c.gradient_noise.amplification) == [1, 2, 4, 8, 16]
    assert values(lambda c: c.gradient_noise.accumulate) == [1, 4]
    chains = [1, 2, 4, 8] if loss == "vanilla" else [2, 4, 8]
    assert values(lambda c: c.sampler.chains_per_image) == chains
    assert values(lambda c: c.loss.power) == (list(POWERS) if loss == "thermodynamic" else [1])
    assert {c.num_repetitions for c in found} == {5}


def test_one_knob_at_a_time_from_the_centre():
    knobs = (
        *("batch_size", "loss.power", "sampler.chains_per_image"),
        *("gradient_noise.amplification", "gradient_noise.accumulate"),
    )
    centre = {
        "batch_size": 75,
        "loss.power": 1.0,
        "sampler.chains_per_image": 2,
        "gradient_noise.amplification": 1.0,
        "gradient_noise.accumulate": 1,
    }
    changed = [
        [knob for knob in knobs if change.get(knob, 1.0) != centre[knob]]
        for change in cells("experiment3")[0]
    ]
    assert [len(one) for one in changed].count(0) == 2  # a centre of each loss
    assert all(len(one) <= 1 for one in changed)


@pytest.mark.parametrize("config", ["digits_small", "fashion_small", "cifar10_small"])
@pytest.mark.parametrize("experiment", ["experiment3", "experiment3_short", "experiment3_least"])
def test_numbers_of_updates_and_learning_rates_are_equal(experiment, config):
    found = cells(experiment, config)[1]
    updates = {
        c.num_epochs * (c.data.num_train // (c.batch_size * c.gradient_noise.accumulate))
        for c in found
    }
    assert len(updates) == 1
    assert {c.optimizer.decay.rate for c in found} == {1.0}


def test_gradients_are_unbiased_in_the_question():
    for config in by_loss("experiment3")["thermodynamic"]:
        loss = config.loss
        assert (loss.generator_gradient, loss.prior_gradient) == ("reweighted", "contrastive")


def test_settings_that_are_compared():
    found = by_loss("settings_study")["thermodynamic"]
    forms = {
        (c.loss.generator_gradient, c.loss.quadrature, c.loss.prior_gradient, c.loss.power)
        for c in found
    }
    for power in (0.1, 1.0, 6.0):
        assert ("reweighted", "warped_trapezium", "contrastive", power) in forms
        assert ("detached", "trapezium", "none", power) in forms  # the published form
        assert ("detached", "right", "contrastive", power) in forms
    steps = load("digits_small").get_config().sampler.posterior.num_steps
    for gradient in ("reweighted", "posterior"):
        one = [c for c in found if c.loss.generator_gradient == gradient]
        assert {c.sampler.exchange_every for c in one} == {0, 2}
        assert {c.sampler.posterior.kernel for c in one} == {"ula", "mala"}
        assert {c.sampler.prior.kernel for c in one} == {"ula", "mala"}
        assert {c.sampler.posterior.num_steps for c in one} == {steps, 2 * steps}
    assert len({c.num_epochs for c in found}) == 1


@pytest.mark.parametrize("experiment", ["experiment3", "settings_study"])
def test_the_short_form_takes_a_part_of_the_cells(experiment):
    def seen(name):
        drop = ("num_repetitions", "parallel_repetitions")
        return {
            tuple(sorted((k, v) for k, v in change.items() if k not in drop))
            for change in cells(name)[0]
        }

    short, full = seen(f"{experiment}_short"), seen(experiment)
    assert short < full
    assert len(short) < 0.7 * len(full)


@pytest.mark.parametrize(
    ("experiment", "field"),
    [("gradient_pair", "loss.generator_gradient"), ("precision_pair", "sampler.precision")],
)
def test_pairs_differ_in_one_field(experiment, field):
    config = load("digits_small").get_config()
    first, second = load(experiment).get_cells()
    assert {name for name in first if first[name] != second[name]} == {field}
    for cell in make_cells(config, [first, second]):
        checks.check(cell.config)
