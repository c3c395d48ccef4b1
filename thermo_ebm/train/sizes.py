"""A configuration whose numbers follow from its images, completed before it is checked."""

from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config import sizes
from thermo_ebm.config.checks import check_value
from thermo_ebm.config.sizes import Completed
from thermo_ebm.fields import flatten

_LEFT_OPEN = ("data.num_train", "data.num_val", "data.image_size", "model.generator.strides")


def complete(config: ConfigDict, image_size: int | None = None) -> Completed:
    """The configuration with every number that it leaves open; one that leaves none, as it is.

    Images are counted only where a number depends on them, and not read.

    Args:
      config: a configuration, which need not be checked yet.
      image_size: in place of `data.image_size`, with layers that follow if they must.

    Raises:
      UserError: the source cannot be opened or has too few images, or no layers make their size.
    """
    if any(name not in flatten(config) for name in _LEFT_OPEN):
        return Completed(config, [])  # which `checks.check` refuses
    if image_size is not None:
        sizes.set_image_size(config, image_size)
    values = flatten(config)
    for name in _LEFT_OPEN:
        check_value(name, values[name])
    notes: list[str] = []
    if sizes.asks_for_images(config):
        source = data.open_source(config.data)
        numbers = data.count(source, config.data.num_train, config.data.num_val)
        config, notes = sizes.with_images(config, *numbers, source[0].source)
    if sizes.asks_for_layers(config):
        config, of_layers = sizes.with_layers(config)
        notes = notes + of_layers
    return Completed(config, notes)
