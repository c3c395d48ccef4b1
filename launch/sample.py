"""Draws samples, reconstructions of validation images and interpolations from a trained run.

python -m launch.sample --workdir=runs/digits
python -m launch.sample --workdir=runs/digits --repetition=0 --step=400 --output=DIR --npz
python -m launch.sample --workdir=runs/digits --num=4500 --images=DIR
python -m launch.sample --workdir=runs/digits --mask=left

Writes samples.png, reconstructions.png (each image above its reconstruction) and
interpolations.png (one pair per row). A picture shows at most 256 samples; with --npz the program
also writes drawn.npz, which holds all --num samples. With --images=DIR the program writes only
samples, one PNG file each, for use in other programs; with --seed=0 these are the samples that
launch.eval evaluates. With --mask=MASK the program hides pixels of validation images, draws them
from the posterior given the others, and writes filled.png alone: each row has an image, what is
observed of it, and 8 draws. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError, counted

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from thermo_ebm import data, files
    from thermo_ebm.evaluation import evaluate, masks
    from thermo_ebm.evaluation.run import LoadedCheckpoint, Run, UnusableCheckpoint, load_run
    from thermo_ebm.run import layout, pictures
    from thermo_ebm.sampling import samples as sampling
    from thermo_ebm.types import Params


_PATH_LENGTH = 8  # images between two latents, both ends included
_PICTURE_SAMPLES = 256  # the most samples in a picture
_RECONSTRUCTIONS = 100  # the most reconstructions
_PAIR_GAP = 10  # white pixels between an image with its reconstruction and the next pair
_FILLS = 8  # draws of the hidden pixels of an image


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    DEFINE_path("output", None, "Output folder; the run's rep_XX/drawn by default.")
    flags.DEFINE_integer(
        "num",
        64,
        "Number of samples; fewer reconstructions and interpolated pairs are drawn. With --mask, "
        "the draws of all images together.",
        lower_bound=1,
    )
    program.define_seed("Seed of the random draws.")
    flags.DEFINE_bool("npz", False, "Also write the arrays, as drawn.npz or filled.npz.")
    DEFINE_path(
        "images", None, "A new or empty folder: write only --num samples into it, one PNG each."
    )
    DEFINE_path(
        "mask",
        None,
        "Hide pixels and fill them in: left, right, top, bottom, center, random:0.5, or a picture "
        "of the images' size, white where pixels are hidden.",
    )
    flags.register_multi_flags_validator(
        ["mask", "images"],
        lambda values: not (values["mask"] and values["images"]),
        message="--mask writes filled.png alone, and --images samples: omit one",
    )
    program.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Draws, writes the pictures or the single images, and prints where they are."""
    del argv

    values = flags.FLAGS
    program.check_devices()
    run = load_run(values.workdir, values.parameters)
    checkpoint = run.load(values.repetition, values.step)
    if values.images:
        folder = Path(values.images)
        data.check_output(run.config.data, folder, "images")
        with _clear_errors("images", folder, checkpoint):
            _write_samples(run, checkpoint, folder)
        print(f"{counted(values.num, 'sample')} of {checkpoint.title()}: {folder}")
        return 0
    folder = layout.outputs_dir(values.workdir, values.repetition, run.parameters) / layout.DRAWN
    folder = Path(values.output) if values.output else folder
    data.check_output(run.config.data, folder, "output")
    with _clear_errors("output", folder, checkpoint):
        folder.mkdir(parents=True, exist_ok=True)
        if values.mask:
            paths = _write_filled(folder, checkpoint, _fill(run, checkpoint.params))
        else:
            paths = _write_pictures(folder, checkpoint, _draw(run, checkpoint.params))
    print(f"drawn from {checkpoint.title()}:")
    print("\n".join(f"  {path}" for path in paths))
    return 0


@contextlib.contextmanager
def _clear_errors(flag: str, folder: Path, checkpoint: LoadedCheckpoint) -> Iterator[None]:
    """Turns the errors of a folder and of a model that has diverged into a UserError."""

    try:
        yield
    except OSError as error:
        raise UserError(f"{flag}={folder}: cannot be written: {error.strerror}") from error
    except UnusableCheckpoint as error:
        raise UserError(f"{checkpoint.title()}: {error}") from error


def _write_samples(run: Run, checkpoint: LoadedCheckpoint, folder: Path) -> None:
    """Writes the samples one by one."""

    values = flags.FLAGS
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"images={folder}: is not empty; choose a new folder")
    (folder / files.SAMPLES_MARK).touch()
    key, _ = evaluate.checkpoint_keys(run, checkpoint.repetition, checkpoint.step)
    key = jax.random.fold_in(key, values.seed) if values.seed else key
    samples = evaluate.generate_images(run, checkpoint.params, key, values.num)
    for number, image in enumerate(samples):
        pictures.save_png(folder / f"{number:06d}.png", image)


