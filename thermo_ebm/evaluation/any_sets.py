"""Comparison of sets of images of any kind: folders, files, arrays, statistics, trained runs.

>>> import numpy as np
>>> import thermo_ebm as te
>>> real, generated = np.random.default_rng(0).integers(0, 256, (2, 30, 16, 16), np.uint8)
>>> te.compare(real, generated)  # doctest: +SKIP
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.data import arrays
from thermo_ebm.errors import UserError, counted
from thermo_ebm.evaluation import compare as comparing
from thermo_ebm.evaluation import evaluate, sets
from thermo_ebm.evaluation.compare import MAX_SETS, Comparison, Comparisons
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.protocols import MAX_ALL_METRICS
from thermo_ebm.evaluation.run import Run, UnusableCheckpoint
from thermo_ebm.evaluation.sets import ImageSet
from thermo_ebm.evaluation.statistics import Statistics
from thermo_ebm.types import Array

AnyImages = str | os.PathLike[str] | np.ndarray | Array | Run


class ComparedSets(NamedTuple):
    """The metrics of sets of images against the first; printed as the table of `launch.compare`."""

    result: Comparison | Comparisons  # of two sets, of more

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """Metrics with their `_stderr`, by the letter of the set in the table.

        Of two sets the second is B; of more, the reference is R and the others are A, B, ...
        """
        compared = self.result
        each = [compared] if isinstance(compared, Comparison) else compared.sets
        labels = comparing.letters(len(each) + 1)
        return dict(zip(labels[1:], (comparison.values for comparison in each), strict=True))

    def __repr__(self) -> str:
        if isinstance(self.result, Comparison):
            return comparing.table(self.result)
        return comparing.table_of_differences(self.result)


def compare(
    reference: AnyImages,
    *others: AnyImages,
    settings: MetricSettings = MetricSettings(),  # noqa: B008 (immutable)
    image_size: int = 0,
    data_dir: str = "",
    seed: int = 0,
) -> ComparedSets:
    """FID, KID and more of each set against the first, with errors, and which set is better.

    The same as `thermo-ebm compare`, with its defaults.

    Args:
      reference: the real images: a folder, a file of images or of statistics, a data set with its
        split (`cifar10:validation`), or an array: uint8 or bool, or floats in [0, 1], in [-1, 1] or
        from 0 to 255, [num, size, size] or with 1, 3 or 4 channels at the end. Of a run, its
        held-out images.
      others: one or more sets. Of a run, samples of the newest checkpoint of repetition 0, those
        that `launch.eval` evaluates, as many as the run holds out images.
      settings: network and numbers.
      image_size: height and width to which images in folders and files are cropped and resized; 0
        keeps sizes.
      data_dir: where prepared data sets are; "" is the folder of TFDS.
      seed: of the random choice of images and subsets.

    Raises:
      UserError: a set cannot be read, has no images or a range that cannot be told, or sets are too
        small.
    """
    if not 1 <= len(others) < MAX_SETS:
        raise UserError(
            f"compare: {counted(len(others) + 1, 'set')} of images; there must be 2 to {MAX_SETS}"
        )
    first, *rest = _names([reference, *others])
    reference_set = _open(reference, first, image_size, data_dir, is_reference=True)
    other_sets = [
        _open(images, name, image_size, data_dir) for images, name in zip(others, rest, strict=True)
    ]
    settings = settings.with_protocol()
    if len(other_sets) == 1:
        return ComparedSets(comparing.compare(reference_set, other_sets[0], settings, seed))
    return ComparedSets(comparing.compare_candidates(reference_set, other_sets, settings, seed))


def _names(all_images: Sequence[AnyImages]) -> list[str]:
    """A name of each set; one array or run that is given twice has one name."""
    names: dict[int, str] = {}
    for letter, images in zip(comparing.letters(len(all_images)), all_images, strict=True):
        if isinstance(images, Run):
            names.setdefault(id(images), images.title())
        elif not isinstance(images, str | os.PathLike):
            names.setdefault(id(images), f"array {letter}")
        else:
            names[id(images)] = os.fspath(images)
    return [names[id(images)] for images in all_images]


def _open(
    images: AnyImages, name: str, image_size: int, data_dir: str, is_reference: bool = False
) -> ImageSet | Statistics:
    if isinstance(images, Run):
        return _of_run(images, name, is_reference)
    if isinstance(images, str | os.PathLike):
        return sets.open_set(name, data_dir, image_size)
    return _of_array(np.asarray(images), name)


def _of_array(pixels: np.ndarray, name: str) -> ImageSet:
    is_layout = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[-1] in (1, 3, 4))
    if not is_layout or 0 in pixels.shape or pixels.shape[1] != pixels.shape[2]:
        raise UserError(
            f"{name}: has shape {pixels.shape}; images must be square, [num, size, size] or "
            "[num, size, size, channels]"
        )
    try:
        levels, conversion = arrays.to_levels(pixels, name)
    except UserError as error:
        raise UserError(str(error).removeprefix("data.data_dir: ")) from error
    remark = conversion.removeprefix(", ")
    return ImageSet(
        name, arrays.from_array(name, levels)._replace(remarks=(remark,) if remark else ())
    )


def _of_run(run: Run, name: str, is_reference: bool) -> ImageSet:
    """A run's held-out images, or samples of its newest checkpoint."""
    if is_reference:
        pixels, remark = run.validation_images(), "held-out images"
    else:
        checkpoint = run.load()
        key, _ = evaluate.checkpoint_keys(run, checkpoint.repetition, checkpoint.step)
        number = min(run.config.data.num_val, MAX_ALL_METRICS)
        try:
            pixels = evaluate.generate_images(run, checkpoint.params, key, number)
        except UnusableCheckpoint as error:
            raise UserError(f"{name}, {checkpoint.title()}: {error}") from error
        remark = f"samples of {checkpoint.title()}"
        name = f"{name}, samples"  # which are not the reference, if this run is that too
    images = arrays.from_array(name, np.asarray(jax.device_get(pixels)))
    return ImageSet(name, images._replace(remarks=(remark,)))
