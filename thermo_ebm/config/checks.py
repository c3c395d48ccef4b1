"""Checks every field of a configuration, before anything is compiled."""

import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.config.build import amplification_settings, loss_settings, sampler_settings
from thermo_ebm.errors import UserError
from thermo_ebm.fields import flatten, get, nearest
from thermo_ebm.gradients.amplification import is_used
from thermo_ebm.losses import (
    CORRECTIONS,
    GENERATOR_GRADIENTS,
    PRIOR_GRADIENTS,
    check_settings,
    is_differentiated,
)
from thermo_ebm.models.generator import image_size
from thermo_ebm.models.prior import ACTIVATIONS
from thermo_ebm.sampling.kernels import KERNELS
from thermo_ebm.thermo.integral import KL_FORMS, QUADRATURES
from thermo_ebm.thermo.schedule import CURVES

LOSSES = ("vanilla", "thermodynamic")
WRITERS = ("csv", "tensorboard", "wandb")

_CHOICES: dict[str, tuple[str, ...]] = {
    "loss.name": LOSSES,
    "loss.schedule": tuple(CURVES),
    "loss.correction": CORRECTIONS,
    "model.prior.activation": ACTIVATIONS,
    "sampler.prior.kernel": KERNELS,
    "sampler.posterior.kernel": KERNELS,
    "loss.quadrature": tuple(QUADRATURES),
    "loss.kl_form": tuple(KL_FORMS),
    "loss.prior_gradient": PRIOR_GRADIENTS,
    "loss.generator_gradient": GENERATOR_GRADIENTS,
    "sampler.precision": ("float32", "bfloat16"),
}

_AT_LEAST: dict[str, int] = {
    "seed": 0,
    "num_repetitions": 1,
    "parallel_repetitions": 1,
    "num_epochs": 1,
    "batch_size": 1,
    "steps_per_dispatch": 1,
    "val_batches": 0,
    "data.image_size": 1,
    "data.num_train": 1,
    "data.num_val": 1,
    "model.latent_dim": 1,
    "model.prior.features": 1,
    "model.generator.features": 1,
    "model.generator.kernel_size": 1,
    "sampler.prior.num_steps": 0,
    "sampler.posterior.num_steps": 0,
    "sampler.image_chunk": 0,
    "sampler.chain_chunk": 0,
    "sampler.chains_per_image": 1,
    "sampler.exchange_every": 0,
    "loss.anneal_epochs": 1,
    "gradient_noise.amplification": 1,
    "gradient_noise.accumulate": 1,
    "gradient_noise.target": 0,
    "evaluation.likelihood.every_epochs": 0,
    "loss.num_temperatures": 1,
    "loss.kl_weight": 0,
    "optimizer.prior.b1": 0,
    "optimizer.prior.b2": 0,
    "optimizer.generator.b1": 0,
    "optimizer.generator.b2": 0,
    "optimizer.decay.begin_epoch": 0,
    "optimizer.clip_norm": 0,
    "divergence.max_rollbacks": 0,
    "checkpoint.every_epochs": 1,
    "checkpoint.every_steps": 0,
    "checkpoint.keep": 1,
    "checkpoint.keep_every_epochs": 0,
    "logging.pictures_every_epochs": 0,
    "logging.grad_noise_every_epochs": 0,
}

_BELOW_ONE = (
    "optimizer.prior.b1",
    "optimizer.prior.b2",
    "optimizer.generator.b1",
    "optimizer.generator.b2",
)

_WIDTHS = (
    "data.image_size",
    "model.latent_dim",
    "model.prior.features",
    "model.generator.features",
    "model.generator.kernel_size",
)
_MAX_WIDTH = 2**20  # no memory holds more; XLA would abort at sizes that overflow

_EPOCHS = ("num_epochs", "optimizer.decay.begin_epoch")
_MAX_INT = 2**31 - 1  # of the device's int32, which counts steps too
_FLOAT32 = np.finfo(np.float32)

_POSITIVE = (
    "model.prior_sigma",
    "model.likelihood_sigma",
    "sampler.prior.step_size",
    "sampler.posterior.step_size",
    "loss.power",
    "loss.final_power",
    "optimizer.prior.learning_rate",
    "optimizer.prior.final_learning_rate",
    "optimizer.generator.learning_rate",
    "optimizer.generator.final_learning_rate",
    "optimizer.decay.rate",
)


def check(config: ConfigDict, reference: ConfigDict) -> None:
    """Refuses a configuration that cannot train, before anything is compiled.

    Args:
      config: the configuration.
      reference: a configuration with all fields and the right types (`configs/base.py`).

    Raises:
      UserError: naming the field and what it must be.
    """
    _check_fields(config, reference)
    check_values(config)


