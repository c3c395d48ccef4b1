"""Writes docs/configuration.md: every field of a configuration, its default and its meaning.

python -m docs.tools.configuration

Fields and defaults are those of `configs/base.py`; their meanings are in `MEANINGS`.
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
    "cifar10_small",
    "svhn",
    "pang_svhn",
    "celeb_a",
    "fashion_mnist",
    "fashion_small",
    "folder",
)

MEANINGS = {
    "batch_size": "images per step, over all devices together",
    "checkpoint.every_epochs": "epochs between checkpoints",
    "checkpoint.every_steps": "steps between checkpoints within an epoch; 0 writes none",
    "checkpoint.keep": "how many of the newest checkpoints are kept",
    "checkpoint.keep_every_epochs": "epochs between checkpoints that are kept permanently, to be "
    "evaluated; 0 keeps none permanently",
    "data.channels": "1 or 3; grey images are repeated to 3, colours become grey by luminance",
    "data.data_dir": "TFDS folder, folder of images or IDX files, or `.npz` file; if empty, the "
    "default folder of TFDS",
    "data.image_size": "height and width in pixels; must be the size that the generator makes",
    "data.name": "`digits`, `idx`, `folder`, `npz`, or a TFDS data set: `cifar10`, `svhn_cropped`, "
    "`celeb_a`, `mnist`, ...",
    "data.num_train": "training images",
    "data.num_val": "validation images; never overlap with the training images",
    "data.skip_unreadable": "skip images that cannot be read, and record their names",
    "data.streaming": "read training images when they are needed, for data sets larger than memory",
    "gradient_noise.accumulate": "batches averaged per update, which divides the "
    "gradient's covariance",
    "gradient_noise.amplification": "factor of the gradient's covariance, at least 1; the "
    "mean gradient is unchanged",
    "gradient_noise.target": "target for the noise of the update's gradient, per parameter, "
    "which the amplification then follows; 0 sets no target",
    "divergence.max_rollbacks": "number of rollbacks after which a repetition ends as diverged",
    "evaluation.likelihood.every_epochs": "epochs between evaluations of "
    "`val_log_marginal_likelihood`; 0 evaluates none",
    "logging.grad_noise_every_epochs": "epochs between measurements of the gradient's noise; 0 "
    "measures none",
    "logging.pictures_every_epochs": "epochs between pictures of samples; 0 draws none",
    "logging.writers": "where logged metrics go: `csv` (always), `tensorboard`, `wandb`, or your "
    "own class as `MODULE:CLASS` ([writers](guides/training.md#writers))",
    "loss.anneal_epochs": "epochs over which `annealed_power` goes from `power` to `final_power`",
    "loss.correction": "correction of the quadrature: `none`, `ratio` (from the chains' own "
    "log-likelihoods) or `pooled_gaussian` (the paper's)",
    "loss.final_power": "p at the end of `annealed_power`",
    "loss.generator_gradient": "estimator of the generator's gradient: `reweighted`, `posterior`, "
    "`detached` or `langevin`",
    "loss.kl_form": "combination of the two divergences in the correction: `difference` (exact) or "
    "`sum` (as printed in the paper)",
    "loss.kl_weight": "eta, the weight of the correction; the loss estimates -log p(x) only with 1",
    "loss.name": "`thermodynamic` or `vanilla`; the other `loss` fields belong to `thermodynamic`",
    "loss.num_temperatures": "N_t, the number of intervals between t = 0 and t = 1",
    "loss.power": "p, the power of the temperature schedule (for `sigmoid`, the steepness)",
    "loss.prior_gradient": "estimator of the prior's gradient: `contrastive`, `langevin` or `none`",
    "loss.quadrature": "quadrature over temperatures: `warped_trapezium`, `warped_simpson`, "
    "`trapezium`, `left` or `right`",
    "loss.schedule": "temperature schedule: `power`, `annealed_power`, `sigmoid` or "
    "`equal_barrier`",
    "model.generator.features": "ngf, the unit in which `model.generator.widths` counts channels",
    "model.generator.kernel_size": "height and width of every kernel",
    "model.generator.leak": "slope of the generator's leaky ReLU below zero",
    "model.generator.strides": "stride of each layer; image size = kernel size times the product "
    "of the strides",
    "model.generator.widths": "channels of each layer except the last, in units of "
    "`model.generator.features`",
    "model.latent_dim": "D, the dimension of the latent z",
    "model.likelihood_sigma": "sigma_l, the standard deviation of the likelihood",
    "model.prior.activation": "`leaky_relu` (the paper's) or `gelu`, which makes the tilt smooth",
    "model.prior.features": "width of the tilt network's two hidden layers",
    "model.prior.leak": "slope of the tilt network's leaky ReLU below zero",
    "model.prior_sigma": "sigma_0, the standard deviation of the reference prior",
    "num_epochs": "epochs of training",
    "num_repetitions": "number of models that are trained, each with its own seed",
    "optimizer.clip_norm": "largest norm of the gradient; 0 disables clipping",
    "optimizer.decay.begin_epoch": "epochs before the learning rates start to fall",
    "optimizer.decay.rate": "factor of each reduction",
    "optimizer.generator.b1": "beta 1 of the generator's Adam",
    "optimizer.generator.b2": "beta 2 of the generator's Adam",
    "optimizer.generator.final_learning_rate": "lowest learning rate of the generator",
    "optimizer.generator.learning_rate": "initial learning rate of the generator",
    "optimizer.prior.b1": "beta 1 of the prior's Adam",
    "optimizer.prior.b2": "beta 2 of the prior's Adam",
    "optimizer.prior.final_learning_rate": "lowest learning rate of the prior",
    "optimizer.prior.learning_rate": "initial learning rate of the prior",
    "parallel_repetitions": "repetitions trained together in one program, using `vmap`",
    "sampler.chains_per_image": "M, chains of each image at every temperature",
    "sampler.exchange_every": "steps between exchanges of states between neighbouring "
    "temperatures; 0 disables exchange",
    "sampler.image_chunk": "images sampled together, with all their temperatures; 0 chooses a "
    "number that fits the device's memory",
    "sampler.chain_chunk": "of the chains of the images sampled together (`sampler.image_chunk`), "
    "those that are evaluated at once; 0 is all, on a TPU as many as fit the memory next to its "
    "matrix units",
    "sampler.posterior.kernel": "`ula` (unadjusted Langevin) or `mala` (Metropolis-adjusted)",
    "sampler.posterior.num_steps": "K, steps of each posterior chain",
    "sampler.posterior.step_size": "s, the step size of the posterior chains",
    "sampler.precision": "precision of the networks inside the chains: `float32` or `bfloat16`",
    "sampler.prior.kernel": "`ula` (unadjusted Langevin) or `mala` (Metropolis-adjusted)",
    "sampler.prior.num_steps": "K_z, steps of each prior chain",
    "sampler.prior.step_size": "s, the step size of the prior chains",
    "seed": "repetition r uses the seed `seed` + r",
    "steps_per_dispatch": "largest number of steps between two checks for signals; fewer if "
    "this number of steps would take more than two seconds",
    "val_batches": "batches of validation images for `val_loss` and `temperatures.csv`; 0 uses all",
}

HEAD = """# Configuration fields

This page lists every field of a configuration with its default and its meaning. A configuration is
a Python file with a function `get_config()` that returns an `ml_collections.ConfigDict`.
Every field can be changed on the command line, for example `--config.loss.power=3` or
`--config.model.generator.widths="(2, 1)"`.
[Choosing settings](guides/settings.md) gives recommendations, and
[The mathematics](mathematics.md) defines the symbols. This page is generated from `configs/base.py`
by `python -m docs.tools.configuration`.

| field | default | meaning |
|---|---|---|
"""

CHANGES = """
## What each configuration changes

`configs/base.py` holds the paper's sizes. Each file below changes some fields of `configs/base.py`
and keeps the others. `configs/published.py` turns any configuration into the paper's published
form.
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
