"""Latent-space energy-based prior models trained by thermodynamic integration, in JAX.

Everything that a script needs is available under one name:

>>> import jax
>>> import thermo_ebm as te
>>> model = te.LatentEBM(  # any two callables; te.make_model() builds the paper's networks
...     tilt=lambda alpha, z: -alpha * (z**2).sum(axis=-1),
...     generator=lambda beta, z: z @ beta,
...     init=lambda key: {"prior": 0.1, "generator": jax.random.normal(key, (2, 5))},
...     latent_dim=2, prior_sigma=1.0, likelihood_sigma=0.5,
... )
>>> params = model.init(jax.random.key(0))
>>> batch = te.make_batch(jax.numpy.zeros((3, 5)))
>>> sampler = te.SamplerSettings(te.ChainSettings(0.1, 50), te.ChainSettings(0.02, 50))
>>> settings = te.LossSettings(num_temperatures=4, power=3.0)
>>> loss_and_parts = jax.jit(lambda params, key: te.thermodynamic_loss(
...     model, params, batch, key, sampler, settings
... ))
>>> loss, parts = loss_and_parts(params, jax.random.key(1))
>>> parts.expected_log_likelihood.shape  # E_i at t_0 = 0 .. t_4 = 1
(5,)

Importing the package loads its submodules only when they are used, touches no device and compiles
nothing. The import sets the environment variable `NPROC` unless the user has set it (see
`thermo_ebm.runtime.prevent_hangs`): with too few threads, XLA's CPU client can hang.
"""

import importlib
from typing import TYPE_CHECKING, Any

from thermo_ebm.runtime import prevent_hangs

if TYPE_CHECKING:
    from thermo_ebm.data import to_uint8, to_unit
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation.any_sets import compare
    from thermo_ebm.evaluation.metric_settings import MetricSettings
    from thermo_ebm.evaluation.run import load_run
    from thermo_ebm.evaluation.sets import load_images
    from thermo_ebm.evaluation.training import train_run
    from thermo_ebm.gradients.statistics import gradient_statistics
    from thermo_ebm.likelihood import log_marginal_likelihood
    from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
    from thermo_ebm.metrics.fid import frechet_distance
    from thermo_ebm.metrics.kid import kernel_distance
    from thermo_ebm.metrics.paired import compare_features
    from thermo_ebm.models.latent_ebm import (
        LatentEBM,
        from_decoder,
        log_likelihood,
        log_prior,
        make_model,
    )
    from thermo_ebm.models.own import Networks
    from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
    from thermo_ebm.sampling.path import Ladder
    from thermo_ebm.thermo.integral import quadrature_weights, thermodynamic_integral
    from thermo_ebm.thermo.schedule import Schedule, make_schedule
    from thermo_ebm.train.prior_fit import PriorFitSettings, fit_prior
    from thermo_ebm.types import Batch, make_batch

__all__ = [
    "Batch",
    "ChainSettings",
    "Ladder",
    "LatentEBM",
    "LossSettings",
    "MetricSettings",
    "Networks",
    "PriorFitSettings",
    "SamplerSettings",
    "Schedule",
    "UserError",
    "compare",
    "compare_features",
    "fit_prior",
    "frechet_distance",
    "from_decoder",
    "gradient_statistics",
    "kernel_distance",
    "load_images",
    "load_run",
    "log_likelihood",
    "log_marginal_likelihood",
    "log_prior",
    "make_batch",
    "make_model",
    "make_schedule",
    "quadrature_weights",
    "tempered_chains",
    "thermodynamic_integral",
    "thermodynamic_loss",
    "to_uint8",
    "to_unit",
    "train_run",
    "vanilla_loss",
]

# Where each name is defined. Modules are loaded on first use: programs set up JAX before that.
_MODULES = {
    "Batch": "types",
    "ChainSettings": "sampling.chains",
    "Ladder": "sampling.path",
    "LatentEBM": "models.latent_ebm",
    "LossSettings": "losses",
    "Networks": "models.own",
    "SamplerSettings": "sampling.chains",
    "Schedule": "thermo.schedule",
    "MetricSettings": "evaluation.metric_settings",
    "UserError": "errors",
    "compare": "evaluation.any_sets",
    "PriorFitSettings": "train.prior_fit",
    "compare_features": "metrics.paired",
    "fit_prior": "train.prior_fit",
    "frechet_distance": "metrics.fid",
    "from_decoder": "models.latent_ebm",
    "gradient_statistics": "gradients.statistics",
    "kernel_distance": "metrics.kid",
    "load_images": "evaluation.sets",
    "load_run": "evaluation.run",
    "log_likelihood": "models.latent_ebm",
    "log_marginal_likelihood": "likelihood",
    "log_prior": "models.latent_ebm",
    "make_batch": "types",
    "make_model": "models.latent_ebm",
    "make_schedule": "thermo.schedule",
    "quadrature_weights": "thermo.integral",
    "tempered_chains": "sampling.chains",
    "thermodynamic_integral": "thermo.integral",
    "thermodynamic_loss": "losses",
    "to_uint8": "data",
    "to_unit": "data",
    "train_run": "evaluation.training",
    "vanilla_loss": "losses",
}

prevent_hangs()


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
