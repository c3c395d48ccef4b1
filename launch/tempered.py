r"""Examines the chains of a trained run: pictures in two dimensions, and diagnostics of length.

python -m launch.tempered --workdir=runs/digits --diagnostics
python -m launch.tempered --workdir=runs/plane --image=11 --exchange_every=1 --output=plane.png

The first command runs long chains on validation images, prints a table of effective sample size,
split R-hat, E_t, acceptance and exchange rates for several chain lengths, and writes the values of
all temperatures to rep_XX/diagnostics.csv. The second command, for a run with a two-dimensional
latent (configs/digits_plane.py), draws the densities p(z | x, t) of one image and the final states
of chains over them, without exchange and, if --exchange_every is not 0, also with exchange. Exit
codes: 0 done, 2 bad input.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from . import program

_DPI = 120
_SUFFIXES = (".png", ".svg")


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    program.define_data_dir()
    program.define_seed("Seed of the chains.")
    flags.DEFINE_bool(
        "diagnostics", False, "Print diagnostics of long chains instead of drawing a picture."
    )
    flags.DEFINE_string("kernel", None, "Kernel of the chains, such as mala; by default the run's.")
    flags.DEFINE_integer(
        "exchange_every", None, "Steps between exchanges, 0 for none; by default the run's.", 0
    )
    flags.DEFINE_float("prior_step_size", None, "s of the prior's chains; by default the run's.")
    flags.DEFINE_float("posterior_step_size", None, "s of all other chains; by default the run's.")
    flags.DEFINE_integer(
        "num_temperatures",
        None,
        "N_t; by default 5 for a picture, the run's for diagnostics.",
        lower_bound=1,
    )
    flags.DEFINE_float("power", None, "p; by default 2 for a picture, the run's for diagnostics.")
    flags.DEFINE_integer("image", 0, "Picture: number of the validation image, from 0.")
    flags.DEFINE_string(
        "output", None, "Picture: PNG or SVG file; by default rep_XX/drawn/tempered.png."
    )
    flags.DEFINE_integer("num_images", 8, "Diagnostics: number of validation images.", 1)
    flags.DEFINE_integer("chains_per_image", 8, "Diagnostics: M, at every temperature.", 2)
    flags.DEFINE_integer(
        "num_steps", 1000, "Diagnostics: number of steps of the longest chains.", 8
    )


def main(argv: Sequence[str]) -> int:
    """Draws the picture or prints the table, and prints the path of the file."""
    del argv
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import trained

    values = flags.FLAGS
    output = _output(values)
    if not values.diagnostics:
        _check_output(output)  # before any work
    program.check_devices()
    run = trained.open_run(Path(values.workdir))
    sampler = _sampler(values, run)
    if not values.diagnostics and run.model.latent_dim != 2:
        raise UserError(
            f"{values.workdir}: model.latent_dim is {run.model.latent_dim}, a picture needs 2; "
            "train configs/digits_plane.py, or give --diagnostics"
        )
    temperatures = _temperatures(values, run)
    if sampler.exchange_every and len(temperatures) < 3:
        raise UserError(
            f"exchange_every={sampler.exchange_every}: needs num_temperatures of at least 2"
        )
    images = trained.validation_images(run, values.data_dir)
    if not values.diagnostics and not 0 <= values.image < len(images):
        raise UserError(
            f"image={values.image}: must be from 0 to {len(images) - 1} (validation images)"
        )
    step, params = trained.chosen_params(run, values.repetition, values.step)
    if values.diagnostics:
        return _diagnose(values, run, params, step, images, temperatures, sampler, output)
    return _draw(values, run, params, images, temperatures, sampler, output)


def _output(values: flags.FlagValues) -> Path:
    from thermo_ebm.run import layout

    folder = layout.repetition_dir(values.workdir, values.repetition)
    if values.diagnostics:
        return folder / layout.DIAGNOSTICS
    return Path(values.output) if values.output else folder / "drawn" / "tempered.png"


def _sampler(values: flags.FlagValues, run: Any) -> Any:
    """The run's own chain settings, with the changes that the flags ask for."""
    from thermo_ebm.config.build import sampler_settings
    from thermo_ebm.errors import UserError
    from thermo_ebm.sampling.kernels import KERNELS

    if values.kernel is not None and values.kernel not in KERNELS:
        raise UserError(f"kernel={values.kernel}: must be one of {', '.join(KERNELS)}")
    chosen = sampler_settings(run.config)
    for name in ("prior_step_size", "posterior_step_size"):
        if (size := values[name].value) is not None and not 0 < size < float("inf"):
            raise UserError(f"{name}={size}: must be positive")
    prior, posterior = (
        chain._replace(
            kernel=values.kernel or chain.kernel,
            step_size=chain.step_size if size is None else size,
        )
        for chain, size in (
            (chosen.prior, values.prior_step_size),
            (chosen.posterior, values.posterior_step_size),
        )
    )
    every = chosen.exchange_every if values.exchange_every is None else values.exchange_every
    return chosen._replace(prior=prior, posterior=posterior, exchange_every=every)


