"""The objectives: maximum likelihood (vanilla), thermodynamic integration, an encoder's bounds.

A loss is in nats per image. Its value and the estimator of its gradient are chosen separately: the
estimator is a field of `LossSettings` and does not change the value.
"""

from thermo_ebm.losses.elbo import encoder_objective
from thermo_ebm.losses.settings import (
    CORRECTIONS,
    GENERATOR_GRADIENTS,
    PRIOR_GRADIENTS,
    REFERENCES,
    STARTS,
    VANILLA,
    EncoderSettings,
    LossSettings,
    check_settings,
    is_differentiated,
    is_mean_of_images,
    path_settings,
)
from thermo_ebm.losses.thermodynamic import (
    LossTerms,
    Objective,
    log_likelihoods,
    make_objective,
    thermodynamic_loss,
)
from thermo_ebm.losses.vanilla import is_vanilla, vanilla_loss, vanilla_objective

__all__ = [
    "CORRECTIONS",
    "GENERATOR_GRADIENTS",
    "PRIOR_GRADIENTS",
    "REFERENCES",
    "STARTS",
    "VANILLA",
    "EncoderSettings",
    "LossSettings",
    "LossTerms",
    "Objective",
    "check_settings",
    "encoder_objective",
    "is_differentiated",
    "is_mean_of_images",
    "is_vanilla",
    "log_likelihoods",
    "make_objective",
    "path_settings",
    "thermodynamic_loss",
    "vanilla_loss",
    "vanilla_objective",
]
