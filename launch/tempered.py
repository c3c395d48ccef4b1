"""Draws the tempered posteriors of one image, for a run whose latent is two-dimensional.

python -m launch.train --config=configs/digits_plane.py --workdir=runs/plane
python -m launch.tempered --workdir=runs/plane --image=4 --output=tempered_posteriors.png

The densities p(z | x, t) at t_i = (i / N_t)^p, the ends of the run's own chains over them, and the
images of those. Exit codes: 0 done, 2 bad input.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program

_DPI = 120
_SUFFIXES = (".png", ".svg")


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_string("workdir", None, "The run directory.", required=True)
    flags.DEFINE_integer("repetition", 0, "Number of the repetition.")
    flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest by default.")
    flags.DEFINE_integer("image", 0, "Number of the validation image, from 0.")
    flags.DEFINE_integer("num_temperatures", 5, "N_t, the number of intervals.", lower_bound=1)
    flags.DEFINE_float("power", 2.0, "p, the power of the schedule.")
    program.define_seed("Seed of the chains.")
    flags.DEFINE_string("output", None, "PNG or SVG; rep_XX/drawn/tempered.png by default.")
    flags.DEFINE_string("data_dir", None, "Where the data are now, if they have moved.")


def main(argv: Sequence[str]) -> int:
    """Draws the picture and names it."""
    del argv
    import jax

    from thermo_ebm import data
    from thermo_ebm.config.build import sampler_settings
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import tempered, trained
    from thermo_ebm.run import layout
    from thermo_ebm.thermo.schedule import power_schedule

    values = flags.FLAGS
    workdir = Path(values.workdir)
    folder = layout.repetition_dir(workdir, values.repetition) / "drawn"
    output = Path(values.output) if values.output else folder / "tempered.png"
    _check_output(output)  # before any work
    program.check_devices()
    run = trained.open_run(workdir)
    if run.model.latent_dim != 2:
        raise UserError(
            f"{workdir}: model.latent_dim is {run.model.latent_dim}, a plane's is 2; "
            "train configs/digits_plane.py"
        )
    if not values.power > 0:
        raise UserError(f"power={values.power}: must be positive")
    images = trained.validation_images(run, values.data_dir)
    if not 0 <= values.image < len(images):
        raise UserError(f"image={values.image}: there are {len(images)}, counted from 0")
    _, params = trained.chosen_params(run, values.repetition, values.step)
    posteriors = tempered.tempered_posteriors(
        run.model,
        params,
        data.to_unit(images[values.image]),
        power_schedule(values.num_temperatures, values.power),
        jax.random.key(values.seed),
        sampler_settings(run.config),
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempered.draw(posteriors).savefig(output, dpi=_DPI)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written: {error.strerror}") from error
    print(f"drawn: {output}")
    return 0


def _check_output(output: Path) -> None:
    from thermo_ebm.errors import UserError

    if os.path.isdir(output):  # unlike Path's, false for a name that is too long
        raise UserError(f"output={output}: is a folder; name a file")
    if output.suffix.lower() not in _SUFFIXES:
        known = " or ".join(_SUFFIXES)
        raise UserError(
            f"output={output}: Format '{output.suffix[1:]}' is not supported; name a {known} file"
        )


if __name__ == "__main__":
    define_flags()
    program.run(main)
