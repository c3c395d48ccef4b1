"""Writes docs/configuration.md: every field of a configuration, its default and its meaning.

python -m docs.tools.configuration

Fields and defaults are those of `configs/base.py`; what each means is said here.
"""

import importlib
from pathlib import Path
from typing import Any

from configs import base
from thermo_ebm.fields import flatten
from thermo_ebm.run.configuration import as_json

PAGE = Path(__file__).resolve().parents[1] / "configuration.md"
DATA_SETS = (
    "digits",
    "digits_plane",
    "digits_small",
    "cifar10",
    "svhn",
    "pang_svhn",
    "celeb_a",
    "fashion_mnist",
    "folder",
)

MEANINGS = {
    "batch_size": "images in a step, over all devices together",
    "checkpoint.every_epochs": "epochs between checkpoints",
    "checkpoint.every_steps": "steps between checkpoints within an epoch; 0 writes none",
    "checkpoint.keep": "how many of the newest checkpoints are kept",
    "checkpoint.keep_every_epochs": "every so many epochs a checkpoint is kept for good, to be "
    "evaluated; 0 keeps none",
    "data.channels": "1 or 3; grey images are repeated, colours become grey by luminance",
    "data.data_dir": "TFDS folder, folder of images or IDX files, or `.npz` file; empty is TFDS's "
    "default",
    "data.image_size": "height and width in pixels; what the generator makes",
    "data.name": "`digits`, `idx`, `folder`, `npz`, or a TFDS data set: `cifar10`, `svhn_cropped`, "
    "`celeb_a`, `mnist`, ...",
    "data.num_train": "training images",
    "data.num_val": "validation images, never among the training images",
    "data.skip_unreadable": "go on without images that cannot be read; their names are recorded",
    "data.streaming": "read training images as they are needed, for sets larger than the memory",
    "dial.accumulate": "batches per update; divides the gradient's covariance",
    "dial.amplification": "factor of the gradient's covariance, at least 1; the mean gradient "
    "stays",
    "dial.max_amplification": "the largest amplification that a target may ask for",
    "dial.target_noise": "noise of the update's gradient, per parameter, that amplification "
    "holds; 0 sets none",
    "divergence.max_rollbacks": "rollbacks after which the repetition ends as diverged",
    "divergence.max_skipped_steps": "steps in a row that may be skipped because a value is not "
    "finite, before a rollback; at most an epoch's",
    "evaluation.likelihood.chains_per_image": "chains per image of the held-out log-likelihood",
    "evaluation.likelihood.every_epochs": "epochs between evaluations of `val_log_likelihood`; 0 "
    "evaluates none",
    "evaluation.likelihood.num_images": "validation images it is evaluated on",
    "evaluation.likelihood.num_temperatures": "intervals of its own schedule of temperatures",
    "evaluation.likelihood.prior_steps": "steps of the chains that start it, towards the prior",
    "evaluation.likelihood.steps_per_temperature": "Metropolis-adjusted steps at each temperature",
    "logging.every_seconds": "seconds between log lines when there is no terminal",
    "logging.grad_noise_draws": "most draws in one measurement, which ends when its error is "
    "below a tenth",
    "logging.grad_noise_every_epochs": "epochs between measurements of the gradient's noise; 0 "
    "measures none",
    "logging.pictures_every_epochs": "epochs between pictures; 0 draws none",
    "logging.tensorboard": "write TensorBoard event files",
    "loss.anneal_epochs": "epochs over which `annealed_power` goes from `power` to `final_power`",
    "loss.correction": "of the quadrature: `none`, `ratio` (from the chains' own log-likelihoods) "
    "or `pooled_gaussian` (the paper's)",
    "loss.final_power": "p at the end of `annealed_power`",
    "loss.generator_gradient": "where the generator's gradient comes from: `reweighted`, "
    "`posterior`, `detached` or `langevin`",
    "loss.kl_form": "`difference` (exact) or `sum` (as printed in the paper)",
    "loss.kl_shrinkage": "how the covariances of `pooled_gaussian` are shrunk: `oas` or "
    "`ledoit_wolf`",
    "loss.kl_weight": "eta, the weight of the correction; 1 is the estimate of log p(x)",
    "loss.name": "`thermodynamic` or `vanilla`; the other `loss` fields are the former's",
    "loss.num_temperatures": "N_t, the number of intervals between t = 0 and t = 1",
    "loss.power": "p, the power of the temperature schedule (of `sigmoid` its steepness)",
    "loss.prior_gradient": "where the prior's gradient comes from: `contrastive`, `langevin` or "
    "`none`",
    "loss.quadrature": "`warped_trapezium`, `warped_simpson`, `trapezium`, `left` or `right`",
    "loss.schedule": "`power`, `annealed_power`, `sigmoid` or `equal_barrier`",
    "model.generator.features": "ngf, the unit of the layers' channels",
    "model.generator.kernel_size": "side of every kernel",
    "model.generator.leak": "slope of the generator's leaky ReLU below zero",
    "model.generator.strides": "one per layer; image size = kernel size times their product",
    "model.generator.widths": "channels of each layer but the last, in units of `features`",
    "model.latent_dim": "D, the dimension of the latent z",
    "model.likelihood_sigma": "sigma_l, the standard deviation of the likelihood",
    "model.prior.activation": "`leaky_relu` (the paper's) or `gelu`, whose energy is smooth",
    "model.prior.features": "width of the energy network's two hidden layers",
    "model.prior.leak": "slope of the energy network's leaky ReLU below zero",
    "model.prior_sigma": "sigma_0, the standard deviation of the reference prior",
    "num_epochs": "epochs of training",
    "num_repetitions": "how many models are trained, with different seeds",
    "optimizer.clip_norm": "largest norm of the gradient; 0 does not clip",
    "optimizer.decay.begin_epoch": "epochs before the learning rates start to fall",
    "optimizer.decay.interval_epochs": "epochs between falls of the learning rates",
    "optimizer.decay.rate": "factor of each fall",
    "optimizer.generator.b1": "beta 1 of the generator's Adam",
    "optimizer.generator.b2": "beta 2 of the generator's Adam",
    "optimizer.generator.final_learning_rate": "lowest learning rate of the generator",
    "optimizer.generator.learning_rate": "initial learning rate of the generator",
    "optimizer.prior.b1": "beta 1 of the prior's Adam",
    "optimizer.prior.b2": "beta 2 of the prior's Adam",
    "optimizer.prior.final_learning_rate": "lowest learning rate of the prior",
    "optimizer.prior.learning_rate": "initial learning rate of the prior",
    "parallel_repetitions": "repetitions trained together in one program, by `vmap`",
    "sampler.chains_per_image": "M, chains of each image at every temperature",
    "sampler.exchange_every": "steps between exchanges of neighbouring temperatures; 0 has none",
    "sampler.image_chunk": "images sampled together, with all their temperatures; 0 chooses by "
    "the device's memory",
    "sampler.posterior.kernel": "`ula` (unadjusted Langevin) or `mala` (Metropolis-adjusted)",
    "sampler.posterior.num_steps": "K, steps of each posterior chain",
    "sampler.posterior.step_size": "s of the posterior chains",
    "sampler.precision": "of the networks inside the chains: `float32` or `bfloat16`",
    "sampler.prior.kernel": "`ula` or `mala`, as above",
    "sampler.prior.num_steps": "K_z, steps of each prior chain",
    "sampler.prior.step_size": "s of the prior chains",
    "seed": "repetition r uses the seed `seed` + r",
    "steps_per_dispatch": "largest number of steps between two checks for signals; fewer when "
    "they would take more than two seconds",
    "val_batches": "batches of validation images for `val_loss` and `temperatures.csv`; 0 is all",
}

