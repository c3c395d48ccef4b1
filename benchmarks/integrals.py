"""Every estimate of log p(x) that training can use, beside the true value, on three models.

The models have known log p(x): a linear-Gaussian one (3-dimensional latent, 7 data values, closed
form); a nonlinear one with a 2-dimensional latent and 12 data values; and a trained model of the
digits with a 2-dimensional latent (both by a sum over a grid). Each has a batch of different
images. Entries are the offset of the estimated from the true mean log p(x) of the batch, and the
standard deviation over repeated draws, in nats.

Draws are `exact` samples of the power posteriors, or the ends of chains of K steps as in training.
`inf` chains per image stand for exact expectations: quadrature without sampling. In the printed
table a correction follows its quadrature; the CSV has every combination. The table is printed by
`python -m benchmarks.likelihood --table=training`.
"""

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.known_models import train_digits_plane
from thermo_ebm import data
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.losses import log_likelihoods
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.integral import (
    QUADRATURES,
    interpolated_integral,
    neighbour_kl,
    quadrature_correction,
    quadrature_weights,
)
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Array, Params, make_batch

CASES = ("gaussian", "nonlinear", "plane")
SCHEDULES = ((4, 6.0), (10, 0.3), (10, 1.0), (10, 3.0), (10, 6.0), (20, 6.0))  # N_t and p
# M and K: K = 0 draws from the power posteriors themselves, M = 0 has exact expectations.
DRAWS = ((0, 0), (2, 0), (8, 0), (2, 20), (2, 200))
OF_CHAINS = ((10, 1.0), (10, 6.0))  # the schedules that chains are run for
PRINTED = (
    ("trapezium", "none"),
    ("trapezium", "pooled_gaussian"),
    ("left", "none"),
    ("right", "none"),
    ("warped_trapezium", "none"),
    ("warped_simpson", "none"),
    ("pchip", "none"),
    ("stepping_stones", ""),
    ("bar", ""),  # any quadrature with correction="ratio"
    ("mbar", ""),
)
COLUMNS = (
    *("case", "num_temperatures", "power", "chains_per_image", "num_steps"),
    *("estimate", "correction", "offset", "sd", "truth"),
)

Estimates = dict[tuple[str, str], float]


class Case(NamedTuple):
    """A model with known log p(x), and a batch of different images."""

    name: str
    model: LatentEBM
    params: Params
    images: np.ndarray  # [num, *image_shape], in [-1, 1]
    truth: np.ndarray  # log p(x), [num]
    step_size: float  # of the posterior's chains
    # E_i of each image, [num_temperatures + 1, num], at temperatures.
    expected: Callable[[np.ndarray], np.ndarray]
    # Exact draws: (generator, temperatures, M) -> [num_temperatures + 1, M, num, latent_dim].
    draw: Callable[[np.random.Generator, np.ndarray, int], np.ndarray]


# Models.


def _no_initial_parameters(key: Array) -> Params:
    """The parameters of these models are given with them."""
    raise NotImplementedError


def gaussian_case(num: int, seed: int) -> Case:
    """Linear generator, quadratic tilt: every power posterior is N(L^-1 h, L^-1)."""
    rng = np.random.default_rng(seed)
    root, linear = rng.normal(size=(3, 3)) / 2, rng.normal(size=3)
    weights, sigma = rng.normal(size=(7, 3)) / 2, 0.8
    quadratic = root @ root.T

    def tilt(alpha: Any, z: Array) -> Array:
        return z @ alpha["linear"] - ((z @ alpha["quadratic"]) * z).sum(-1) / 2

    alpha = {"linear": linear, "quadratic": quadratic}
    model = LatentEBM(tilt, lambda beta, z: z @ beta, _no_initial_parameters, 3, 1.0, sigma)
    prior = np.eye(3) + quadratic
    images = (
        rng.normal(size=(num, 7)) * 1.5
    )  # not drawn from the model: posteriors differ much from the prior

    def laws(t: float) -> tuple[np.ndarray, np.ndarray]:
        cov = np.linalg.inv(prior + t * weights.T @ weights / sigma**2)
        return (linear + t * images @ weights / sigma**2) @ cov, cov

    def expected(temperatures: np.ndarray) -> np.ndarray:
        values = []
        for mean, cov in map(laws, temperatures):
            square = ((images - mean @ weights.T) ** 2).sum(1) + np.trace(weights @ cov @ weights.T)
            values.append(-square / (2 * sigma**2) - 3.5 * np.log(2 * np.pi * sigma**2))
        return np.stack(values)

    def draw(rng: np.random.Generator, temperatures: np.ndarray, m: int) -> np.ndarray:
        return np.stack(
            [
                mean + rng.normal(size=(m, num, 3)) @ np.linalg.cholesky(cov).T
                for mean, cov in map(laws, temperatures)
            ]
        )

    cov = weights @ np.linalg.inv(prior) @ weights.T + sigma**2 * np.eye(7)
    apart = images - weights @ np.linalg.inv(prior) @ linear
    square = np.einsum("bi,ij,bj->b", apart, np.linalg.inv(cov), apart)
    truth = -(square + np.linalg.slogdet(cov)[1] + 7 * np.log(2 * np.pi)) / 2
    params = jax.tree.map(jnp.float32, {"prior": alpha, "generator": weights.T})
    return Case("gaussian", model, params, images, truth, 0.01, expected, draw)


