"""Configurations: every field checked before anything compiles, and the settings made of them."""

import importlib
import math

import pytest

from configs.published import published
from thermo_ebm.config import build, checks
from thermo_ebm.errors import UserError
from thermo_ebm.losses import LossSettings

NAMES = ("digits", "cifar10", "celeb_a", "svhn", "pang_svhn", "folder")


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def check(**changes):
    config = load("digits")
    named = {name.replace("__", "."): value for name, value in changes.items()}
    with config.ignore_type():
        config.update_from_flattened_dict(named)
    checks.check(config, load("base"))


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_passes(name):
    checks.check(load(name), load("base"))


def test_the_papers_values():
    """Tables 4 and 5."""

    def chain(sampler):
        return sampler.step_size, sampler.num_steps

    cifar10, celeb_a = load("cifar10"), load("celeb_a")
    for config in (cifar10, celeb_a):
        assert (config.data.num_train, config.data.num_val) == (12_000, 4_500)
        assert (config.batch_size, config.num_epochs, config.num_repetitions) == (75, 50, 5)
        assert (config.model.prior_sigma, config.model.likelihood_sigma) == (1.0, 0.3)
        assert (config.loss.num_temperatures, config.loss.kl_weight) == (10, 1.0)
        assert chain(config.sampler.prior) == (0.16, 60)
        assert config.optimizer.prior.learning_rate == 2e-5
        assert config.optimizer.generator.final_learning_rate == 5e-5
    assert chain(cifar10.sampler.posterior) == (0.01, 40)
    assert chain(celeb_a.sampler.posterior) == (0.01, 20)
    assert (cifar10.model.latent_dim, celeb_a.model.latent_dim) == (100, 80)


