r"""Diagnostics of the tempered chains of a trained run: how many steps do they need?

python -m launch.tempered --workdir=runs/digits --diagnostics
python -m launch.tempered --workdir=runs/digits --diagnostics --kernel=mala --exchange_every=1

The program runs long chains on validation images, prints a table of effective sample size, split
R-hat, E_t, acceptance and exchange rates for several chain lengths, and writes the values of all
temperatures to rep_XX/diagnostics.csv. Without --diagnostics it does the same; the picture of
tempered posteriors in two dimensions is drawn by examples/tempered_posteriors.py. Exit codes:
0 done, 2 bad input.
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence

from absl import flags

from thermo_ebm.errors import UserError

from . import program

if not program.HELP_ONLY:
    import jax
    import jax.numpy as jnp

    from thermo_ebm import data, files
    from thermo_ebm.evaluation.chains import convergence
    from thermo_ebm.evaluation.run import LoadedCheckpoint, Run, load_run
    from thermo_ebm.losses import LossSettings
    from thermo_ebm.run import layout
    from thermo_ebm.sampling.chains import SamplerSettings
    from thermo_ebm.sampling.kernels import KERNELS
    from thermo_ebm.sampling.path import Ladder, Path
    from thermo_ebm.thermo.schedule import Schedule, make_schedule
    from thermo_ebm.types import Array


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint()
    program.define_data_dir()
    program.define_seed("Seed of the chains.")
    flags.DEFINE_bool("diagnostics", True, "Print diagnostics of long chains, the only task.")
    flags.DEFINE_string("kernel", None, "Kernel of the chains, such as mala; by default the run's.")
    flags.DEFINE_integer(
        "exchange_every", None, "Steps between exchanges, 0 for none; by default the run's.", 0
    )
    flags.DEFINE_float("prior_step_size", None, "s of the prior's chains; by default the run's.")
    flags.DEFINE_float("posterior_step_size", None, "s of all other chains; by default the run's.")
    flags.DEFINE_integer("num_temperatures", None, "N_t; by default the run's.", lower_bound=1)
    flags.DEFINE_float("power", None, "p; by default the run's.")
    for flag in ("prior_step_size", "posterior_step_size", "power"):
        flags.register_validator(
            flag,
            lambda value: value is None or 0 < value < float("inf"),
            message="must be positive",
        )
    flags.DEFINE_integer("num_images", 8, "Number of validation images.", 1)
    flags.DEFINE_integer("chains_per_image", 8, "M, at every temperature.", 2)
    flags.DEFINE_integer("num_steps", 1000, "Number of steps of the longest chains.", 8)


def main(argv: Sequence[str]) -> int:
    """Prints the table of long chains and writes the values of all temperatures."""
    del argv

    values = flags.FLAGS
    if values.kernel is not None and values.kernel not in KERNELS:
        raise UserError(f"kernel={values.kernel}: must be one of {', '.join(KERNELS)}")
    program.check_devices()
    run = load_run(values.workdir, values.parameters)
    sampler, schedule = _sampler(run), _schedule(run)
    temperatures = schedule.temperatures
    if sampler.exchange_every and len(temperatures) < 3:
        raise UserError(
            f"exchange_every={sampler.exchange_every}: needs num_temperatures of at least 2"
        )
    validation = run.validation_images(values.data_dir)
    if values.num_images > len(validation) and flags.FLAGS["num_images"].present:
        raise UserError(
            f"num_images={values.num_images}: more than the {len(validation)} validation images"
        )
    images = data.to_unit(validation[: values.num_images])
    checkpoint = run.load(values.repetition, values.step)
    ladder = Ladder(schedule, _path(run, checkpoint, temperatures))
    traces = convergence.long_traces(
        run.model,
        checkpoint.params,
        images,
        ladder,
        jax.random.key(values.seed),
        sampler,
        values.num_steps,
    )
    run_steps = sampler.posterior.num_steps, sampler.prior.num_steps
    lengths = {*convergence.LENGTHS, *run_steps, values.num_steps}
    reference = run.config.loss.reference
    rows = convergence.convergence_table(traces, temperatures, sorted(lengths), reference)
    print(convergence.as_text(rows, run_steps, sampler.posterior.kernel))
    sizes = ladder.path.step_size
    shared = {
        "step": checkpoint.step,
        "num_images": len(images),
        "chains_per_image": sampler.chains_per_image,
        "kernel": sampler.posterior.kernel,
        "exchange_every": sampler.exchange_every,
        "prior_step_size": sampler.prior.step_size if sizes is None else float(sizes[0]),
        "posterior_step_size": sampler.posterior.step_size if sizes is None else float(sizes[-1]),
    }
    folder = layout.outputs_dir(values.workdir, values.repetition, run.parameters)
    table = folder / layout.DIAGNOSTICS
    with files.clear_errors(table):
        folder.mkdir(parents=True, exist_ok=True)
        convergence.write_table(table, rows, **shared)
    print(f"written: {table}")
    return 0


def _sampler(run: Run) -> SamplerSettings:
    """The run's chain settings, with the changes that the flags ask for."""
    values, sampler = flags.FLAGS, run.sampler
    prior, posterior = (
        chain._replace(
            kernel=values.kernel or chain.kernel,
            step_size=chain.step_size if step_size is None else step_size,
        )
        for chain, step_size in (
            (sampler.prior, values.prior_step_size),
            (sampler.posterior, values.posterior_step_size),
        )
    )
    interval = values.exchange_every
    return sampler._replace(
        prior=prior,
        posterior=posterior,
        exchange_every=sampler.exchange_every if interval is None else interval,
        chains_per_image=values.chains_per_image,
    )


def _path(run: Run, checkpoint: LoadedCheckpoint, temperatures: Array) -> Path:
    """What the run's chains know of their path, but for the step sizes that a flag gives."""
    values, path = flags.FLAGS, run.path(checkpoint, temperatures)
    if path.step_size is None or values.kernel not in (None, run.config.sampler.posterior.kernel):
        return path._replace(step_size=None)
    given = (values.prior_step_size, values.posterior_step_size)
    parts = zip(given, (slice(0, 1), slice(1, None)), strict=True)
    sizes = [
        path.step_size[part] if size is None else jnp.full_like(path.step_size[part], size)
        for size, part in parts
    ]
    return path._replace(step_size=jnp.concatenate(sizes))


def _schedule(run: Run) -> Schedule:
    """t_0 .. t_N of the run, with the changes that the flags ask for."""
    values, loss = flags.FLAGS, LossSettings.from_config(run.config)
    num_temperatures = values.num_temperatures or loss.num_temperatures
    power = loss.power if values.power is None else values.power
    return make_schedule(loss.schedule, num_temperatures, power)


if __name__ == "__main__":
    program.run(main, define_flags)