def nonlinear_case(num: int, seed: int) -> Case:
    """Two latents, twelve values, a generator and a tilt that are not linear."""
    rng = np.random.default_rng(seed)
    beta = {
        "first": rng.normal(size=(2, 16)) * 1.2,
        "bias": rng.normal(size=16) / 2,
        "second": rng.normal(size=(16, 12)) / 3,
    }

    def tilt(alpha: Any, z: Array) -> Array:
        return alpha * (jnp.sin(2 * z[:, 0]) / 2 - z[:, 1] ** 2 / 10)

    def generator(beta: Any, z: Array) -> Array:
        return jnp.tanh(jnp.tanh(z @ beta["first"] + beta["bias"]) @ beta["second"])

    model = LatentEBM(tilt, generator, _no_initial_parameters, 2, 1.0, 0.3)
    params = jax.tree.map(jnp.float32, {"prior": 1.0, "generator": beta})
    means = np.asarray(generator(params["generator"], jnp.float32(rng.normal(size=(num, 2)))))
    images = means + 0.3 * rng.normal(size=means.shape)
    return _on_grid("nonlinear", model, params, images, 0.01)


def plane_case(num: int, workdir: Path) -> Case:
    """The digits with a two-dimensional latent, as trained."""
    run = load_run(workdir)
    images = data.to_unit(run.validation_images()[:num])
    return _on_grid(
        "plane", run.model, run.params(), images, run.config.sampler.posterior.step_size
    )


def _on_grid(
    name: str, model: LatentEBM, params: Params, images: np.ndarray, step_size: float
) -> Case:
    """A model with two latents, all of whose expectations are sums over a grid of 5 sigma_0."""
    axis = model.prior_sigma * np.linspace(-5.0, 5.0, 251)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    prior = np.asarray(jax.jit(partial(log_prior, model))(params["prior"], z), np.float64)
    prior -= np.logaddexp.reduce(prior)
    run = jax.jit(model.generator)
    parts = [run(params["generator"], part) for part in np.array_split(z, 31)]
    means = np.concatenate([np.asarray(part) for part in parts])
    means, flat = (a.reshape(len(a), -1).astype(np.float64) for a in (means, images))
    square = (means**2).sum(1)[:, None] - 2 * means @ flat.T + (flat**2).sum(1)  # [points, num]
    variance = model.likelihood_sigma**2
    likelihood = -square / (2 * variance) - flat.shape[1] / 2 * np.log(2 * np.pi * variance)

    def shares(t: float) -> np.ndarray:
        log = t * likelihood + prior[:, None]
        log -= log.max(axis=0)
        return np.exp(log) / np.exp(log).sum(axis=0)

    def expected(temperatures: np.ndarray) -> np.ndarray:
        return np.stack([(shares(t) * likelihood).sum(axis=0) for t in temperatures])

    def draw(rng: np.random.Generator, temperatures: np.ndarray, m: int) -> np.ndarray:
        def of_image(cumulative: np.ndarray) -> np.ndarray:
            return z[np.searchsorted(cumulative, rng.random(m) * cumulative[-1])]

        return np.stack(
            [
                np.stack([of_image(c) for c in np.cumsum(shares(t), axis=0).T], axis=1)
                for t in temperatures
            ]
        )

    truth = np.logaddexp.reduce(likelihood + prior[:, None], axis=0)
    return Case(name, model, params, images, truth, step_size, expected, draw)


# Estimates.


@jax.jit
def _linear_estimates(
    schedule: Schedule, likelihood: Array, latents: Array
) -> dict[str, dict[str, Array]]:
    """Means over images, from l [T, M, num] and the latents [T, M, num, latent_dim]."""
    expected = likelihood.mean(axis=(1, 2))
    pooled = latents.reshape(latents.shape[0], -1, latents.shape[-1])
    kl = neighbour_kl(shrunk_moments(pooled, jnp.ones(pooled.shape[1])))
    values: dict[str, dict[str, Array]] = {}
    for name in QUADRATURES:
        plain = jnp.sum(quadrature_weights(name, schedule) * expected)
        corrected = plain + quadrature_correction(schedule, expected, *kl, quadrature=name)
        values[name] = {"none": plain, "pooled_gaussian": corrected}
    by_image, t = jnp.moveaxis(likelihood, 2, 0), schedule.temperatures
    values["bar"] = {"": ratios.neighbour_ratios(t, by_image).sum(axis=-1).mean()}
    values["mbar"] = {"": ratios.mbar(t, by_image)[:, -1].mean()}
    values["stepping_stones"] = {"": ratios.stepping_stones(t, by_image).sum(axis=-1).mean()}
    return values


