"""Are K steps enough? Diagnostics of a trained model's chains by length, from long chains.

The chains of training start from p0 and take K steps. Continued for many more steps, the same
chains show for every smaller K whether the distribution of their states after K steps has converged
(E_t compared with the long chains), and whether chains of that length mix (effective sample size,
split R-hat).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.evaluation.chains.diagnostics import (
    MIN_DRAWS,
    effective_sample_size,
    split_r_hat,
)
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.run.tables import write_cells
from thermo_ebm.sampling.chains import SamplerSettings, TemperedChains, Trace, tempered_chains
from thermo_ebm.sampling.exchange import round_trips, swap_log_ratio
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.types import Array, Params, PRNGKey, make_batch

LENGTHS = (8, 20, 50, 100, 200, 500, 1000)
AGREEMENT = 1.01  # the largest R-hat of chains that agree (Vehtari et al. 2021, section 4)


class Convergence(NamedTuple):
    """Diagnostics of chains at one temperature after K steps; one row of `diagnostics.csv`."""

    num_steps: int  # K
    temperature_index: int  # i of t_i
    temperature: float  # t_i
    expected_log_likelihood: float  # E_t over the chains' ends, nats per image
    stderr: float  # standard error of E_t, from the spread of an image's chains
    offset: float  # difference from the mean over the later half of the longest chains
    offset_stderr: float  # standard error of the offset
    ess: float  # of l, draws per chain, median over images
    ess_latents: float  # of the latents' worst coordinate, median over images
    r_hat: float  # of l, median over images
    r_hat_latents: float  # of the latents' worst coordinate, median over images
    r_hat_worst: float  # the larger of both, maximum over all images
    share_agreeing: float  # share of the images with both at most `AGREEMENT`
    acceptance: float  # Metropolis acceptance, actual or hypothetical; mean over steps
    swap_rate: float  # swap rate with index + 1, actual or hypothetical; nan for the last
    round_trips: float  # between t_1 and t_N per image's chains, in K steps


def long_traces(
    model: LatentEBM,
    params: Params,
    images: Array | np.ndarray,
    ladder: Ladder,
    key: PRNGKey,
    settings: SamplerSettings,
    num_steps: int,
) -> Trace:
    """The trace of the chains of images [num, *image_shape] in [-1, 1], on the host.

    Its first temperature is that of the prior's chains.

    Raises:
      ValueError: fewer than the two chains per image that R-hat needs, or too few steps.
    """
    if settings.chains_per_image < 2:
        raise ValueError("diagnostics need chains_per_image of at least 2.")
    if num_steps < 2 * MIN_DRAWS:
        raise ValueError(f"diagnostics need chains of at least {2 * MIN_DRAWS} steps.")
    settings = settings._replace(
        prior=settings.prior._replace(num_steps=num_steps),
        posterior=settings.posterior._replace(num_steps=num_steps),
        image_chunk=0,
        chain_chunk=0,
        precision="float32",
    )
    run = jax.jit(partial(tempered_chains, model, settings=settings, record=True))
    chains: TemperedChains = run(params, make_batch(images), ladder, key)
    return jax.device_get(chains.trace)


def convergence_table(
    traces: Trace,
    temperatures: Array | np.ndarray,
    lengths: Sequence[int] = LENGTHS,
    reference: str = "prior",
) -> list[Convergence]:
    """The diagnostics at every temperature for each length up to that of the traces.

    With the linear reference, E_t of t > 0 is that of Delta, and the prior, whose chains stand
    beside the ladder then, has no swap rate.

    Args:
      traces: the trajectories of long chains.
      temperatures: t_0 = 0 .. t_N, [num_temperatures + 1].
      lengths: numbers of steps; those below 4 or beyond the length of the traces are ignored.
      reference: "prior" or "linear".

    Returns:
      One row for each length and temperature, the length slowest.
    """
    temperatures = np.asarray(temperatures)
    # E_t of the long chains: the later half of their steps. Chains are independent.
    later = np.asarray(traces.log_ratio[len(traces.log_ratio) // 2 :], np.float64)
    long_means = [_mean_and_error(values) for values in later.mean(axis=0)]
    rows = []
    for num_steps in sorted({n for n in lengths if MIN_DRAWS <= n <= len(traces.latents)}):
        first_steps = Trace(*(array[:num_steps] for array in traces))
        of_length = _rows_of_length(first_steps, temperatures, long_means)
        if reference != "prior":
            of_length[0] = of_length[0]._replace(swap_rate=float("nan"))
        rows += of_length
    return rows


def _rows_of_length(
    traces: Trace, temperatures: np.ndarray, long_means: Sequence[tuple[float, float]]
) -> list[Convergence]:
    """One row per temperature for chains of the length of the traces.

    Args:
      traces: the trajectories.
      temperatures: [num_temperatures + 1].
      long_means: E_t of the long chains and its standard error at each temperature.
    """
    num_steps, _, per_image, _ = traces.log_ratio.shape
    swap_rates = _swap_rates(traces.log_ratio, temperatures)
    trips = float(_round_trips(traces.source).mean())
    rows = []
    for i, temperature in enumerate(temperatures.tolist()):
        likelihood = np.asarray(traces.log_ratio[:, i], np.float64)  # [K, M, num]
        mean, error = _mean_and_error(likelihood[-1])
        long_mean, long_error = long_means[i]
        draws = np.swapaxes(likelihood, 0, 1)  # [M, K, num]
        latents = np.swapaxes(traces.latents[:, i], 0, 1)  # [M, K, num, latent_dim]
        r_hat, r_hat_latents = split_r_hat(draws), split_r_hat(latents).max(axis=-1)
        r_hat_worst = np.maximum(r_hat, r_hat_latents)  # [num]; nan where draws never change
        ess, ess_latents = effective_sample_size(draws), effective_sample_size(latents)
        rows.append(
            Convergence(
                num_steps=num_steps,
                temperature_index=i,
                temperature=temperature,
                expected_log_likelihood=mean,
                stderr=error,
                offset=mean - long_mean,
                # The ends of the longest chains are among the draws with which they are compared.
                offset_stderr=float(np.hypot(error, long_error)),
                ess=float(np.median(ess)) / per_image,
                ess_latents=float(np.median(ess_latents.min(axis=-1))) / per_image,
                r_hat=float(np.median(r_hat)),
                r_hat_latents=float(np.median(r_hat_latents)),
                r_hat_worst=float(r_hat_worst.max()),
                share_agreeing=float(np.mean(r_hat_worst <= AGREEMENT)),
                acceptance=float(np.mean(traces.acceptance[:, i], dtype=np.float64)),
                swap_rate=swap_rates[i],
                round_trips=trips,
            )
        )
    return rows


def sufficient_steps(rows: Sequence[Convergence]) -> int | None:
    """The smallest K from which on chains agree; None if there is no such K.

    Chains agree if the R-hat of every image is at most 1.01 at every temperature, and E_t is within
    3 standard errors of that of the long chains.
    """
    sufficient = None
    for num_steps in sorted({row.num_steps for row in rows}, reverse=True):
        of_length = [row for row in rows if row.num_steps == num_steps]
        # A value that is nan is no agreement.
        if not all(row.r_hat_worst <= AGREEMENT for row in of_length):
            break
        if not all(abs(row.offset) <= 3 * row.offset_stderr for row in of_length):
            break
        sufficient = num_steps
    return sufficient


def write_table(path: Path, rows: Sequence[Convergence], **shared: object) -> None:
    """Writes the table as CSV, with further columns for values that all rows share.

    Raises:
      OSError: the file cannot be written.
    """
    cells = [
        {name: "" if value != value else str(value) for name, value in columns.items()}
        for columns in (row._asdict() | shared for row in rows)
    ]
    write_cells(path, cells, [*Convergence._fields, *shared])


_COLUMNS = (
    *("K", "ESS l", "ESS z", "R-hat l", "R-hat z", "worst", "agree"),
    *("E_t", "+-", "off", "+-", "accept", "swap"),
)


def as_text(rows: Sequence[Convergence], run_steps: tuple[int, int], kernel: str) -> str:
    """The table of posterior and prior as text, and which K is large enough.

    Args:
      rows: of `convergence_table`.
      run_steps: K of the run's posterior and prior chains; the rows of these K are marked.
      kernel: of the posterior's chains.
    """
    last, lines = max(row.temperature_index for row in rows), []
    for index, name, run_length in ((last, "posterior", run_steps[0]), (0, "prior", run_steps[1])):
        at_temperature = [row for row in rows if row.temperature_index == index]
        temperature = at_temperature[0].temperature
        lines.append(f"{name}, t = {temperature:g} (* this run's K, {kernel})")
        lines.append(" ".join(title.rjust(8) for title in _COLUMNS))
        for row in at_temperature:
            # The last temperature is exchanged with the one below, whose row has the swap rate.
            values = [row.ess, row.ess_latents, row.r_hat, row.r_hat_latents]
            values += [row.r_hat_worst, row.share_agreeing]
            values += [row.expected_log_likelihood, row.stderr, row.offset, row.offset_stderr]
            values += [row.acceptance, row.swap_rate]
            cells = ["-" if value != value else f"{value:.3g}" for value in values]
            length = f"{row.num_steps}{'*' if row.num_steps == run_length else ''}"
            lines.append(" ".join(cell.rjust(8) for cell in (length, *cells)))
    longest, sufficient = max(row.num_steps for row in rows), sufficient_steps(rows)
    verdict = f"at no K up to {longest} do chains agree"
    if sufficient is not None:
        verdict = f"chains agree from K = {sufficient} on"
    of_longest = [row for row in rows if row.num_steps == longest]
    fewest = min(of_longest, key=lambda row: row.share_agreeing)
    lines += [
        "ESS per chain; ESS, R-hat: medians over images; worst: the largest R-hat of any image;",
        f"agree: share of the images with R-hats of at most {AGREEMENT};",
        "off: E_t less its mean over the later half of the longest chains, nats;",
        "accept, swap: what Metropolis and exchange with the next t accept, or would",
        f"{verdict}: R-hat of every image at most {AGREEMENT}, E_t within 3 standard errors,",
        f"at every t; at K = {longest} the chains of {fewest.share_agreeing:.0%} of the images "
        f"agree at t = {fewest.temperature:g}, where fewest do",
    ]
    return "\n".join(lines)


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean of l [M, num] over chains and images, and its standard error for these images."""
    per_image, num = values.shape
    variance = values.var(axis=0, ddof=1).sum() / per_image / num**2
    return float(values.mean()), float(np.sqrt(variance))


def _swap_rates(likelihood: Array | np.ndarray, temperatures: np.ndarray) -> list[float]:
    """min(1, exp((t_i - t_j) (l_j - l_i))) of neighbours, a mean over all states; then nan."""
    log_ratio = swap_log_ratio(jnp.asarray(temperatures), jnp.moveaxis(likelihood, 1, 0))
    rates = np.exp(np.minimum(np.float64(log_ratio), 0.0)).mean(axis=(1, 2, 3))
    return [*rates.tolist(), float("nan")]


def _round_trips(source: Array | np.ndarray) -> np.ndarray:
    """Round trips of all chains of an image in the complete trace, [num]."""
    num_steps, num_temperatures, per_image, num = source.shape
    places = jnp.asarray(source - 1).reshape(num_steps, num_temperatures, -1)
    return np.asarray(round_trips(places)).reshape(per_image, num).sum(axis=0)
