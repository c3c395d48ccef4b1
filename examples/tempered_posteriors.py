"""Draws the tempered posteriors of one image, in a model with a two-dimensional latent.

In two dimensions a sum over a grid normalises any density, so that no sampling is needed. The
picture shows the ends of short-run chains over the densities p(z | x, t) to which they should
converge, without and with exchange between temperatures.

The reference at t = 0 is that of the run: the prior, or the linear reference q(z | x).

First train a model: python -m launch.train --config=configs/digits_plane.py --workdir=runs/plane
Run it with: python -m examples.tempered_posteriors runs/plane plane.png 11    (validation image 11)
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import thermo_ebm as te
from thermo_ebm import data
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.run import pictures
from thermo_ebm.sampling.chains import SamplerSettings, posterior_target, tempered_chains
from thermo_ebm.sampling.chunks import map_in_chunks, tile
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.types import Array, Params, PRNGKey

MASSES = (0.95, 0.8, 0.6, 0.4, 0.2)  # masses of the nested regions that the picture shades
NUM_CHAINS, NUM_POINTS = 256, 181  # chains at each temperature; points of the grid along a latent
CHAIN_COLOR, GRAY = "#D55E00", "#555555"


class TemperedPosteriors(NamedTuple):
    """p(z | x, t) of one image x at each temperature."""

    reference: str  # the density at t = 0: "prior", or "q(z | x)"
    image: np.ndarray  # x, [height, width, channels] in [-1, 1]
    temperatures: np.ndarray  # t_0 = 0 .. t_N, [num_temperatures + 1]
    axis: np.ndarray  # coordinates of the grid along either latent, [num_points]
    density: np.ndarray  # [num_temperatures + 1, num_points (z_2), num_points (z_1)]
    latents: np.ndarray  # ends of chains without exchange, [num_temperatures + 1, num_chains, 2]
    exchanged: np.ndarray  # ends of the same chains with exchange
    decoded: np.ndarray  # g(exchanged), [num_temperatures + 1, num_chains, *image_shape]


def tempered_posteriors(
    model: LatentEBM,
    params: Params,
    image: Array | np.ndarray,
    ladder: Ladder,
    key: PRNGKey,
    settings: SamplerSettings,
) -> TemperedPosteriors:
    """The densities of an image [*image_shape] on a grid, and the ends of chains towards each."""
    image = jnp.asarray(image)
    axis = model.prior_sigma * jnp.linspace(-4.0, 4.0, NUM_POINTS)

    @jax.jit
    def compute(params: Params, image: Array, key: PRNGKey) -> tuple[Array, ...]:
        density = log_density_on_grid(model, params, image, ladder, axis)
        batch = te.make_batch(tile(image[None], NUM_CHAINS))

        def ends(exchange_every: int) -> Array:
            sampler = settings._replace(chains_per_image=1, exchange_every=exchange_every)
            return tempered_chains(model, params, batch, ladder, key, sampler).latents[:, 0]

        latents, exchanged = ends(0), ends(settings.exchange_every or 1)
        decoded = model.generator(params["generator"], exchanged.reshape(-1, 2))
        return density, latents, exchanged, decoded.reshape(*exchanged.shape[:2], *image.shape)

    log_density, *chains = jax.device_get(compute(params, image, key))
    grid = np.asarray(axis, np.float64)
    density = normalised(log_density, grid)
    reference = "prior" if ladder.path.reference is None else "$q(z \\mid x)$"
    arrays = np.asarray(image), np.asarray(ladder.temperatures), grid, density
    return TemperedPosteriors(reference, *arrays, *chains)


def log_density_on_grid(
    model: LatentEBM, params: Params, image: Array, ladder: Ladder, axis: Array
) -> Array:
    """log p(z | x, t) up to a constant (eq. 21), [num_temperatures, num_points, num_points]."""

    def at_all_temperatures(z: Array) -> Array:
        x = tile(image[None], z.shape[0])
        target = posterior_target(model, params, x, jnp.zeros(len(z)), path=ladder.path)
        point = target.evaluate(z)
        return point.log_reference[:, None] + ladder.temperatures * point.log_ratio[:, None]

    z = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = map_in_chunks(at_all_temperatures, z, 2048)
    return values.T.reshape(-1, axis.shape[0], axis.shape[0])


def normalised(log_density: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Densities [..., num_points, num_points] that integrate to 1 over the square of the grid."""
    log_density = log_density.astype(np.float64)
    density = np.exp(log_density - log_density.max(axis=(-2, -1), keepdims=True))
    return density / (density.sum(axis=(-2, -1), keepdims=True) * (axis[1] - axis[0]) ** 2)