def check_values(config: ConfigDict) -> None:
    """The part of `check` that needs no reference: single values and some combinations.

    Raises:
      UserError: naming the field and what it must be.
      TypeError: a value is of a type that `check` would have refused.
    """
    for field, value in flatten(config).items():
        _check_range(field, value)
    for field, choices in _CHOICES.items():
        value = _value(config, field)
        _require(field, value, value in choices, f"one of {', '.join(choices)}")
    for field, least in _AT_LEAST.items():
        value = _value(config, field)
        _require(field, value, value >= least, f"at least {least}")
    for field in _POSITIVE:
        value = _value(config, field)
        _require(field, value, value > 0, "positive")
    for field in _BELOW_ONE:
        value = _value(config, field)
        _require(field, value, value < 1, "below 1")
    for field in _WIDTHS:
        value = _value(config, field)
        _require(field, value, value <= _MAX_WIDTH, f"at most {_MAX_WIDTH}")
    _check_channels(config)
    _check_writers(config)
    _check_combinations(config)


def _check_range(field: str, value: Any) -> None:
    """Refuses numbers that 32 bits cannot represent, which the device would change silently."""
    if type(value) is int:
        _require(field, value, abs(value) <= _MAX_INT, f"within {_MAX_INT}")
    if type(value) is float:
        _require(field, value, math.isfinite(value), "finite")
        held = value == 0 or _FLOAT32.tiny <= abs(value) <= _FLOAT32.max
        _require(field, value, bool(held), "a number that float32 holds, 1.2e-38 to 3.4e38 in size")


def _check_channels(config: ConfigDict) -> None:
    channels = config.data.channels
    _require("data.channels", channels, channels in (1, 3), "1 or 3")
    for field in ("model.generator.widths", "model.generator.strides"):
        value = tuple(_value(config, field))
        whole = all(type(one) is int and one >= 1 for one in value)
        _require(field, value, whole, "whole numbers, each at least 1")


def _check_writers(config: ConfigDict) -> None:
    names = tuple(_value(config, "logging.writers"))
    known = all(isinstance(one, str) and (one in WRITERS or ":" in one) for one in names)
    must = f"names among {', '.join(WRITERS)} and MODULE:CLASS, such as ('csv', 'wandb')"
    _require("logging.writers", names, known, must)
    _require("logging.writers", names, len({*names}) == len(names), "different names")
    why = "with csv, since resumes and reports read readings.csv"
    _require("logging.writers", names, "csv" in names, why)


def _check_combinations(config: ConfigDict) -> None:
    """Refuses combinations of values that do not fit together."""
    if config.seed + config.num_repetitions > _MAX_INT:
        raise UserError(f"seed={config.seed}: seed plus num_repetitions must be at most {_MAX_INT}")
    if config.batch_size > config.data.num_train:
        raise UserError(
            f"batch_size={config.batch_size}: larger than the training set "
            f"(data.num_train={config.data.num_train}); choose a smaller batch or more images"
        )
    accumulate = config.gradient_noise.accumulate
    if config.batch_size * accumulate > config.data.num_train:
        raise UserError(
            f"gradient_noise.accumulate={accumulate}: as many batches of "
            f"batch_size={config.batch_size} need more images than the training set has "
            f"(data.num_train={config.data.num_train})"
        )
    steps = config.data.num_train // (config.batch_size * accumulate)
    for field in _EPOCHS:
        epochs = _value(config, field)
        _require(field, epochs, epochs * steps <= _MAX_INT, f"at most {_MAX_INT // steps}")
    for name in ("prior", "generator"):
        first = config.optimizer[name].learning_rate
        last = config.optimizer[name].final_learning_rate
        # Optax stops at the final value from either side, so that another order jumps to it.
        rising = config.optimizer.decay.rate > 1
        if (first > last) if rising else (first < last):
            raise UserError(
                f"optimizer.{name}.final_learning_rate={last:g}: with optimizer.decay.rate="
                f"{config.optimizer.decay.rate:g} must be at {'least' if rising else 'most'} "
                f"the learning_rate, {first:g}"
            )
    generator = config.model.generator
    strides, widths = tuple(generator.strides), tuple(generator.widths)
    if len(strides) != len(widths) + 1 or strides[0] != 1:
        raise UserError(
            f"model.generator.strides={strides}: must start with 1 and have one more entry than "
            f"model.generator.widths={widths}"
        )
    if any(not 1 <= stride <= generator.kernel_size for stride in strides):
        raise UserError(
            f"model.generator.strides={strides}: each must be between 1 and "
            f"model.generator.kernel_size={generator.kernel_size}"
        )
    size = image_size(strides, generator.kernel_size)
    if size != config.data.image_size:
        raise UserError(
            f"data.image_size={config.data.image_size}: the generator makes {size} x {size} pixels "
            "(model.generator.kernel_size times its strides); change one or the other"
        )
    if config.data.streaming and config.logging.grad_noise_every_epochs:
        raise UserError(
            "data.streaming=True: needs logging.grad_noise_every_epochs=0, since this measurement "
            "draws images from the complete training set"
        )
    _check_loss(config)
    _check_amplification(config)


