"""Numbers of a configuration that follow from its images: how many, layers, the batch size."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from thermo_ebm.errors import UserError, counted
from thermo_ebm.fields import flatten, nest
from thermo_ebm.models.generator import image_size, layers_of


class Completed(NamedTuple):
    """A configuration in which no number is left open."""

    config: ConfigDict
    notes: list[str]  # what followed, in the form of a run's summary


def asks_for_images(config: ConfigDict) -> bool:
    """Whether a number depends on how many images the source has."""
    return config.data.num_train == 0 or isinstance(config.data.num_val, float)


def asks_for_layers(config: ConfigDict) -> bool:
    """Whether the generator's layers follow from the size of the images."""
    return not config.model.generator.strides


def generated_size(config: ConfigDict) -> int:
    """Height and width of the images that the generator makes."""
    generator = config.model.generator
    return image_size(generator.strides, generator.first_size or generator.kernel_size)


def set_image_size(config: ConfigDict, size: int) -> None:
    """Changes the size of the images; layers that make another size are left open."""
    config.data.image_size = size
    if generated_size(config) != size:
        config.model.generator.strides = ()


def with_images(config: ConfigDict, num_train: int, num_val: int, source: str) -> Completed:
    """The configuration with these numbers of images, and a batch that is no larger.

    The batch is reduced only where the training images were not counted by the user
    (`data.num_train` of 0).

    Args:
      config: whose numbers of images are left open.
      num_train: training images that there are.
      num_val: validation images.
      source: what and where they are.
    """
    changes = {"data.num_train": num_train, "data.num_val": num_val}
    notes = [f"data        {source}: {num_train} images to train on, {num_val} held out"]
    most = num_train // config.gradient_noise.accumulate
    if config.data.num_train == 0 and config.batch_size > most > 0:
        changes["batch_size"] = most
        images = counted(num_train, "training image")
        notes.append(f"batch_size  {most} instead of {config.batch_size}: there are {images}")
    return Completed(_with(config, changes), notes)


def with_layers(config: ConfigDict) -> Completed:
    """The configuration with layers of the generator that make images of `data.image_size`.

    Raises:
      UserError: there are none.
    """
    size = config.data.image_size
    try:
        first_size, strides, widths = layers_of(size)
    except ValueError as error:
        raise UserError(f"data.image_size={size}: {error}") from error
    is_kernel = first_size == config.model.generator.kernel_size
    changes = {
        "model.generator.first_size": 0 if is_kernel else first_size,
        "model.generator.strides": strides,
        "model.generator.widths": widths,
    }
    note = (
        f"generator   from {first_size} to {size} pixels with strides {strides} and widths {widths}"
    )
    return Completed(_with(config, changes), [note])


def _with(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    """A configuration of its own, whose fields have the types of their new values."""
    return ConfigDict(nest(flatten(config) | changes)).lock()
