"""Draws samples, reconstructions of validation images and interpolations from a trained run.

python -m launch.sample --workdir=runs/digits
python -m launch.sample --workdir=runs/digits --repetition=0 --step=400 --output=DIR --npz
python -m launch.sample --workdir=runs/digits --num=4500 --images=DIR

Writes samples.png, reconstructions.png (each image above its reconstruction) and
interpolations.png (one pair per row). A picture shows at most 256 samples; with --npz the program
also writes drawn.npz, which holds all --num samples. With --images=DIR the program writes only
samples, one PNG file each, for use in other programs; with --seed=0 these are the samples that
launch.eval evaluates. Exit codes: 0 done, 2 bad input.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from . import program

if TYPE_CHECKING:
    import numpy as np

    from thermo_ebm.evaluation.trained import TrainedRun
    from thermo_ebm.types import Params

_COLUMNS = 8  # images between two latents, both ends included
_MOST = 256  # samples in a picture
_BATCH = 100  # samples at once


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    flags.DEFINE_string("output", None, "Output folder; the run's rep_XX/drawn by default.")
    flags.DEFINE_integer(
        "num", 64, "Number of samples; fewer reconstructions and interpolated pairs are drawn."
    )
    program.define_seed("Seed of the random draws.")
    flags.DEFINE_bool("npz", False, "Also write the arrays, as drawn.npz.")
    flags.DEFINE_string(
        "images", None, "A new or empty folder: write only --num samples into it, one PNG each."
    )
    program.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Draws, writes the pictures and prints their paths."""
    del argv
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import trained
    from thermo_ebm.run import layout

    values = flags.FLAGS
    workdir = Path(values.workdir)
    if values.num < 1:
        raise UserError(f"num={values.num}: must be at least 1")
    program.check_devices()
    run = trained.open_run(workdir)
    step, params = trained.chosen_params(run, values.repetition, values.step)
    if values.images:
        return _export(run, step, params, Path(values.images))
    folder = layout.repetition_dir(workdir, values.repetition) / "drawn"
    folder = Path(values.output) if values.output else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        where = f"repetition {values.repetition}, step {step}"
        written = _write(folder, where, step, _draw(run, params))
    except OSError as error:
        raise UserError(f"output={folder}: cannot be written: {error.strerror}") from error
    except trained.UnusableCheckpoint as error:  # the model has diverged
        raise UserError(f"repetition {values.repetition}, step {step}: {error}") from error
    print(f"drawn from repetition {values.repetition} at step {step}:")
    print("\n".join(f"  {path}" for path in written))
    return 0


def _export(run: "TrainedRun", step: int, params: "Params", folder: Path) -> int:
    """Writes the samples one by one."""
    import jax

    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import evaluate, trained
    from thermo_ebm.run import pictures

    values = flags.FLAGS
    checkpoint = evaluate.Checkpoint(values.repetition, step)
    key, _ = evaluate.checkpoint_keys(run, checkpoint)
    key = jax.random.fold_in(key, values.seed) if values.seed else key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"images={folder}: is not empty; choose a new folder")
        samples = evaluate.generate_images(run, values.num, _BATCH)(params, key)
        for number, image in enumerate(samples):
            pictures.save_png(folder / f"{number:06d}.png", image)
    except OSError as error:
        raise UserError(f"images={folder}: cannot be written: {error.strerror}") from error
    except trained.UnusableCheckpoint as error:
        raise UserError(f"repetition {values.repetition}, step {step}: {error}") from error
    print(f"{len(samples)} samples of repetition {values.repetition} at step {step}: {folder}")
    return 0


def _write(folder: Path, where: str, step: int, arrays: "dict[str, np.ndarray]") -> list[Path]:
    """Writes the pictures, titled with `where` they were drawn, and, if asked for, the arrays."""
    import numpy as np

    from thermo_ebm import files
    from thermo_ebm.run import pictures

    written = []
    for name, (images, columns, title) in _pictures(arrays).items():
        picture = pictures.grid(pictures.magnify(images), columns, gap=2)
        written.append(folder / f"{name}.png")
        pictures.save_png(written[-1], pictures.titled(picture, f"{title}, {where}"))
    if flags.FLAGS.npz:
        content = io.BytesIO()
        np.savez(content, step=step, **arrays)  # type: ignore[arg-type]
        files.write_bytes(folder / "drawn.npz", content.getvalue())
        written.append(folder / "drawn.npz")
    return written


def _pictures(arrays: "dict[str, np.ndarray]") -> "dict[str, tuple[np.ndarray, int, str]]":
    """By the pictures' names: the images row by row, how many a row has, and a title."""
    from thermo_ebm.run.pictures import near_square

    samples = arrays["samples"][:_MOST]
    shown = "samples"
    if len(samples) < len(arrays["samples"]):
        shown = f"the first {len(samples)} of {len(arrays['samples'])} samples"
    columns = min(near_square(2 * len(arrays["images"])), len(arrays["images"]))
    return {
        "samples": (samples, near_square(len(samples)), shown),
        "reconstructions": (
            _pairs(arrays["images"], arrays["reconstructions"], columns),
            columns,
            "validation images, each above its reconstruction",
        ),
        "interpolations": (
            arrays["interpolations"],
            _COLUMNS,
            "interpolations between two latents, one pair per row",
        ),
    }


def _draw(run: "TrainedRun", params: "Params") -> "dict[str, np.ndarray]":
    """Samples, images, their reconstructions and interpolations, uint8 [num, h, w, channels]."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from thermo_ebm import data
    from thermo_ebm.config.build import sampler_settings
    from thermo_ebm.evaluation import evaluate, trained
    from thermo_ebm.sampling import samples as images

    sampler, num = sampler_settings(run.config), flags.FLAGS.num
    real = trained.validation_images(run, flags.FLAGS.data_dir)[: min(max(num // 2, 1), _BATCH)]
    key_samples, key_posterior, key_pairs = jax.random.split(jax.random.key(flags.FLAGS.seed), 3)
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


def _pairs(images: "np.ndarray", reconstructions: "np.ndarray", columns: int) -> "np.ndarray":
    """Rows of images, and below each row the images' reconstructions."""
    import numpy as np

    rows = []
    for first in range(0, len(images), columns):
        for one in (images, reconstructions):
            row = one[first : first + columns]
            missing = [(0, columns - len(row))] + [(0, 0)] * 3
            rows.append(np.pad(row, missing, constant_values=255))
    return np.concatenate(rows)


if __name__ == "__main__":
    define_flags()
    program.run(main)
