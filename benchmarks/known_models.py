"""Models with images whose log p(x) is known, from a closed form or a grid over two latents.

Half of the images of a case are simulated from its model and half are not, but for `digits_plane`,
whose images are validation digits.
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from thermo_ebm import data
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.sampling.chunks import map_in_chunks
from thermo_ebm.types import Params

EDGE, POINTS = 6.0, 1501  # of the grid over two latents


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
    return Case(model, params, images.astype(np.float32), truth, settings)


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
    images = images.astype(np.float32)
    law = stats.multivariate_normal(np.zeros(dim), weights.T @ weights + sigma**2 * np.eye(dim))
    params = {"prior": {"unused": jnp.zeros(1)}, "generator": {"unused": jnp.zeros(1)}}
    return Case(model, params, images, law.logpdf(images.astype(float)), LikelihoodSettings())


def digits_plane(workdir: Path, num: int, sigma: float | None = None) -> Case:
    """The digits with a two-dimensional latent: a run of `configs/digits_plane.py`.

    Args:
      workdir: of the run.
      num: validation images.
      sigma: sigma_l in place of that of training.
    """
    run = load_run(workdir)
    model, params = run.model, run.params()
    if sigma is not None:
        model = model._replace(likelihood_sigma=sigma)
    images = np.asarray(data.to_unit(run.validation_images()[:num]))
    axis = jnp.linspace(-4.5, 4.5, 901)  # of which 0.005 sigma_0 is a fifth of a posterior's width
    z = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

    @partial(jax.jit, static_argnames="num")
    def sums(params: Params, images: Any, num: int) -> Any:
        def of_rows(z: Any) -> Any:
            means = model.generator(params["generator"], z)

            def of_image(image: Any) -> Any:
                x = jnp.broadcast_to(image, means.shape)
                return model.likelihood.log_density(x, means)

            return log_prior(model, params["prior"], z), jax.lax.map(of_image, images).T

        return map_in_chunks(of_rows, z, num)

    density, log_p = (np.asarray(leaf, np.float64) for leaf in sums(params, images, 9010))
    truth = special.logsumexp(log_p + density[:, None], axis=0) - special.logsumexp(density)
    return Case(model, params, images, truth, LikelihoodSettings())


def train_digits_plane() -> Path:
    """Trains `configs/digits_plane.py` in a temporary folder, and returns the run."""
    from thermo_ebm.run import configuration, lock
    from thermo_ebm.train import loop

    folder = Path(tempfile.mkdtemp()) / "run"
    config = importlib.import_module("configs.digits_plane").get_config()
    config.evaluation.likelihood.every_epochs = 0
    config.logging.pictures_every_epochs = 0
    print("training configs/digits_plane.py", file=sys.stderr, flush=True)
    with lock.hold(folder):
        configuration.check_config(folder, config.lock(), ())
        loop.train(config, folder, lambda: False)
    return folder


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
# Of a run of configs/digits_plane.py; the number replaces sigma_l, which is 0.6 in training.
CASES_OF_A_RUN: dict[str, Callable[[Path, int], Case]] = {
    "digits_plane": digits_plane,
    "digits_plane_0.3": lambda workdir, num: digits_plane(workdir, num, 0.3),
    "digits_plane_0.15": lambda workdir, num: digits_plane(workdir, num, 0.15),
}
