"""The flags of metrics, which `launch.eval`, `launch.sweep` and `launch.compare` share."""

from __future__ import annotations

from absl import flags

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.evaluation.metric_settings import MetricSettings

flags.disclaim_key_flags()  # the flags belong to the program that defines them


def define(
    num_images: str = "Number of generated and of real images; 0 means all validation images, at"
    " most 4500.",
) -> None:
    """Defines the flags of the feature network; `num_images` is the help of --num_images."""
    flags.DEFINE_string(
        "features",
        "efficientnet_lite0",
        "Feature network, such as efficientnet_lite0 or inception_v3 (docs/metrics.md has all), or"
        " your own as MODULE:FUNCTION.",
    )
    flags.DEFINE_string(
        "resize",
        "",
        "Resizing of images: bilinear (as in pytorch-fid), antialias (clean-fid), pillow (dgm-eval)"
        " or tensorflow (TTUR); by default that of the network.",
    )
    DEFINE_path("weights", None, "File with the feature network's published weights.")
    flags.DEFINE_alias("inception_weights", "weights")
    DEFINE_path(
        "cache_dir",
        None,
        "Folder for weights and for features of real images; by default ~/.cache/thermo_ebm.",
    )
    flags.DEFINE_string(
        "protocol",
        "default",
        "How published figures are made: default, pang2020, pytorch_fid, clean_fid or dgm_eval"
        " (docs/metrics.md); sets network, resizing and numbers of images.",
    )
    flags.DEFINE_integer("num_images", 0, num_images, lower_bound=0)
    flags.DEFINE_integer(
        "num_sizes", 10, "Number of subset sizes in the extrapolation.", lower_bound=3
    )


def define_batch_size() -> None:
    """Defines --batch_size, for the programs of one run or comparison."""
    flags.DEFINE_integer("batch_size", 100, "Images per batch.", lower_bound=1)


def settings() -> MetricSettings:
    """The settings given by the flags that are defined; other settings have their defaults.

    Raises:
      UserError: there is no such protocol, or it fixes something else than a flag.
    """
    values = flags.FLAGS
    return MetricSettings(
        **{field: getattr(values, field) for field in MetricSettings._fields if field in values}
    ).with_protocol()
