"""Compares two sets of images: FID, KID and more of B against A, each with its standard error.

python -m launch.compare REAL_FOLDER GENERATED_FOLDER
python -m launch.compare cifar10:validation samples.npz --features=inception_v3 --json=out.json
python -m launch.compare statistics.npz GENERATED_FOLDER --features=inception_v3
python -m launch.compare REAL_FOLDER --save_statistics=statistics.npz

A and B are folders of images (searched recursively), .npz files with an array of images (uint8),
data sets with a split (NAME:train, NAME:validation), or .npz files of statistics with `mu` and
`sigma` as pytorch-fid writes them; for statistics only the FID is computed. From a set of more than
4,500 images, 4,500 are drawn at random, unless --num_images gives another number. Exit codes:
0 done, 2 bad input.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from . import evaluation_flags, program

if TYPE_CHECKING:
    from thermo_ebm.evaluation import compare

TAKES_ARGUMENTS = True  # the two sets


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    evaluation_flags.define(
        "Largest number of images per set, drawn at random; 0 means 4500 (with statistics: all)."
    )
    flags.DEFINE_string("data_dir", "", "Folder of prepared data sets; by default that of TFDS.")
    flags.DEFINE_integer(
        "image_size",
        0,
        "Crop and resize to squares of this size first, as training does; 0 keeps sizes.",
    )
    flags.DEFINE_integer("batch_size", 100, "Images per batch in the network.")
    program.define_seed("Seed of the random choice of images and subsets.")
    flags.DEFINE_string("json", None, "File to which the metrics are written as JSON.")
    flags.DEFINE_string(
        "save_statistics", None, "File (.npz) to which mu and sigma of A's features are written."
    )


def main(argv: Sequence[str]) -> int:
    """Compares the two sets, prints the table and writes the requested files."""
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import compare, sets

    values, settings = flags.FLAGS, _settings()
    compare.check(settings)
    wanted = (1, 2) if values.save_statistics else (2,)
    if len(argv) - 1 not in wanted:
        raise UserError(
            f"{len(argv) - 1} sets of images: give A and B, or A alone with --save_statistics"
        )
    opened = [sets.open_set(name, settings.data_dir) for name in argv[1:]]
    if values.save_statistics:
        _save(Path(values.save_statistics), opened[0], settings)
    if len(opened) == 2:
        comparison = compare.compare(opened[0], opened[1], settings, _report)
        if values.json:
            compare.write_json(Path(values.json), comparison)
        print(compare.table(comparison))
    return 0


def _save(
    path: Path, first: "compare.ImageSet | compare.Statistics", settings: "compare.Settings"
) -> None:
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import compare, sets

    if isinstance(first, sets.Statistics):
        raise UserError(f"save_statistics={path}: {first.name} already holds statistics")
    network = compare.choose_network(settings)
    statistics = compare.statistics_of(first, network, settings, _report)
    sets.save_statistics(path, statistics)
    print(f"statistics of {first.name}: {path}")


def _settings() -> "compare.Settings":
    from thermo_ebm.evaluation import compare

    values = flags.FLAGS
    return compare.Settings(
        **evaluation_flags.settings()._asdict()
        | {
            "batch_size": values.batch_size,
            "data_dir": values.data_dir,
            "image_size": values.image_size,
            "seed": values.seed,
        }
    )


def _report(what: str, done: int, num: int) -> None:
    """Progress: one line that is updated on a terminal, elsewhere one line per part."""
    end = "\n" if done == num or not sys.stderr.isatty() else "\r"
    print(f"{what}: {done} of {num}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    define_flags()
    program.run(main, TAKES_ARGUMENTS)
