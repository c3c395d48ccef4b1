"""Readings: every number that training logs, declared once.

`READINGS` are the columns of readings.csv (one row per epoch), `TEMPERATURE_READINGS` those of
temperatures.csv (one row per epoch and temperature). The tables, the tags in TensorBoard, the page
`docs/readings.md` and the titles of figures derive from these declarations. To add a reading of the
training steps, declare it here with `per_step=True` and compute it in `train/step.py`.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


def _always(loss: Any, sampler: Any) -> bool:
    del loss, sampler
    return True


class Reading(NamedTuple):
    """The declaration of one column."""

    meaning: str  # for the documentation
    unit: str = ""
    title: str = ""  # on axes and in tables; "" is the column's name with spaces
    per_step: bool = False  # returned by each step; logged is the mean over the epoch's steps
    root: bool = False  # each step returns its square; logged is the root of the mean
    integer: bool = False
    in_log: str = ""  # its name in the lines that training prints; "" is not printed
    # To a run with this `LossSettings` and `SamplerSettings`, which stand above this module.
    applies: Callable[[Any, Any], bool] = _always


def _is_tempered(loss: Any, sampler: Any) -> bool:
    """Whether expectations between t = 0 and t = 1 are computed: not by the vanilla loss."""
    del sampler
    return loss.value == "integral"


def _has_encoder(loss: Any, sampler: Any) -> bool:
    del sampler
    return loss.encoder is not None


def _exchanges(loss: Any, sampler: Any) -> bool:
    del loss
    return sampler.exchange_every > 0


def _is_adjusted(chains: str) -> Callable[[Any, Any], bool]:
    """Whether the kernel of these chains, "prior" or "posterior", accepts or rejects.

    Kernels stand where they are computed; their module is imported when an epoch is written.
    """

    def applies(loss: Any, sampler: Any) -> bool:
        if chains == "posterior" and loss.encoder is not None:
            return False
        kernels = importlib.import_module("thermo_ebm.sampling.kernels")
        return kernels.find_kernel(getattr(sampler, chains).kernel).adjusted

    return applies


_PER_IMAGE = "nats per image"
_GRADIENT_NOISE = "gradient noise"
_ENTRY_VARIANCE = "variance over entries"


def _bias_readings(group: str) -> dict[str, "Reading"]:
    """The bias of one parameter group's gradient."""
    name = f"train_gradient_bias_{group}"
    return {
        name: Reading(
            f"distance of the mean gradient of the {group} from that of chains that have arrived, "
            "over the root mean square of a batch's gradient; negative where the estimate of its "
            "square is; empty without a measurement (`logging.gradient_bias_every_epochs`)",
            title=f"gradient bias ({group})",
            in_log=f"bias of the {group}'s gradient",
        ),
        f"{name}_stderr": Reading(f"standard error of `{name}`"),
        f"{name}_of_mean": Reading(
            f"the same distance over the norm of the mean gradient of the {group}; empty where "
            "that norm is not resolved"
        ),
    }


def _step_readings(group: str) -> dict[str, "Reading"]:
    """How far the updates move the parameters of one group; "" for all parameters."""
    suffix, where = (f"_{group}", f" of the {group}") if group else ("", "")
    applies = _has_encoder if group == "encoder" else _always
    of_group = f" ({group})" if group else ""
    return {
        f"train_step_size{suffix}": Reading(
            f"norm of the mean displacement{where} in one update, over the norm of the parameters: "
            "the update without its noise; empty where it is not resolved, or the optimiser's "
            "update is not linear in the gradient (`lion`)",
            title=f"step size{of_group}",
            per_step=True,
            root=True,
            in_log="" if group else "step size",
            applies=applies,
        ),
        f"train_step_noise{suffix}": Reading(
            f"root mean square of the noise in `train_step_size{suffix}`, from the batch's halves",
            title=f"noise of the step{of_group}",
            per_step=True,
            root=True,
            applies=applies,
        ),
    }


