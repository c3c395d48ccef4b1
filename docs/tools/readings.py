"""Writes docs/readings.md: every column of readings.csv and temperatures.csv and its meaning.

python -m docs.tools.readings

The columns are those of `thermo_ebm/run/tables.py`; their meanings are in `MEANINGS` and
`OF_TEMPERATURES`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from docs.tools.markdown import table
from thermo_ebm.run.tables import READING_COLUMNS, TEMPERATURE_COLUMNS

PAGE = Path(__file__).resolve().parents[1] / "readings.md"

MEANINGS = {
    "epoch": "epochs done, from 1",
    "step": "steps done",
    "train_loss": "value of the objective, nats per image, mean over the epoch's steps",
    "train_loss_per_dim": "the same per data value",
    "train_grad_mean": "mean over the entries of one gradient, mean over the epoch's steps",
    "train_grad_var": "variance over the entries of one gradient (the quantity that the paper "
    "reports), mean over the epoch's steps",
    "train_grad_var_prior": "the same for the prior's parameters",
    "train_grad_var_generator": "the same for the generator's parameters",
    "val_loss": "value of the objective on validation images, nats per image",
    "val_loss_per_dim": "the same per data value",
    "learning_rate_prior": "learning rate of the prior",
    "learning_rate_generator": "learning rate of the generator",
    "grad_noise": "noise of the gradient per parameter, from repeated draws; empty without a "
    "measurement (`logging.grad_noise_every_epochs`), as the other columns `grad_noise_*`",
    "grad_noise_batch": "its part from the choice of the batch",
    "grad_noise_mcmc": "its part from the chains",
    "grad_noise_relative": "the noise over the squared norm of the mean gradient",
    "skipped_steps": "steps skipped because their loss, gradient or update was not finite",
    "flops_per_step": "counted arithmetic of a training step, in FLOPs",
    "images_per_second": "training images per second",
    "seconds": "time of the epoch's training steps",
    "group_size": "repetitions that trained together and share these seconds",
    "grad_noise_interaction": "part of `grad_noise` from the interaction of batch and chains; the "
    "three parts add up to the total",
    "grad_noise_stderr": "standard error of `grad_noise`",
    "grad_noise_batch_stderr": "standard error of `grad_noise_batch`",
    "grad_noise_mcmc_stderr": "standard error of `grad_noise_mcmc`",
    "grad_noise_interaction_stderr": "standard error of `grad_noise_interaction`",
    "train_grad_noise": "noise of each step's gradient per parameter, from the two halves of the "
    "batch, mean over the epoch's steps",
    "train_grad_noise_prior": "the same for the prior's parameters",
    "train_grad_noise_generator": "the same for the generator's parameters",
    "train_grad_signal": "squared norm of the mean gradient per parameter",
    "train_noise_scale": "batch size times noise over signal (McCandlish et al. 2018)",
    "train_update_noise": "noise of the gradient that the optimisers were given, after "
    "`gradient_noise.*`",
    "gradient_noise_amplification": "factor by which `gradient_noise` multiplied the covariance of "
    "the gradient",
    "gradient_noise_saturated": "share of the steps at which `gradient_noise.target` was out of "
    "reach",
    "effective_sample_size": "effective number of chains of an image under `reweighted`",
    "acceptance_prior": "share of accepted steps of the prior's chains, for `mala`",
    "acceptance_posterior": "share of accepted steps of the posterior's chains, for `mala`",
    "swap_rate": "share of accepted exchanges between neighbouring temperatures",
    "global_barrier": "sum of the rejection rates of exchanges between neighbours",
    "round_trips": "round trips between t = 0 and t = 1 of the states of an image's chains, per "
    "step",
    "val_log_marginal_likelihood": "held-out log p(x), nats per image, by the same estimator in "
    "all runs; every `evaluation.likelihood.every_epochs` epochs",
    "val_log_marginal_likelihood_stderr": "its standard error, from the chains",
    "val_bits_per_dim": "the same in bits per data value",
    "device_memory_mib": "largest memory in use so far on a device, MiB; empty where the backend "
    "does not report it",
}
OF_TEMPERATURES = {
    "epoch": "epochs done, from 1",
    "index": "i, from 0",
    "temperature": "t_i",
    "expected_log_likelihood": "E_i, nats per image, on validation images",
    "kl_forward": "KL(p_i, p_(i+1)); empty at the last temperature, as the next two",
    "kl_backward": "KL(p_(i+1), p_i)",
    "rejection": "rejection rate of an exchange between i and i + 1, where chains end",
    "acceptance": "share of accepted steps of the chains",
    "swap_rate": "share of accepted exchanges between i and i + 1; empty without exchange",
    "weight": "weight of E_i in the quadrature",
}

HEAD = """# Logged metrics

Each repetition of a run writes its logged metrics (called *readings* in the code and in the names
of files) to `rep_XX/readings.csv`, one row per epoch. Columns that a run does not measure are
empty. [The mathematics](mathematics.md) defines the quantities. The columns of `eval.csv` are
described in [Metrics](metrics.md). This page is generated from `thermo_ebm/run/tables.py` by
`python -m docs.tools.readings`.

## readings.csv

"""
BETWEEN = """
## temperatures.csv

`rep_XX/temperatures.csv` has one row per epoch and temperature:

"""


def page() -> str:
    """The page's text."""
    first = _columns(READING_COLUMNS, MEANINGS)
    return HEAD + first + BETWEEN + _columns(TEMPERATURE_COLUMNS, OF_TEMPERATURES)


def _columns(names: Sequence[str], meanings: Mapping[str, str]) -> str:
    return table(("column", "meaning"), [(f"`{name}`", meanings[name]) for name in names])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
