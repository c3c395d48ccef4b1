"""A loss split into steps for training: chains once, then the gradient of each half-batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

from thermo_ebm.losses import thermodynamic as ti
from thermo_ebm.losses import vanilla as ml
from thermo_ebm.losses.settings import LossSettings, check_settings, is_differentiated
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import SamplerSettings, TemperedChains
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey


class Objective(NamedTuple):
    """A loss with detached chains in three steps, and as one function.

    `surrogate` can be applied to a part of the images and their latents: images are independent.
    """

    draw: Callable[[Params, Batch, PRNGKey, Schedule], TemperedChains]
    surrogate: Callable[[Params, Array, Array, Schedule], tuple[Array, Any]]
    summary: Callable[[Any, TemperedChains, Array, Schedule], tuple[Array, Any]]
    loss: Callable[[Params, Batch, PRNGKey, Schedule | None], tuple[Array, Any]]
    differentiated: bool  # the gradient goes through the chains: only `loss` computes it
    mean_of_images: bool  # the gradient is a mean over images


def vanilla_objective(
    model: LatentEBM, sampler: SamplerSettings, axis_name: str | None
) -> Objective:
    """The vanilla loss, which ignores schedules."""
    return Objective(
        draw=lambda params, batch, key, _: ml.vanilla_draws(model, params, batch, key, sampler),
        surrogate=lambda params, images, latents, _: ml.vanilla_surrogate(
            model, params, images, latents, sampler
        ),
        summary=lambda parts, chains, mask, _: ml.vanilla_summary(parts, chains, mask, axis_name),
        loss=lambda params, batch, key, _: ml.vanilla_loss(
            model, params, batch, key, sampler, axis_name
        ),
        differentiated=False,
        mean_of_images=True,
    )


def thermodynamic_objective(
    model: LatentEBM, sampler: SamplerSettings, settings: LossSettings, axis_name: str | None
) -> Objective:
    """The thermodynamic loss.

    Raises:
      ValueError: settings that do not fit together.
    """
    check_settings(settings, sampler)
    differentiated = is_differentiated(settings)
    return Objective(
        draw=lambda params, batch, key, schedule: ti.thermodynamic_draws(
            model, params, batch, key, sampler, settings, schedule
        ),
        surrogate=lambda params, images, latents, schedule: ti.thermodynamic_surrogate(
            model, params, images, latents, sampler, settings, schedule
        ),
        summary=lambda parts, chains, mask, schedule: ti.thermodynamic_summary(
            parts, chains, mask, settings, schedule, axis_name
        ),
        loss=lambda params, batch, key, schedule: ti.thermodynamic_loss(
            model, params, batch, key, sampler, settings, axis_name, schedule
        ),
        differentiated=differentiated,
        # The divergences of pooled latents do not belong to single images.
        mean_of_images=not (differentiated and settings.correction == "pooled_gaussian"),
    )