READINGS = {
    "epoch": Reading("epochs done, from 1", integer=True),
    "step": Reading("steps done", integer=True),
    "train_loss": Reading(
        "value of the objective",
        _PER_IMAGE,
        "training loss (nats)",
        per_step=True,
        in_log="loss",
    ),
    "train_loss_per_dim": Reading("`train_loss` per data value", "nats"),
    "train_grad_mean": Reading("mean over the entries of one gradient", per_step=True),
    "train_grad_var": Reading(
        "variance over the entries of one gradient (the quantity that the paper reports)",
        title=_ENTRY_VARIANCE,
        per_step=True,
    ),
    "train_grad_var_prior": Reading(
        "`train_grad_var` of the prior's parameters",
        title=f"{_ENTRY_VARIANCE} (prior)",
        per_step=True,
    ),
    "train_grad_var_generator": Reading(
        "`train_grad_var` of the generator's parameters",
        title=f"{_ENTRY_VARIANCE} (generator)",
        per_step=True,
    ),
    "train_grad_var_encoder": Reading(
        "`train_grad_var` of the encoder's parameters",
        title=f"{_ENTRY_VARIANCE} (encoder)",
        per_step=True,
        applies=_has_encoder,
    ),
    "train_encoder_kl": Reading(
        "divergence of the encoder's q(z given x) from the prior, a mean over its samples; for "
        "`mlp`, whose log Z is not known, with E[f] over the prior's chains in place of log Z",
        _PER_IMAGE,
        "KL of encoder and prior (nats)",
        per_step=True,
        in_log="KL",
        applies=_has_encoder,
    ),
    "val_loss": Reading(
        "value of the objective on validation images",
        _PER_IMAGE,
        "training objective on held-out images (nats)",
    ),
    "val_loss_per_dim": Reading("`val_loss` per data value", "nats"),
    "learning_rate_prior": Reading("learning rate of the prior in the epoch's last update"),
    "learning_rate_generator": Reading("learning rate of the generator in the epoch's last update"),
    "learning_rate_encoder": Reading(
        "learning rate of the encoder in the epoch's last update", applies=_has_encoder
    ),
    "grad_noise": Reading(
        "variance of the gradient per parameter, from repeated draws of chains and of batches, "
        "whose images are drawn without replacement; empty without a measurement "
        "(`logging.grad_noise_every_epochs`), as all columns `grad_noise_*`",
        title=f"{_GRADIENT_NOISE}, from repeated draws",
    ),
    "grad_noise_batch": Reading(
        "part of `grad_noise` from the choice of the batch",
        title=f"{_GRADIENT_NOISE} of the batch",
    ),
    "grad_noise_mcmc": Reading(
        "part of `grad_noise` from the chains", title=f"{_GRADIENT_NOISE} of the chains"
    ),
    "grad_noise_interaction": Reading(
        "part of `grad_noise` from the interaction of batch and chains; the three parts add up to "
        "the total",
        title=f"{_GRADIENT_NOISE} of batch and chains together",
    ),
    "grad_noise_relative": Reading(
        "`grad_noise` over the squared norm of the mean gradient",
        title=f"{_GRADIENT_NOISE} / squared mean gradient",
    ),
    "grad_noise_stderr": Reading(
        "standard error of `grad_noise`; 1.96 of them cover in about 0.90 of simulated measurements"
    ),
    "grad_noise_batch_stderr": Reading("standard error of `grad_noise_batch`"),
    "grad_noise_mcmc_stderr": Reading("standard error of `grad_noise_mcmc`"),
    "grad_noise_interaction_stderr": Reading("standard error of `grad_noise_interaction`"),
    **{
        name: reading
        for group in ("prior", "generator")
        for name, reading in _bias_readings(group).items()
    },
    "train_grad_noise": Reading(
        "variance of each step's gradient per parameter, from the two halves of the batch",
        title=f"{_GRADIENT_NOISE}, from the batch's halves",
        per_step=True,
        in_log="noise",
    ),
    "train_grad_noise_prior": Reading(
        "`train_grad_noise` of the prior's parameters",
        title=f"{_GRADIENT_NOISE} (prior), from the batch's halves",
        per_step=True,
    ),
    "train_grad_noise_generator": Reading(
        "`train_grad_noise` of the generator's parameters",
        title=f"{_GRADIENT_NOISE} (generator), from the batch's halves",
        per_step=True,
    ),
    "train_grad_noise_encoder": Reading(
        "`train_grad_noise` of the encoder's parameters",
        title=f"{_GRADIENT_NOISE} (encoder), from the batch's halves",
        per_step=True,
        applies=_has_encoder,
    ),
    "train_grad_signal": Reading(
        "squared norm of the mean gradient per parameter", title="gradient signal", per_step=True
    ),
    "train_noise_scale": Reading(
        "batch size times noise over signal (McCandlish et al. 2018)",
        "images",
        "noise scale (images)",
    ),
    "train_update_noise": Reading(
        "variance, per parameter, of the gradient that the optimisers were given, after "
        "`gradient_noise.*`",
        title=f"{_GRADIENT_NOISE} of the update",
        per_step=True,
    ),
    **{
        name: reading
        for group in ("", "prior", "generator", "encoder")
        for name, reading in _step_readings(group).items()
    },
    "gradient_noise_amplification": Reading(
        "factor by which `gradient_noise` multiplied the covariance of the gradient",
        title="amplification",
        per_step=True,
    ),
    "gradient_noise_saturated": Reading(
        "share of the steps at which `gradient_noise.target` was out of reach",
        title="gradient noise target out of reach",
        per_step=True,
    ),
    "effective_sample_size": Reading(
        "effective number of chains of an image under `reweighted`, or of samples of an encoder "
        "under `importance_weighted`",
        title="effective chains per image",
        per_step=True,
    ),
    "acceptance_prior": Reading(
        "share of accepted steps of the prior's chains, for `mala`",
        title="acceptance, prior's chains",
        per_step=True,
        applies=_is_adjusted("prior"),
    ),
    "acceptance_posterior": Reading(
        "share of accepted steps of the posterior's chains, for `mala`",
        title="acceptance, posterior's chains",
        per_step=True,
        applies=_is_adjusted("posterior"),
    ),
    "swap_rate": Reading(
        "share of accepted exchanges between neighbouring temperatures",
        title="swap rate",
        per_step=True,
        applies=_exchanges,
    ),
    "global_barrier": Reading(
        "sum of the rejection rates of exchanges between neighbours",
        title="global barrier",
        per_step=True,
        applies=_is_tempered,
    ),
    "round_trips": Reading(
        "round trips between t = 0 and t = 1 of the states of an image's chains",
        "per step",
        per_step=True,
        applies=_exchanges,
    ),
    "val_log_marginal_likelihood": Reading(
        "held-out log p(x), by the same estimator in all runs; every "
        "`evaluation.likelihood.every_epochs` epochs",
        _PER_IMAGE,
        "held-out log-likelihood (nats)",
        in_log="held-out log p(x)",
    ),
    "val_log_marginal_likelihood_stderr": Reading(
        "standard error of `val_log_marginal_likelihood`, from the chains", _PER_IMAGE
    ),
    "val_log_marginal_likelihood_reliable": Reading(
        "share of the images of `val_log_marginal_likelihood` whose estimate is reliable; 0 if the "
        "prior's chains do not mix",
        "share",
        in_log="reliable share",
    ),
    "val_bits_per_dim": Reading("`-val_log_marginal_likelihood` per data value", "bits"),
    "skipped_steps": Reading(
        "steps skipped because their loss, gradient or update was not finite",
        title="skipped steps",
        integer=True,
    ),
    "flops_per_step": Reading("counted arithmetic of a training step", "FLOP"),
    "images_per_second": Reading(
        "training images per second", "1/s", "images per second", in_log="images/s"
    ),
    "seconds": Reading("time of the epoch's training steps", "s"),
    "group_size": Reading("repetitions that trained together and share `seconds`", integer=True),
    "device_memory_mib": Reading(
        "largest memory in use so far on a device; empty where the backend does not report it",
        "MiB",
    ),
}

