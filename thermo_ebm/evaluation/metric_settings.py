"""Settings that evaluations of a run and comparisons of two sets share: network and numbers."""

from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import runtime
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import protocols
from thermo_ebm.evaluation.protocols import Protocol
from thermo_ebm.evaluation.records import Extent, half_columns
from thermo_ebm.metrics import networks, subsets
from thermo_ebm.metrics.networks import Network, cache
from thermo_ebm.metrics.summary import MIN_IMAGES


class MetricSettings(NamedTuple):
    """How the metrics between two sets of images are computed."""

    features: str = "efficientnet_lite0"  # the feature network, or a user's as MODULE:FUNCTION
    resize: str = ""  # "" is the network's own
    weights: str | None = None  # file of the network's weights
    cache_dir: str | None = None  # of weights and of real images' features
    num_images: int = 0  # of each set; 0 is the protocol's number
    num_sizes: int = 10  # of the extrapolation's subsets, at least 3
    batch_size: int = 100  # images at once
    protocol: str = "default"  # see `protocols`
    memorization: bool = False  # whether checkpoints are also compared with training images
    keep_best: str | None = None  # the metric of which both halves of the images are evaluated

    def with_protocol(self) -> "MetricSettings":
        """The settings with what their protocol fixes.

        Raises:
          UserError: there is no such protocol, or it fixes something else than the settings.
        """
        protocol, default = self.choose_protocol(), MetricSettings()
        for field in ("features", "resize"):
            value, fixed = getattr(self, field), getattr(protocol, field)
            if fixed and value not in (fixed, getattr(default, field)):
                raise UserError(f"{field}={value}: protocol={protocol.name} has {field}={fixed}")
        return self._replace(
            features=protocol.features or self.features, resize=protocol.resize or self.resize
        )

    def choose_protocol(self) -> Protocol:
        """The protocol; UserError if there is none of this name."""
        return protocols.find(self.protocol)

    def max_images(self) -> int:
        """The largest number of images of a set; 0 for all."""
        return self.num_images or self.choose_protocol().max_images

    def label(self) -> str:
        """The prefix of columns and files: the protocol's unless it is the default, the network's.

        Figures of different protocols never share a column.
        """
        protocol = self.choose_protocol()
        prefix = "" if protocol.name == "default" else f"{protocol.name}_"
        return f"{prefix}{self.network_label()}"

    def network_label(self) -> str:
        """The name of the network, see `networks.label`."""
        return networks.label(self.features, self.resize, self.weights)

    def cache_folder(self) -> Path:
        """The folder of weights and of real images' features."""
        return Path(runtime.expand_home(self.cache_dir)) if self.cache_dir else cache.default_dir()

    def extent(self, config: ConfigDict) -> Extent:
        """The evaluations of a run with this configuration, and how many images they generate.

        Raises:
          UserError: there are fewer validation images, or too few for the extrapolation.
        """
        num_val, protocol = config.data.num_val, self.choose_protocol()
        if protocol.reference == "training":
            number, num_real = self.num_images or protocol.num_images, config.data.num_train
        else:
            number = self.num_images or min(num_val, protocol.max_images or num_val)
            num_real = number
            if number > num_val:
                raise UserError(f"num_images={number}: more than the {num_val} validation images")
        self.subset_sizes(min(number, num_real), "num_images")
        return Extent(self.label(), number, self.num_sizes)

    def required_columns(self) -> list[str]:
        """Columns without which a checkpoint counts as not evaluated."""
        label = self.label()
        columns = [f"{label}_authenticity"] if self.memorization else []
        if self.keep_best:
            columns += half_columns(label, self.keep_best)
        return columns

    def choose_network(self) -> Network:
        """The feature network, with its weights.

        Raises:
          UserError: there is no such network, or its weights are missing.
        """
        return networks.choose(self.features, self.resize, self.weights, self.cache_folder())

    def subset_sizes(self, num_images: int, name: str) -> tuple[int, ...]:
        """The sizes of the extrapolation's subsets, ascending; the last is all images.

        There are none where only the FID is computed, see `protocols.MAX_ALL_METRICS`.

        Args:
          num_images: in the smaller set.
          name: of that set, for the error.

        Raises:
          UserError: there are too few images.
        """
        if num_images > protocols.MAX_ALL_METRICS:
            return ()
        if num_images < MIN_IMAGES:
            raise UserError(f"{name}: {num_images} images are too few, at least {MIN_IMAGES}")
        try:
            return subsets.extrapolation_sizes(num_images, self.num_sizes)
        except ValueError as error:
            raise UserError(
                f"{name}: {num_images} images are too few for the metrics of num_sizes="
                f"{self.num_sizes} different numbers of images; use more images or fewer sizes"
            ) from error
