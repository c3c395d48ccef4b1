"""Computes every metric between two arbitrary sets of images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError, printable
from thermo_ebm.evaluation import sets
from thermo_ebm.evaluation.metric_settings import MAX_IMAGES, MetricSettings
from thermo_ebm.evaluation.sets import ImageSet, Statistics
from thermo_ebm.metrics import fid
from thermo_ebm.metrics.networks import Network, Outputs, cache
from thermo_ebm.metrics.summary import summarize

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


class Comparison(NamedTuple):
    """The metrics of B against A."""

    names: tuple[str, str]
    features: str  # the network's label
    num_images: tuple[int | None, int | None]  # None for statistics
    seed: int
    values: dict[str, float]  # metrics and their `_stderr` and `_r_squared`
    notes: list[str]
    remarks: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # of each set, see `ImageSet`


def compare(
    reference: ImageSet | Statistics,
    generated: ImageSet | Statistics,
    settings: MetricSettings,
    seed: int = 0,
    report: Report | None = None,
) -> Comparison:
    """Computes every metric of the second set against the first.

    If either set is a file of statistics, only the FID is computed, from all images of the other
    unless `settings.num_images` limits them.

    Args:
      reference: the real images, from `sets.open_set`.
      generated: the set that is measured.
      settings: network and numbers; a set of more images is limited to `num_images` of them.
      seed: of the random choice of images and subsets.
      report: called with the progress of each set.

    Raises:
      UserError: images cannot be read or are too few, or statistics are another network's.
    """
    if isinstance(reference, Statistics) or isinstance(generated, Statistics):
        return _compare_statistics((reference, generated), settings, seed, report)
    network, max_images = settings.choose_network(), settings.num_images or MAX_IMAGES
    key_reference, key_generated, key_metrics = np.random.SeedSequence(seed).spawn(3)
    reference = sets.limited(reference, max_images, np.random.default_rng(key_reference))
    generated = sets.limited(generated, max_images, np.random.default_rng(key_generated))
    smaller = min(reference, generated, key=lambda image_set: image_set.images.num)
    sizes = settings.subset_sizes(smaller.images.num, smaller.name)
    real = features_of(reference, network, settings, report)
    outputs = features_of(generated, network, settings, report)
    if report is not None:
        report("metrics", 0, 1)
    key = jax.random.key(int(key_metrics.generate_state(1)[0]))
    summary = summarize(key, real, outputs, sizes)
    if report is not None:
        report("metrics", 1, 1)
    return Comparison(
        names=(reference.name, generated.name),
        features=settings.label(),
        num_images=(reference.images.num, generated.images.num),
        seed=seed,
        values=summary.values,
        notes=_notes(real, outputs, settings),
        remarks=(reference.remarks, generated.remarks),
    )


def _notes(real: Outputs, generated: Outputs, settings: MetricSettings) -> list[str]:
    notes = []
    num_features = real.features.shape[1]
    num_images = min(len(real.features), len(generated.features))
    if num_images < 2 * num_features:
        notes.append(
            f"fid_inf: {num_images} images are few for {num_features} features: the FID is then no "
            "straight line in 1/N, which adds a bias that the error does not contain"
        )
    if settings.features != "inception_v3":
        notes.append(
            "mifid_inf: its threshold of 0.1 was set for InceptionV3's features; with others look "
            "at memorization_distance beside that of a set known to hold no copies"
        )
    if not generated.logits.shape[1]:
        notes.append("is_inf: this network has no logits")
    return notes


def features_of(
    images: ImageSet, network: Network, settings: MetricSettings, report: Report | None = None
) -> Outputs:
    """Returns a set's features and logits, from the cache if it has those of the same images.

    Raises:
      UserError: an image cannot be read.
    """
    pixels = sets.read_images(images)
    if report is not None:
        network = network._replace(apply=_reporting(network, images.name, report))
    folder = settings.cache_folder()
    return cache.real_outputs(network, pixels, "compare", "images", folder, settings.batch_size)


def _reporting(network: Network, name: str, report: Report) -> Callable[[np.ndarray, int], Outputs]:
    """Applies the network in parts that are complete batches, so that nothing else is compiled."""

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        num, length, parts, done = len(images), 5 * batch_size, [], 0
        while done < num:
            end = done + length if num - done >= length + batch_size else num
            parts.append(network.apply(images[done:end], batch_size))
            done = end
            report(f"features of {printable(name)}", done, num)
        features = np.concatenate([part.features for part in parts])
        return Outputs(features, np.concatenate([part.logits for part in parts]))

    return apply


def compute_statistics(
    images: ImageSet,
    network: Network,
    settings: MetricSettings,
    seed: int = 0,
    report: Report | None = None,
) -> Statistics:
    """Returns the moments of a set's features, of at most `num_images` images; 0 is all.

    Raises:
      UserError: images cannot be read or are fewer than two.
    """
    images = sets.limited(images, settings.num_images, np.random.default_rng(seed))
    if images.images.num < 2:
        raise UserError(f"{images.name}: statistics need at least two images")
    features = features_of(images, network, settings, report).features.astype(np.float64)
    covariance = np.cov(features, rowvar=False).reshape(features.shape[1], features.shape[1])
    return Statistics(
        images.name,
        features.mean(axis=0),
        covariance,
        settings.label(),
        len(features),
        images.remarks,
    )


def _compare_statistics(
    both: tuple[ImageSet | Statistics, ImageSet | Statistics],
    settings: MetricSettings,
    seed: int,
    report: Report | None,
) -> Comparison:
    """The FID alone, where at least one set is a file of statistics."""
    num_features, network = 0, None
    if not all(isinstance(images, Statistics) for images in both):
        network = settings.choose_network()
        num_features = network.num_features or 0
    for images in both:  # all files, before any image is read
        if isinstance(images, Statistics):
            num_features = num_features or len(images.mean)
            _check_statistics(images, num_features, settings)

    def moments(images: ImageSet | Statistics) -> Statistics:
        if network is None or isinstance(images, Statistics):
            assert isinstance(images, Statistics)
            return images
        return compute_statistics(images, network, settings, seed, report)

    reference, generated = moments(both[0]), moments(both[1])
    _check_statistics(generated, len(reference.mean), settings)
    return Comparison(
        names=(reference.name, generated.name),
        features=settings.label(),
        num_images=(reference.num_images, generated.num_images),
        seed=seed,
        values={
            "fid": fid.moments_distance(
                reference.mean, reference.covariance, generated.mean, generated.covariance
            )
        },
        notes=["statistics are enough for the FID alone; its error and all else need the images"],
        remarks=(reference.remarks, generated.remarks),
    )


def _check_statistics(statistics: Statistics, num_features: int, settings: MetricSettings) -> None:
    """Raises UserError for statistics of another network or of another number of features."""
    name, label = statistics.name, settings.label()
    if statistics.network not in ("", label):
        raise UserError(f"{name}: made with the features of {statistics.network}, not of {label}")
    if len(statistics.mean) != num_features:
        raise UserError(
            f"{name}: statistics of {len(statistics.mean)} features, but "
            f"features={settings.features} or the other set has {num_features}"
        )


def table(comparison: Comparison) -> str:
    """Returns the table of metrics as text."""
    lines = []
    sets_of_table = zip(
        "AB", comparison.names, comparison.num_images, comparison.remarks, strict=True
    )
    for letter, name, number, remarks in sets_of_table:
        content = "; ".join(["statistics" if number is None else f"{number} images", *remarks])
        lines.append(printable(f"{letter}: {name} ({content})"))
    lines += [
        f"features: {comparison.features}, seed {comparison.seed}",
        "",
        f"{'metric':22s} {'value':>12s}    {'std. error':>10s}",
    ]
    for metric, meaning in METRICS.items():
        if metric in comparison.values:
            stderr = comparison.values.get(f"{metric}_stderr")
            error = "" if stderr is None else f"+- {stderr:<10.3g}"
            lines.append(f"{metric:22s} {comparison.values[metric]:12.6g} {error:13s} {meaning}")
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)])


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
        "remarks": [list(remarks) for remarks in comparison.remarks],
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
