"""Settings of the chains, to be applied to a configuration: the paper's, and those that arrive.

docs/guides/arriving.md says which to use when, with measurements.
"""

from ml_collections import ConfigDict

# The paper's chains: from p0, unadjusted, with fixed step sizes.
PAPER = {
    "loss.reference": "prior",
    "loss.correction": "ratio",
    "sampler.start": "prior",
    "sampler.adapt_step_sizes": False,
    "sampler.chains_per_image": 2,
    "sampler.exchange_every": 0,
    "sampler.prior.kernel": "ula",
    "sampler.prior.persistent": False,
    "sampler.posterior.kernel": "ula",
}
# From the linear reference: two Hamiltonian trajectories at t = 1 alone.
LINEAR = {
    "loss.reference": "linear",
    "loss.num_temperatures": 1,
    "loss.correction": "none",
    "sampler.start": "reference",
    "sampler.adapt_step_sizes": True,
    "sampler.chains_per_image": 1,
    "sampler.exchange_every": 0,
    "sampler.prior.kernel": "hmc",
    "sampler.prior.persistent": True,
    "sampler.prior.step_size": 0.5,
    "sampler.prior.num_steps": 20,
    "sampler.posterior.kernel": "hmc",
    "sampler.posterior.step_size": 0.5,
    "sampler.posterior.num_steps": 2,
}


def from_linear_reference(config: ConfigDict) -> ConfigDict:
    """Sets the chains to `LINEAR`; returns the configuration, which is changed."""
    config.update_from_flattened_dict(LINEAR)
    return config
