"""Draws from a trained run: samples, reconstructions of validation images, interpolations.

python -m launch.sample --workdir=runs/digits
python -m launch.sample --workdir=runs/digits --repetition=0 --step=400 --output=DIR --npz
python -m launch.sample --workdir=runs/digits --num=4500 --images=DIR

Writes samples.png, reconstructions.png (each image above its reconstruction) and
interpolations.png (a pair a row); with --npz also drawn.npz, whose `samples` are as many as --num
says while a picture shows 256 at most. With --images=DIR it writes samples alone, each a PNG file,
for any other program to measure: with --seed=0 those that launch.eval measures. Exit codes: 0 done,
2 bad input.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program

if TYPE_CHECKING:
    import numpy as np

    from thermo_ebm.evaluation.trained import TrainedRun
    from thermo_ebm.types import Params

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_REPETITION = flags.DEFINE_integer("repetition", 0, "Which repetition.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint; the newest by default.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder; rep_XX/drawn in the run's by default.")
_NUM = flags.DEFINE_integer("num", 64, "Samples; reconstructions and pairs are fewer.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of the draws; another one draws others.", lower_bound=0, upper_bound=2**31 - 1
)
_NPZ = flags.DEFINE_bool("npz", False, "Write the arrays too, as drawn.npz.")
_IMAGES = flags.DEFINE_string(
    "images", None, "A new or empty folder: write --num samples into it, one PNG each, only."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data are now; the run's by default.")

_COLUMNS = 8  # images a row
_MOST = 256  # samples in a picture
_BATCH = 100  # samples at once
_NAMES = ("samples", "reconstructions", "interpolations")


def main(argv: Sequence[str]) -> int:
    """Draws, writes the pictures and names them."""
    del argv
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import trained
    from thermo_ebm.run import layout

    workdir = Path(_WORKDIR.value)
    if _NUM.value < 1:
        raise UserError(f"--num={_NUM.value}: must be at least 1")
    run = trained.open_run(workdir)
    step, params = trained.chosen_params(run, _REPETITION.value, _STEP.value)
    if _IMAGES.value:
        return _export(run, step, params, Path(_IMAGES.value))
    folder = layout.repetition_dir(workdir, _REPETITION.value) / "drawn"
    folder = Path(_OUTPUT.value) if _OUTPUT.value else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = _write(folder, step, _draw(run, params))
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be written: {error.strerror}") from error
    except trained.UnusableCheckpoint as error:  # a model that has diverged
        raise UserError(f"repetition {_REPETITION.value}, step {step}: {error}") from error
    print(f"drawn from repetition {_REPETITION.value} at step {step}:")
    print("\n".join(f"  {path}" for path in written))
    return 0


def _export(run: "TrainedRun", step: int, params: "Params", folder: Path) -> int:
    """Writes the samples one by one."""
    import jax

    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import evaluate, trained
    from thermo_ebm.run import pictures

    checkpoint = evaluate.Checkpoint(_REPETITION.value, step)
    key, _ = evaluate.checkpoint_keys(run, checkpoint)
    key = jax.random.fold_in(key, _SEED.value) if _SEED.value else key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--images={folder}: is not empty; choose a new folder")
        samples = evaluate.generate_images(run, _NUM.value, _BATCH)(params, key)
        for number, image in enumerate(samples):
            pictures.save_png(folder / f"{number:06d}.png", image)
    except OSError as error:
        raise UserError(f"--images={folder}: cannot be written: {error.strerror}") from error
    except trained.UnusableCheckpoint as error:
        raise UserError(f"repetition {_REPETITION.value}, step {step}: {error}") from error
    print(f"{len(samples)} samples of repetition {_REPETITION.value} at step {step}: {folder}")
    return 0


def _write(folder: Path, step: int, arrays: "dict[str, np.ndarray]") -> list[Path]:
    """Writes the pictures and, if asked for, the arrays."""
    import numpy as np

    from thermo_ebm import files
    from thermo_ebm.run import pictures

    for name in _NAMES:
        picture = pictures.grid(pictures.magnify(_rows(arrays, name)), _COLUMNS, gap=2)
        pictures.save_png(folder / f"{name}.png", picture)
    written = [folder / f"{name}.png" for name in _NAMES]
    if _NPZ.value:
        content = io.BytesIO()
        np.savez(content, step=step, **arrays)  # type: ignore[arg-type]
        files.write_bytes(folder / "drawn.npz", content.getvalue())
        written.append(folder / "drawn.npz")
    return written


def _draw(run: "TrainedRun", params: "Params") -> "dict[str, np.ndarray]":
    """Samples, images, their reconstructions and interpolations, uint8 [num, h, w, channels]."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from thermo_ebm import data
    from thermo_ebm.config.build import sampler_settings
    from thermo_ebm.evaluation import evaluate, trained
    from thermo_ebm.sampling import images

    sampler, num = sampler_settings(run.config), _NUM.value
    real = trained.validation_images(run, _DATA_DIR.value)[: min(max(num // 2, 1), _BATCH)]
    key_samples, key_posterior, key_pairs = jax.random.split(jax.random.key(_SEED.value), 3)
    pairs = min(max(num // _COLUMNS, 1), _COLUMNS)

    @jax.jit
    def draw(params: "Params") -> "tuple[jax.Array, jax.Array]":
        unit = data.to_unit(jnp.asarray(real))
        seen = images.reconstruct(run.model, params, unit, key_posterior, sampler.posterior)
        z = images.sample_latents(run.model, params, key_pairs, 2 * pairs, sampler.prior)
        between = images.interpolate(run.model, params, z.reshape(pairs, 2, -1), _COLUMNS)
        return data.to_uint8(seen), data.to_uint8(between.reshape(-1, *between.shape[2:]))

    reconstructions, interpolations = draw(params)
    return {
        "samples": evaluate.generate_images(run, num, _BATCH)(params, key_samples),
        "reconstructions": np.asarray(reconstructions),
        "interpolations": np.asarray(interpolations),
        "images": real,
    }


def _rows(arrays: "dict[str, np.ndarray]", name: str) -> "np.ndarray":
    """The images of one picture, row by row: reconstructions stand below their images."""
    import numpy as np

    if name != "reconstructions":
        return arrays[name][:_MOST]
    rows = []
    for first in range(0, len(arrays["images"]), _COLUMNS):
        for one in (arrays["images"], arrays["reconstructions"]):
            row = one[first : first + _COLUMNS]
            missing = [(0, _COLUMNS - len(row))] + [(0, 0)] * 3
            rows.append(np.pad(row, missing, constant_values=255))
    return np.concatenate(rows)


if __name__ == "__main__":
    program.run(main)