def test_step_sizes_of_pang_and_others():
    """They step by s^2 / 2 with s = 0.4 and 0.1; the paper's steps are twice theirs."""
    theirs, ours = load("pang_svhn").sampler, load("svhn").sampler
    assert theirs.prior.step_size == pytest.approx(0.4**2 / 2)
    assert theirs.posterior.step_size == pytest.approx(0.1**2 / 2)
    for name in ("prior", "posterior"):
        assert ours[name].step_size == pytest.approx(2 * theirs[name].step_size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"seed": 2**31 - 1, "num_repetitions": 2}, "seed=2147483647: seed plus num_repetitions"),
        ({"batch_size": True}, "config.batch_size=True: must be int, not bool"),
        ({"batch_size": 7.0}, "config.batch_size=7.0: must be int, not float"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"batch_size": 1501}, "batch_size=1501: larger than the training set"),
        ({"loss__power": "6"}, "config.loss.power='6': must be float, not str"),
        ({"loss__power": 0.0}, "loss.power=0.0: must be positive"),
        ({"loss__power": math.nan}, "loss.power=nan: must be finite"),
        ({"loss__kl_weight": math.inf}, "loss.kl_weight=inf: must be finite"),
        ({"optimizer__prior__b1": 1.0}, "optimizer.prior.b1=1.0: must be below 1"),
        ({"loss__quadrature": "simpson"}, "loss.quadrature='simpson': must be one of trapezium,"),
        ({"loss__kl_form": "sum", "loss__quadrature": "left"}, "loss.kl_form=sum: needs loss"),
        ({"data__channels": 2}, "data.channels=2: must be 1 or 3"),
        ({"data__image_size": 9}, "data.image_size=9: the generator makes 8 x 8 pixels"),
        ({"model__generator__strides": (1, 2)}, "model.generator.strides=(1, 2): must start"),
        ({"model__generator__strides": (1, 5, 1)}, "model.generator.strides=(1, 5, 1): each must"),
        ({"model__generator__widths": ("a", 1)}, "model.generator.widths=('a', 1): must be whole"),
        ({"model__generator__widths": 3}, "config.model.generator.widths=3: must be tuple"),
        (
            {"optimizer__prior__learning_rate": 1e-6},
            "optimizer.prior.final_learning_rate=0.0001: with optimizer.decay.rate=0.975 must be",
        ),
        ({"optimizer__decay__rate": 1.1}, "optimizer.prior.final_learning_rate=0.0001: with"),
        ({"model__prior__leak": float("-inf")}, "model.prior.leak=-inf: must be finite"),
        ({"model__prior_sigma": 1e-300}, "model.prior_sigma=1e-300: must be a number that float32"),
        (
            {"optimizer__decay__begin_epoch": 10**9},
            "optimizer.decay.begin_epoch=1000000000: must be at most",
        ),
        ({"model__latent_dim": 10**9}, "model.latent_dim=1000000000: must be at most 1048576"),
        ({"steps_per_dispatch": 10**12}, "steps_per_dispatch=1000000000000: must be within 21474"),
        ({"num_epochs": 10**9}, "num_epochs=1000000000: must be at most"),
        ({"checkpoint__keep": 0}, "checkpoint.keep=0: must be at least 1"),
        ({"loss__schedule": "linear"}, "loss.schedule='linear': must be one of power, annealed"),
        ({"loss__correction": "gaussian"}, "loss.correction='gaussian': must be one of none, rati"),
        (
            {"loss__correction": "ratio", "sampler__chains_per_image": 1},
            "sampler.chains_per_image=1: loss.correction=ratio needs at least 2",
        ),
        ({"sampler__chains_per_image": 0}, "sampler.chains_per_image=0: must be at least 1"),
        (
            {"loss__quadrature": "warped_simpson", "loss__num_temperatures": 5},
            "loss.num_temperatures=5: must be even for loss.quadrature=warped_simpson",
        ),
        (
            {"loss__kl_form": "sum", "loss__quadrature": "warped_trapezium"},
            "loss.kl_form=sum: needs loss.quadrature=trapezium",
        ),
        ({"loss__final_power": 0.0}, "loss.final_power=0.0: must be positive"),
        ({"sampler__posterior__kernel": "hmc"}, "sampler.posterior.kernel='hmc': must be one of"),
        ({"sampler__exchange_every": -1}, "sampler.exchange_every=-1: must be at least 0"),
        (
            {"sampler__exchange_every": 2, "loss__num_temperatures": 1},
            "sampler.exchange_every=2: needs loss.num_temperatures of at least 2",
        ),
        (
            {"loss__prior_gradient": "langevin", "sampler__exchange_every": 2},
            "sampler.exchange_every=2: gradients through the chains (langevin) need kernel=ula",
        ),
        (
            {"loss__generator_gradient": "langevin", "sampler__prior__kernel": "mala"},
            "sampler.prior.kernel=mala: gradients through the chains (langevin) need kernel=ula",
        ),
        ({"model__prior__activation": "relu"}, "model.prior.activation='relu': must be one of"),
        (
            {"gradient_noise__amplification": 0.5},
            "gradient_noise.amplification=0.5: must be at least 1",
        ),
        ({"gradient_noise__accumulate": 0}, "gradient_noise.accumulate=0: must be at least 1"),
        ({"gradient_noise__target": -1e-3}, "gradient_noise.target=-0.001: must be at least 0"),
        (
            {"gradient_noise__target": 1e-3, "gradient_noise__amplification": 2.0},
            "gradient_noise.amplification=2: must be 1 if gradient_noise.target is set",
        ),
        (
            {"gradient_noise__amplification": 2.0, "batch_size": 1},
            "gradient_noise.amplification=2: needs at least two images per update",
        ),
        (
            {"gradient_noise__target": 1e-3, "batch_size": 1},
            "gradient_noise.target=0.001: needs at least two images per update",
        ),
        (
            {
                "gradient_noise__amplification": 2.0,
                "loss__correction": "pooled_gaussian",
                "loss__generator_gradient": "langevin",
            },
            "gradient_noise.amplification=2: needs a gradient that is a mean over images",
        ),
        (
            {"gradient_noise__accumulate": 200},
            "gradient_noise.accumulate=200: as many batches of batch_size=75 need more images",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(changes, message):
    with pytest.raises(UserError) as caught:
        check(**changes)
    assert str(caught.value).startswith(message)


def test_missing_and_unknown_fields_are_named():
    config = load("digits")
    del config.loss.power
    with pytest.raises(UserError, match=r"config\.loss\.power: is missing"):
        checks.check(config, load("base"))
    config = load("digits")
    config.loss.powre = 1.0
    with pytest.raises(UserError, match=r"config\.loss\.powre: there is no .* loss\.power\?"):
        checks.check(config, load("base"))


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_noise__amplification": 4.0, "loss__name": "vanilla"},
        {"gradient_noise__target": 1e-6, "loss__correction": "pooled_gaussian"},
        {"gradient_noise__amplification": 4.0, "batch_size": 1, "gradient_noise__accumulate": 2},
        {"loss__generator_gradient": "langevin", "gradient_noise__amplification": 4.0},
        {"sampler__prior__kernel": "mala", "sampler__posterior__kernel": "mala"},
        {"sampler__exchange_every": 3, "loss__schedule": "equal_barrier"},
        {"loss__name": "vanilla", "sampler__chains_per_image": 1, "sampler__exchange_every": 2},
        {"loss__quadrature": "warped_simpson", "loss__num_temperatures": 6},
    ],
)
def test_what_goes_together_passes(changes):
    check(**changes)


def test_a_whole_number_will_do_for_a_float():
    check(loss__power=6, optimizer__clip_norm=1)


def test_settings_are_the_fields():
    config = load("cifar10")
    sampler = build.sampler_settings(config)
    assert (sampler.prior.num_steps, sampler.posterior.num_steps) == (60, 40)
    assert (sampler.prior.step_size, sampler.precision) == (0.16, "float32")
    settings = build.loss_settings(config)
    assert settings == LossSettings(
        num_temperatures=10,
        power=config.loss.power,
        quadrature="warped_trapezium",
        correction=config.loss.correction,
        prior_gradient="contrastive",
        generator_gradient=config.loss.generator_gradient,
    )


def test_the_published_form_is_one_word_away():
    for name in NAMES:
        config = load(name)
        config.sampler.exchange_every = 3
        made = published(config)
        checks.check(made, load("base"))
        settings, sampler = build.loss_settings(made), build.sampler_settings(made)
        assert settings.quadrature == "trapezium"
        assert (settings.correction, settings.kl_form) == ("pooled_gaussian", "sum")
        assert (settings.prior_gradient, settings.generator_gradient) == ("none", "detached")
        assert (sampler.chains_per_image, sampler.exchange_every) == (1, 0)
        assert sampler.prior.kernel == sampler.posterior.kernel == "ula"
