"""Latent-space energy-based prior models trained by thermodynamic integration, in JAX.

Everything a script needs is here under one name:

>>> import jax
>>> import thermo_ebm as te
>>> model = te.make_model(
...     channels=1, latent_dim=8, generator_features=4, generator_widths=(2, 1),
...     generator_strides=(1, 2, 1),
... )
>>> params = model.init(jax.random.key(0))
>>> batch = te.make_batch(jax.numpy.zeros((3, 8, 8, 1)))
>>> sampler = te.SamplerSettings(te.ChainSettings(0.1, 5), te.ChainSettings(0.01, 5))
>>> settings = te.LossSettings(num_temperatures=4, power=3.0)
>>> loss, parts = te.thermodynamic_loss(
...     model, params, batch, jax.random.key(1), sampler, settings
... )
>>> parts.expected_log_likelihood.shape  # E_i at t_0 = 0 .. t_4 = 1
(5,)

Importing the package loads none of its parts before they are used, touches no device and compiles
nothing. It sets the environment variable `NPROC` where the user has not (see
`thermo_ebm.runtime.prevent_hangs`): with fewer threads XLA's CPU client can wait for ever.
"""

import importlib
from typing import TYPE_CHECKING, Any

from thermo_ebm.runtime import prevent_hangs

if TYPE_CHECKING:
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation.run import load_run
    from thermo_ebm.gradients.statistics import gradient_statistics
    from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
    from thermo_ebm.metrics.fid import frechet_distance
    from thermo_ebm.metrics.kid import kernel_distance
    from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, log_prior, make_model
    from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
    from thermo_ebm.thermo.integral import thermodynamic_integral
    from thermo_ebm.types import Batch, Params, make_batch

__all__ = [
    "Batch",
    "ChainSettings",
    "LatentEBM",
    "LossSettings",
    "Params",
    "SamplerSettings",
    "UserError",
    "frechet_distance",
    "gradient_statistics",
    "kernel_distance",
    "load_run",
    "log_likelihood",
    "log_prior",
    "make_batch",
    "make_model",
    "tempered_chains",
    "thermodynamic_integral",
    "thermodynamic_loss",
    "vanilla_loss",
]

# Where each name is defined. Loaded on first use: programs set JAX up before they import it.
_MODULES = {
    "Batch": "types",
    "ChainSettings": "sampling.chains",
    "LatentEBM": "models.latent_ebm",
    "LossSettings": "losses",
    "Params": "types",
    "SamplerSettings": "sampling.chains",
    "UserError": "errors",
    "frechet_distance": "metrics.fid",
    "gradient_statistics": "gradients.statistics",
    "kernel_distance": "metrics.kid",
    "load_run": "evaluation.run",
    "log_likelihood": "models.latent_ebm",
    "log_prior": "models.latent_ebm",
    "make_batch": "types",
    "make_model": "models.latent_ebm",
    "tempered_chains": "sampling.chains",
    "thermodynamic_integral": "thermo.integral",
    "thermodynamic_loss": "losses",
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
