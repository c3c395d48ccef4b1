"""Image metrics: feature networks, distances with errors, paired comparisons. Knows no models.

Everything that a script needs is available under this name:

>>> import numpy as np
>>> from thermo_ebm import metrics
>>> rng = np.random.default_rng(0)
>>> real, near, far = rng.normal(size=(3, 200, 8)) + np.array([0, 0.1, 1])[:, None, None]
>>> metrics.frechet_distance(real, near) < metrics.frechet_distance(real, far)
True
>>> result = metrics.compare_features(real, {"near": near, "far": far}, num_sizes=4)
>>> result.values["near"]["kid"] < result.values["far"]["kid"]
True

Names are loaded when they are used; docs/metrics_alone.md has a complete example.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thermo_ebm.metrics.cmmd import clip_mmd
    from thermo_ebm.metrics.fid import frechet_distance
    from thermo_ebm.metrics.kid import kernel_distance
    from thermo_ebm.metrics.manifold import manifold_metrics
    from thermo_ebm.metrics.memorization import authenticity
    from thermo_ebm.metrics.mifid import memorization_informed_distance
    from thermo_ebm.metrics.mind import monge_distance
    from thermo_ebm.metrics.networks import choose as choose_network
    from thermo_ebm.metrics.paired import compare_features

__all__ = [
    "authenticity",
    "choose_network",
    "clip_mmd",
    "compare_features",
    "frechet_distance",
    "kernel_distance",
    "manifold_metrics",
    "memorization_informed_distance",
    "monge_distance",
]

# Where each name is defined, and what it is called there.
_PLACES = {
    "authenticity": ("memorization", "authenticity"),
    "choose_network": ("networks", "choose"),
    "clip_mmd": ("cmmd", "clip_mmd"),
    "compare_features": ("paired", "compare_features"),
    "frechet_distance": ("fid", "frechet_distance"),
    "kernel_distance": ("kid", "kernel_distance"),
    "manifold_metrics": ("manifold", "manifold_metrics"),
    "memorization_informed_distance": ("mifid", "memorization_informed_distance"),
    "monge_distance": ("mind", "monge_distance"),
}


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
