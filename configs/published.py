"""The paper's published form of the thermodynamic loss, for any configuration.

`published(config)` changes a configuration to the published form; experiments in the published form
add the fields of `PUBLISHED` to those that their cells change.
"""

from typing import Any

from ml_collections import ConfigDict
from thermo_ebm.configs.chains import PAPER

# The paper's chains, one for each image and temperature; eq. 24 as printed, with divergences of
# latents pooled over the batch, and no gradient for the prior, which is the effect of the published
# code.
PUBLISHED: dict[str, Any] = PAPER | {
    "sampler.chains_per_image": 1,
    "loss.schedule": "power",
    "loss.quadrature": "trapezium",
    "loss.correction": "pooled_gaussian",
    "loss.kl_form": "sum",
    "loss.prior_gradient": "none",
    "loss.generator_gradient": "detached",
}


def published(config: ConfigDict) -> ConfigDict:
    """Returns the configuration in the published form, changed in place."""
    config.update_from_flattened_dict(PUBLISHED)
    return config
