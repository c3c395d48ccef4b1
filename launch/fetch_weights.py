"""Downloads the FID weights of InceptionV3 (95 MB) into the cache folder; needed only once.

  python -m launch.fetch_weights [--cache_dir=DIR]

The file's SHA-256 is checked against the digits in its name. No other program of this project
downloads weights. Exit codes: 0 the weights are there, 2 they are not, with the reason in one line.
"""

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.metrics.networks import cache, download, inception_v3


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("cache_dir", None, "Folder for the weights; by default ~/.cache/thermo_ebm.")
    flags.DEFINE_string(
        "url", None, "Address of the weights; by default that of pytorch-fid's InceptionV3."
    )


def main(argv: Sequence[str]) -> int:
    """Downloads the weights and prints the path of the file."""
    del argv
    values = flags.FLAGS
    folder = Path(values.cache_dir) if values.cache_dir else cache.default_dir()
    print(download.fetch(values.url or inception_v3.WEIGHTS_URL, folder))
    return 0


if __name__ == "__main__":
    program.run(main, define_flags)
