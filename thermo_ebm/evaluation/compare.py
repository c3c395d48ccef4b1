"""Computes every metric of sets of images against a reference, and their differences."""

import itertools
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError, counted, printable
from thermo_ebm.evaluation import protocols, sets, statistics
from thermo_ebm.evaluation.metric_settings import MetricSettings
from thermo_ebm.evaluation.sets import ImageSet
from thermo_ebm.evaluation.statistics import Statistics
from thermo_ebm.metrics import fid, memorization, paired, summary
from thermo_ebm.metrics.networks import Network, Outputs, cache
from thermo_ebm.metrics.paired import MetricDifference
from thermo_ebm.metrics.summary import bias_note

METRICS = {
    "fid_inf": "FID of infinitely many images, by extrapolation",
    "fid": "Frechet distance; biased upwards by the number of images",
    "kid": "unbiased squared MMD, cubic kernel; about 0 for equal distributions",
    "kid_inf": "the same, extrapolated",
    "kid_rbf_inf": "the same with a Gaussian kernel",
    "cmmd": "1,000 times unbiased MMD^2, features of length 1, Gaussian kernel of width 10",
    "cmmd_published": "the same with each image paired with itself, as published",
    "mind": "sliced squared Wasserstein distance, times 3 times the number of features",
    "mifid": "FID over the mean cosine distance of B to its nearest in A, if below 0.1",
    "mifid_inf": "the same, extrapolated",
    "memorization_distance": "that distance: near 0 where B copies A",
    "is_inf": "Inception Score of B",
    "precision": "share of B inside A's manifold",
    "recall": "share of A inside B's manifold",
    "density": "the same as precision, counted; 1 for equal distributions",
    "coverage": "share of A's neighbourhoods that hold any of B",
}
DISTANCES = (
    *("fid_inf", "fid", "kid", "kid_inf", "kid_rbf_inf", "cmmd", "cmmd_published", "mind"),
    "memorization_distance",
)
MAX_SETS = len(string.ascii_uppercase)  # each has a letter
Report = Callable[[str, int, int], None]  # (activity, amount done, total amount)


class Comparison(NamedTuple):
    """The metrics of B against A."""

    names: tuple[str, str]
    features: str  # the network's label, of statistics what their file says
    num_images: tuple[int | None, int | None]  # None for statistics that do not say
    seed: int
    values: dict[str, float]  # metrics and their `_stderr` and `_r_squared`
    notes: list[str]
    remarks: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # of each set, see `ImageSet`
    from_cache: tuple[bool, bool] = (False, False)  # whether the features were read from the cache
    are_statistics: tuple[bool, bool] = (False, False)  # whether the set is a file of statistics
    protocol: str = "default"


class Comparisons(NamedTuple):
    """The metrics of several sets against one reference, and the differences between the sets."""

    sets: list[Comparison]
    differences: list[MetricDifference]  # with letters for names: A is the first set
    notes: list[str]  # on the differences


class Measured(NamedTuple):
    """A set of images as its metrics need it."""

    images: ImageSet
    outputs: Outputs
    digests: list[bytes]  # SHA-256 of each image's pixels
    form: str  # size and colour of the images, for the user


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
    return compare_candidates(reference, [generated], settings, seed, report).sets[0]


def compare_candidates(
    reference: ImageSet | Statistics,
    candidates: Sequence[ImageSet | Statistics],
    settings: MetricSettings,
    seed: int = 0,
    report: Report | None = None,
) -> Comparisons:
    """Computes every metric of each set against the reference, and the differences of each pair.

    All sets are measured with as many images as the smallest has, in the same subsets.

    Args:
      reference: the real images, from `sets.open_set`.
      candidates: the sets that are measured.
      settings: network and numbers; a set of more images is limited to `num_images` of them.
      seed: of the random choice of images and subsets.
      report: called with the progress of each set.

    Raises:
      UserError: images cannot be read or are too few, or a set is a file of statistics.
    """
    if isinstance(reference, Statistics) or any(
        isinstance(candidate, Statistics) for candidate in candidates
    ):
        raise UserError("statistics are compared in pairs: differences of metrics need the images")
    image_sets = [candidate for candidate in candidates if isinstance(candidate, ImageSet)]
    network = settings.choose_network()
    *keys, key_metrics = np.random.SeedSequence(seed).spawn(3)
    drawn = _drawn_sets(reference, image_sets, settings.max_images(), keys)
    smallest = min(drawn, key=lambda image_set: image_set.images.num)
    sizes = settings.subset_sizes(smallest.images.num, smallest.name)
    real, *measured = [measure(image_set, network, settings, report) for image_set in drawn]
    if report is not None:
        report("metrics", 0, len(measured))
    key = jax.random.key(int(key_metrics.generate_state(1)[0]))
    num_generated, num_features = measured[0].outputs.features.shape
    draws = summary.make_draws(key, sizes, len(real.digests), num_generated)
    measure_pair = summary.measure if sizes else summary.measure_fid
    comparisons, estimates = [], {}
    labels = letters(len(measured) + 1)
    for number, generated in enumerate(measured):
        measurement = measure_pair(real.outputs, generated.outputs, draws)
        if not _are_same_images(real, generated):
            estimates[labels[number + 1]] = measurement.estimates
        values = measurement.summary.values
        comparisons.append(_comparison(real, generated, values, settings, seed))
        if report is not None:
            report("metrics", number + 1, len(measured))
    bias = bias_note(min(len(real.digests), num_generated), num_features)
    return Comparisons(
        comparisons,
        paired.differences(estimates, num_generated, ("fid_inf",) if bias else ()),
        _notes_on_differences(image_sets, measured),
    )


