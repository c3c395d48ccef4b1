r"""Fits a new prior to a trained run whose decoder stays as it is, and says what log p(x) gains.

python -m launch.fit_prior --run=runs/vae --output=two_stage.safetensors
python -m launch.fit_prior --run=runs/vae --output=two_stage.safetensors --prior=factorized

The run may have any prior and any likelihood. The program draws latents of the posteriors of
training images, fits the tilt of the new prior to them by maximum likelihood, with persistent
chains, and keeps the tilt that is best on latents of images held out. It writes the decoder with
this prior into the file --output, which every program takes as --workdir. Then it estimates log
p(x) of the same validation images under both priors, and says whether the difference is decided and
whether the numbers are reliable. The tables are in the folder that launch.likelihood
--workdir=OUTPUT uses, with the settings of the flags here.
Exit codes: 0 done, 2 bad input, 3 interrupted (the message says what continues).
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from thermo_ebm.errors import UserError

from . import program
from .path_flags import DEFINE_output_file

if not program.HELP_ONLY:
    import jax
    import numpy as np
    from tqdm import tqdm

    from thermo_ebm import data
    from thermo_ebm.data.images import read
    from thermo_ebm.evaluation import two_stage
    from thermo_ebm.evaluation.likelihood import session, tables
    from thermo_ebm.evaluation.likelihood.session import Session, SessionSettings
    from thermo_ebm.evaluation.likelihood.tables import Row
    from thermo_ebm.evaluation.run import LoadedCheckpoint, Run, load_run
    from thermo_ebm.likelihood.verdict import of_prior, together
    from thermo_ebm.run import layout

BEFORE = "before"  # the folder of the old prior's estimates, beside those of the new


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    program.define_checkpoint("run")
    DEFINE_output_file("output", "The file to write, such as two_stage.safetensors.")
    flags.mark_flag_as_required("output")
    flags.DEFINE_enum("prior", "mlp", ["mlp", "factorized"], "Kind of the new prior's tilt.")
    flags.DEFINE_integer(
        "features", None, "Width of the tilt's network; by default the run's.", lower_bound=1
    )
    flags.DEFINE_integer(
        "num_latents",
        5000,
        "Training images whose latents are drawn; all if there are fewer.",
        lower_bound=20,
    )
    flags.DEFINE_integer("draws", 4, "Latents of each of these images.", lower_bound=1)
    flags.DEFINE_integer("num_updates", 2000, "Updates of the tilt.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 5e-3, "Of Adam at first.", lower_bound=1e-9)
    flags.DEFINE_float("l2", 0.0, "Weight of the tilt's mean square.", lower_bound=0.0)
    flags.DEFINE_integer(
        "num_images", 50, "Validation images whose log p(x) is compared.", lower_bound=2
    )
    program.define_effort()
    flags.DEFINE_integer("batch_size", 8, "Images of log p(x) processed together.", lower_bound=1)
    program.define_seed("Seed of latents, chains and updates.")
    program.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Fits the prior, writes the file, and prints what log p(x) gains."""
    del argv
    program.continue_without_output()
    try:
        return _fit_prior()
    except KeyboardInterrupt:
        print(_interrupted(), file=sys.stderr)
        return 3


def _interrupted() -> str:
    """What to do next."""
    values = flags.FLAGS
    if Path(values.output).exists():
        return (
            f"interrupted: the prior is written; launch.likelihood --workdir={values.output} "
            f"--against_run={values.run} --num_images={values.num_images} continues"
        )
    return "interrupted: the same command begins again"


def _fit_prior() -> int:
    values = flags.FLAGS
    program.check_devices()
    run = load_run(values.run, values.parameters)
    checkpoint = run.load(values.repetition, values.step)
    output = Path(values.output)
    if output.exists() or output.suffix == "":
        raise UserError(
            f"output={output}: must be a new file such as two_stage.safetensors; two files are "
            "compared by launch.likelihood --workdir=NEW --against_run=RUN"
        )
    data.check_output(run.config.data, output, "output")
    choice = two_stage.PriorChoice(
        values.prior, values.features, values.num_updates, values.learning_rate, values.l2
    )
    two_stage.new_config(run, choice)  # refused before the work
    validation = run.validation_images(values.data_dir)
    if values.num_images > len(validation):
        raise UserError(f"num_images={values.num_images}: there are {len(validation)} of them")
    latents = _latents(run, checkpoint)
    _write_fit(run, checkpoint, latents, choice, output)
    _compare(run, checkpoint, load_run(output), validation[: values.num_images])
    return 0


