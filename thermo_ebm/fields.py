"""Every field of a configuration, declared once.

`configs/base.py`, the checks (`config/checks.py`), the fields that may change when a run continues
(`run/configuration.py`) and docs/configuration.md are derived from `FIELDS`. A new field is a row
here and its use: runs written before it existed are read with its default, which must therefore
leave them as they were.

This module imports nothing of the library, so that configurations and run folders can be read
without JAX.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

# Whether a field may change when a run continues.
FREE = "yes"  # nothing that is computed depends on it
ON_REQUEST = "with --allow_config_change"
FIXED = "no"  # checkpoints' shapes or the steps of an epoch depend on it

WRITERS = ("csv", "tensorboard", "wandb")
ENCODER_LOSSES = ("elbo", "importance_weighted")  # whose model has an encoder
MAX_WIDTH = 2**20  # no memory holds more; XLA would abort at sizes that overflow

Check = Callable[[Any], str]  # what a value must be if it is not; "" if the value may be used


class Field(NamedTuple):
    """One field."""

    default: Any  # also its type; an int passes for a float
    check: Check
    meaning: str  # for docs/configuration.md
    on_resume: str = ON_REQUEST
    also: type | None = None  # another type that its value may have


def anything(value: Any) -> str:
    """Every value of the right type may be used."""
    del value
    return ""


def at_least(least: int) -> Check:
    """Numbers that are `least` or larger."""
    return lambda value: "" if value >= least else f"at least {least}"


def positive(value: float) -> str:
    """Numbers above 0."""
    return "" if value > 0 else "positive"


def fraction(value: float) -> str:
    """Numbers in [0, 1)."""
    return "" if 0 <= value < 1 else "at least 0 and below 1"


def width(value: int) -> str:
    """Sizes of arrays."""
    return "" if 1 <= value <= MAX_WIDTH else f"at least 1 and at most {MAX_WIDTH}"


def sizes(values: Any) -> str:
    """Sequences of positive integers."""
    valid = all(type(value) is int and value >= 1 for value in values)
    return "" if valid else "integers, each at least 1"


def count_or_fraction(value: float) -> str:
    """Positive integers, and numbers between 0 and 1."""
    valid = value >= 1 if type(value) is int else 0 < value < 1
    return "" if valid else "a number of images, at least 1, or a fraction between 0 and 1"


def one_of(*choices: Any) -> Check:
    """One of the choices."""
    names = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
    return lambda value: "" if value in choices else names


def name_in(table: str) -> Check:
    """One of the names in a table of the library, given as MODULE:TABLE.

    The names of kernels, quadratures, ... stand where each is computed; the table's module is
    imported when a configuration is checked, not here.
    """

    def check(value: str) -> str:
        module, _, name = table.partition(":")
        names = tuple(getattr(importlib.import_module(f"thermo_ebm.{module}"), name))
        return "" if value in names else f"one of {', '.join(names)}"

    return check


def writers(names: Any) -> str:
    """Distinct writers of readings, csv among them."""
    names = tuple(names)
    if not all(isinstance(name, str) and (name in WRITERS or ":" in name) for name in names):
        return f"names among {', '.join(WRITERS)} and MODULE:CLASS, such as ('csv', 'wandb')"
    if len({*names}) < len(names):
        return "different names"
    return "" if "csv" in names else "with csv, since resumes and reports read readings.csv"


KERNEL = "`ula` (unadjusted Langevin), `mala` (Metropolis-adjusted) or `hmc` (Hamiltonian)"
LEAPFROG = "L, leapfrog steps of each trajectory of `hmc`"

# The defaults are the paper's sizes and chains for CIFAR-10 (tables 4 and 5).
FIELDS: dict[str, Field] = {
    "seed": Field(0, at_least(0), "repetition r uses the seed `seed` + r"),
    "num_repetitions": Field(
        5, at_least(1), "number of models that are trained, each with its own seed", FREE
    ),
    "parallel_repetitions": Field(
        1, at_least(1), "repetitions trained together in one program, using `vmap`", FREE
    ),
    "num_epochs": Field(50, at_least(1), "epochs of training", FREE),
    "batch_size": Field(75, at_least(1), "images per step, over all devices together", FIXED),
    "val_batches": Field(
        10,
        at_least(0),
        "batches of validation images for `val_loss` and `temperatures.csv`; 0 uses all",
    ),
    "steps_per_dispatch": Field(
        20,
        at_least(1),
        "largest number of steps between two checks for signals; fewer if this number of steps "
        "would take more than two seconds",
        FREE,
    ),
    "device_mapping": Field(
        "pmap",
        name_in("train.programs:DEVICE_MAPPINGS"),
        "how a step is spread over devices: by JAX's `pmap` or `shard_map`, with equal figures",
        FREE,
    ),
    "data.name": Field(
        "cifar10",
        anything,
        "`digits`, `idx`, `folder`, `npz`, or a TFDS data set: `cifar10`, `svhn_cropped`, "
        "`celeb_a`, `mnist`, ...",
    ),
    "data.data_dir": Field(
        "",
        anything,
        "TFDS folder, folder (or zip, tar or parquet file) of images, folder of IDX files, or "
        "`.npz` file (`FILE.npz:ARRAY`); if empty, the default folder of TFDS",
        FREE,
    ),
    "data.image_size": Field(
        32, width, "height and width in pixels; must be the size that the generator makes", FIXED
    ),
    "data.channels": Field(
        3,
        one_of(1, 3),
        "1 or 3; grey images are repeated to 3, colours become grey by luminance",
        FIXED,
    ),
    "data.binarize": Field(
        False, anything, "make every value black or white, by whether it is above 127", FIXED
    ),
    "data.num_train": Field(
        12_000, at_least(0), "training images; 0 is all that are not held out", FIXED
    ),
    "data.num_val": Field(
        4_500,
        count_or_fraction,
        "validation images, a number or a fraction such as 0.1 (at least 12, or half of all); they "
        "never overlap with the training images",
        also=float,
    ),
    "data.flip": Field(
        False,
        anything,
        "mirror training images left to right, each with probability 1/2, anew in every step",
    ),
    "data.streaming": Field(
        False,
        anything,
        "read training images when they are needed, for data sets larger than memory",
        FREE,
    ),
    "model.factory": Field(
        "",
        lambda value: "" if not value or ":" in value else "MODULE:FACTORY, or empty",
        "your own networks in place of the configuration's, as `MODULE:FACTORY` "
        "([own networks](guides/own_model.md#own-networks-in-training)); if empty, none",
        FIXED,
    ),
    "model.latent_dim": Field(100, width, "D, the dimension of the latent z", FIXED),
    "model.prior_sigma": Field(
        1.0, positive, "sigma_0, the standard deviation of the reference prior"
    ),
    "model.likelihood_sigma": Field(
        0.3,
        positive,
        "sigma_l, the standard deviation of the likelihood; where `learned_gaussian` begins",
    ),
    "model.likelihood.name": Field(
        "gaussian",
        name_in("models.likelihoods:LIKELIHOODS"),
        "p(x given z): `gaussian`, `learned_gaussian` (sigma_l is learned with the generator), "
        "`bernoulli` (black and white, see `data.binarize`) or `discretized_logistic` (256 levels)",
        FIXED,
    ),
    "model.prior.name": Field(
        "mlp",
        name_in("models.prior:PRIORS"),
        "tilt of the prior: `mlp` (the paper's), `gaussian` (none) or `factorized` (a sum of "
        "one-dimensional tilts); the last two are sampled exactly, without chains",
        FIXED,
    ),
    "model.prior.features": Field(
        100,
        width,
        "width of the tilt network's two hidden layers, or of each dimension's one (`factorized`)",
        FIXED,
    ),
    "model.prior.leak": Field(0.1, anything, "slope of the tilt network's leaky ReLU below zero"),
    "model.prior.activation": Field(
        "leaky_relu",
        name_in("models.prior:ACTIVATIONS"),
        "`leaky_relu` (the paper's) or `gelu`, which makes the tilt smooth, as `langevin` "
        "gradients need",
    ),
    "model.generator.features": Field(
        64, width, "ngf, the unit in which `model.generator.widths` counts channels", FIXED
    ),
    "model.generator.leak": Field(0.2, anything, "slope of the generator's leaky ReLU below zero"),
    "model.generator.widths": Field(
        (16, 8, 4, 2),
        sizes,
        "channels of each layer except the last, in units of `model.generator.features`; the last "
        "layer has the channels of the image; if `strides` is empty, they follow too",
        FIXED,
    ),
    "model.generator.strides": Field(
        (1, 2, 2, 2, 1),
        sizes,
        "stride of each layer; image size = size after the first layer times their product; empty: "
        "the layers, with their first size, follow from `data.image_size`",
        FIXED,
    ),
    "model.generator.kernel_size": Field(4, width, "height and width of every kernel", FIXED),
    "model.generator.first_size": Field(
        0,
        at_least(0),
        "height and width after the first layer, which the strides multiply: 7 for images of "
        "28 x 28; 0 is `model.generator.kernel_size`",
        FIXED,
    ),
    "sampler.prior.step_size": Field(0.16, positive, "s, the step size of the prior chains"),
    "sampler.prior.num_steps": Field(60, at_least(0), "K_z, steps of each prior chain"),
    "sampler.prior.kernel": Field("ula", name_in("sampling.kernels:KERNELS"), KERNEL),
    "sampler.prior.num_leapfrog": Field(3, at_least(1), LEAPFROG),
    "sampler.prior.persistent": Field(
        False,
        anything,
        "let the prior's chains of a step continue those of the step before, instead of beginning "
        "at p0; pictures and samples then come from chains that run until they have arrived",
        FIXED,
    ),
    "sampler.posterior.step_size": Field(
        0.01, positive, "s, the step size of the posterior chains"
    ),
    "sampler.posterior.num_steps": Field(20, at_least(0), "K, steps of each posterior chain"),
    "sampler.posterior.kernel": Field("ula", name_in("sampling.kernels:KERNELS"), KERNEL),
    "sampler.posterior.num_leapfrog": Field(3, at_least(1), LEAPFROG),
    "sampler.adapt_step_sizes": Field(
        False,
        anything,
        "let each temperature's step size follow its acceptance; `step_size` is then only the "
        "first",
        FIXED,
    ),
    "sampler.start": Field(
        "prior",
        name_in("losses:STARTS"),
        "where chains begin: `prior` (p0) or `reference` (draws of the linear reference)",
    ),
    "sampler.chains_per_image": Field(
        2, at_least(1), "M, chains of each image at every temperature"
    ),
    "sampler.exchange_every": Field(
        0,
        at_least(0),
        "steps between exchanges of states between neighbouring temperatures; 0 disables exchange",
    ),
    "sampler.image_chunk": Field(
        0,
        at_least(0),
        "images sampled together, with all their temperatures; 0 chooses a number that fits the "
        "device's memory",
        FREE,
    ),
    "sampler.chain_chunk": Field(
        0,
        at_least(0),
        "of the chains of the images sampled together (`sampler.image_chunk`), those that are "
        "evaluated at once; 0 is all, on a TPU as many as fit VMEM",
        FREE,
    ),
    "sampler.precision": Field(
        "float32",
        one_of("float32", "bfloat16"),
        "precision of the networks inside the chains: `float32` or `bfloat16`",
    ),
    "loss.name": Field(
        "thermodynamic",
        one_of("thermodynamic", "vanilla", *ENCODER_LOSSES),
        "`thermodynamic`, `vanilla`, or an encoder's bounds, `elbo` and `importance_weighted`; "
        "the other `loss` fields belong to `thermodynamic`, except `reference` and `prior_l2`",
    ),
    "loss.num_importance_samples": Field(
        1,
        at_least(1),
        "K, samples of the encoder for each image (`elbo`, which averages log w, and "
        "`importance_weighted`, which averages w)",
    ),
    "loss.encoder_gradient": Field(
        "reparameterized",
        name_in("losses.elbo:ESTIMATORS"),
        "estimator of the encoder's gradient: `reparameterized`, `doubly_reparameterized` or "
        "`score_function`",
    ),
    "loss.reference": Field(
        "prior",
        name_in("losses:REFERENCES"),
        "the density at t = 0: `prior` (the paper's) or `linear`, a Gaussian around a linear "
        "estimate of the latent from the image",
        FIXED,
    ),
    "loss.num_temperatures": Field(
        10, at_least(1), "N_t, the number of intervals between t = 0 and t = 1"
    ),
    "loss.schedule": Field(
        "power",
        name_in("thermo.schedule:CURVES"),
        "temperature schedule: `power`, `annealed_power`, `sigmoid` or `equal_barrier`",
    ),
    "loss.power": Field(
        1.0,
        positive,
        "p, the power of the temperature schedule (for `sigmoid`, the steepness)",
    ),
    "loss.final_power": Field(1.0, positive, "p at the end of `annealed_power`"),
    "loss.anneal_epochs": Field(
        50, at_least(1), "epochs over which `annealed_power` goes from `power` to `final_power`"
    ),
    "loss.quadrature": Field(
        "warped_trapezium",
        name_in("thermo.integral:QUADRATURES"),
        "quadrature over temperatures: `warped_trapezium`, `warped_simpson`, `trapezium`, `left` "
        "or `right`",
    ),
    "loss.correction": Field(
        "ratio",
        name_in("losses:CORRECTIONS"),
        "correction of the quadrature: `none`, `ratio` (from the chains' own log-likelihoods) or "
        "`pooled_gaussian` (the paper's)",
    ),
    "loss.kl_form": Field(
        "difference",
        name_in("thermo.integral:KL_FORMS"),
        "combination of the two divergences in the correction: `difference` (exact) or `sum` (as "
        "printed in the paper)",
    ),
    "loss.kl_weight": Field(
        1.0,
        at_least(0),
        "eta, the weight of the correction; the loss estimates -log p(x) only with 1",
    ),
    "loss.prior_gradient": Field(
        "contrastive",
        name_in("losses:PRIOR_GRADIENTS"),
        "estimator of the prior's gradient: `contrastive`, `langevin` or `none`",
    ),
    "loss.prior_l2": Field(
        0.0,
        at_least(0),
        "weight of E_0[f^2] + E_1[f^2] in the prior's gradient, which keeps the tilt f small; "
        "needs `contrastive`",
    ),
    "loss.generator_gradient": Field(
        "reweighted",
        name_in("losses:GENERATOR_GRADIENTS"),
        "estimator of the generator's gradient: `reweighted`, `posterior`, `detached` or "
        "`langevin`",
    ),
    "gradient_noise.amplification": Field(
        1.0,
        at_least(1),
        "factor of the gradient's covariance, at least 1; the mean gradient is unchanged",
    ),
    "gradient_noise.accumulate": Field(
        1, at_least(1), "batches averaged per update, which divides the gradient's covariance"
    ),
    "gradient_noise.target": Field(
        0.0,
        at_least(0),
        "target for the noise of the update's gradient, per parameter, which the amplification (at "
        "most 64) then follows; 0 sets no target",
    ),
    "gradient_noise.second_moment": Field(
        "plain",
        name_in("gradients.optimisers:SECOND_MOMENTS"),
        "gradient whose square the optimiser averages: `plain`, before the amplification, so that "
        "noise does not change the step size; `amplified`; or `alone`, amplified while the first "
        "moment is not: the shorter steps without the noise",
    ),
    "evaluation.likelihood.every_epochs": Field(
        10,
        at_least(0),
        "epochs between evaluations of `val_log_marginal_likelihood`, by the same estimator in all "
        "runs; 0 evaluates none",
    ),
    "optimizer.name": Field(
        "adam",
        anything,
        "`adam`, `adamw`, `rmsprop`, `sgd`, another optimiser of optax such as `lion`, or your own "
        "as `MODULE:FUNCTION` ([optimisers](guides/training.md#optimisers))",
        FIXED,
    ),
    "optimizer.weight_decay": Field(
        0.0, at_least(0), "decay of the weights, times the learning rate (`adamw`, `lion`)"
    ),
    "optimizer.ema_decay": Field(
        0.0,
        fraction,
        "decay, at every update, of an average of the parameters that is kept beside them for "
        "`--parameters=averaged` of evaluations, such as 0.999; 0 keeps none",
        FIXED,
    ),
    "optimizer.prior.learning_rate": Field(2e-5, positive, "initial learning rate of the prior"),
    "optimizer.prior.final_learning_rate": Field(
        1e-5, positive, "lowest learning rate of the prior"
    ),
    "optimizer.prior.b1": Field(
        0.5, fraction, "decay of the prior's first moment (beta 1), or its momentum"
    ),
    "optimizer.prior.b2": Field(0.999, fraction, "decay of the prior's second moment (beta 2)"),
    "optimizer.generator.learning_rate": Field(
        1e-4, positive, "initial learning rate of the generator"
    ),
    "optimizer.generator.final_learning_rate": Field(
        5e-5, positive, "lowest learning rate of the generator"
    ),
    "optimizer.generator.b1": Field(
        0.5, fraction, "decay of the generator's first moment (beta 1), or its momentum"
    ),
    "optimizer.generator.b2": Field(
        0.999, fraction, "decay of the generator's second moment (beta 2)"
    ),
    "optimizer.encoder.learning_rate": Field(
        1e-4, positive, "initial learning rate of the encoder"
    ),
    "optimizer.encoder.final_learning_rate": Field(
        5e-5, positive, "lowest learning rate of the encoder"
    ),
    "optimizer.encoder.b1": Field(
        0.5, fraction, "decay of the encoder's first moment (beta 1), or its momentum"
    ),
    "optimizer.encoder.b2": Field(0.999, fraction, "decay of the encoder's second moment (beta 2)"),
    "optimizer.warm_up_epochs": Field(
        0.0,
        at_least(0),
        "epochs, or a part of one, in which the learning rates rise linearly from 0; 0: none",
    ),
    "optimizer.decay.name": Field(
        "exponential",
        name_in("gradients.schedules:DECAYS"),
        "how the learning rates fall: `exponential` (the paper's, by `optimizer.decay.rate`), "
        "`cosine` (to the final rates at `optimizer.decay.end_epoch`) or `constant`",
    ),
    "optimizer.decay.begin_epoch": Field(
        1, at_least(0), "epochs before the learning rates start to fall"
    ),
    "optimizer.decay.rate": Field(
        0.975, positive, "factor by which the learning rates fall at every epoch (`exponential`)"
    ),
    "optimizer.decay.end_epoch": Field(
        50, at_least(1), "epochs after which `cosine` has reached the final learning rates"
    ),
    "optimizer.clip_norm": Field(
        0.0, at_least(0), "largest norm of the gradient; 0 disables clipping"
    ),
    "divergence.max_rollbacks": Field(
        3,
        at_least(0),
        "number of rollbacks after which a repetition ends as diverged",
        FREE,
    ),
    "checkpoint.every_epochs": Field(1, at_least(1), "epochs between checkpoints", FREE),
    "checkpoint.every_steps": Field(
        0, at_least(0), "steps between checkpoints within an epoch; 0 writes none", FREE
    ),
    "checkpoint.keep": Field(3, at_least(1), "how many of the newest checkpoints are kept", FREE),
    "checkpoint.keep_every_epochs": Field(
        10,
        at_least(0),
        "epochs between checkpoints that are kept permanently, to be evaluated; 0 keeps none "
        "permanently",
        FREE,
    ),
    "logging.pictures_every_epochs": Field(
        5, at_least(0), "epochs between pictures of samples; 0 draws none", FREE
    ),
    "logging.grad_noise_every_epochs": Field(
        0,
        at_least(0),
        "epochs between measurements of the gradient's noise; 0 measures none",
        FREE,
    ),
    "logging.gradient_bias_every_epochs": Field(
        0,
        at_least(0),
        "epochs between measurements of the gradient's bias on 8 batches, each of which costs as "
        "much as about 120 evaluations of the posterior's chains; 0 measures none",
        FREE,
    ),
    "logging.writers": Field(
        ("csv", "tensorboard"),
        writers,
        "where logged metrics go: `csv` (always), `tensorboard`, `wandb`, or your own class as "
        "`MODULE:CLASS` ([writers](guides/training.md#writers))",
        FREE,
    ),
}

_ONE_ESTIMATOR = "removed: all runs use the same estimator"
# What became of the fields of earlier versions.
FORMER: dict[str, str] = {
    "dial.amplification": "renamed gradient_noise.amplification",
    "dial.accumulate": "renamed gradient_noise.accumulate",
    "dial.target_noise": "renamed gradient_noise.target",
    "dial.max_amplification": "removed: it is always 64",
    "data.skip_unreadable": "removed: the error names the images that cannot be read",
    "loss.kl_shrinkage": "removed: it is always oas",
    "optimizer.decay.interval_epochs": "removed: it is always 1",
    "divergence.max_skipped_steps": "removed: it is always 10",
    "logging.every_seconds": "removed: it is always 10",
    "logging.grad_noise_draws": "removed: it is always 256",
    "evaluation.likelihood.num_images": _ONE_ESTIMATOR,
    "evaluation.likelihood.num_temperatures": _ONE_ESTIMATOR,
    "evaluation.likelihood.chains_per_image": _ONE_ESTIMATOR,
    "evaluation.likelihood.steps_per_temperature": _ONE_ESTIMATOR,
    "evaluation.likelihood.prior_steps": _ONE_ESTIMATOR,
}


def defaults() -> dict[str, Any]:
    """The default of every field, as nested dicts."""
    return nest({name: field.default for name, field in FIELDS.items()})


def unknown(name: str) -> str:
    """The message on a name that is not a field: what replaced the field, or the nearest name.

    >>> unknown("dial.accumulate")
    'was renamed gradient_noise.accumulate'
    >>> unknown("loss.powre")
    'there is no such field; did you mean loss.power?'
    """
    if name in FORMER:
        return f"was {FORMER[name]}"
    members = [former for former in FORMER if former.startswith(f"{name}.")]
    if members and not any(is_within(field, name) for field in FIELDS):
        changes = ", ".join(f"{former} was {FORMER[former]}" for former in members)
        return f"there is no such group; {changes}"
    matches = difflib.get_close_matches(name, FIELDS, n=1)
    return "there is no such field" + (f"; did you mean {matches[0]}?" if matches else "")


def is_within(field: str, name: str) -> bool:
    """Whether `name` is the field or a group that it belongs to.

    >>> is_within("loss.power", "loss"), is_within("loss.power", "loss.p")
    (True, False)
    """
    return field == name or field.startswith(f"{name}.")


def flatten(nested: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts, or a ConfigDict, as one dict with dotted names.

    >>> flatten({"seed": 0, "loss": {"power": 6.0}})
    {'seed': 0, 'loss.power': 6.0}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flatten`.

    >>> nest({"seed": 0, "loss.power": 6.0})
    {'seed': 0, 'loss': {'power': 6.0}}
    """
    nested: dict[str, Any] = {}
    for field, value in flat.items():
        *groups, name = field.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return nested