def _drawn_sets(
    reference: ImageSet,
    image_sets: Sequence[ImageSet],
    max_images: int,
    keys: Sequence[np.random.SeedSequence],
) -> list[ImageSet]:
    """The images that are measured: of the reference, and as many of each set as of the smallest.

    Args:
      reference: the real images.
      image_sets: the sets that are compared with it.
      max_images: of any set; 0 is all.
      keys: of the reference, whose images a set that is the reference shares, and of the others.
    """

    def drawn(image_set: ImageSet, num: int) -> ImageSet:
        key = keys[0] if image_set.name == reference.name else keys[1]
        return sets.limited(image_set, num, np.random.default_rng(key))

    num = max_images
    if len(image_sets) > 1:
        smallest = min(image_set.images.num for image_set in image_sets)
        num = min(max_images or smallest, smallest)
    return [drawn(reference, max_images), *(drawn(image_set, num) for image_set in image_sets)]


def _comparison(
    real: Measured,
    generated: Measured,
    values: dict[str, float],
    settings: MetricSettings,
    seed: int,
) -> Comparison:
    """The metrics of a pair of sets, with what a reader must know of them."""
    pair = real.images, generated.images
    are_same = _are_same_images(real, generated)
    return Comparison(
        names=(pair[0].name, pair[1].name),
        features=settings.network_label(),
        num_images=(pair[0].images.num, pair[1].images.num),
        seed=seed,
        values=_of_same_images(values) if are_same else values,
        notes=_notes(real, generated, values, settings),
        remarks=(pair[0].remarks, pair[1].remarks),
        from_cache=(real.outputs.from_cache, generated.outputs.from_cache),
        protocol=settings.protocol,
    )


def _notes_on_differences(
    image_sets: Sequence[ImageSet], measured: Sequence[Measured]
) -> list[str]:
    notes, num_images = [], len(measured[0].digests)
    labels = letters(len(measured) + 1)[1:]
    larger = [
        letter
        for letter, image_set in zip(labels, image_sets, strict=True)
        if image_set.images.num > num_images
    ]
    if larger:
        notes.append(
            f"{num_images} images are drawn from {', '.join(larger)}: metrics depend on the number "
            "of images, and sets are compared with equal numbers"
        )
    for first, second in itertools.combinations(range(len(measured)), 2):
        if _are_same_images(measured[first], measured[second]):
            notes.append(f"{labels[first]} and {labels[second]} are the same images")
    return notes


def _of_same_images(values: dict[str, float]) -> dict[str, float]:
    """The metrics of a set against itself: distances are 0, errors and MIFID are not defined.

    The estimates are not 0: that of KID is unbiased only for independent sets, and `fid_inf` is an
    extrapolation from subsets that differ. The Inception Score, of B alone, keeps its error.
    """
    estimates = {
        name: value
        for name, value in values.items()
        if name.startswith("is_") or not name.endswith(("_stderr", "_r_squared"))
    }
    for undefined in ("mifid", "mifid_inf"):
        estimates.pop(undefined, None)
    return estimates | {name: 0.0 for name in DISTANCES if name in estimates}


