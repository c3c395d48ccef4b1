"""What readings and metrics are called on axes, in tables and in captions."""

from typing import NamedTuple

PUBLISHED_NETWORK = "inception_v3_jax_fid"
NETWORK_TITLES = {
    PUBLISHED_NETWORK: "InceptionV3 (jax-fid)",
    "inception_v3": "InceptionV3",
    "inception_v3_antialias": "InceptionV3 (antialiased)",
    "efficientnet_lite0": "EfficientNet-Lite0",
}
METRIC_TITLES = {  # in a table's order
    "kid_inf": "KID∞",
    "kid_rbf_inf": "KID∞ (RBF)",
    "fid_inf": "FID∞",
    "mifid_inf": "MIFID∞",
    "is_inf": "IS∞",
    "kid": "KID",
    "kid_rbf": "KID (RBF)",
    "fid": "FID",
    "mifid": "MIFID",
    "is": "IS",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}

ENTRY_VARIANCE = "variance over entries"  # of one gradient vector: the paper's "gradient variance"
UPDATE_NOISE = "gradient noise of the update"  # of what the optimisers were given
LIKELIHOOD = "val_log_likelihood"
READING_TITLES = {
    "train_grad_var": ENTRY_VARIANCE,
    "train_grad_var_prior": f"{ENTRY_VARIANCE} (prior)",
    "train_grad_var_generator": f"{ENTRY_VARIANCE} (generator)",
    "train_loss": "training loss (nats)",
    "val_loss": "training objective on held-out images (nats)",
    LIKELIHOOD: "held-out log-likelihood, nats",
    "train_grad_noise": "gradient noise, from the batch's halves",
    "train_grad_noise_prior": "gradient noise (prior), from the batch's halves",
    "train_grad_noise_generator": "gradient noise (generator), from the batch's halves",
    "train_update_noise": UPDATE_NOISE,
    "train_grad_signal": "gradient signal",
    "train_noise_scale": "noise scale (images)",
    "grad_noise": "gradient noise, from repeated draws",
    "grad_noise_batch": "gradient noise of the batch",
    "grad_noise_mcmc": "gradient noise of the chains",
    "grad_noise_relative": "gradient noise / squared mean gradient",
    "dial_amplification": "amplification",
    "dial_saturated": "dial saturated",
    "effective_sample_size": "effective chains per image",
    "acceptance_prior": "acceptance, prior's chains",
    "acceptance_posterior": "acceptance, posterior's chains",
    "swap_rate": "swap rate",
    "global_barrier": "global barrier",
    "skipped_steps": "skipped steps",
    "images_per_second": "images per second",
    "hours": "training time (h)",
}


class MetricColumn(NamedTuple):
    """A column of eval.csv: ``<network>_<metric>``."""

    network: str
    metric: str


def split_metric(column: str) -> MetricColumn | None:
    """Returns the network and the metric of a column; None for any other column.

    The metric decides, not the network: ``inception_v3`` is how other networks' names begin too.
    """
    for metric in METRIC_TITLES:
        network = column.removesuffix(f"_{metric}")
        if network != column:
            return MetricColumn(network, metric)
    return None


def reading_title(column: str) -> str:
    """Returns the name of a reading, with the network that made it where it is a metric."""
    found = split_metric(column)
    if column in READING_TITLES or found is None:
        return READING_TITLES.get(column, column.replace("_", " "))
    network = NETWORK_TITLES.get(found.network, found.network)
    return f"{METRIC_TITLES[found.metric]}, {network}"