TEMPERATURE_READINGS = {
    "epoch": Reading("epochs done, from 1", integer=True),
    "index": Reading("i, from 0", integer=True),
    "temperature": Reading("t_i"),
    "expected_log_likelihood": Reading("E_i, on validation images", _PER_IMAGE),
    "kl_forward": Reading("KL(p_i, p_(i+1)); empty at the last temperature", "nats"),
    "kl_backward": Reading("KL(p_(i+1), p_i); empty at the last temperature", "nats"),
    "rejection": Reading(
        "rejection rate of an exchange between i and i + 1, where chains end; empty at the last "
        "temperature"
    ),
    "acceptance": Reading("share of accepted steps of the chains"),
    "swap_rate": Reading(
        "share of accepted exchanges between i and i + 1; empty without exchange",
        applies=_exchanges,
    ),
    "weight": Reading("weight of E_i in the quadrature"),
}


def per_step() -> tuple[str, ...]:
    """The names of the readings that each training step returns."""
    return tuple(name for name, reading in READINGS.items() if reading.per_step)


def complete(measured: Mapping[str, Any], absent: Any) -> dict[str, Any]:
    """The readings of one step under all names of `per_step`.

    Args:
      measured: values by name.
      absent: the value of readings that the step does not have.

    Raises:
      ValueError: a name is not declared here with `per_step=True`.
    """
    if undeclared := measured.keys() - {*per_step()}:
        raise ValueError(f"readings of a step that are not declared: {sorted(undeclared)}")
    return {name: measured.get(name, absent) for name in per_step()}