def _latents(run: Run, checkpoint: LoadedCheckpoint) -> np.ndarray:
    """Draws from the posterior of each training image, [num, draws, D]."""
    values = flags.FLAGS
    training = run.training_set(values.data_dir)
    if training.num < 20:
        raise UserError(f"the run has {training.num} training images; a prior needs at least 20")
    # In a random order: folders are sorted by name, and thus possibly by class.
    rows = np.random.default_rng(values.seed).permutation(training.num)[: values.num_latents]
    with _bar("latents", len(rows), "img") as progress:
        images = read(training.take(rows))
        key = jax.random.key(values.seed)
        return two_stage.draw_latents(run, checkpoint, images, key, values.draws, progress=progress)


def _write_fit(
    run: Run,
    checkpoint: LoadedCheckpoint,
    latents: np.ndarray,
    choice: two_stage.PriorChoice,
    output: Path,
) -> None:
    """Fits the tilt, writes the file and prints how well the prior describes the latents."""
    settings = two_stage.fit_settings(run, choice)
    with _bar("prior", settings.num_updates, "update") as progress:
        key = jax.random.fold_in(jax.random.key(flags.FLAGS.seed), 1)
        fitted = two_stage.fit(latents, key, settings, progress)
    two_stage.write(output, run, checkpoint, fitted, choice)
    print(
        f"prior of {latents.shape[0]} x {latents.shape[1]} latents of {checkpoint.title()}, best "
        f"after {fitted.num_updates} updates: log p(z) of those held out is "
        f"{fitted.gain:.2f} +- {fitted.gain_stderr:.2g} nats above N(0, {settings.sigma:g}^2); "
        f"log Z {float(fitted.log_z.log_z):.2f} +- {float(fitted.log_z.stderr):.2g}, "
        f"{fitted.verdict.sentence()}",
        flush=True,
    )


def _compare(run: Run, checkpoint: LoadedCheckpoint, new: Run, images: np.ndarray) -> None:
    """Prints log p(x) of the same images under both priors, the difference and the verdicts."""
    values = flags.FLAGS
    settings = SessionSettings(
        error=values.error,
        max_gradients=values.max_gradients,
        max_seconds=values.max_seconds,
        batch_size=values.batch_size,
        seed=values.seed,
    )
    after_folder = layout.outputs_dir(values.output, checkpoint.repetition, new.parameters)
    before_folder = after_folder / layout.LIKELIHOOD_FOLDER / BEFORE
    before = _estimated(run, checkpoint, settings, before_folder, images, "log p(x) before")
    after = _estimated(
        new, new.load(checkpoint.repetition), settings, after_folder, images, "log p(x) after"
    )
    constants = [session.prior_constant(opened) for opened, _ in (before, after)]
    print(f"log p(x) of the same {len(images)} validation images, nats:")
    verdicts = {}
    for name, (opened, rows), constant in zip(
        ("before", "after"), (before, after), constants, strict=True
    ):
        mean = tables.mean(rows)
        of_constant = of_prior(constant, opened.estimator.settings.prior_chains)
        verdict = together([session.verdict_of_rows(opened, rows), of_constant])
        error = math.hypot(mean.stderr, float(constant.stderr))
        print(f"  {name}: {mean.log_marginal_likelihood:.2f} +- {error:.2g}, {verdict.sentence()}")
        verdicts[name] = {**mean._asdict(), "verdict": verdict._asdict()}
    shared = math.hypot(*(float(constant.stderr) for constant in constants))
    gain = tables.difference(after[1], before[1], shared)
    print(f"  gained: {gain.sentence('the new prior', 'the old prior')}")
    tables.update_summary(after_folder, {"fit_prior": {**verdicts, "gained": gain._asdict()}})
    print(f"written: {values.output} and {after_folder}")


def _estimated(
    run: Run,
    checkpoint: LoadedCheckpoint,
    settings: SessionSettings,
    folder: Path,
    images: np.ndarray,
    stage: str,
) -> tuple[Session, list[Row]]:
    """The estimates of the images under one prior, in a table of the folder."""
    with tables.locked(folder), _bar(stage, len(images), "img") as progress:
        opened = session.open_session(run, checkpoint, settings, folder)
        return opened, session.validation_rows(opened, images, progress)


@contextlib.contextmanager
def _bar(stage: str, total: int, unit: str) -> Iterator[Callable[[int], Any]]:
    """On a terminal, a bar with the time left; elsewhere a line at the end of each stage."""
    with tqdm(total=total, desc=stage, unit=unit, disable=None, dynamic_ncols=True) as bar:
        yield bar.update
    if bar.disable:
        print(f"{stage}: {total} done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    program.run(main, define_flags)
