"""The power posteriors of one image for a two-dimensional latent, and their picture.

In two dimensions a sum over a grid normalises any density, so that no sampling is needed. The
picture shows the ends of short-run chains over their target densities, without and with exchange
between temperatures.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from thermo_ebm import data
from thermo_ebm.models.latent_ebm import LatentEBM, log_power_posterior
from thermo_ebm.run import pictures
from thermo_ebm.sampling.chains import SamplerSettings, tempered_chains
from thermo_ebm.sampling.chunks import map_in_chunks, tile
from thermo_ebm.types import Array, Params, PRNGKey

MASSES = (0.95, 0.8, 0.6, 0.4, 0.2)  # masses of the nested regions that the picture shades
_AT_ONCE = 2048  # points of the grid that the generator processes at once
_CHAIN_COLOR, _GRAY = "#D55E00", "#555555"


class TemperedPosteriors(NamedTuple):
    """p(z | x, t) of one image x at each temperature."""

    image: np.ndarray  # x, [height, width, channels] in [-1, 1]
    temperatures: np.ndarray  # t_0 = 0 .. t_N, [num_temperatures + 1]
    axis: np.ndarray  # coordinates of the grid along either latent, [num_points]
    density: np.ndarray  # [num_temperatures + 1, num_points (z_2), num_points (z_1)]
    latents: np.ndarray  # ends of chains without exchange, [num_temperatures + 1, num_chains, 2]
    exchanged: np.ndarray | None  # ends of chains with exchange, if requested
    exchange_every: int  # steps between exchanges of those
    decoded: np.ndarray  # g(latents) of the last of both, [num_temperatures + 1, num_chains, ...]


def tempered_posteriors(
    model: LatentEBM,
    params: Params,
    image: Array | np.ndarray,
    temperatures: Array,
    key: PRNGKey,
    settings: SamplerSettings,
    num_chains: int = 256,
    num_points: int = 181,
) -> TemperedPosteriors:
    """The densities at all temperatures on a grid, and the ends of chains towards each.

    Args:
      model: one with a two-dimensional latent.
      params: alpha and beta.
      image: x, [height, width, channels] in [-1, 1].
      temperatures: t_0 = 0 .. t_N, [num_temperatures + 1].
      key: consumed.
      settings: the chains' step sizes, lengths and kernels; with `exchange_every`, chains are run
        without exchange and with.
      num_chains: chains at each temperature.
      num_points: of the grid along either latent, which reaches 4 sigma_0 from the origin.

    Raises:
      ValueError: the latent is not two-dimensional.
    """
    if model.latent_dim != 2:
        raise ValueError(f"the latent has {model.latent_dim} dimensions; a plane has 2.")
    image, temperatures = jnp.asarray(image), jnp.asarray(temperatures)
    axis = model.prior_sigma * jnp.linspace(-4.0, 4.0, num_points)

    @jax.jit
    def compute(params: Params, image: Array, key: PRNGKey) -> tuple[Array, list[Array], Array]:
        log_density = log_density_on_grid(model, params, image, temperatures, axis)
        x, positions = tile(image[None], num_chains), jnp.arange(num_chains)
        sets = []
        for every in sorted({0, settings.exchange_every}):
            one = settings._replace(chains_per_image=1, exchange_every=every)
            chains = tempered_chains(model, params, x, positions, temperatures, key, one)
            sets.append(chains.latents[:, 0])
        decoded = model.generator(params["generator"], sets[-1].reshape(-1, 2))
        return log_density, sets, decoded.reshape(*sets[-1].shape[:2], *image.shape)

    log_density, sets, decoded = jax.device_get(compute(params, image, key))
    grid = np.asarray(axis, np.float64)
    return TemperedPosteriors(
        image=np.asarray(image),
        temperatures=np.asarray(temperatures),
        axis=grid,
        density=normalised(log_density, grid),
        latents=sets[0],
        exchanged=sets[1] if len(sets) > 1 else None,
        exchange_every=settings.exchange_every,
        decoded=decoded,
    )


def log_density_on_grid(
    model: LatentEBM, params: Params, image: Array, temperatures: Array, axis: Array
) -> Array:
    """log p(z | x, t) up to a constant, at every point of a grid and every temperature (eq. 21).

    Args:
      model: one with a two-dimensional latent.
      params: alpha and beta.
      image: x, [*image_shape].
      temperatures: [num_temperatures].
      axis: coordinates along either latent, [num_points].

    Returns:
      [num_temperatures, num_points (z_2), num_points (z_1)].
    """
    chex.assert_rank([temperatures, axis], 1)

    def at_all_temperatures(z: Array) -> Array:
        x = tile(image[None], z.shape[0])
        # Both networks are evaluated once: vmap repeats only what depends on t.
        density = jax.vmap(lambda t: log_power_posterior(model, params, x, z, t), out_axes=1)
        return density(temperatures)

    z = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = map_in_chunks(at_all_temperatures, z, _AT_ONCE)
    return values.T.reshape(-1, axis.shape[0], axis.shape[0])


def normalised(log_density: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Densities that integrate to 1 over the grid's square.

    Args:
      log_density: up to a constant each, [..., num_points, num_points].
      axis: evenly spaced coordinates, [num_points].

    Returns:
      [..., num_points, num_points] in float64, per unit of area.
    """
    log_density = log_density.astype(np.float64)
    density = np.exp(log_density - log_density.max(axis=(-2, -1), keepdims=True))
    mass = density.sum(axis=(-2, -1), keepdims=True) * (axis[1] - axis[0]) ** 2
    return density / mass


