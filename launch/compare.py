"""Compares sets of images: FID, KID and more of B against A, each with its standard error.

python -m launch.compare REAL_FOLDER GENERATED_FOLDER
python -m launch.compare REAL_FOLDER GENERATED_1 GENERATED_2   # which of the two is better?
python -m launch.compare cifar10:validation samples.npz --features=inception_v3 --json=out.json
python -m launch.compare statistics.npz GENERATED_FOLDER --features=inception_v3
python -m launch.compare REAL_FOLDER --save_statistics=statistics.npz

A and B are folders of images (searched recursively), zip or tar files of images, .npz or .npy files
with an array of images (FILE.npz:ARRAY where there are several), data sets with a split
(NAME:train, NAME:validation), or .npz files of statistics with `mu` and `sigma` as pytorch-fid
writes them; for statistics only the FID is computed. With more than two sets the first is the
reference R, and the others are A, B, ... in their order; the table of their metrics is followed by
the difference of each pair of the others in each metric, with its interval of 95 %, a verdict (by
Holm's procedure over the pairs), and the number of images that would decide a difference that is
undecided. From a set of more than 4,500 images, 4,500 are drawn at random, unless --num_images
gives another number. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError, printable

from . import evaluation_flags, path_flags, program
from .path_flags import DEFINE_output_file, DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.evaluation import compare, sets, statistics

TAKES_ARGUMENTS = True  # the sets


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    evaluation_flags.define(
        "Largest number of images per set, drawn at random; 0 means 4500 (with statistics: all)."
    )
    evaluation_flags.define_batch_size()
    DEFINE_path("data_dir", None, "Folder of prepared data sets; by default that of TFDS.")
    flags.DEFINE_integer(
        "image_size",
        0,
        "Crop and resize to squares of this size first, as training does; 0 keeps sizes.",
        lower_bound=0,
    )
    program.define_seed("Seed of the random choice of images and subsets.")
    DEFINE_output_file("json", "File to which the metrics are written as JSON.")
    DEFINE_output_file(
        "save_statistics", "File (.npz) to which mu and sigma of A's features are written."
    )


def main(argv: Sequence[str]) -> int:
    """Compares the sets, prints the table and writes the requested files."""

    values, settings = flags.FLAGS, evaluation_flags.settings()
    names = [_checked(name) for name in argv[1:]]
    if len(names) < (1 if values.save_statistics else 2):
        number = ("no set", "one set")[len(names)]
        raise UserError(
            f"{number} of images: name two or more, or one alone with --save_statistics=FILE"
        )
    if len(set(names[1:])) < len(names[1:]) or len(names) > compare.MAX_SETS:
        raise UserError(
            f"{len(names)} sets of images: name each only once, and at most {compare.MAX_SETS}"
        )
    image_sets = [sets.open_set(name, values.data_dir or "", values.image_size) for name in names]
    if values.save_statistics:
        path, images = Path(values.save_statistics), image_sets[0]
        if isinstance(images, statistics.Statistics):
            raise UserError(f"save_statistics={path}: {images.name} already holds statistics")
        network = settings.choose_network()
        moments = compare.compute_statistics(images, network, settings, values.seed, _report)
        statistics.save(path, moments)
        print(printable(f"statistics of {images.name}: {path}"))
    if len(image_sets) == 2:
        reference, generated = image_sets
        comparison = compare.compare(reference, generated, settings, values.seed, _report)
        if values.json:
            compare.write_json(Path(values.json), comparison)
        print(compare.table(comparison))
    elif len(image_sets) > 2:
        comparisons = compare.compare_candidates(
            image_sets[0], image_sets[1:], settings, values.seed, _report
        )
        if values.json:
            compare.write_differences(Path(values.json), comparisons)
        print(compare.table_of_differences(comparisons))
    return 0


def _checked(name: str) -> str:
    try:
        return path_flags.checked(name)
    except UserError as error:
        raise UserError(f"set of images {name!r}: {error}") from error


def _report(activity: str, done: int, num: int) -> None:
    """Progress: one line that is updated on a terminal, elsewhere one line per part."""
    end = "\n" if done == num or not sys.stderr.isatty() else "\r"
    print(f"{activity}: {done} of {num}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    program.run(main, define_flags, TAKES_ARGUMENTS)