def _temperatures(values: flags.FlagValues, run: Any) -> Any:
    """t_0 .. t_N: from the flags, or else the defaults of a picture or of the run."""
    from thermo_ebm.errors import UserError
    from thermo_ebm.thermo.schedule import make_schedule

    loss = run.config.loss
    name, number, power = "power", 5, 2.0
    if values.diagnostics:
        name, number, power = loss.schedule, loss.num_temperatures, loss.power
        if loss.name == "vanilla":  # it has only the temperatures 0 and 1
            name, number, power = "power", 1, 1.0
    power = power if values.power is None else values.power
    if not 0 < power < float("inf"):
        raise UserError(f"power={power}: must be positive")
    return make_schedule(name, values.num_temperatures or number, power).temperatures


def _draw(
    values: flags.FlagValues,
    run: Any,
    params: Any,
    images: Any,
    temperatures: Any,
    sampler: Any,
    output: Path,
) -> int:
    """Draws the densities and chains, and prints the path of the picture."""
    import jax

    from thermo_ebm import data
    from thermo_ebm.errors import UserError
    from thermo_ebm.evaluation import tempered

    posteriors = tempered.tempered_posteriors(
        run.model,
        params,
        data.to_unit(images[values.image]),
        temperatures,
        jax.random.key(values.seed),
        sampler,
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempered.draw(posteriors).savefig(output, dpi=_DPI)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written: {error.strerror}") from error
    print(f"drawn: {output}")
    return 0


def _diagnose(
    values: flags.FlagValues,
    run: Any,
    params: Any,
    step: int,
    images: Any,
    temperatures: Any,
    sampler: Any,
    output: Path,
) -> int:
    """Prints the table of long chains and writes the values of all temperatures."""
    import jax

    from thermo_ebm import data, files
    from thermo_ebm.evaluation import mixing

    own = sampler.posterior.num_steps, sampler.prior.num_steps
    sampler = sampler._replace(chains_per_image=values.chains_per_image)
    chosen = data.to_unit(images[: values.num_images])
    traces = mixing.long_traces(
        run.model,
        params,
        chosen,
        temperatures,
        jax.random.key(values.seed),
        sampler,
        values.num_steps,
    )
    lengths = {*mixing.LENGTHS, *(n for n in own if n >= mixing.MIN_DRAWS), values.num_steps}
    rows = mixing.mixing_table(traces, temperatures, sorted(lengths))
    same = {
        "step": step,
        "num_images": len(chosen),
        "chains_per_image": sampler.chains_per_image,
        "kernel": sampler.posterior.kernel,
        "exchange_every": sampler.exchange_every,
        "prior_step_size": sampler.prior.step_size,
        "posterior_step_size": sampler.posterior.step_size,
    }
    print(mixing.as_text(rows, own, sampler.posterior.kernel))
    with files.clear_errors(output):
        files.write_text(output, mixing.as_csv(rows, **same))
    print(f"written: {output}")
    return 0


def _check_output(output: Path) -> None:
    from thermo_ebm.errors import UserError

    if os.path.isdir(output):  # unlike Path's, false for a name that is too long
        raise UserError(f"output={output}: is a folder; give a file")
    if output.suffix.lower() not in _SUFFIXES:
        known = " or ".join(_SUFFIXES)
        raise UserError(
            f"output={output}: Format '{output.suffix[1:]}' is not supported; name a {known} file"
        )


if __name__ == "__main__":
    define_flags()
    program.run(main)