def highest_density_levels(density: np.ndarray, masses: tuple[float, ...] = MASSES) -> np.ndarray:
    """The levels above which a density on an even grid has the given shares of its mass.

    Args:
      density: [num_points, num_points].
      masses: each in (0, 1).

    Returns:
      [len(masses)].
    """
    descending = np.sort(density, axis=None)[::-1]
    share = np.cumsum(descending) / descending.sum()
    return descending[np.searchsorted(share, masses)]


def draw(posteriors: TemperedPosteriors, columns: int = 4) -> Figure:
    """Draws the image, the density at each temperature under its chains' ends, and their images.

    Args:
      posteriors: of one image.
      columns: images in a row below each density; columns^2 chains are shown.

    Returns:
      A figure on a canvas of its own.
    """
    num, rows = len(posteriors.temperatures), _rows(posteriors)
    figure = Figure(figsize=(1.8 * num + 1.3, 2.0 * len(rows) + 2.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows) + 1, num + 1, width_ratios=[0.75] + [1.0] * num)
    _show_image(axes[0, 0], posteriors.image)
    axes[0, 0].set_title("image x", fontsize=10)
    for row, (words, latents) in enumerate(rows):
        for i in range(num):
            _show_density(axes[row, i + 1], posteriors, latents[i], i)
            if row == 0:
                axes[0, i + 1].set_title(_title(posteriors, i), fontsize=10)
        axes[row, 1].set_ylabel("$z_2$", fontsize=9, labelpad=-4)
        if row > 0 or len(rows) > 1:
            _say(axes[row, 0], words, inside=row > 0)
    for i in range(num):
        axes[len(rows) - 1, i + 1].set_xlabel("$z_1$", fontsize=9, labelpad=1)
        decoded = data.to_uint8(posteriors.decoded[i, : columns**2])
        _show_image(axes[-1, i + 1], data.to_unit(pictures.grid(decoded, columns)))
    _say(axes[-1, 0], "the images g(z)\nof the first\nchains' ends", inside=True)
    title = r"$p(z \mid x, t) \propto p(x \mid z)^t\, p(z)$, from the prior to the posterior"
    figure.suptitle(title, fontsize=12)
    return figure


def _rows(posteriors: TemperedPosteriors) -> list[tuple[str, np.ndarray]]:
    """The text for each set of chains, and the ends of the chains."""
    rows = [("chains without\nexchange", posteriors.latents)]
    if posteriors.exchanged is not None:
        every = posteriors.exchange_every
        often = "every step" if every == 1 else f"every {every} steps"
        rows.append((f"the same chains,\nstates exchanged\n{often}", posteriors.exchanged))
    return rows


def _title(posteriors: TemperedPosteriors, index: int) -> str:
    ends = {0: ": prior", len(posteriors.temperatures) - 1: ": posterior"}
    return f"t = {posteriors.temperatures[index]:.3g}{ends.get(index, '')}"


def _say(axis: Axes, words: str, inside: bool) -> None:
    """Writes a text beside a row of panels: in the empty panel, or under its picture."""
    if inside:
        axis.axis("off")
    x, y, ha, va = (1.0, 0.5, "right", "center") if inside else (0.5, -0.12, "center", "top")
    axis.text(x, y, words, ha=ha, va=va, fontsize=9, color=_GRAY, transform=axis.transAxes)


def _show_density(
    axis: Axes, posteriors: TemperedPosteriors, latents: np.ndarray, index: int
) -> None:
    """Shades nested regions of highest density and puts the chains' ends over them."""
    grid, density = posteriors.axis, posteriors.density[index]
    # A density narrower than the grid has fewer distinct levels.
    levels = np.unique([*highest_density_levels(density), density.max() * (1 + 1e-6)])
    shades = colormaps["Blues"](np.linspace(0.2, 0.85, len(levels) - 1))
    axis.contourf(grid, grid, density, levels=levels, colors=shades)
    axis.plot(*latents.T, ".", color=_CHAIN_COLOR, markersize=3, alpha=0.8, markeredgewidth=0)
    axis.set(xlim=grid[[0, -1]], ylim=grid[[0, -1]], aspect="equal")
    axis.tick_params(labelsize=7, labelleft=index == 0)


def _show_image(axis: Axes, image: np.ndarray) -> None:
    axis.imshow((np.clip(image, -1, 1) + 1) / 2, cmap="gray", vmin=0, vmax=1)
    axis.axis("off")
