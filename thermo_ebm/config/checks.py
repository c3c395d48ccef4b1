"""Checks a configuration before anything is compiled.

Single values are checked by their declaration in `thermo_ebm/fields.py`. A rule on several fields
stands where it is needed, in the mathematics, whose `ValueError` becomes a user's error here; rules
about a run, of which the mathematics knows nothing, stand here.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.config.build import amplification_settings, parameter_groups, sampler_settings
from thermo_ebm.config.sizes import asks_for_images, asks_for_layers, generated_size
from thermo_ebm.errors import UserError
from thermo_ebm.fields import FIELDS, flatten, unknown
from thermo_ebm.gradients.amplification import (
    AmplificationSettings,
    changes_noise,
    check_amplification,
)
from thermo_ebm.gradients.optimisers import DIRECTIONS, OptimiserSettings, find_direction
from thermo_ebm.losses import LossSettings, check_settings, is_mean_of_images
from thermo_ebm.models import own
from thermo_ebm.models.generator import check_layers

_MAX_INT = 2**31 - 1  # of the device's int32, which counts steps too
_FLOAT32 = np.finfo(np.float32)


def check(config: ConfigDict) -> None:
    """Refuses a configuration that cannot train, before anything is compiled.

    Raises:
      UserError: naming the field and what it must be.
    """
    _check_names(config)
    for name, value in flatten(config).items():
        check_value(name, value)
    if asks_for_images(config) or asks_for_layers(config):
        raise UserError(
            f"data.num_train={config.data.num_train}, data.num_val={config.data.num_val}, "
            f"model.generator.strides={config.model.generator.strides}: leave numbers open, which "
            "thermo_ebm.train.sizes.complete(config) finds from the images"
        )
    _check_run(config)
    _check_rates(config.optimizer, parameter_groups(config))
    _check_model(config)
    settings, noise = LossSettings.from_config(config), amplification_settings(config)
    with _rules_of("loss and sampler"):
        check_settings(settings, sampler_settings(config))
    with _rules_of("gradient_noise"):
        check_amplification(noise, config.batch_size, is_mean_of_images(settings))
    _check_optimiser(config.optimizer, noise)
    if settings.encoder is not None:
        _check_encoder(config)


@contextlib.contextmanager
def _rules_of(group: str) -> Iterator[None]:
    """Turns an error of the mathematics about a group of fields into a user's error."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{group}: {error}") from error


def _check_names(config: ConfigDict) -> None:
    """Requires all fields and no others."""
    names = flatten(config)
    for name in names:
        if name not in FIELDS:
            raise UserError(f"config.{name}: {unknown(name)}")
    for name in FIELDS:
        if name not in names:
            raise UserError(f"config.{name}: is missing")


def check_value(name: str, value: Any) -> None:
    """Checks the type, that 32 bits can represent a number, and the field's own check."""
    default = FIELDS[name].default
    is_sequence = isinstance(default, tuple) and isinstance(value, tuple | list)
    is_float = isinstance(default, float) and type(value) is int
    types = [kind for kind in (type(default), FIELDS[name].also) if kind is not None]
    if type(value) not in types and not (is_sequence or is_float):
        names = " or ".join(kind.__name__ for kind in types)
        raise UserError(f"config.{name}={value!r}: must be {names}, not {type(value).__name__}")
    must = _check_range(value) or FIELDS[name].check(value)
    if must:
        raise UserError(f"{name}={tuple(value) if is_sequence else value!r}: must be {must}")


def _check_range(value: Any) -> str:
    """Refuses numbers that the device would change silently."""
    if type(value) is int and abs(value) > _MAX_INT:
        return f"within {_MAX_INT}"
    if type(value) is float and not math.isfinite(value):
        return "finite"
    if type(value) is float and value and not _FLOAT32.tiny <= abs(value) <= _FLOAT32.max:
        return "a number that float32 can represent, 1.2e-38 to 3.4e38 in size"
    return ""


