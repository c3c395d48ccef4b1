"""Estimates of log p(x) where it is known: their errors, and when the verdict is right.

    python -m benchmarks.likelihood
    python -m benchmarks.likelihood --cases=needle,wells_3 --images=40

Each case is a model with images, half of them simulated from it and half of them not, and the true
log p(x) from a closed form or a grid over the latents. One row each: the mean and the worst error
in nats, the stated standard error of an image, the share of true values in the 95 % intervals of
images that are called reliable, gradients a chain, and CPU seconds without compilation. Then the
verdict's confusion matrix over the images of all cases.
"""

if not __package__:
    __import__("not_a_script")

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy import special, stats

from launch import program
from thermo_ebm.errors import UserError
from thermo_ebm.likelihood import Estimator, LikelihoodSettings, collected, prepare
from thermo_ebm.likelihood import verdict as verdicts
from thermo_ebm.likelihood.annealed_smc import simulate
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.types import Params

EDGE, POINTS = 6.0, 1501  # of the grid over two latents
NUM_SIMULATED = 20  # images whose bounds are compared


class Case(NamedTuple):
    """A model with images and their log p(x)."""

    model: LatentEBM
    params: Params
    images: np.ndarray  # [num, dim]
    truth: np.ndarray  # nats, [num]
    settings: LikelihoodSettings


