"""Simulates how often the intervals of metrics and of their differences contain the truth.

  python -m benchmarks.coverage                                     # of metrics: hours
  python -m benchmarks.coverage --num_features=48 --repeats=40      # of one number of features
  python -m benchmarks.coverage --paired --results=paired.jsonl     # of paired differences: hours
  python -m benchmarks.coverage --paired --results=paired.jsonl --table   # what is done so far

With --paired each repeat is a line of the file, and the same command goes on where it ended.
"""

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from benchmarks import coverage_of_differences, coverage_of_metrics
from launch import flag_errors, program
from launch.path_flags import DEFINE_path


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_list("num_images", "400,1500", "Numbers of images in each set.")
    flags.DEFINE_list("num_features", "48,512", "Numbers of features of an image.")
    flags.DEFINE_integer("repeats", 100, "Number of repeats of each case.", lower_bound=2)
    flags.DEFINE_bool("paired", False, "Differences of two sets rather than metrics.")
    flags.DEFINE_bool("table", False, "With --paired, print what is done and simulate nothing.")
    flags.DEFINE_integer(
        "num_sizes", 10, "With --paired, number of sizes of the extrapolations.", lower_bound=3
    )
    DEFINE_path("results", "paired.jsonl", "With --paired, the file of results.")
    program.define_seed("Seed of features and subsets.")


def main(argv: Sequence[str]) -> None:
    """Simulates and prints a table."""
    del argv
    values = flags.FLAGS
    num_images = flag_errors.integers("num_images")
    num_features = flag_errors.integers("num_features")
    if not values.paired:
        coverage_of_metrics.print_table(values.seed, values.repeats, num_images, num_features)
        return
    path = Path(values.results)
    if not values.table:
        cells = coverage_of_differences.cells(num_images, num_features)
        coverage_of_differences.simulate(
            values.seed, values.repeats, list(cells), path, values.num_sizes
        )
    coverage_of_differences.print_table(path)


if __name__ == "__main__":
    program.run(main, define_flags)