def highest_density_levels(density: np.ndarray, masses: tuple[float, ...] = MASSES) -> np.ndarray:
    """The levels above which a density on an even grid has the given shares of its mass."""
    descending = np.sort(density, axis=None)[::-1]
    share = np.cumsum(descending) / descending.sum()
    return descending[np.searchsorted(share, masses)]


def draw(posteriors: TemperedPosteriors, columns: int = 4) -> Figure:
    """Draws the image, the densities under the ends of both sets of chains, and their images."""
    num = len(posteriors.temperatures)
    figure = Figure(figsize=(1.8 * num + 1.3, 6.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, num + 1, width_ratios=[0.75] + [1.0] * num)
    _show_image(axes[0, 0], posteriors.image)
    axes[0, 0].set_title("image x", fontsize=10)
    for i, temperature in enumerate(posteriors.temperatures):
        name = {0: f": {posteriors.reference}", num - 1: ": posterior"}.get(i, "")
        axes[0, i + 1].set_title(f"t = {temperature:.3g}{name}", fontsize=10)
        for row, latents in enumerate((posteriors.latents, posteriors.exchanged)):
            _show_density(axes[row, i + 1], posteriors, latents[i], i)
        axes[1, i + 1].set_xlabel("$z_1$", fontsize=9, labelpad=1)
        decoded = data.to_uint8(posteriors.decoded[i, : columns**2])
        _show_image(axes[2, i + 1], data.to_unit(pictures.grid(decoded, columns)))
    for row in (0, 1):
        axes[row, 1].set_ylabel("$z_2$", fontsize=9, labelpad=-4)
    below = {"ha": "center", "va": "top", "fontsize": 9, "color": GRAY}
    beside = below | {"ha": "right", "va": "center"}
    for axis, text, x, y, style in (
        (axes[0, 0], "chains without\nexchange", 0.5, -0.12, below),
        (axes[1, 0], "the same chains,\nstates exchanged", 1.0, 0.5, beside),
        (axes[2, 0], "the images g(z)\nof the first\nchains' ends", 1.0, 0.5, beside),
    ):
        axis.axis("off")
        axis.text(x, y, text, transform=axis.transAxes, **style)
    figure.suptitle(rf"$p(z \mid x, t)$, {posteriors.reference} to posterior")
    return figure


def _show_density(
    axis: Axes, posteriors: TemperedPosteriors, latents: np.ndarray, index: int
) -> None:
    """Shades nested regions of highest density and puts the chains' ends over them."""
    grid, density = posteriors.axis, posteriors.density[index]
    # A density narrower than the grid has fewer distinct levels.
    levels = np.unique([*highest_density_levels(density), density.max() * (1 + 1e-6)])
    shades = colormaps["Blues"](np.linspace(0.2, 0.85, len(levels) - 1))
    axis.contourf(grid, grid, density, levels=levels, colors=shades)
    axis.plot(*latents.T, ".", color=CHAIN_COLOR, markersize=3, alpha=0.8, markeredgewidth=0)
    axis.set(xlim=grid[[0, -1]], ylim=grid[[0, -1]], aspect="equal")
    axis.tick_params(labelsize=7, labelleft=index == 0)


def _show_image(axis: Axes, image: np.ndarray) -> None:
    axis.imshow((np.clip(image, -1, 1) + 1) / 2, cmap="gray", vmin=0, vmax=1)
    axis.axis("off")


def main() -> None:
    """Draws the picture for RUN PICTURE IMAGE."""
    workdir, picture, number = sys.argv[1:]
    run = te.load_run(workdir)
    image = data.to_unit(run.validation_images()[int(number)])
    schedule, checkpoint = te.make_schedule("power", 5, 2.0), run.load()
    ladder = Ladder(schedule, run.path(checkpoint, schedule.temperatures))
    posteriors = tempered_posteriors(
        run.model, checkpoint.params, image, ladder, jax.random.key(0), run.sampler
    )
    draw(posteriors).savefig(picture, dpi=120)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
