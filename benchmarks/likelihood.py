"""Estimates of log p(x) beside the truth: their errors, and when the verdict is right.

    python -m benchmarks.likelihood --workdir=runs/plane      # a run of configs/digits_plane.py
    python -m benchmarks.likelihood --cases=needle,wells_3 --images=40
    python -m benchmarks.likelihood --table=mbar              # beside MBAR at equal gradients
    python -m benchmarks.likelihood --table=images --workdir=RUN      # real images of any run
    python -m benchmarks.likelihood --table=training --cases=gaussian # estimates of training

Table `known` has one row for each model whose log p(x) is known (`benchmarks/known_models.py`): the
mean and the worst error in nats, the stated standard error of an image, the share of true values in
the 95 % intervals of images that are called reliable, gradients a chain, and CPU seconds without
compilation; then the verdict's confusion matrix over the images of all cases. Without --workdir it
leaves out the cases of `digits_plane`.

Table `images` compares validation images of a run at the default error with ten times the effort,
and the bounds of simulated images. Table `training` (`benchmarks/integrals.py`) has every
quadrature, correction and ratio that training can use, for exact samples and for chains.
"""

if not __package__:
    __import__("not_a_script")

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import integrals, known_models
from benchmarks.known_models import CASES, CASES_OF_A_RUN, Case
from launch import program
from launch.path_flags import DEFINE_output_file, DEFINE_path
from thermo_ebm import data
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.likelihood import Estimator, LikelihoodSettings, collected, prepare
from thermo_ebm.likelihood import verdict as verdicts
from thermo_ebm.likelihood.annealed_smc import simulate
from thermo_ebm.losses import log_likelihoods
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.path import Ladder, curvature_products, inverse_factors
from thermo_ebm.sampling.path import Path as ChainPath
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Array, Params, make_batch

NUM_SIMULATED = 20  # images whose bounds are compared
TEMPERATURES_OF_MBAR, POWER_OF_MBAR = 20, 4.0
GRADIENTS = (400, 1600)  # a chain, of table `mbar`


class Result(NamedTuple):
    """Of one case, [num] each."""

    error: np.ndarray  # estimate less truth, nats
    stderr: np.ndarray
    image_reliable: np.ndarray  # the image's own verdict
    model_verdict: verdicts.Verdict  # of the prior and the bounds
    gradients: np.ndarray
    seconds: float  # of CPU, without compilation


def measure(case: Case, seed: int) -> Result:
    """Estimates of a case's images, with the bounds of images of its model."""
    settings, params = case.settings, case.params
    preparation = prepare(case.model, params, case.images.shape[1:], settings)
    estimator = Estimator(preparation, settings, jax.random.key(seed))
    short = estimator._replace(settings=settings._replace(num_temperatures=1))
    collected(list(short.run(case.images[:2])))  # compiles
    begin = time.process_time()
    estimates, temperatures = collected(list(estimator.run(case.images)))
    seconds = time.process_time() - begin
    latents = np.asarray(preparation.latents[-NUM_SIMULATED:])
    numbers, key = jnp.arange(NUM_SIMULATED), jax.random.key(seed)
    images = np.asarray(simulate(case.model, params, latents, numbers, key))
    lower, upper, stderr = estimator.bounds(images, latents)
    of_bounds = verdicts.of_bounds(
        lower.log_marginal_likelihood, upper, np.hypot(lower.stderr, stderr)
    )
    of_prior = verdicts.of_prior(preparation.prior, settings.prior_chains)
    return Result(
        estimates.log_marginal_likelihood - case.truth,
        np.hypot(estimates.stderr, float(preparation.prior.stderr)),
        np.asarray(verdicts.are_reliable(estimates, settings)),
        verdicts.together([of_prior, of_bounds]),
        estimator.gradients(temperatures),
        seconds,
    )


