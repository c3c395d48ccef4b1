"""Settings of a loss, and the rules which of them fit together."""

from typing import NamedTuple

from ml_collections import ConfigDict

from thermo_ebm.fields import ENCODER_LOSSES
from thermo_ebm.sampling.chains import SamplerSettings
from thermo_ebm.sampling.kernels import find_kernel
from thermo_ebm.sampling.path import PathSettings, is_learned
from thermo_ebm.thermo.integral import KL_FORMS, QUADRATURES
from thermo_ebm.thermo.schedule import CURVES

PRIOR_GRADIENTS = ("langevin", "contrastive", "none")
GENERATOR_GRADIENTS = ("langevin", "detached", "posterior", "reweighted")
CORRECTIONS = ("none", "ratio", "pooled_gaussian")
VALUES = ("integral", "surrogate")
REFERENCES = ("prior", "linear")
STARTS = ("prior", "reference")


class EncoderSettings(NamedTuple):
    """A loss that samples the posterior by an encoder in place of chains."""

    bound: str = "elbo"  # in `losses.elbo.BOUNDS`
    num_importance_samples: int = 1  # K, of each image
    gradient: str = "reparameterized"  # in `losses.elbo.ESTIMATORS`


class LossSettings(NamedTuple):
    """A loss: its schedule, its quadrature, its value, and the estimators of its gradients.

    The defaults are those of a configuration's fields.

    >>> from thermo_ebm.configs import digits_paper
    >>> LossSettings.from_config(digits_paper.get_config()).num_temperatures
    4
    """

    num_temperatures: int = 10  # N_t
    schedule: str = "power"
    power: float = 1.0  # p
    quadrature: str = "warped_trapezium"
    correction: str = "ratio"  # of the quadrature: "none", or the paper's "pooled_gaussian"
    kl_form: str = "difference"  # or "sum", as printed
    kl_weight: float = 1.0  # eta
    prior_gradient: str = "contrastive"
    generator_gradient: str = "reweighted"
    value: str = "integral"  # "surrogate": the value of what is differentiated, no likelihood
    reference: str = "prior"  # at t = 0: p_alpha (the paper's), or "linear", q(z | x)
    prior_l2: float = 0.0  # of E_0[f^2] + E_1[f^2], in the gradient
    encoder: EncoderSettings | None = None  # None: chains of the posterior

    @classmethod
    def from_config(cls, config: ConfigDict) -> "LossSettings":
        """The settings of the loss of a complete configuration."""
        loss = config.loss
        if loss.name in ENCODER_LOSSES:
            of_encoder = loss.name, loss.num_importance_samples, loss.encoder_gradient
            return VANILLA._replace(encoder=EncoderSettings(*of_encoder), prior_l2=loss.prior_l2)
        if loss.name == "vanilla":
            return VANILLA._replace(reference=loss.reference, prior_l2=loss.prior_l2)
        return cls(**{field: loss[field] for field in cls._fields if field in loss})


# The vanilla loss as a preset: two temperatures, those of prior and posterior.
VANILLA = LossSettings(
    num_temperatures=1,
    correction="none",
    prior_gradient="contrastive",
    generator_gradient="posterior",
    value="surrogate",
)


def path_settings(settings: LossSettings, sampler: SamplerSettings) -> PathSettings:
    """Which path a loss's chains take, and what of it a run learns.

    Chains from the linear reference, and Hamiltonian ones, move in the metric of the path. A loss
    with an encoder has chains of the prior alone.
    """
    posterior = sampler.posterior
    if settings.encoder is not None:
        first = (sampler.prior.step_size, posterior.step_size) if sampler.prior.adapt else None
        return PathSettings(first_step_sizes=first)
    has_leapfrog = find_kernel(posterior.kernel, posterior.num_leapfrog).with_leapfrog is not None
    first = (sampler.prior.step_size, posterior.step_size) if posterior.adapt else None
    return PathSettings(settings.reference, settings.reference == "linear" or has_leapfrog, first)


def is_differentiated(settings: LossSettings) -> bool:
    """Whether a gradient goes through the steps of the chains."""
    return "langevin" in (settings.prior_gradient, settings.generator_gradient)


def is_mean_of_images(settings: LossSettings) -> bool:
    """Whether the gradient is a mean over images, so that it has halves.

    The divergences of pooled latents do not belong to single images.
    """
    return not (is_differentiated(settings) and settings.correction == "pooled_gaussian")


def check_settings(settings: LossSettings, sampler: SamplerSettings) -> None:
    """Refuses unknown names, and settings that do not fit together.

    Raises:
      ValueError: the message names the field.
    """
    for field, names in (
        ("schedule", CURVES),
        ("quadrature", QUADRATURES),
        ("correction", CORRECTIONS),
        ("kl_form", KL_FORMS),
        ("prior_gradient", PRIOR_GRADIENTS),
        ("generator_gradient", GENERATOR_GRADIENTS),
        ("value", VALUES),
        ("reference", REFERENCES),
        ("start", STARTS),
    ):
        name = getattr(sampler if field == "start" else settings, field)
        if name not in names:
            raise ValueError(f"{field} must be one of {', '.join(names)}, not {name!r}.")
    kernels = [
        find_kernel(chain.kernel, chain.num_leapfrog)
        for chain in (sampler.prior, sampler.posterior)
    ]
    if sampler.start == "reference" and settings.reference != "linear":
        raise ValueError("start 'reference' needs reference 'linear'.")
    if sampler.chains_per_image < 1:
        raise ValueError(f"chains_per_image must be at least 1, not {sampler.chains_per_image}.")
    if settings.quadrature == "warped_simpson" and settings.num_temperatures % 2:
        raise ValueError("quadrature 'warped_simpson' needs an even num_temperatures.")
    if settings.kl_form == "sum" and settings.quadrature != "trapezium":
        raise ValueError("kl_form 'sum' needs quadrature 'trapezium'.")
    if settings.correction == "ratio" and sampler.chains_per_image < 2:
        raise ValueError("correction 'ratio' needs chains_per_image of at least 2.")
    if sampler.exchange_every and settings.num_temperatures < 2:
        raise ValueError("exchange_every needs num_temperatures of at least 2.")
    if settings.prior_l2 and settings.prior_gradient != "contrastive":
        raise ValueError("prior_l2 needs prior_gradient 'contrastive'.")
    if not is_differentiated(settings):
        return
    if settings.value != "integral":
        raise ValueError("gradient 'langevin' needs value 'integral'.")
    if is_learned(path_settings(settings, sampler)) or sampler.prior.persistent:
        raise ValueError(
            "gradient 'langevin' needs reference 'prior', fixed step sizes (adapt_step_sizes "
            "False) and chains of the prior that begin at p0 (persistent False)."
        )
    if any(kernel.adjusted for kernel in kernels) or sampler.exchange_every:
        raise ValueError(
            "gradient 'langevin' needs unadjusted chains without exchange: kernel 'ula' and "
            "exchange_every 0."
        )
