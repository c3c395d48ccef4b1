"""Settings that evaluations of a run and comparisons of two sets share: network and numbers."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import runtime
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.records import Extent
from thermo_ebm.metrics import networks, subsets
from thermo_ebm.metrics.networks import Network, cache
from thermo_ebm.metrics.summary import MIN_IMAGES

MAX_IMAGES = 4500  # images per set unless more are requested; the number of the paper's metrics


class MetricSettings(NamedTuple):
    """How the metrics between two sets of images are computed."""

    features: str = "efficientnet_lite0"  # the feature network, or a user's as MODULE:FUNCTION
    resize: str = "bilinear"
    weights: str | None = None  # file of the network's weights
    cache_dir: str | None = None  # of weights and of real images' features
    num_images: int = 0  # of each set; 0 is all images, at most `MAX_IMAGES`
    num_sizes: int = 10  # of the extrapolation's subsets, at least 3
    batch_size: int = 100  # images at once

    def label(self) -> str:
        """The prefix of the network's columns and files; see `networks.label`."""
        return networks.label(self.features, self.resize, self.weights)

    def cache_folder(self) -> Path:
        """The folder of weights and of real images' features."""
        return Path(runtime.expand_home(self.cache_dir)) if self.cache_dir else cache.default_dir()

    def extent(self, config: ConfigDict) -> Extent:
        """The evaluations of a run with this configuration, and how many images they generate.

        Raises:
          UserError: there are fewer validation images, or too few for the extrapolation.
        """
        num_val = config.data.num_val
        number = self.num_images or min(num_val, MAX_IMAGES)
        if number > num_val:
            raise UserError(f"num_images={number}: more than the {num_val} validation images")
        self.subset_sizes(number, "num_images")
        return Extent(self.label(), number, self.num_sizes)

    def choose_network(self) -> Network:
        """The feature network, with its weights.

        Raises:
          UserError: there is no such network, or its weights are missing.
        """
        return networks.choose(self.features, self.resize, self.weights, self.cache_folder())

    def subset_sizes(self, num_images: int, name: str) -> tuple[int, ...]:
        """The sizes of the extrapolation's subsets, ascending; the last is all images.

        Args:
          num_images: in the smaller set.
          name: of that set, for the error.

        Raises:
          UserError: there are too few images.
        """
        if num_images < MIN_IMAGES:
            raise UserError(f"{name}: {num_images} images are too few, at least {MIN_IMAGES}")
        try:
            return subsets.extrapolation_sizes(num_images, self.num_sizes)
        except ValueError as error:
            raise UserError(
                f"{name}: {num_images} images are too few for the metrics of num_sizes="
                f"{self.num_sizes} different numbers of images; use more images or fewer sizes"
            ) from error