def applicable(
    declared: Mapping[str, Reading], values: Mapping[str, Any], loss: Any, sampler: Any
) -> dict[str, Any]:
    """The values whose readings apply to a run with these settings of the loss and the chains."""
    return {name: value for name, value in values.items() if declared[name].applies(loss, sampler)}


def is_integer(name: str) -> bool:
    """Whether a column of either table holds integers; False for an unknown column."""
    reading = READINGS.get(name) or TEMPERATURE_READINGS.get(name)
    return reading is not None and reading.integer


def title(name: str) -> str:
    """What a reading is called on axes and in tables.

    >>> title("train_loss"), title("val_bits_per_dim"), title("of_another_version")
    ('training loss (nats)', 'val bits per dim', 'of another version')
    """
    reading = READINGS.get(name)
    return reading.title if reading and reading.title else name.replace("_", " ")


def log_text(row: Mapping[str, Any]) -> str:
    """What the lines that training prints show of an epoch's readings, with standard errors.

    >>> log_text({"train_loss": 3.25, "train_grad_noise": None, "seconds": 2.0})
    'loss 3.25'
    >>> name = "val_log_marginal_likelihood"
    >>> log_text({name: -9.36, f"{name}_stderr": 0.1009, f"{name}_reliable": 1.0})
    'held-out log p(x) -9.36 +- 0.1, reliable share 1'
    """
    parts = []
    for name, reading in READINGS.items():
        value, stderr = row.get(name), row.get(f"{name}_stderr")
        if reading.in_log and value is not None and not math.isnan(value):
            error = "" if stderr is None else f" +- {stderr:.2g}"
            parts.append(f"{reading.in_log} {value:.4g}{error}")
    return ", ".join(parts)


def tag(name: str) -> str:
    """The TensorBoard tag of a reading; TensorBoard groups tags by the part before the first /.

    >>> [tag(name) for name in ("train_grad_var", "grad_noise", "grad_noise_mcmc", "seconds")]
    ['train/grad_var', 'grad_noise/total', 'grad_noise/mcmc', 'run/seconds']
    """
    for group in ("train", "val", "learning_rate", "grad_noise"):
        if name == group:
            return f"{group}/total"
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return f"run/{name}"
