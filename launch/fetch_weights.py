"""Downloads the published weights of a feature network into the cache folder; needed only once.

  python -m launch.fetch_weights [--cache_dir=DIR]          # InceptionV3's for FID, 95 MB
  python -m launch.fetch_weights --network=dinov2_vitl14    # 1.2 GB

The SHA-256 of InceptionV3's file is checked against the digits in its name. For DINOv2 (Meta's
server) and CLIP (Hugging Face) no checksum is published with the file: that of the download is
kept beside it and checked at each use. No other program of this project downloads weights. Exit
codes: 0 the weights are there, 2 they are not, with the reason in one line.
"""

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.metrics.networks import NETWORKS, cache, download


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("cache_dir", None, "Folder for the weights; by default ~/.cache/thermo_ebm.")
    flags.DEFINE_string("network", "inception_v3", "The feature network.")
    flags.DEFINE_string("url", None, "Another address of the network's published weights.")


def main(argv: Sequence[str]) -> int:
    """Downloads the weights and prints the path of the file."""
    del argv
    values = flags.FLAGS
    folder = Path(values.cache_dir) if values.cache_dir else cache.default_dir()
    network = NETWORKS.get(values.network)
    if network is None or not network.url:
        names = ", ".join(name for name, published in NETWORKS.items() if published.url)
        raise UserError(f"network={values.network}: must be one of {names}")
    unverified = "" if download.has_checksum(network.url.rsplit("/", 1)[-1]) else network.name
    path = download.fetch(values.url or network.url, folder, network=unverified)
    print(path)
    if unverified:
        print(f"SHA-256 {download.sha256_of(path)}; none is published with {network.url}")
    return 0


if __name__ == "__main__":
    program.run(main, define_flags)