def _check_loss(config: ConfigDict) -> None:
    """The thermodynamic loss and its chains; the vanilla loss has none of these fields."""
    loss = config.loss
    if loss.name == "vanilla":
        return
    if loss.kl_form == "sum" and loss.quadrature != "trapezium":
        raise UserError("loss.kl_form=sum: needs loss.quadrature=trapezium")
    if loss.quadrature == "warped_simpson" and loss.num_temperatures % 2:
        raise UserError(
            f"loss.num_temperatures={loss.num_temperatures}: must be even for "
            "loss.quadrature=warped_simpson"
        )
    settings, sampler = loss_settings(config), sampler_settings(config)
    if settings.correction == "ratio" and sampler.chains_per_image < 2:
        raise UserError(
            "sampler.chains_per_image=1: loss.correction=ratio needs at least 2 (or choose "
            "loss.correction=none)"
        )
    if sampler.exchange_every and loss.num_temperatures < 2:
        raise UserError(
            f"sampler.exchange_every={sampler.exchange_every}: needs loss.num_temperatures of at "
            "least 2"
        )
    adjusted = [
        f"sampler.{name}.kernel=mala"
        for name in ("prior", "posterior")
        if config.sampler[name].kernel == "mala"
    ]
    exchange = [f"sampler.exchange_every={sampler.exchange_every}"] * bool(sampler.exchange_every)
    if is_differentiated(settings) and (offending := [*adjusted, *exchange]):
        raise UserError(
            f"{offending[0]}: gradients through the chains (langevin) need kernel=ula and "
            "exchange_every=0"
        )
    check_settings(settings, sampler)


def _check_amplification(config: ConfigDict) -> None:
    """Refuses noise control without two halves of a batch, or without a gradient that is a mean."""
    settings = amplification_settings(config)
    if settings.target and settings.amplification != 1:
        raise UserError(
            f"gradient_noise.amplification={settings.amplification:g}: must be 1 if "
            "gradient_noise.target is set, which chooses the amplification"
        )
    if not is_used(settings):
        return
    field = "gradient_noise.target" if settings.target else "gradient_noise.amplification"
    value = settings.target or settings.amplification
    if config.batch_size * settings.accumulate < 2:
        raise UserError(
            f"{field}={value:g}: needs at least two images per update, since the noise is "
            "measured from the two halves of a batch"
        )
    loss = loss_settings(config)
    pooled = loss.correction == "pooled_gaussian" and is_differentiated(loss)
    if config.loss.name != "vanilla" and pooled:
        raise UserError(
            f"{field}={value:g}: needs a gradient that is a mean over images, not langevin "
            "gradients with loss.correction=pooled_gaussian"
        )


def _check_fields(config: ConfigDict, reference: ConfigDict) -> None:
    """Requires the fields of the reference, no others, and their types (int passes as float)."""
    have, want = flatten(config), flatten(reference)
    for field in have:
        if field not in want:
            raise UserError(f"config.{field}: there is no such field{nearest(field, want)}")
    for field, example in want.items():
        if field not in have:
            raise UserError(f"config.{field}: is missing")
        value = have[field]
        if isinstance(example, float) and type(value) is int:
            continue
        if type(value) is not type(example) and not _both_sequences(value, example):
            raise UserError(
                f"config.{field}={value!r}: must be {type(example).__name__}, "
                f"not {type(value).__name__}"
            )


def _both_sequences(value: Any, example: Any) -> bool:
    return isinstance(value, tuple | list) and isinstance(example, tuple | list)


def _value(config: ConfigDict, field: str) -> Any:
    value = get(config, field)
    if value is None:
        raise UserError(f"config.{field}: is missing")
    return value


def _require(field: str, value: Any, holds: bool, must: str) -> None:
    if not holds:
        raise UserError(f"{field}={value!r}: must be {must}")
