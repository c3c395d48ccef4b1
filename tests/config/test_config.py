"""Configurations: fields declared once, everything checked before compilation, settings built."""

import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from configs.published import published
from thermo_ebm import fields
from thermo_ebm.config import build, checks, sizes
from thermo_ebm.errors import UserError
from thermo_ebm.fields import FIELDS, FORMER, Field, at_least
from thermo_ebm.losses import VANILLA, LossSettings
from thermo_ebm.models.latent_ebm import ModelSettings
from thermo_ebm.run import configuration
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    *("digits", "cifar10", "celeb_a", "svhn", "fashion_mnist", "pang_svhn", "folder"),
    *("digits_paper", "cifar10_paper", "celeb_a_paper", "svhn_paper", "fashion_mnist_paper"),
)


def load(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    is_open = sizes.asks_for_images(config)  # then as if there were so many images
    return sizes.with_images(config, 1_000, 100, "a folder").config if is_open else config


def complaint(changes):
    """The error for a configuration of the digits with these fields; None if it may be trained."""
    config = ConfigDict(fields.nest(fields.flatten(load("digits_paper")) | changes))
    try:
        checks.check(config)
    except UserError as error:
        return str(error)
    return None


def test_configurations_pass_their_checks():
    for name in NAMES:
        checks.check(load(name))


def test_papers_values():
    """Tables 4 and 5."""

    def chain(sampler):
        return sampler.step_size, sampler.num_steps

    cifar10, celeb_a = load("cifar10_paper"), load("celeb_a_paper")
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
    """Pang et al. step by s^2 / 2 with s = 0.4 and 0.1; the paper's steps are twice as large."""
    pang, paper = load("pang_svhn").sampler, load("svhn_paper").sampler
    assert pang.prior.step_size == pytest.approx(0.4**2 / 2)
    assert pang.posterior.step_size == pytest.approx(0.1**2 / 2)
    for name in ("prior", "posterior"):
        assert paper[name].step_size == pytest.approx(2 * pang[name].step_size)


# Fields.


def test_base_configuration_and_docs_have_the_declared_fields():
    config = fields.flatten(base.get_config())
    assert config == {name: field.default for name, field in FIELDS.items()}
    assert fields.flatten(fields.nest(config)) == config
    for name, field in FIELDS.items():
        assert field.check(field.default) == "", name
        assert field.meaning, name
        assert field.on_resume in (fields.FREE, fields.ON_REQUEST, fields.FIXED), name
    assert not {*FIELDS} & {*FORMER}


def test_configurations_and_run_folders_are_read_without_jax():
    code = (
        "import sys; from configs import digits_paper; import thermo_ebm.run.configuration; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_new_field_is_one_row(monkeypatch):
    """Base configuration, checks, runs written before and the docs follow from the row."""
    stored = configuration.as_json(load("digits_paper"))
    row = Field(2, at_least(1), "number of moons", fields.FREE)
    monkeypatch.setitem(FIELDS, "sampler.moons", row)
    assert load("digits_paper").sampler.moons == 2
    assert complaint({}) is None
    assert complaint({"sampler.moons": 0}) == "sampler.moons=0: must be at least 1"
    assert configuration.is_free("sampler.moons")
    from docs.tools.configuration import page

    assert "| `sampler.moons` | `2` | number of moons | yes |" in page()
    assert configuration.complete(stored)["sampler"]["moons"] == 2


def test_former_names_are_answered_with_the_present_one():
    for name, change in FORMER.items():
        assert complaint({name: 1}) == f"config.{name}: was {change}"
        if change.startswith("renamed "):
            assert change.removeprefix("renamed ") in FIELDS
    assert "dial.accumulate was renamed gradient_noise.accumulate" in fields.unknown("dial")
    run = configuration.as_json(load("digits_paper")) | {"version": 2, "dial": {"accumulate": 1}}
    with pytest.raises(ValueError, match=r"version 2, .*dial\.accumulate was renamed"):
        configuration.complete(run)


def test_missing_and_unknown_fields_are_named():
    config = load("digits_paper")
    del config.loss.power
    with pytest.raises(UserError, match=r"config\.loss\.power: is missing"):
        checks.check(config)
    config = load("digits_paper")
    config.loss.powre = 1.0
    with pytest.raises(UserError, match=r"config\.loss\.powre: there is no .* loss\.power\?"):
        checks.check(config)


# Values: the changes, and the beginning of the message.

SINGLE_VALUES = [
    ({"seed": -1}, "seed=-1: must be at least 0"),
    ({"batch_size": True}, "config.batch_size=True: must be int, not bool"),
    ({"batch_size": 7.0}, "config.batch_size=7.0: must be int, not float"),
    ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ({"steps_per_dispatch": 10**12}, "steps_per_dispatch=1000000000000: must be within 21474"),
    ({"checkpoint.keep": 0}, "checkpoint.keep=0: must be at least 1"),
    ({"data.channels": 2}, "data.channels=2: must be 1 or 3"),
    ({"model.generator.widths": ("a", 1)}, "model.generator.widths=('a', 1): must be integers"),
    ({"model.generator.widths": 3}, "config.model.generator.widths=3: must be tuple"),
    ({"model.prior.leak": -math.inf}, "model.prior.leak=-inf: must be finite"),
    ({"model.prior_sigma": 1e-300}, "model.prior_sigma=1e-300: must be a number that float32"),
    ({"model.latent_dim": 10**9}, "model.latent_dim=1000000000: must be at least 1 and at most"),
    ({"model.prior.activation": "relu"}, "model.prior.activation='relu': must be one of leaky_"),
    ({"sampler.posterior.kernel": "nuts"}, "sampler.posterior.kernel='nuts': must be one of ula,"),
    ({"sampler.exchange_every": -1}, "sampler.exchange_every=-1: must be at least 0"),
    ({"sampler.chains_per_image": 0}, "sampler.chains_per_image=0: must be at least 1"),
    ({"sampler.precision": "float64"}, "sampler.precision='float64': must be float32 or bfloat16"),
    ({"loss.name": "vae"}, "loss.name='vae': must be thermodynamic, vanilla, elbo or importance"),
    ({"loss.power": "6"}, "config.loss.power='6': must be float, not str"),
    ({"loss.power": 0.0}, "loss.power=0.0: must be positive"),
    ({"loss.power": math.nan}, "loss.power=nan: must be finite"),
    ({"loss.final_power": 0.0}, "loss.final_power=0.0: must be positive"),
    ({"loss.kl_weight": math.inf}, "loss.kl_weight=inf: must be finite"),
    ({"loss.kl_form": "none"}, "loss.kl_form='none': must be one of difference, sum"),
    ({"loss.quadrature": "simpson"}, "loss.quadrature='simpson': must be one of trapezium,"),
    ({"loss.schedule": "linear"}, "loss.schedule='linear': must be one of power, annealed"),
    ({"loss.correction": "gaussian"}, "loss.correction='gaussian': must be one of none, ratio,"),
    ({"gradient_noise.amplification": 0.5}, "gradient_noise.amplification=0.5: must be at least 1"),
    ({"gradient_noise.accumulate": 0}, "gradient_noise.accumulate=0: must be at least 1"),
    ({"gradient_noise.target": -1e-3}, "gradient_noise.target=-0.001: must be at least 0"),
    ({"optimizer.prior.b1": 1.0}, "optimizer.prior.b1=1.0: must be at least 0 and below 1"),
    ({"logging.writers": ("tensorboard",)}, "logging.writers=('tensorboard',): must be with csv"),
    ({"logging.writers": ("csv", "csv")}, "logging.writers=('csv', 'csv'): must be different"),
    ({"logging.writers": ("csv,wandb",)}, "logging.writers=('csv,wandb',): must be names among"),
    ({"logging.writers": ("csv", 3)}, "logging.writers=('csv', 3): must be names among csv,"),
]

COMBINATIONS = [
    ({"seed": 2**31 - 1, "num_repetitions": 2}, "seed=2147483647: seed plus num_repetitions"),
    ({"batch_size": 1501}, "batch_size=1501: larger than the training set"),
    ({"num_epochs": 10**9}, "num_epochs=1000000000: must be at most"),
    ({"optimizer.decay.begin_epoch": 10**9}, "optimizer.decay.begin_epoch=1000000000: must be at"),
    ({"gradient_noise.accumulate": 200}, "gradient_noise.accumulate=200: as many batches of batch"),
    ({"data.image_size": 9}, "data.image_size=9: the generator makes 8 x 8 pixels"),
    ({"model.generator.strides": (1, 2)}, "model.generator: strides (1, 2) must start with 1"),
    ({"model.generator.strides": (1, 5, 1)}, "model.generator: strides (1, 5, 1) must be between"),
    (
        {"optimizer.prior.learning_rate": 1e-6},
        "optimizer.prior.final_learning_rate=0.0001: with optimizer.decay.rate=0.975 must be at m",
    ),
    ({"optimizer.decay.rate": 1.1}, "optimizer.prior.final_learning_rate=0.0001: with"),
    ({"optimizer.decay.name": "linear"}, "optimizer.decay.name='linear': must be one of"),
    (
        {"optimizer.decay.name": "cosine", "optimizer.decay.end_epoch": 1},
        "optimizer.decay.end_epoch=1: must be above optimizer.decay.begin_epoch=1",
    ),
    ({"optimizer.ema_decay": 1.0}, "optimizer.ema_decay=1.0: must be at least 0 and below 1"),
    (
        {"loss.correction": "ratio", "sampler.chains_per_image": 1},
        "loss and sampler: correction 'ratio' needs chains_per_image of at least 2",
    ),
    (
        {"loss.quadrature": "warped_simpson", "loss.num_temperatures": 5},
        "loss and sampler: quadrature 'warped_simpson' needs an even num_temperatures",
    ),
    ({"loss.kl_form": "sum"}, "loss and sampler: kl_form 'sum' needs quadrature 'trapezium'"),
    (
        {"sampler.exchange_every": 2, "loss.num_temperatures": 1},
        "loss and sampler: exchange_every needs num_temperatures of at least 2",
    ),
    (
        {"loss.prior_gradient": "langevin", "sampler.exchange_every": 2},
        "loss and sampler: gradient 'langevin' needs unadjusted chains without exchange",
    ),
    (
        {"loss.generator_gradient": "langevin", "sampler.prior.persistent": True},
        "loss and sampler: gradient 'langevin' needs reference 'prior', fixed step sizes",
    ),
    (
        {"loss.generator_gradient": "langevin", "sampler.prior.kernel": "mala"},
        "loss and sampler: gradient 'langevin' needs unadjusted chains without exchange",
    ),
    (
        {"gradient_noise.target": 1e-3, "gradient_noise.amplification": 2.0},
        "gradient_noise: target chooses the amplification, which must then be 1",
    ),
    (
        {"gradient_noise.amplification": 2.0, "batch_size": 1},
        "gradient_noise: amplification needs at least two images per update",
    ),
    (
        {"gradient_noise.target": 1e-3, "batch_size": 1},
        "gradient_noise: target needs at least two images per update",
    ),
    (
        {
            "gradient_noise.amplification": 2.0,
            "loss.correction": "pooled_gaussian",
            "loss.generator_gradient": "langevin",
        },
        "gradient_noise: amplification needs a gradient that is a mean over images",
    ),
]

VALID = [
    {"gradient_noise.amplification": 4.0, "loss.name": "vanilla"},
    {"gradient_noise.target": 1e-6, "loss.correction": "pooled_gaussian"},
    {"gradient_noise.amplification": 4.0, "batch_size": 1, "gradient_noise.accumulate": 2},
    {"loss.generator_gradient": "langevin", "gradient_noise.amplification": 4.0},
    {"sampler.prior.kernel": "mala", "sampler.posterior.kernel": "mala"},
    {"sampler.exchange_every": 3, "loss.schedule": "equal_barrier"},
    {"loss.name": "vanilla", "sampler.chains_per_image": 1, "sampler.exchange_every": 2},
    {"loss.quadrature": "warped_simpson", "loss.num_temperatures": 6},
    {"loss.power": 6, "optimizer.clip_norm": 1},  # an int passes for a float
]


@pytest.mark.parametrize("cases", [SINGLE_VALUES, COMBINATIONS], ids=["single", "combinations"])
def test_invalid_values_are_named(cases):
    messages = [(complaint(changes) or "")[: len(message)] for changes, message in cases]
    assert messages == [message for _, message in cases]


def test_valid_combinations_pass():
    assert [complaint(changes) for changes in VALID] == [None] * len(VALID)


# Settings.


def test_settings_are_the_fields():
    config = load("cifar10_paper")
    sampler = build.sampler_settings(config)
    assert (sampler.prior.num_steps, sampler.posterior.num_steps) == (60, 40)
    assert (sampler.prior.step_size, sampler.precision) == (0.16, "float32")
    assert LossSettings.from_config(config) == LossSettings(
        num_temperatures=10,
        power=config.loss.power,
        quadrature="warped_trapezium",
        correction=config.loss.correction,
        prior_gradient="contrastive",
        generator_gradient=config.loss.generator_gradient,
    )


def test_the_library_has_the_defaults_of_the_fields():
    config = base.get_config()
    assert LossSettings.from_config(config) == LossSettings()
    of_model = fields.flatten(config.model.to_dict())
    assert of_model.pop("factory") == ""  # which names networks, and is no setting of these
    assert ModelSettings(**{name.replace(".", "_"): value for name, value in of_model.items()}) == (
        ModelSettings()
    )
    sampler = build.sampler_settings(config)
    assert sampler == SamplerSettings(sampler.prior, sampler.posterior)
    for chain in (sampler.prior, sampler.posterior):
        assert chain == ChainSettings(chain.step_size, chain.num_steps)
    config.loss.name = "vanilla"
    assert LossSettings.from_config(config) == VANILLA


def test_published_form_of_all_configurations():
    for name in NAMES:
        config = load(name)
        config.sampler.exchange_every = 3
        paper = published(config)
        checks.check(paper)
        settings, sampler = paper.loss, build.sampler_settings(paper)
        assert settings.quadrature == "trapezium"
        assert (settings.correction, settings.kl_form) == ("pooled_gaussian", "sum")
        assert (settings.prior_gradient, settings.generator_gradient) == ("none", "detached")
        assert (sampler.chains_per_image, sampler.exchange_every) == (1, 0)
        assert sampler.prior.kernel == sampler.posterior.kernel == "ula"