def plane(
    sigma: float,
    num: int,
    tilt: str = "network",
    strength: float = 1.0,
    generator: str = "network",
    settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
) -> Case:
    """A nonlinear model with two latents and 12 data values.

    Args:
      sigma: sigma_l.
      num: images.
      tilt: `network`, or `wells`, a prior of two wells whose log weights are `strength` apart.
      strength: factor of the network's tilt.
      generator: `network`; `needle`, with a narrow bump that hardly any draw of the prior meets; or
        `even`, whose images have two explanations each.
      settings: of the estimator.
    """
    rng = np.random.default_rng(0)
    hidden, out = rng.normal(size=(2, 4)), rng.normal(size=4)
    into, bias = rng.normal(size=(2, 8)), rng.normal(size=8) / 2
    weights, needle = rng.normal(size=(8, 12)) / np.sqrt(8), rng.normal(size=12)
    center, width = np.array([1.5, -1.0]), 0.1

    def log_tilt(xp: Any, z: Any) -> Any:
        if tilt == "network":
            return strength * (xp.tanh(z @ hidden) @ out)
        squares = [((z - mean) ** 2).sum(-1) / (2 * 0.3**2) for mean in (2.0, -2.0)]
        return xp.logaddexp(-squares[0], -strength - squares[1]) + (z**2).sum(-1) / 2

    def mean(xp: Any, z: Any) -> Any:
        if generator == "even":
            z = xp.stack([xp.abs(z[:, 0]), z[:, 1]], axis=1)
        images = xp.tanh(z @ into + bias) @ weights
        if generator == "needle":
            bump = xp.exp(-((z - center) ** 2).sum(-1) / (2 * width**2))
            images = images + bump[:, None] * needle
        return images

    model = LatentEBM(
        tilt=lambda alpha, z: log_tilt(jnp, z),
        generator=lambda beta, z: mean(jnp, z),
        init=lambda key: {"prior": {}, "generator": {}},
        latent_dim=2,
        prior_sigma=1.0,
        likelihood_sigma=sigma,
    )
    axis = np.linspace(-EDGE, EDGE, POINTS)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_prior = log_tilt(np, z) - (z**2).sum(1) / 2
    log_prior -= special.logsumexp(log_prior)
    places = z[rng.choice(len(z), num, p=np.exp(log_prior))]
    if generator == "needle":
        places[: num // 4] = center + width * rng.normal(size=(num // 4, 2))
    images = mean(np, places) + sigma * rng.normal(size=(num, 12))
    # Half of the images are farther from the model's.
    images[num // 2 :] += 2 * sigma * rng.normal(size=images[num // 2 :].shape)
    keep = log_prior > log_prior.max() - 60
    sums = np.full(num, -np.inf)
    for part in np.array_split(np.flatnonzero(keep), 40):
        g = mean(np, z[part])
        square = (images**2).sum(1)[:, None] - 2 * images @ g.T + (g**2).sum(1)
        sums = np.logaddexp(
            sums, special.logsumexp(log_prior[part] - square / (2 * sigma**2), axis=1)
        )
    truth = sums - 6 * np.log(2 * np.pi * sigma**2)
    params = {"prior": {"unused": jnp.zeros(1)}, "generator": {"unused": jnp.zeros(1)}}
    return Case(model, params, np.float32(images), truth, settings)


def linear(sigma: float, num: int, latent_dim: int = 32, dim: int = 64) -> Case:
    """A linear generator and a Gaussian prior: the proposal is the posterior."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(latent_dim, dim)) / np.sqrt(latent_dim)
    model = LatentEBM(
        tilt=lambda alpha, z: jnp.zeros(len(z)),
        generator=lambda beta, z: z @ weights,
        init=lambda key: {"prior": {}, "generator": {}},
        latent_dim=latent_dim,
        prior_sigma=1.0,
        likelihood_sigma=sigma,
    )
    images = rng.normal(size=(num, latent_dim)) @ weights + sigma * rng.normal(size=(num, dim))
    images[num // 2 :] += 2 * sigma * rng.normal(size=images[num // 2 :].shape)
    images = np.float32(images)
    law = stats.multivariate_normal(np.zeros(dim), weights.T @ weights + sigma**2 * np.eye(dim))
    params = {"prior": {"unused": jnp.zeros(1)}, "generator": {"unused": jnp.zeros(1)}}
    return Case(model, params, images, law.logpdf(images.astype(float)), LikelihoodSettings())


FEW = LikelihoodSettings(num_temperatures=2)
CASES: dict[str, Callable[[int], Case]] = {
    "linear_0.3": lambda num: linear(0.3, num),
    "linear_0.1": lambda num: linear(0.1, num),
    "linear_0.03": lambda num: linear(0.03, num),
    "plane_0.4": lambda num: plane(0.4, num),
    "plane_0.15": lambda num: plane(0.15, num),
    "plane_0.03": lambda num: plane(0.03, num),
    "needle": lambda num: plane(0.2, num, generator="needle"),
    "even": lambda num: plane(0.2, num, generator="even"),
    "wells_1": lambda num: plane(0.3, num, tilt="wells", strength=1.0),
    "wells_3": lambda num: plane(0.3, num, tilt="wells", strength=3.0),
    "energies_12": lambda num: plane(0.3, num, strength=6.0),
    "few_temperatures": lambda num: plane(0.05, num, settings=FEW),
}


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
    estimator = Estimator(case.model, params, preparation, settings, jax.random.key(seed))
    short = estimator._replace(settings=settings._replace(num_temperatures=1))
    collected(list(short.run(case.images[:2])))  # compiles
    begin = time.process_time()
    estimates, temperatures = collected(list(estimator.run(case.images)))
    seconds = time.process_time() - begin
    latents = np.asarray(preparation.latents[-NUM_SIMULATED:])
    numbers, key = jnp.arange(NUM_SIMULATED), jax.random.key(seed)
    images = np.asarray(simulate(case.model, params, latents, numbers, key))
    lower, simulated_temperatures = collected(list(estimator.run(images)))
    upper, stderr = estimator.upper_bounds(images, latents, simulated_temperatures)
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


def define_flags() -> None:
    """Defines this program's flags."""
    flags.DEFINE_list("cases", list(CASES), f"Which of {', '.join(CASES)}.")
    flags.DEFINE_integer("images", 20, "Images of each case.", lower_bound=4)
    program.define_seed("Seed of the chains.")


def main(argv: Sequence[str]) -> int:
    """Prints a row for each case, and the verdict's confusion matrix."""
    del argv
    names, num = flags.FLAGS.cases, flags.FLAGS.images
    if unknown := set(names) - set(CASES):
        raise UserError(f"cases={','.join(sorted(unknown))}: there are {', '.join(CASES)}")
    print("| case | mean error | worst | stated | covered | gradients | CPU s | images reliable |")
    print("|---|---|---|---|---|---|---|---|")
    errors, called_reliable = [], []
    for name in names:
        result = measure(CASES[name](num), flags.FLAGS.seed)
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
    return 0


if __name__ == "__main__":
    program.run(main, define_flags)