def _notes(
    real: Measured, generated: Measured, values: dict[str, float], settings: MetricSettings
) -> list[str]:
    notes = []
    if _are_same_images(real, generated):
        notes.append(
            "A and B are the same images: distances are 0, without an error, and MIFID has no value"
        )
    else:
        in_reference = set(real.digests)
        num_shared = sum(digest in in_reference for digest in generated.digests)
        if num_shared:
            notes.append(
                f"{num_shared} of B's {len(generated.digests)} images are also in A, equal in "
                "every pixel: the sets are not independent, as the errors suppose"
            )
        if real.form != generated.form:
            notes.append(_form_note(real.form, generated.form))
        num_images = min(len(real.digests), len(generated.digests))
        bias = bias_note(num_images, real.outputs.features.shape[1])
        if bias and "fid_inf" in values:
            notes.append(bias)
        if "kid" in values:
            notes.append(_mifid_note("mifid_inf" in values, num_shared > 0, settings))
    if "kid" not in values:
        notes.append(
            f"only the FID is computed of sets of more than {protocols.MAX_ALL_METRICS} images"
        )
    elif not generated.outputs.logits.shape[1]:
        notes.append("is_inf: this network has no logits")
    return [note for note in notes if note]


def _mifid_note(is_defined: bool, are_shared: bool, settings: MetricSettings) -> str:
    """A note on the MIFID of two sets that differ; "" if none is needed."""
    if not is_defined:
        return "mifid: left out, as B's images have a distance of 0 from their nearest in A"
    if are_shared:
        return (
            "mifid_inf: subsets seldom hold an image and its copy, so that copies change it "
            "little; mifid, of all images, counts each of them"
        )
    if settings.features != "inception_v3":
        return (
            "mifid: its threshold of 0.1 was set for InceptionV3's features; with others look "
            "at memorization_distance beside that of a set known to hold no copies"
        )
    return ""


def _are_same_images(first: Measured, second: Measured) -> bool:
    """Whether two sets hold the same images, in any order."""
    return Counter(first.digests) == Counter(second.digests)


def _form_note(first: str, second: str) -> str:
    return f"A has images of {first}, B of {second}: the metrics measure this difference as well"


def measure(
    images: ImageSet, network: Network, settings: MetricSettings, report: Report | None = None
) -> Measured:
    """Returns a set's features and logits, from the cache if it has those of the same images.

    Raises:
      UserError: an image cannot be read.
    """
    pixels = sets.read_images(images)
    if report is not None:
        network = network._replace(apply=_reporting(network, images.name, report))
    folder, batch_size = settings.cache_folder(), settings.batch_size
    outputs = cache.real_outputs(network, pixels, "compare-images", folder, batch_size)
    digests = memorization.digests(pixels)
    is_grey = (pixels == pixels[..., :1]).all()
    height, width = pixels.shape[1:3]
    form = f"{height} x {width} pixels in {'grey' if is_grey else 'colour'}"
    return Measured(images, outputs, digests, form)


def _reporting(network: Network, name: str, report: Report) -> Callable[[np.ndarray, int], Outputs]:
    """Applies the network in parts that are complete batches, so that nothing else is compiled."""

    def apply(images: np.ndarray, batch_size: int) -> Outputs:
        num, length, parts, done = len(images), 5 * batch_size, [], 0
        report(f"features of {printable(name)}", done, num)
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
    _, outputs, _, form = measure(images, network, settings, report)
    features = outputs.features.astype(np.float64)
    covariance = np.cov(features, rowvar=False).reshape(features.shape[1], features.shape[1])
    return Statistics(
        images.name,
        features.mean(axis=0),
        covariance,
        network=settings.network_label(),
        weights=network.fingerprint if network.is_cacheable else "",
        resize=network.resize,
        image_form=form,
        num_images=len(features),
        is_file=False,
        from_cache=outputs.from_cache,
        remarks=images.remarks,
    )


def _compare_statistics(
    both: tuple[ImageSet | Statistics, ImageSet | Statistics],
    settings: MetricSettings,
    seed: int,
    report: Report | None,
) -> Comparison:
    """The FID alone, where at least one set is a file of statistics."""
    network = None
    if not all(isinstance(images, Statistics) for images in both):
        network = settings.choose_network()
        for images in both:  # before any image is read
            if isinstance(images, Statistics):
                statistics.check_network(images, network, settings)

    def moments(images: ImageSet | Statistics) -> Statistics:
        if network is None or isinstance(images, Statistics):
            assert isinstance(images, Statistics)
            return images
        return compute_statistics(images, network, settings, seed, report)

    reference, generated = moments(both[0]), moments(both[1])
    statistics.check_pair(reference, generated)
    distance = fid.moments_distance(
        reference.mean, reference.covariance, generated.mean, generated.covariance
    )
    notes = ["statistics are enough for the FID alone; its error and all else need the images"]
    if np.array_equal(reference.mean, generated.mean) and np.array_equal(
        reference.covariance, generated.covariance
    ):
        distance = 0.0
        notes.append("A and B are the same statistics")
    forms = reference.image_form, generated.image_form
    if all(forms) and forms[0] != forms[1]:
        notes.append(_form_note(*forms))
    unknown = [statistics.unknown_note(moment, settings) for moment in (reference, generated)]
    notes += [note for note in dict.fromkeys(unknown) if note]
    first, second = (
        statistics.features_name(moment, settings) for moment in (reference, generated)
    )
    return Comparison(
        names=(reference.name, generated.name),
        features=first if first == second else f"A {first}, B {second}",
        num_images=(reference.num_images, generated.num_images),
        seed=seed,
        values={"fid": distance},
        notes=notes,
        remarks=(reference.remarks, generated.remarks),
        from_cache=(reference.from_cache, generated.from_cache),
        are_statistics=(reference.is_file, generated.is_file),
        protocol=settings.protocol,
    )