def print_known(names: Sequence[str], num: int, seed: int, workdir: str | None) -> None:
    """A row for each case, and the verdict's confusion matrix."""
    print("| case | mean error | worst | stated | covered | gradients | CPU s | images reliable |")
    print("|---|---|---|---|---|---|---|---|")
    errors, called_reliable = [], []
    for name in names:
        result = measure(_make(name, num, workdir), seed)
        reliable = result.image_reliable & result.model_verdict.reliable
        covered = np.abs(result.error) < 1.96 * result.stderr
        share = f"{covered[reliable].mean():.2f}" if reliable.any() else "-"
        worst = result.error[np.argmax(np.abs(result.error))]
        print(
            f"| {name} | {result.error.mean():+.3f} | {worst:+.2f} | "
            f"{np.sqrt(np.mean(result.stderr**2)):.3f} | {share} | {result.gradients.mean():.0f} | "
            f"{result.seconds:.0f} | {reliable.sum()} of {num} |",
            flush=True,
        )
        if not result.model_verdict.reliable:
            print(f"  {name}: {result.model_verdict.sentence()}", flush=True)
        errors.append(np.abs(result.error))
        called_reliable.append(reliable)
    sizes, reliable = np.concatenate(errors), np.concatenate(called_reliable)
    print("\n| error, nats | reliable: yes | no |\n|---|---|---|")
    for low, high in ((0.0, 0.2), (0.2, 1.0), (1.0, np.inf)):
        rows = (sizes >= low) & (sizes < high)
        print(f"| {low:g} to {high:g} | {np.sum(rows & reliable)} | {np.sum(rows & ~reliable)} |")


def _make(name: str, num: int, workdir: str | None) -> Case:
    if name in CASES:
        return CASES[name](num)
    folder = Path(workdir) if workdir else known_models.train_digits_plane()
    return CASES_OF_A_RUN[name](folder, num)


