"""Downloads InceptionV3's FID weights (95 MB), once, into the cache folder.

  python -m launch.fetch_weights [--cache_dir=DIR]

The file's SHA-256 is checked against the digits in its name. Nothing else in this project downloads
weights. Exit code 0: they are there; 2: they cannot be had, and why, in one line.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from thermo_ebm.errors import UserError
from thermo_ebm.metrics import download, weights

_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Folder for the weights; ~/.cache/thermo_ebm.")
_URL = flags.DEFINE_string("url", download.INCEPTION_URL, "Where the weights are.")


def main(argv: Sequence[str]) -> None:
    """Downloads the weights, or says in one line why not."""
    if len(argv) > 1:
        print(f"fetch_weights: unknown argument {argv[1]!r}", file=sys.stderr)
        sys.exit(2)
    folder = Path(_CACHE_DIR.value) if _CACHE_DIR.value else weights.default_cache_dir()
    try:
        print(download.fetch(_URL.value, folder))
    except UserError as error:
        print(f"fetch_weights: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
