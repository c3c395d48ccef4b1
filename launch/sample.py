"""Draws from a trained run: samples, reconstructions of validation images, interpolations.

python -m launch.sample --workdir=runs/digits
python -m launch.sample --workdir=runs/digits --repetition=0 --step=400 --output=DIR --npz

Writes samples.png, reconstructions.png (each image above its reconstruction) and
interpolations.png (a pair a row). Exit codes: 0 done, 2 bad input.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program

if TYPE_CHECKING:
    import numpy as np

    from thermo_ebm.trained import TrainedRun
    from thermo_ebm.types import Params

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_REPETITION = flags.DEFINE_integer("repetition", 0, "Which repetition.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint; the newest by default.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder; rep_XX/drawn in the run's by default.")
_NUM = flags.DEFINE_integer("num", 64, "Samples; reconstructions and pairs are fewer.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws; another one draws others.")
_NPZ = flags.DEFINE_bool("npz", False, "Write the arrays too, as drawn.npz.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data are now; the run's by default.")

_COLUMNS = 8  # images a row


def main(argv: Sequence[str]) -> int:
    """Draws, writes the pictures and names them."""
    del argv
    import numpy as np

    from thermo_ebm import trained
    from thermo_ebm.errors import UserError
    from thermo_ebm.train import pictures, rundir

    workdir = Path(_WORKDIR.value)
    if _NUM.value < 1:
        raise UserError(f"--num={_NUM.value}: must be at least 1")
    run = trained.open_run(workdir)
    step, params = _params(run)
    folder = rundir.repetition_dir(workdir, _REPETITION.value) / "drawn"
    folder = Path(_OUTPUT.value) if _OUTPUT.value else folder
    arrays = _draw(run, params)
    written = []
    try:
        for name in ("samples", "reconstructions", "interpolations"):
            picture = pictures.grid(pictures.magnify(_rows(arrays, name)), _COLUMNS, gap=2)
            pictures.save_png(folder / f"{name}.png", picture)
            written.append(folder / f"{name}.png")
        if _NPZ.value:
            np.savez(folder / "drawn.npz", step=step, **arrays)  # type: ignore[arg-type]
            written.append(folder / "drawn.npz")
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be written: {error.strerror}") from error
    print(f"drawn from repetition {_REPETITION.value} at step {step}:")
    print("\n".join(f"  {path}" for path in written))
    return 0


def _params(run: "TrainedRun") -> "tuple[int, Params]":
    """The step asked for, and its parameters."""
    from thermo_ebm import trained
    from thermo_ebm.errors import UserError

    number, step = _REPETITION.value, _STEP.value
    if number not in trained.repetitions(run):
        raise UserError(f"--repetition={number}: {run.workdir} has no such repetition")
    if step is None:
        return trained.newest_params(run, number)
    steps = trained.checkpoint_steps(run, number)
    if step not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UserError(f"--step={step}: no such checkpoint; there are {known}")
    return step, trained.load_params(run, number, step)


def _draw(run: "TrainedRun", params: "Params") -> "dict[str, np.ndarray]":
    """Samples, images, their reconstructions and interpolations, uint8 [num, h, w, channels]."""
    import jax
    import numpy as np

    from thermo_ebm import data
    from thermo_ebm.config import sampler_settings
    from thermo_ebm.sampling import images
    from thermo_ebm.types import Params

    sampler, num = sampler_settings(run.config), _NUM.value
    if _DATA_DIR.value is not None:
        run.config.data.data_dir = _DATA_DIR.value
    real = data.load(run.config.data).validation[: max(num // 2, 1)]
    key_samples, key_posterior, key_pairs = jax.random.split(jax.random.key(_SEED.value), 3)
    pairs = max(num // _COLUMNS, 1)

    @jax.jit
    def draw(params: Params) -> dict[str, jax.Array]:
        sample = partial(images.sample_latents, run.model, params, settings=sampler.prior)
        ends = sample(key=key_pairs, num=2 * pairs).reshape(pairs, 2, -1)
        between = images.interpolate(run.model, params, ends, _COLUMNS)
        unit = data.to_unit(jax.numpy.asarray(real))
        return {
            "samples": images.sample_images(run.model, params, key_samples, num, sampler.prior),
            "reconstructions": images.reconstruct(
                run.model, params, unit, key_posterior, sampler.posterior
            ),
            "interpolations": between.reshape(-1, *between.shape[2:]),
        }

    drawn = {name: np.asarray(data.to_uint8(value)) for name, value in draw(params).items()}
    return drawn | {"images": real}


def _rows(arrays: "dict[str, np.ndarray]", name: str) -> "np.ndarray":
    """The images of one picture, row by row: reconstructions stand below their images."""
    import numpy as np

    if name != "reconstructions":
        return arrays[name]
    rows = []
    for first in range(0, len(arrays["images"]), _COLUMNS):
        for one in (arrays["images"], arrays["reconstructions"]):
            row = one[first : first + _COLUMNS]
            missing = [(0, _COLUMNS - len(row))] + [(0, 0)] * 3
            rows.append(np.pad(row, missing, constant_values=255))
    return np.concatenate(rows)


if __name__ == "__main__":
    program.run(main)
