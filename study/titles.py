"""What data sets, metrics and readings are called on axes, in tables and in captions."""

from collections.abc import Collection
from typing import NamedTuple

from thermo_ebm import readings

DATASET_TITLES = {
    "celeb_a": "CelebA",
    "cifar10": "CIFAR-10",
    "svhn_cropped": "SVHN",
    "digits": "digits",
}
PUBLISHED_NETWORK = "inception_v3_jax_fid"
NETWORK_TITLES = {
    PUBLISHED_NETWORK: "InceptionV3 (jax-fid)",
    "inception_v3": "InceptionV3",
    "inception_v3_antialias": "InceptionV3 (antialiased)",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "dinov2_vits14": "DINOv2 ViT-S/14",
    "dinov2_vitb14": "DINOv2 ViT-B/14",
    "dinov2_vitl14": "DINOv2 ViT-L/14",
    "clip_vitl14_336": "CLIP ViT-L/14, 336 pixels",
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
    "cmmd": "CMMD",
    "cmmd_published": "CMMD (published form)",
    "mind": "MIND",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}

NOISE = "train_update_noise"  # of what the optimisers were given
LIKELIHOOD = "val_log_marginal_likelihood"
HOURS = "hours"  # of training, summed over the epochs' seconds
ENTRY_VARIANCE = readings.title("train_grad_var")  # the paper's "gradient variance"
UPDATE_NOISE = readings.title(NOISE)


class MetricColumn(NamedTuple):
    """A column of eval.csv: ``<network>_<metric>``."""

    network: str
    metric: str


def split_metric(column: str) -> MetricColumn | None:
    """Returns the network and the metric of a column; None for any other column.

    The name is split before the metric: a network's name may be the beginning of another's.
    """
    for metric in METRIC_TITLES:
        network = column.removesuffix(f"_{metric}")
        if network != column:
            return MetricColumn(network, metric)
    return None


def reading_title(column: str) -> str:
    """Returns the name of a reading, with the network that computed it where it is a metric."""
    metric = split_metric(column)
    if metric is not None:
        network = NETWORK_TITLES.get(metric.network, metric.network)
        return f"{METRIC_TITLES[metric.metric]}, {network}"
    return "training time (h)" if column == HOURS else readings.title(column)


def reading_columns(columns: Collection[str]) -> list[str]:
    """Returns the columns of readings worth a table: those with a title.

    The variance over entries is first; the metrics follow, and then the other readings.
    """
    first = "train_grad_var"
    titled = [name for name, reading in readings.READINGS.items() if reading.title]
    metrics = [
        name
        for metric in METRIC_TITLES
        for name in columns
        if (column := split_metric(name)) and column.metric == metric
    ]
    return [name for name in dict.fromkeys([first, *metrics, *titled, HOURS]) if name in columns]


def dataset_title(dataset: str) -> str:
    """Returns the data set's name as papers write it; what distinguishes its images stays."""
    name, space, rest = dataset.partition(" ")
    return f"{DATASET_TITLES.get(name, name)}{space}{rest}"
