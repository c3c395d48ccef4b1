"""The experiments of the study: cells that can be trained, unique, and on the grids they state."""

import importlib

from thermo_ebm.config import checks
from thermo_ebm.sweep.cells import make_cells

CONFIGS = ("digits_small", "fashion_small", "cifar10_small", "cifar10_paper")
KNOBS = ("experiment3", "experiment3_short", "experiment3_least")
EXPERIMENTS = (
    *KNOBS,
    *("settings_study", "settings_study_short", "settings_study_powers"),
    *("experiment2",),
)
POWERS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 6.0]
CENTRE = {
    "batch_size": 75,
    "loss.power": 1.0,
    "sampler.chains_per_image": 2,
    "gradient_noise.amplification": 1.0,
    "gradient_noise.accumulate": 1,
}


def load(name):
    return importlib.import_module(f"configs.{name}")


def changes_of(experiment, config="digits_small"):
    return load(experiment).get_cells(load(config).get_config())


def cells_of(experiment, config="digits_small"):
    return make_cells(load(config).get_config(), changes_of(experiment, config))


def configs_of(experiment, loss, config="digits_small"):
    configs = [cell.config for cell in cells_of(experiment, config)]
    return [config for config in configs if config.loss.name == loss]


def test_cells_can_be_trained_and_are_different_runs():
    for experiment in EXPERIMENTS:
        for config in CONFIGS:
            cells = cells_of(experiment, config)
            for cell in cells:
                checks.check(cell.config)
            assert len({cell.name for cell in cells}) == len(cells), (experiment, config)


def test_experiment3_changes_the_noise_by_each_factor():
    for loss, chains, powers in (
        ("vanilla", [1, 2, 4, 8], [1]),
        ("thermodynamic", [2, 4, 8], POWERS),
    ):
        configs = configs_of("experiment3", loss)
        grids = {
            "batch_size": sorted({config.batch_size for config in configs}),
            "amplification": sorted({config.gradient_noise.amplification for config in configs}),
            "accumulate": sorted({config.gradient_noise.accumulate for config in configs}),
            "chains": sorted({config.sampler.chains_per_image for config in configs}),
            "power": sorted({config.loss.power for config in configs}),
        }
        assert grids == {
            "batch_size": [25, 50, 75, 150],
            "amplification": [1, 2, 4, 8, 16],
            "accumulate": [1, 4],
            "chains": chains,
            "power": powers,
        }
        assert {config.num_repetitions for config in configs} == {5}


def test_experiment3_changes_one_factor_at_a_time_from_the_centre():
    changed = [
        [factor for factor, value in CENTRE.items() if change.get(factor, 1.0) != value]
        for change in changes_of("experiment3")
    ]
    assert [len(factors) for factors in changed].count(0) == 2  # a centre of each loss
    assert all(len(factors) <= 1 for factors in changed)


def test_experiment3_has_equal_updates_and_constant_learning_rates():
    for experiment in KNOBS:
        for name in ("digits_small", "fashion_small", "cifar10_small"):
            configs = [cell.config for cell in cells_of(experiment, name)]
            updates = {
                c.num_epochs * (c.data.num_train // (c.batch_size * c.gradient_noise.accumulate))
                for c in configs
            }
            assert len(updates) == 1, (experiment, name)
            assert {config.optimizer.decay.rate for config in configs} == {1.0}


def test_experiment3_has_unbiased_gradients():
    for config in configs_of("experiment3", "thermodynamic"):
        loss = config.loss
        assert (loss.generator_gradient, loss.prior_gradient) == ("reweighted", "contrastive")


def test_settings_study_compares_gradients_kernels_and_exchange():
    configs = configs_of("settings_study", "thermodynamic")
    forms = {
        (c.loss.generator_gradient, c.loss.quadrature, c.loss.prior_gradient, c.loss.power)
        for c in configs
    }
    for power in (0.1, 1.0, 6.0):
        assert ("reweighted", "warped_trapezium", "contrastive", power) in forms
        assert ("detached", "trapezium", "none", power) in forms  # the published form
        assert ("detached", "right", "contrastive", power) in forms
    steps = load("digits_small").get_config().sampler.posterior.num_steps
    for gradient in ("reweighted", "posterior"):
        samplers = [c.sampler for c in configs if c.loss.generator_gradient == gradient]
        assert {sampler.exchange_every for sampler in samplers} == {0, 2}
        assert {sampler.posterior.kernel for sampler in samplers} == {"ula", "mala"}
        assert {sampler.prior.kernel for sampler in samplers} == {"ula", "mala"}
        assert {sampler.posterior.num_steps for sampler in samplers} == {steps, 2 * steps}
    assert len({config.num_epochs for config in configs}) == 1


def test_short_experiments_have_a_part_of_the_cells():
    def identities(name):
        repetitions = ("num_repetitions", "parallel_repetitions")
        return {
            tuple(sorted((k, v) for k, v in change.items() if k not in repetitions))
            for change in changes_of(name)
        }

    for experiment in ("experiment3", "settings_study"):
        short, full = identities(f"{experiment}_short"), identities(experiment)
        assert short < full
        assert len(short) < 0.7 * len(full)


def test_pairs_differ_in_one_field():
    for experiment, field in (
        ("gradient_pair", "loss.generator_gradient"),
        ("precision_pair", "sampler.precision"),
    ):
        first, second = load(experiment).get_cells()
        assert {name for name in first if first[name] != second[name]} == {field}
        for cell in make_cells(load("digits_small").get_config(), [first, second]):
            checks.check(cell.config)
