r"""Seconds from the command to the first training step, with an empty and a filled compilation
cache.

  python -m benchmarks.startup --config=configs/digits_paper.py
  python -m benchmarks.startup --config=configs/cifar10_paper.py

Starts `python -m launch.train` twice as a user does, in two new folders with one new compilation
cache, and ends the program when it reports that it has compiled. Configurations whose data may be
missing train on random images of the same size. The last line of the output is
`first_s=... second_s=...`.
"""

if not __package__:
    __import__("not_a_script")

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from launch import config_file, program

_READY = " compiled: training from step "


def data_flags(config: ConfigDict, folder: Path) -> list[str]:
    """Flags for the data: none for the digits, which are always there, else random images."""
    if config.data.name == "digits":
        return []
    path = folder / "images.npz"
    num, size = config.data.num_train + config.data.num_val, config.data.image_size
    shape = (num, size, size, config.data.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(path, images=images)
    return ["--config.data.name=npz", f"--config.data.data_dir={path}"]


def seconds_to_first_step(arguments: list[str], environment: dict[str, str]) -> float:
    """Runs the training program until it is about to take its first step."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "launch.train", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if _READY in line:
                process.kill()
                return time.perf_counter() - started
    raise RuntimeError("training ended before its first step:\n" + "".join(said))


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define("digits_paper", "The configuration.")


def main(argv: Sequence[str]) -> None:
    del argv
    config_flag = f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}"
    overrides = [argument for argument in sys.argv[1:] if argument.startswith("--config.")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        arguments = [config_flag, *overrides, *data_flags(config_file.read(), folder)]
        seconds = [
            seconds_to_first_step([*arguments, f"--workdir={folder / run}"], environment)
            for run in ("first", "second")
        ]
    print("first_s={:.1f} second_s={:.1f}".format(*seconds))


if __name__ == "__main__":
    program.run(main, define_flags)
