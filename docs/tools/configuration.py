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
    "divergence.max_rollbacks": "rollbacks after which the repetition ends as diverged",
    "divergence.max_skipped_steps": "steps in a row that may be skipped because a value is not "
    "finite, before a rollback; at most an epoch's",
    "logging.every_seconds": "seconds between log lines when there is no terminal",
    "logging.grad_noise_draws": "draws in one measurement of the gradient's noise",
    "logging.grad_noise_every_epochs": "epochs between measurements of the gradient's noise; 0 "
    "measures none",
    "logging.pictures_every_epochs": "epochs between pictures; 0 draws none",
    "logging.tensorboard": "write TensorBoard event files",
    "loss.generator_gradient": "where the generator's gradient comes from: `detached`, `langevin` "
    "or `posterior`",
    "loss.kl_form": "`difference` (exact), `sum` (as printed in the paper) or `none`",
    "loss.kl_shrinkage": "how covariances are shrunk: `oas` or `ledoit_wolf`",
    "loss.kl_weight": "eta, the weight of the KL correction; 1 is the estimate of log p(x)",
    "loss.name": "`thermodynamic` or `vanilla`; the other `loss` fields are the former's",
    "loss.num_temperatures": "N_t, the number of intervals between t = 0 and t = 1",
    "loss.power": "p, the power of the temperature schedule",
    "loss.prior_gradient": "where the prior's gradient comes from: `contrastive`, `langevin` or "
    "`none`",
    "loss.quadrature": "`trapezium`, `left` or `right`",
    "loss.schedule": "`power` or `linear`",
    "model.generator.features": "ngf, the unit of the layers' channels",
    "model.generator.kernel_size": "side of every kernel",
    "model.generator.leak": "slope of the generator's leaky ReLU below zero",
    "model.generator.strides": "one per layer; image size = kernel size times their product",
    "model.generator.widths": "channels of each layer but the last, in units of `features`",
    "model.latent_dim": "D, the dimension of the latent z",
    "model.likelihood_sigma": "sigma_l, the standard deviation of the likelihood",
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
    "sampler.posterior.num_steps": "K, steps of each posterior chain",
    "sampler.posterior.step_size": "s of the posterior chains",
    "sampler.precision": "of the networks inside the chains: `float32` or `bfloat16`",
    "sampler.prior.num_steps": "K_z, steps of each prior chain",
    "sampler.prior.step_size": "s of the prior chains",
    "sampler.temperature_chunk": "temperatures sampled together; 0 chooses by the device's memory",
    "seed": "repetition r uses the seed `seed` + r",
    "steps_per_dispatch": "largest number of steps between two checks for signals; fewer when "
    "they would take more than two seconds",
    "val_batches": "batches of validation images for `val_loss` and `temperatures.csv`; 0 is all",
}

HEAD = """# Configuration fields

A configuration is a Python file with a function `get_config()` that returns an `ml_collections.ConfigDict`. Every field
can be changed on the command line, for example `--config.loss.power=3` or `--config.model.generator.widths="(2, 1)"`.
This page is written by `python -m docs.tools.configuration` from `configs/base.py`.

| field | default | meaning |
|---|---|---|
"""

CHANGES = """
## What each configuration changes

`configs/base.py` holds the paper's values. Each file below changes some of them and takes the rest from there.
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