def table(comparison: Comparison) -> str:
    """Returns the table of metrics as text."""
    lines = [
        *_content_lines([comparison]),
        "",
        f"{'metric':22s} {'value':>12s}    {'std. error':>10s}",
    ]
    for metric, meaning in METRICS.items():
        if metric in comparison.values:
            stderr = comparison.values.get(f"{metric}_stderr")
            error = "" if stderr is None else f"+- {stderr:<10.3g}"
            lines.append(f"{metric:22s} {comparison.values[metric]:12.6g} {error:13s} {meaning}")
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)])


def letters(num_sets: int) -> str:
    """The letters of the reference and of the other sets, in tables and in JSON.

    >>> letters(2), letters(4)
    ('AB', 'RABC')
    """
    if num_sets == 2:
        return "AB"
    return "R" + string.ascii_uppercase.replace("R", "")[: num_sets - 1]


def _with_letters(note: str, reference: str, generated: str) -> str:
    """A note on two sets, A and B, with the letters that they have among more."""
    chosen = {"A": reference, "B": generated}
    return re.sub(r"\b[AB]\b", lambda letter: chosen[letter[0]], note)


def table_of_differences(comparisons: Comparisons) -> str:
    """Returns the metrics of each set, their differences and verdicts as text."""
    labels = letters(len(comparisons.sets) + 1)
    values = {
        letter: comparison.values
        for letter, comparison in zip(labels[1:], comparisons.sets, strict=True)
    }
    notes = dict.fromkeys(
        _with_letters(note, labels[0], letter)
        for letter, comparison in zip(labels[1:], comparisons.sets, strict=True)
        for note in comparison.notes
    )
    return "\n".join(
        [
            *_content_lines(comparisons.sets),
            "",
            paired.values_table(values),
            "",
            paired.differences_table(comparisons.differences),
            *(f"note: {note}" for note in [*comparisons.notes, *notes]),
        ]
    )


def _content_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """What each set holds, and the features."""
    lines = []
    for number, letter in enumerate(letters(len(comparisons) + 1)):
        comparison, side = comparisons[max(number - 1, 0)], min(number, 1)
        num_images = comparison.num_images[side]
        content = "" if num_images is None else counted(num_images, "image")
        if comparison.are_statistics[side]:
            content = f"statistics of {content}" if content else "statistics"
        parts = [content, *comparison.remarks[side]]
        if comparison.from_cache[side]:
            parts.append("features from the cache")
        lines.append(printable(f"{letter}: {comparison.names[side]} ({'; '.join(parts)})"))
    first = comparisons[0]
    protocol = "" if first.protocol == "default" else f"protocol {first.protocol}, "
    return [*lines, f"features: {first.features}, {protocol}seed {first.seed}"]


def write_json(path: Path, comparison: Comparison) -> None:
    """Writes the content of `table` and the R^2 of the lines as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    _write_json(path, _as_json(comparison))


def write_differences(path: Path, comparisons: Comparisons) -> None:
    """Writes the content of `table_of_differences` as JSON, each set as `write_json` does.

    Raises:
      UserError: the file cannot be written.
    """
    labels = letters(len(comparisons.sets) + 1)
    names = {
        letter: comparison.names[1]
        for letter, comparison in zip(labels[1:], comparisons.sets, strict=True)
    }
    rows = [
        row._replace(first=names[row.first], second=names[row.second])._asdict()
        for row in comparisons.differences
    ]
    content = {
        "sets": [_as_json(comparison) for comparison in comparisons.sets],
        "differences": rows,
        "notes": comparisons.notes,
    }
    _write_json(path, content)


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "a": comparison.names[0],
        "b": comparison.names[1],
        "features": comparison.features,
        "protocol": comparison.protocol,
        "num_images": list(comparison.num_images),
        "features_from_cache": list(comparison.from_cache),
        "remarks": [list(remarks) for remarks in comparison.remarks],
        "seed": comparison.seed,
        "metrics": {
            name: value if np.isfinite(value) else None for name, value in comparison.values.items()
        },
        "notes": comparison.notes,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"json={path}: cannot be written: {error.strerror}") from error
