"""What can be chosen of the thermodynamic loss."""

from typing import NamedTuple

PRIOR_GRADIENTS = ("langevin", "contrastive", "none")
GENERATOR_GRADIENTS = ("langevin", "detached", "posterior")


class LossSettings(NamedTuple):
    """The thermodynamic loss: its schedule, its quadrature, and where its gradients come from."""

    num_temperatures: int = 10  # N_t
    schedule: str = "power"
    power: float = 1.0  # p
    quadrature: str = "trapezium"
    kl_form: str = "difference"  # "none" leaves the correction out
    kl_weight: float = 1.0  # eta
    kl_shrinkage: str = "oas"
    prior_gradient: str = "contrastive"
    generator_gradient: str = "detached"


def check_settings(settings: LossSettings) -> None:
    """Raises ValueError for a gradient that does not exist; the rest is checked where used."""
    for field, names in (
        ("prior_gradient", PRIOR_GRADIENTS),
        ("generator_gradient", GENERATOR_GRADIENTS),
    ):
        name = getattr(settings, field)
        if name not in names:
            raise ValueError(f"{field} must be one of {', '.join(names)}, not {name!r}.")
