"""Direct maximum likelihood: the preset of the thermodynamic loss with eq. 6 and 7 as gradient."""

from thermo_ebm.losses.settings import VANILLA, LossSettings
from thermo_ebm.losses.thermodynamic import LossTerms, Objective, make_objective
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import SamplerSettings
from thermo_ebm.types import Array, Batch, Params, PRNGKey


def is_vanilla(settings: LossSettings) -> bool:
    """Whether these are the settings of the vanilla loss, from either reference, with any L2."""
    return settings._replace(reference=VANILLA.reference, prior_l2=VANILLA.prior_l2) == VANILLA


def vanilla_objective(
    model: LatentEBM, sampler: SamplerSettings, axis_name: str | None = None
) -> Objective:
    """The vanilla loss; its two temperatures exchange no states. Arguments of `make_objective`."""
    return make_objective(model, sampler._replace(exchange_every=0), VANILLA, axis_name)


def vanilla_loss(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
) -> tuple[Array, LossTerms]:
    """The loss whose gradient is the maximum-likelihood gradient of eq. 6 and 7, chains detached.

    L = -(E_post[log p_beta(x | z)] + E_post[f_alpha(z)] - E_prior[f_alpha(z)])

    The value of L is not the negative log-likelihood; for converged chains, its gradient is that of
    the negative log-likelihood.

    Args:
      model: the model.
      params: alpha and beta.
      batch: the examples.
      key: consumed.
      sampler: the chains.

    Returns:
      The loss over the batch, a scalar in nats per image, and its terms; of the expected
      log-likelihoods only the last, that of the posterior, is computed.

    Raises:
      ValueError: for an unknown kernel, fewer than one chain per image, a `batch` or `key` that is
        none, or images that are not in [-1, 1].
    """
    return vanilla_objective(model, sampler).loss(params, batch, key, None)