def _draw(run: Run, params: Params) -> dict[str, np.ndarray]:
    """Samples, images, their reconstructions and interpolations, uint8 [num, h, w, channels]."""

    num, sampler = flags.FLAGS.num, run.sampler
    real = run.validation_images(flags.FLAGS.data_dir)[: min(max(num // 2, 1), _RECONSTRUCTIONS)]
    key_samples, key_posterior, key_pairs = jax.random.split(jax.random.key(flags.FLAGS.seed), 3)
    pairs = min(max(num // _PATH_LENGTH, 1), _PATH_LENGTH)

    @jax.jit
    def draw(params: Params) -> tuple[jax.Array, jax.Array]:
        x = data.to_unit(jnp.asarray(real))
        reconstructions = sampling.reconstruct(
            run.model, params, x, key_posterior, sampler.posterior
        )
        z = sampling.sample_latents(run.model, params, key_pairs, 2 * pairs, sampler.prior)
        paths = sampling.interpolate(run.model, params, z.reshape(pairs, 2, -1), _PATH_LENGTH)
        return data.to_uint8(reconstructions), data.to_uint8(paths.reshape(-1, *paths.shape[2:]))

    reconstructions, interpolations = draw(params)
    return {
        "samples": evaluate.generate_images(run, params, key_samples, num),
        "reconstructions": np.asarray(reconstructions),
        "interpolations": np.asarray(interpolations),
        "originals": real,
    }


def _fill(run: Run, params: Params) -> dict[str, np.ndarray]:
    """Validation images, the mask, draws of the hidden pixels, and what is known of the chains."""

    values = flags.FLAGS
    size = run.config.data.image_size
    mask = masks.read_mask(values.mask, size, size, values.seed)
    real = run.validation_images(values.data_dir)[: max(values.num // _FILLS, 1)]
    key = jax.random.key(values.seed)
    draws = run.posteriors(data.to_unit(real), key, min(values.num, _FILLS), mask, params)
    if not draws.reliable.all():
        print(
            f"the chains of {np.sum(~draws.reliable)} of {len(real)} images may have missed a part "
            "of their posteriors",
            file=sys.stderr,
        )
    return {
        "originals": real,
        "mask": mask,
        "filled": masks.filled(real, mask, np.asarray(data.to_uint8(draws.images))),
        **draws._asdict(),
    }


def _write_filled(
    folder: Path, checkpoint: LoadedCheckpoint, arrays: dict[str, np.ndarray]
) -> list[Path]:
    """Writes the picture of originals, observed pixels and draws, and with --npz the arrays."""

    originals, fills = arrays["originals"], arrays["filled"]
    observed = masks.masked(originals, arrays["mask"])
    rows = np.concatenate([originals[:, None], observed[:, None], fills], axis=1)
    images = pictures.magnify(rows.reshape(-1, *rows.shape[2:]))
    picture = pictures.grid(images, rows.shape[1], gap=2)
    title = (
        f"validation images, what is observed of them, {counted(fills.shape[1], 'draw')} of the "
        f"hidden pixels, {checkpoint.title()}"
    )
    paths = [folder / "filled.png"]
    pictures.save_png(paths[0], pictures.titled(picture, title))
    return paths + _write_arrays(folder / "filled.npz", checkpoint, arrays)


def _write_arrays(
    path: Path, checkpoint: LoadedCheckpoint, arrays: dict[str, np.ndarray]
) -> list[Path]:
    """With --npz, writes the arrays; returns the file, or nothing."""

    if not flags.FLAGS.npz:
        return []
    content = io.BytesIO()
    np.savez(content, step=checkpoint.step, **arrays)  # type: ignore[arg-type]
    files.write_bytes(path, content.getvalue())
    return [path]


def _write_pictures(
    folder: Path, checkpoint: LoadedCheckpoint, arrays: dict[str, np.ndarray]
) -> list[Path]:
    """Writes the pictures, titled with their checkpoint, and with --npz the arrays."""

    samples, title = arrays["samples"], "samples"
    if len(samples) > _PICTURE_SAMPLES:
        title = f"the first {_PICTURE_SAMPLES} of {len(samples)} samples"
        samples = samples[:_PICTURE_SAMPLES]
    num = len(arrays["originals"])
    columns = min(pictures.near_square(2 * num), num)
    pairs = _pairs(arrays["originals"], arrays["reconstructions"])
    paths = []

    def write(name: str, images: np.ndarray, columns: int, title: str, gap: int = 2) -> None:
        picture = pictures.grid(images, columns, gap)
        paths.append(folder / f"{name}.png")
        pictures.save_png(paths[-1], pictures.titled(picture, f"{title}, {checkpoint.title()}"))

    write("samples", pictures.magnify(samples), pictures.near_square(len(samples)), title)
    title = "validation images, each above its reconstruction"
    write("reconstructions", pairs, columns, title, gap=_PAIR_GAP)
    title = "interpolations between two latents, one pair per row"
    write("interpolations", pictures.magnify(arrays["interpolations"]), _PATH_LENGTH, title)
    return paths + _write_arrays(folder / "drawn.npz", checkpoint, arrays)


def _pairs(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Each image above its reconstruction, magnified, as one picture of both.

    Returns:
      uint8 [num, 2 * height + 2, width, channels], in pixels of the picture.
    """

    images, reconstructions = pictures.magnify(images), pictures.magnify(reconstructions)
    gap = np.full_like(images[:, :2], 255)
    return np.concatenate([images, gap, reconstructions], axis=1)


if __name__ == "__main__":
    program.run(main, define_flags)