def _check_run(config: ConfigDict) -> None:
    """Images, batches, and numbers that the device counts in 32 bits."""
    if config.seed + config.num_repetitions > _MAX_INT:
        raise UserError(f"seed={config.seed}: seed plus num_repetitions must be at most {_MAX_INT}")
    num_train, batch_size = config.data.num_train, config.batch_size
    accumulate = config.gradient_noise.accumulate
    if batch_size > num_train:
        raise UserError(
            f"batch_size={batch_size}: larger than the training set (data.num_train={num_train}); "
            "choose a smaller batch or more images"
        )
    if batch_size * accumulate > num_train:
        raise UserError(
            f"gradient_noise.accumulate={accumulate}: as many batches of batch_size={batch_size} "
            f"need more images than the training set has (data.num_train={num_train})"
        )
    if config.logging.gradient_bias_every_epochs and num_train < 3 * batch_size:
        raise UserError(
            "logging.gradient_bias_every_epochs: needs at least three batches of training images "
            f"(data.num_train={num_train}, batch_size={batch_size})"
        )
    most = _MAX_INT // (num_train // (batch_size * accumulate))
    optimizer = config.optimizer
    for name, epochs in (
        ("num_epochs", config.num_epochs),
        ("optimizer.decay.begin_epoch", optimizer.decay.begin_epoch),
        ("optimizer.decay.end_epoch", optimizer.decay.end_epoch),
        ("optimizer.warm_up_epochs", optimizer.warm_up_epochs),
    ):
        if epochs > most:
            raise UserError(f"{name}={epochs}: must be at most {most}")


def _check_rates(optimizer: ConfigDict, groups: Sequence[str]) -> None:
    """The final rates lie on the side to which the decay goes.

    Optax stops at the final rate from either side, so that another order jumps to it.
    """
    decay = optimizer.decay
    if decay.name == "constant":
        return
    if decay.name == "cosine" and decay.begin_epoch >= decay.end_epoch:
        raise UserError(
            f"optimizer.decay.end_epoch={decay.end_epoch}: must be above optimizer.decay."
            f"begin_epoch={decay.begin_epoch}"
        )
    rate = decay.rate if decay.name == "exponential" else 0.0
    by = f"rate={rate:g}" if decay.name == "exponential" else f"name={decay.name}"
    for name in groups:
        first, last = optimizer[name].learning_rate, optimizer[name].final_learning_rate
        if (first > last) if rate > 1 else (first < last):
            side = "least" if rate > 1 else "most"
            raise UserError(
                f"optimizer.{name}.final_learning_rate={last:g}: with optimizer.decay.{by} must "
                f"be at {side} the learning_rate, {first:g}"
            )


def _check_optimiser(optimizer: ConfigDict, noise: AmplificationSettings) -> None:
    """There is such an optimiser, and it takes as many gradients as the noise control needs."""
    moments = OptimiserSettings(optimizer.prior.b1, optimizer.prior.b2, optimizer.weight_decay)
    takes_second = find_direction(optimizer.name, moments).takes_second
    if changes_noise(noise) and noise.second_moment != "amplified" and not takes_second:
        raise UserError(
            f"optimizer.name={optimizer.name}: its step depends on the noise of the one gradient "
            "that it takes; use gradient_noise.second_moment=amplified, or one of "
            f"{', '.join(DIRECTIONS)}"
        )


def _check_encoder(config: ConfigDict) -> None:
    """What belongs to chains of the posterior is not asked for, since there are none."""
    for name, value in (
        ("loss.reference", "prior"),
        ("sampler.start", "prior"),
        ("logging.gradient_bias_every_epochs", 0),
    ):
        given = flatten(config)[name]
        if given != value:
            raise UserError(
                f"{name}={given}: belongs to chains of the posterior, and loss.name="
                f"{config.loss.name} has an encoder in their place; set {name}={value}"
            )


def _check_model(config: ConfigDict) -> None:
    """The likelihood suits the images; the layers fit together, and make images of their size."""
    if config.model.likelihood.name == "bernoulli" and not config.data.binarize:
        raise UserError(
            "model.likelihood.name=bernoulli: is for images of black and white; set "
            "data.binarize=True, or choose another likelihood"
        )
    own.check(config)
    networks = own.networks(config)
    is_mirrored = "encoder" in parameter_groups(config) and networks.encoder is None
    if networks.generator is not None and not is_mirrored:
        return  # whose images have been checked, and the layers are not used
    generator = config.model.generator
    with _rules_of("model.generator"):
        check_layers(generator.widths, generator.strides, generator.kernel_size)
    size = generated_size(config)
    if size != config.data.image_size:
        raise UserError(
            f"data.image_size={config.data.image_size}: the generator makes {size} x {size} pixels "
            "(model.generator.first_size, or kernel_size if that is 0, times its strides); change "
            "one or the other, or set model.generator.strides=(), so that the layers follow"
        )
