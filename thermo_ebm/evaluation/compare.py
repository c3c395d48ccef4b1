"""Computes every metric between two arbitrary sets of images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import sets
from thermo_ebm.evaluation.sets import ImageSet, Statistics
from thermo_ebm.metrics import fid, networks
from thermo_ebm.metrics.networks import Network, Outputs, cache
from thermo_ebm.metrics.subsets import extrapolation_sizes
from thermo_ebm.metrics.summary import MIN_IMAGES, summarize

MAX_IMAGES = 4500  # images per set unless more are requested; the number of the paper's metrics
METRICS = {
    "fid_inf": "FID of infinitely many images, by extrapolation",
    "fid": "Frechet distance; biased upwards by the number of images",
    "kid": "unbiased squared MMD, cubic kernel; about 0 for equal distributions",
    "kid_inf": "the same, extrapolated",
    "kid_rbf_inf": "the same with a Gaussian kernel",
    "mifid_inf": "FID over the mean cosine distance of B to its nearest in A, if below 0.1",
    "memorization_distance": "that distance: near 0 where B copies A",
    "is_inf": "Inception Score of B",
    "precision": "share of B inside A's manifold",
    "recall": "share of A inside B's manifold",
    "density": "the same as precision, counted; 1 for equal distributions",
    "coverage": "share of A's neighbourhoods that hold any of B",
}
Report = Callable[[str, int, int], None]  # (activity, amount done, total amount)


class Settings(NamedTuple):
    """Settings of a comparison."""

    features: str = "efficientnet_lite0"
    resize: str = "bilinear"
    weights: str | None = None  # file of the network's weights
    cache_dir: str | None = None
    data_dir: str = ""
    num_images: int = 0  # at most, of either set; 0 is `MAX_IMAGES`, and all for statistics
    num_sizes: int = 10
    image_size: int = 0  # size to crop and resize to first; 0 keeps the images
    batch_size: int = 100
    seed: int = 0


class Comparison(NamedTuple):
    """The metrics of B against A."""

    names: tuple[str, str]
    features: str  # the network's label
    num_images: tuple[int | None, int | None]  # None for statistics
    seed: int
    values: dict[str, float]  # metrics and their `_stderr` and `_r_squared`
    notes: list[str]


def check(settings: Settings) -> None:
    """Refuses settings with which no comparison is possible.

    Raises:
      UserError: naming the field and what it must be.
    """
    least = {"num_images": 0, "num_sizes": 3, "image_size": 0, "batch_size": 1, "seed": 0}
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value < smallest:
            raise UserError(f"{name}={value}: must be at least {smallest}")


def choose_network(settings: Settings) -> Network:
    """The feature network, with its weights.

    Raises:
      UserError: there is no such network, or its weights are missing.
    """
    return networks.choose(
        settings.features, settings.resize, settings.weights, _cache_dir(settings)
    )


def _cache_dir(settings: Settings) -> Path:
    return Path(settings.cache_dir).expanduser() if settings.cache_dir else cache.default_dir()


def compare(
    first: ImageSet | Statistics,
    second: ImageSet | Statistics,
    settings: Settings,
    report: Report | None = None,
) -> Comparison:
    """Computes every metric of the second set against the first.

    If either set is a file of statistics, only the FID is computed, from all images of the other.

    Args:
      first: the reference ("real"), from `sets.open_set`.
      second: the set that is measured ("generated").
      settings: network, numbers and seed.
      report: called with the progress of each set.

    Raises:
      UserError: images cannot be read or are too few, or statistics are another network's.
    """
    if isinstance(first, Statistics) or isinstance(second, Statistics):
        return _compare_statistics(first, second, settings, report)
    network, most = choose_network(settings), settings.num_images or MAX_IMAGES
    key_first, key_second, key_metrics = np.random.SeedSequence(settings.seed).spawn(3)
    first = sets.limited(first, most, np.random.default_rng(key_first))
    second = sets.limited(second, most, np.random.default_rng(key_second))
    sizes = _sizes(first, second, settings)
    outputs = [features_of(one, network, settings, report) for one in (first, second)]
    if report is not None:
        report("metrics", 0, 1)
    key = jax.random.key(int(key_metrics.generate_state(1)[0]))
    summary = summarize(key, outputs[0], outputs[1], sizes)
    if report is not None:
        report("metrics", 1, 1)
    return Comparison(
        names=(first.name, second.name),
        features=networks.label(settings.features, settings.resize),
        num_images=(len(first.indices), len(second.indices)),
        seed=settings.seed,
        values=summary.values,
        notes=_notes(outputs, settings),
    )


def _sizes(first: ImageSet, second: ImageSet, settings: Settings) -> tuple[int, ...]:
    numbers = {one.name: len(one.indices) for one in (first, second)}
    name, number = min(numbers.items(), key=lambda item: item[1])
    if number < MIN_IMAGES:
        raise UserError(f"{name}: {number} images are too few (at least {MIN_IMAGES})")
    try:
        return extrapolation_sizes(number, settings.num_sizes)
    except ValueError as error:
        raise UserError(f"{name}: {number} images are too few ({error})") from error


def _notes(outputs: list[Outputs], settings: Settings) -> list[str]:
    notes = []
    num_features = outputs[0].features.shape[1]
    fewest = min(len(one.features) for one in outputs)
    if fewest < 2 * num_features:
        notes.append(
            f"fid_inf: {fewest} images are few for {num_features} features: the FID is then no "
            "straight line in 1/N, which adds a bias that the error does not contain"
        )
    if settings.features != "inception_v3":
        notes.append(
            "mifid_inf: its threshold of 0.1 was set for InceptionV3's features; with others look "
            "at memorization_distance beside that of a set known to hold no copies"
        )
    if not outputs[1].logits.shape[1]:
        notes.append("is_inf: this network has no logits")
    return notes


def features_of(
    images: ImageSet, network: Network, settings: Settings, report: Report | None = None
) -> Outputs:
    """Returns a set's features and logits, from the cache if the same images were seen before.

    Raises:
      UserError: an image cannot be read.
    """
    array = sets.read_images(images, settings.image_size)
    if report is not None:
        network = network._replace(apply=_reporting(network, images.name, report))
    return cache.real_outputs(
        network, array, "compare", "images", _cache_dir(settings), settings.batch_size
    )


def _reporting(network: Network, name: str, report: Report) -> Callable[[np.ndarray, int], Outputs]:
    """Applies the network in parts that are complete batches, so that nothing else is compiled."""

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        num, length, parts, done = len(images), 5 * batch_size, [], 0
        while done < num:
            end = done + length if num - done >= length + batch_size else num
            parts.append(network.apply(images[done:end], batch_size))
            done = end
            report(f"features of {name}", done, num)
        return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    return apply


def statistics_of(
    images: ImageSet | Statistics,
    network: Network | None,
    settings: Settings,
    report: Report | None = None,
) -> Statistics:
    """Returns the moments of a set's features, of at most `num_images` of them.

    Raises:
      UserError: images cannot be read or are fewer than two, or statistics are another network's.
    """
    label = networks.label(settings.features, settings.resize)
    if isinstance(images, Statistics):
        if images.network not in ("", label):
            raise UserError(
                f"{images.name}: made with the features of {images.network}, not of {label}"
            )
        return images
    assert network is not None
    rng = np.random.default_rng(settings.seed)
    chosen = sets.limited(images, settings.num_images, rng)
    if len(chosen.indices) < 2:
        raise UserError(f"{images.name}: statistics need at least two images")
    features = features_of(chosen, network, settings, report).features.astype(np.float64)
    return Statistics(
        images.name,
        features.mean(axis=0),
        np.cov(features, rowvar=False).reshape(features.shape[1], features.shape[1]),
        label,
    )


def _compare_statistics(
    first: ImageSet | Statistics,
    second: ImageSet | Statistics,
    settings: Settings,
    report: Report | None,
) -> Comparison:
    both = (first, second)
    network = None
    if not all(isinstance(one, Statistics) for one in both):
        network = choose_network(settings)
    for one in both:  # before any image is looked at
        if isinstance(one, Statistics) and network and network.num_features:
            _check_width(one, network.num_features, settings)
    made = [statistics_of(one, network, settings, report) for one in both]
    _check_width(made[1], len(made[0].mean), settings)
    value = fid.moments_distance(made[0].mean, made[0].covariance, made[1].mean, made[1].covariance)
    numbers = [
        None if isinstance(one, Statistics) else _limited_number(one, settings) for one in both
    ]
    return Comparison(
        names=(first.name, second.name),
        features=networks.label(settings.features, settings.resize),
        num_images=(numbers[0], numbers[1]),
        seed=settings.seed,
        values={"fid": value},
        notes=["statistics are enough for the FID alone; its error and all else need the images"],
    )


def _limited_number(images: ImageSet, settings: Settings) -> int:
    number = len(images.indices)
    return min(number, settings.num_images) if settings.num_images else number


def _check_width(statistics: Statistics, num_features: int, settings: Settings) -> None:
    if len(statistics.mean) != num_features:
        raise UserError(
            f"{statistics.name}: statistics of {len(statistics.mean)} features, but "
            f"features={settings.features} or the other set has {num_features}"
        )


def table(comparison: Comparison) -> str:
    """Returns the table of metrics as text."""
    lines = [
        f"A: {_described(comparison, 0)}",
        f"B: {_described(comparison, 1)}",
        f"features: {comparison.features}, seed {comparison.seed}",
        "",
        f"{'metric':22s} {'value':>12s}    {'std. error':>10s}",
    ]
    for metric, meaning in METRICS.items():
        if metric in comparison.values:
            error = comparison.values.get(f"{metric}_stderr")
            shown = "" if error is None else f"+- {error:<10.3g}"
            value = comparison.values[metric]
            lines.append(f"{metric:22s} {value:12.6g} {shown:13s} {meaning}")
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)])


def _described(comparison: Comparison, side: int) -> str:
    number = comparison.num_images[side]
    return f"{comparison.names[side]} ({'statistics' if number is None else f'{number} images'})"


def write_json(path: Path, comparison: Comparison) -> None:
    """Writes the content of `table` and the R^2 of the lines as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    content = {
        "a": comparison.names[0],
        "b": comparison.names[1],
        "features": comparison.features,
        "num_images": list(comparison.num_images),
        "seed": comparison.seed,
        "metrics": {
            name: value if np.isfinite(value) else None for name, value in comparison.values.items()
        },
        "notes": comparison.notes,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"json={path}: cannot be written: {error.strerror}") from error
