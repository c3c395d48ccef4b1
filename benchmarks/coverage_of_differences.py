"""Simulates how often the interval of a paired difference contains its estimand.

Run by `python -m benchmarks.coverage --paired`. Real images and two candidates are drawn again and
again with known moments. The estimand of FID, KID and the like is the mean difference over all
repeats (0 for equal candidates, known by symmetry); that of `fid_inf` is the difference of the FIDs
of the distributions. `frechet` is the same function as `fid`, of features whose spectrum falls more
slowly, as that of DINOv2's does beside InceptionV3's.

Each repeat has its own random numbers, and its result is one line of a file, so that a simulation
that ends goes on where it was.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from benchmarks.coverage_of_metrics import draw_features
from thermo_ebm.metrics import arrays, extrapolate, kid, paired, subsets, summary
from thermo_ebm.metrics.estimates import Estimate, KernelMean

# Shift and scale of both candidates, as those of `coverage_of_metrics.CASES`.
CANDIDATES = {
    "real": ((0.0, 1.0), (0.0, 1.0)),
    "equal": ((0.05, 1.05), (0.05, 1.05)),
    "near": ((0.05, 1.05), (0.08, 1.1)),
    "far": ((0.05, 1.05), (0.5, 1.4)),
}
EQUAL = ("real", "equal")
DECAYS = {"fid": 7.0, "fid_inf": 7.0, "kid": 7.0, "frechet": 2.0}


class Cell(NamedTuple):
    """One setting of the simulation."""

    case: str
    num_images: int
    num_features: int
    decay: float


def cells(num_images: Sequence[int], num_features: Sequence[int]) -> Iterator[Cell]:
    """Every setting, the quick ones first."""
    for d, n, decay, case in itertools.product(
        num_features, num_images, sorted({*DECAYS.values()}, reverse=True), CANDIDATES
    ):
        yield Cell(case, n, d, decay)


def metrics_of(cell: Cell) -> list[str]:
    """What is simulated with this spectrum; `fid_inf` only where it has no note on its bias."""
    has_note = summary.bias_note(cell.num_images, cell.num_features) is not None
    return [
        metric
        for metric, decay in DECAYS.items()
        if decay == cell.decay and not (metric == "fid_inf" and has_note)
    ]


def measure(cell: Cell, seed: int, repeat: int, num_sizes: int = 10) -> dict[str, list[float]]:
    """The difference, its error, degrees of freedom and known truth for each metric."""
    metrics = metrics_of(cell)
    rng = np.random.default_rng(
        [seed, cell.num_images, cell.num_features, int(cell.decay), repeat, *cell.case.encode()]
    )
    size = (cell.num_images, cell.num_features)
    sizes = subsets.extrapolation_sizes(cell.num_images, num_sizes) if "fid_inf" in metrics else ()
    key = jax.random.key(int(rng.integers(2**31)))
    draws = summary.make_draws(key, sizes, cell.num_images, cell.num_images)
    real, estimates, truths = None, [], []
    for shift, scale in CANDIDATES[cell.case]:
        first, generated, truth = draw_features(rng, *size, shift, scale, cell.decay)
        real = first if real is None else real
        features = arrays.feature_pair(real, generated)
        estimates.append(estimates_of(features, draws, metrics))
        truths.append(truth)
    rows = {}
    for metric in metrics:
        gap = estimates[0][metric].minus(estimates[1][metric])
        known = 0.0 if cell.case in EQUAL else truths[0] - truths[1]
        is_known = cell.case in EQUAL or metric == "fid_inf"
        degrees = min(gap.degrees_of_freedom, 1e9)
        rows[metric] = [gap.value, gap.variance().stderr, degrees, known if is_known else np.nan]
    return rows


def estimates_of(
    features: arrays.FeaturePair, draws: summary.Draws, metrics: Sequence[str]
) -> dict[str, Estimate]:
    """The estimates of one candidate."""
    line = extrapolate.half_sample_line(
        extrapolate.fid_curves(features, draws.design), draws.design
    )
    estimates: dict[str, Estimate] = {"fid": line.full, "frechet": line.full}
    if line.intercept is not None:
        estimates["fid_inf"] = line.intercept
    if "kid" in metrics:
        sums = kid.pair_sums(features, draws.design.draws[-1:], ("polynomial",))["polynomial"]
        estimates["kid"] = KernelMean(np.ones(1), sums)
    return estimates


def simulate(
    seed: int, repeats: int, selected: Sequence[Cell], path: Path, num_sizes: int = 10
) -> None:
    """Adds the repeats that are missing to the file; `num_sizes` of the extrapolations."""
    done = {(cell, repeat) for cell, repeat, _ in read(path)}
    with path.open("a", encoding="utf-8") as file:
        for repeat, cell in itertools.product(range(repeats), selected):
            if (cell, repeat) not in done:
                rows = measure(cell, seed, repeat, num_sizes)
                line = json.dumps({"cell": cell, "repeat": repeat, "rows": rows})
                print(line, file=file, flush=True)


def read(path: Path) -> list[tuple[Cell, int, dict[str, list[float]]]]:
    """The repeats in a file; a line that is incomplete is left out."""
    results = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        results.append((Cell(*content["cell"]), content["repeat"], content["rows"]))
    return results


def print_table(path: Path) -> None:
    """Prints a row for each cell and metric of a file."""
    by_cell: dict[Cell, list[dict[str, list[float]]]] = {}
    for cell, _, rows in read(path):
        by_cell.setdefault(cell, []).append(rows)
    print("| N | D | candidates | metric | repeats | sd | mean error | coverage | verdicts |")
    print("|---|---|---|---|---|---|---|---|---|")
    for cell, results in sorted(by_cell.items(), key=lambda item: (item[0][2], item[0][1])):
        for metric in results[0]:
            values, stderrs, degrees, truth = np.array([rows[metric] for rows in results]).T
            target = values.mean() if np.isnan(truth[0]) else truth[0]
            ratios = (values - target) / stderrs
            widths = scipy.stats.t.ppf((1 + paired.LEVEL) / 2, degrees)
            covered = np.mean(np.abs(ratios) <= widths)
            decided = np.mean(np.abs(values / stderrs) > widths)
            sd = values.std(ddof=1) if len(values) > 1 else np.nan
            print(
                f"| {cell.num_images} | {cell.num_features} | {cell.case} | `{metric}` "
                f"| {len(values)} | {sd:.3g} | {np.sqrt(np.mean(stderrs**2)):.3g} "
                f"| {covered:.3f} | {decided:.3f} |"
            )
