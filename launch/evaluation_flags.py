"""The flags of an evaluation, which `launch.eval`, `launch.sweep` and `launch.compare` share."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from thermo_ebm.evaluation.evaluate import Settings

flags.disclaim_key_flags()  # the flags are those of the program that asks for them


def define(
    num_images: str = "Images generated, and real ones used; 0 is all validation images, 4500 at"
    " most.",
) -> None:
    """Defines the flags of the network and of how many images it sees, described as given."""
    flags.DEFINE_string(
        "features",
        "efficientnet_lite0",
        "The network: efficientnet_lite0, inception_v3, or your own as MODULE:FUNCTION.",
    )
    flags.DEFINE_string(
        "resize",
        "bilinear",
        "How images are resized: bilinear, as pytorch-fid does, or antialias, as clean-fid does.",
    )
    flags.DEFINE_string("inception_weights", None, "File of InceptionV3's FID weights.")
    flags.DEFINE_string("cache_dir", None, "Folder for weights and features of images.")
    flags.DEFINE_integer("num_images", 0, num_images)
    flags.DEFINE_integer("num_sizes", 10, "Number of subset sizes in the extrapolation.")


def settings() -> "Settings":
    """What these flags say; everything else as by default."""
    from thermo_ebm.evaluation.evaluate import Settings

    values = flags.FLAGS
    return Settings(
        features=values.features,
        resize=values.resize,
        inception_weights=values.inception_weights,
        cache_dir=values.cache_dir,
        num_images=values.num_images,
        num_sizes=values.num_sizes,
    )