def estimates(schedule: Schedule, likelihood: Array, latents: Array) -> Estimates:
    """Every estimate of the batch's mean log p(x) by (name, correction)."""
    linear = jax.device_get(_linear_estimates(schedule, likelihood, latents))
    values = {
        (name, correction): float(value)
        for name, by_correction in linear.items()
        for correction, value in by_correction.items()
    }
    expected = np.asarray(likelihood, np.float64).mean(axis=(1, 2))
    return values | {("pchip", "none"): interpolated_integral(schedule, expected)}


def without_sampling(case: Case, schedule: Schedule) -> Estimates:
    """Every quadrature of the exact expectations."""
    expected = case.expected(np.asarray(schedule.temperatures, np.float64)).mean(axis=1)
    values = {
        (name, "none"): float(np.sum(np.asarray(quadrature_weights(name, schedule)) * expected))
        for name in QUADRATURES
    }
    return values | {("pchip", "none"): interpolated_integral(schedule, expected)}


def chains_of(
    case: Case, num_steps: int, m: int, kernel: str = "ula", exchange_every: int = 0
) -> Callable[[Schedule, Array], Array]:
    """(schedule, key) -> the ends of chains of `num_steps` steps, as in training."""
    settings = SamplerSettings(
        ChainSettings(0.1, num_steps, kernel),
        ChainSettings(case.step_size, num_steps, kernel),
        chains_per_image=m,
        exchange_every=exchange_every,
    )
    batch = make_batch(jnp.float32(case.images))

    @jax.jit
    def run(schedule: Schedule, key: Array) -> Array:
        return tempered_chains(
            case.model, case.params, batch, Ladder(schedule), key, settings
        ).latents

    return run


def measure(case: Case, repeats: int, seed: int) -> Iterator[tuple[tuple, Estimates, Estimates]]:
    """((N_t, p, M, K), offsets, standard deviations) of every schedule and kind of draw."""
    value = jax.jit(partial(log_likelihoods, case.model, image_chunk=0))
    images, truth = jnp.float32(case.images), float(case.truth.mean())
    for m, num_steps in DRAWS:
        run = chains_of(case, num_steps, m) if num_steps else None
        for num, power in OF_CHAINS if num_steps else SCHEDULES:
            schedule = make_schedule("power", num, power)
            temperatures = np.asarray(schedule.temperatures, np.float64)
            draws = []
            for repeat in range(repeats if m else 0):
                if run is None:
                    rng = np.random.default_rng([seed, repeat, num, m])
                    latents = jnp.float32(case.draw(rng, temperatures, m))
                else:
                    latents = run(schedule, jax.random.key(seed + repeat))
                likelihood = value(case.params["generator"], images, latents)
                draws.append(estimates(schedule, likelihood, latents))
            draws = draws or [without_sampling(case, schedule)]
            by_estimate = {key: np.array([draw[key] for draw in draws]) for key in draws[0]}
            offsets = {key: float(values.mean()) - truth for key, values in by_estimate.items()}
            spread = {
                key: float(values.std(ddof=1)) if m else 0.0 for key, values in by_estimate.items()
            }
            yield (num, power, m, num_steps), offsets, spread


# The table.


def _line(setting: tuple, offsets: Estimates, spread: Estimates) -> str:
    num, power, m, num_steps = setting
    cells = [f"{num}, {power:g}", "inf" if m == 0 else str(m), str(num_steps or "exact")]
    for key in PRINTED:
        if key not in offsets:
            cells.append("")
        elif m == 0:
            cells.append(f"{offsets[key]:+.2f}")
        else:
            cells.append(f"{offsets[key]:+.2f} ({spread[key]:.2f})")
    return "| " + " | ".join(cells) + " |"


def _header() -> str:
    names = [name + (f" + {how}" if how not in ("", "none") else "") for name, how in PRINTED]
    titles = ["N_t, p", "M", "K", *names]
    return "| " + " | ".join(titles) + " |\n|" + "---|" * len(titles)


def make_case(name: str, num: int, seed: int, workdir: str | None) -> Case:
    """The model of a name, with `num` images."""
    if name == "gaussian":
        return gaussian_case(num, seed)
    if name == "nonlinear":
        return nonlinear_case(num, seed)
    return plane_case(num, Path(workdir) if workdir else train_digits_plane())


class TableSettings(NamedTuple):
    """What the tables are measured with."""

    images: int = 16  # of a batch
    repeats: int = 8  # of the draws
    seed: int = 0  # of images and draws
    workdir: str | None = None  # run of configs/digits_plane.py; None: one is trained


def print_tables(names: Sequence[str], settings: TableSettings, csv_path: str | None) -> None:
    """Prints a table for each model and writes the CSV."""
    rows: list[tuple] = []
    for name in names:
        case = make_case(name, settings.images, settings.seed, settings.workdir)
        truth = case.truth.mean()
        print(f"\n{name}: {len(case.images)} images, true mean log p(x) {truth:.3f} nats\n")
        print(_header(), flush=True)
        for setting, offsets, spread in measure(case, settings.repeats, settings.seed):
            print(_line(setting, offsets, spread), flush=True)
            rows += [(name, *setting, *key, offsets[key], spread[key], truth) for key in offsets]
    if csv_path:
        with open(csv_path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(itertools.chain([COLUMNS], rows))