HEAD = """# Configuration fields

A configuration is a Python file with a function `get_config()` that returns an
`ml_collections.ConfigDict`. Every field can be changed on the command line, for example
`--config.loss.power=3` or `--config.model.generator.widths="(2, 1)"`. This page is written by
`python -m docs.tools.configuration` from `configs/base.py`.

| field | default | meaning |
|---|---|---|
"""

CHANGES = """
## What each configuration changes

`configs/base.py` holds the paper's sizes. Each file below changes some fields and takes the rest
from there. `configs/published.py` turns any configuration into the paper's published form.
"""


def page() -> str:
    """The page's text."""
    defaults = _fields("base")
    rows = [f"| `{name}` | {_code(value)} | {MEANINGS[name]} |" for name, value in defaults.items()]
    parts = [HEAD + "\n".join(rows) + "\n", CHANGES]
    for name in DATA_SETS:
        changed = {f: v for f, v in _fields(name).items() if v != defaults[f]}
        lines = [f"| `{field}` | {_code(value)} |" for field, value in changed.items()]
        parts.append(f"\n### configs/{name}.py\n\n| field | value |\n|---|---|\n")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _fields(name: str) -> dict[str, Any]:
    """Every field of one configuration, in alphabetical order."""
    module = base if name == "base" else importlib.import_module(f"configs.{name}")
    return dict(sorted(flatten(as_json(module.get_config())).items()))


def _code(value: Any) -> str:
    shown = tuple(value) if isinstance(value, list) else value
    return "" if shown == "" else f"`{shown}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