def print_against_mbar(names: Sequence[str], num: int, seed: int, workdir: str | None) -> None:
    """Annealed SMC and MBAR of chains from the prior, with equal gradients for each image."""
    print("| case | gradients a chain | SMC: mean error | rms | MBAR: mean error | rms |")
    print("|---|---|---|---|---|---|")
    for name in names:
        case = _make(name, num, workdir)
        for gradients in GRADIENTS:
            settings = case.settings._replace(num_temperatures=gradients // 4)
            preparation = prepare(case.model, case.params, case.images.shape[1:], settings)
            key = jax.random.key(seed)
            estimator = Estimator(preparation, settings, key)
            smc = collected(list(estimator.run(case.images)))[0].log_marginal_likelihood
            latents = preparation.latents[:512]
            other = mbar_of_chains(case, latents, settings, gradients, key)
            cells = [name, str(gradients)]
            for error in (smc - case.truth, other - case.truth):
                cells += [f"{error.mean():+.2f}", f"{np.sqrt(np.mean(error**2)):.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def mbar_of_chains(
    case: Case, latents: Array, settings: LikelihoodSettings, gradients: int, key: Array
) -> np.ndarray:
    """log p(x) by MBAR of chains that run at every temperature at once, from p_0, [num].

    Their kernel, metric and number of chains are those of annealed SMC, and the gradients of an
    image are as many: `gradients` for each of M chains, spread over the temperatures.

    Args:
      case: the model and the images.
      latents: draws of the prior, for the metric.
      settings: of annealed SMC.
      gradients: a chain of annealed SMC.
      key: consumed.
    """
    model, leapfrog, chains = case.model, settings.num_leapfrog, settings.chains_per_image
    steps = max(gradients // (TEMPERATURES_OF_MBAR * leapfrog), 1)
    of_chain = ChainSettings(0.5, steps, "hmc", leapfrog)
    sampler = SamplerSettings(of_chain, of_chain, chains_per_image=chains, exchange_every=1)
    t = make_schedule("power", TEMPERATURES_OF_MBAR, POWER_OF_MBAR).temperatures
    probe_key, chain_key = jax.random.split(key)

    @jax.jit
    def run(params: Params, images: Array) -> Array:
        keys = jax.random.split(probe_key, len(latents))
        weights = jnp.full(len(latents), 1 / len(latents))
        curvature = curvature_products(model, params, latents, keys, weights)
        path = ChainPath(None, inverse_factors(model, None, curvature, t[1:]))
        ladder = Ladder(Schedule(t), path)
        batch = make_batch(images)
        ends = tempered_chains(model, params, batch, ladder, chain_key, sampler).latents
        values = log_likelihoods(model, params["generator"], images, ends)
        return ratios.mbar(t, jnp.moveaxis(values, 2, 0))[:, -1]

    return np.asarray(run(case.params, jnp.asarray(case.images)), np.float64)


def print_images(workdir: str, num: int, seed: int, data_dir: str | None) -> None:
    """Validation images of a run, by the default effort and by ten times as much."""
    run = load_run(workdir)
    params, images = run.params(), np.asarray(data.to_unit(run.validation_images(data_dir)[:num]))
    usual = LikelihoodSettings()
    more = usual._replace(error=usual.error / 10**0.5, max_gradients=10 * usual.max_gradients)
    preparation = prepare(run.model, params, images.shape[1:], usual)
    print("| effort | log p(x), nats | gradients a chain | CPU s | images reliable |")
    print("|---|---|---|---|---|")
    values = []
    for number, (label, settings) in enumerate((("default", usual), ("ten times", more))):
        key = jax.random.key(seed + number)
        estimator = Estimator(preparation, settings, key)
        begin = time.process_time()
        estimates, temperatures = collected(list(estimator.run(images)))
        seconds = time.process_time() - begin
        value = estimates.log_marginal_likelihood
        stderr = np.sqrt(np.sum(estimates.stderr**2)) / len(images)
        reliable = int(np.sum(verdicts.are_reliable(estimates, settings)))
        print(
            f"| {label} | {value.mean():.3f} +- {stderr:.3f} | "
            f"{estimator.gradients(temperatures).mean():.0f} | {seconds:.0f} | "
            f"{reliable} of {len(images)} |",
            flush=True,
        )
        values.append(value)
    difference = values[0] - values[1]
    print(
        f"\nDefault less ten times the effort: mean {difference.mean():+.3f} nats, rms "
        f"{np.sqrt(np.mean(difference**2)):.3f}, largest "
        f"{difference[np.argmax(np.abs(difference))]:+.2f}; the error of log Z_alpha, "
        f"{float(preparation.prior.stderr):.3f}, is the same in both"
    )
    latents = np.asarray(preparation.latents[-NUM_SIMULATED:])
    key = jax.random.key(seed)
    simulated = np.asarray(simulate(run.model, params, latents, jnp.arange(NUM_SIMULATED), key))
    bounds = Estimator(preparation, usual, key).bounds(simulated, latents)
    lower, gap = bounds.lower.log_marginal_likelihood, bounds.upper
    gap = gap - lower
    print(
        f"{NUM_SIMULATED} simulated images: lower {lower.mean():.3f}, upper "
        f"{bounds.upper.mean():.3f}, gap {gap.mean():+.3f} +- "
        f"{gap.std(ddof=1) / len(gap) ** 0.5:.3f}, largest {gap.max():+.2f} nats"
    )


TABLES = ("known", "mbar", "images", "training")


def define_flags() -> None:
    """Defines this program's flags."""
    flags.DEFINE_enum("table", "known", TABLES, "What is printed.")
    flags.DEFINE_list(
        "cases",
        None,
        f"Which of {', '.join([*CASES, *CASES_OF_A_RUN])}; of table training, "
        f"{', '.join(integrals.CASES)}.",
    )
    flags.DEFINE_integer("images", 20, "Images of each case.", lower_bound=4)
    flags.DEFINE_integer("repeats", 8, "Repeated draws, of table training.", lower_bound=2)
    DEFINE_path(
        "workdir",
        None,
        "Run of configs/digits_plane.py, without which the cases of this name are trained; for "
        "table images, any run.",
    )
    DEFINE_output_file("csv", "CSV file to which all figures of table training are written.")
    program.define_data_dir()
    program.define_seed("Seed of the chains.")


def main(argv: Sequence[str]) -> int:
    """Prints a table."""
    del argv
    values = flags.FLAGS
    num, seed, workdir = values.images, values.seed, values.workdir
    if values.table == "images":
        if workdir is None:
            raise UserError("workdir: table images needs a run")
        print_images(workdir, num, seed, values.data_dir)
        return 0
    of_training = values.table == "training"
    there = integrals.CASES if of_training else (*CASES, *CASES_OF_A_RUN)
    names = values.cases or there[: None if workdir or of_training else len(CASES)]
    if unknown := set(names) - set(there):
        raise UserError(f"cases={','.join(sorted(unknown))}: there are {', '.join(there)}")
    if of_training:
        settings = integrals.TableSettings(num, values.repeats, seed, workdir)
        integrals.print_tables(names, settings, values.csv)
    elif values.table == "mbar":
        print_against_mbar(names, num, seed, workdir)
    else:
        print_known(names, num, seed, workdir)
    return 0


if __name__ == "__main__":
    program.run(main, define_flags)
