"""Times FID and KID at all sizes with shared work, and compares them with plain evaluations.

  python -m benchmarks.metrics                                # all ten sizes: minutes
  python -m benchmarks.metrics --plain_sizes=1000,4500        # scales two plain sizes up to ten

Features are random, [num_images, num_features], non-negative, with a falling spectrum like those of
a network. A plain evaluation is that of common programs: numpy's covariances and scipy's
general square root of their product for the FID, and three full kernel matrices for the KID, in
float64. The shared form is `thermo_ebm.metrics.extrapolate`: four draws per size and the errors of
the complete procedure. The plain form uses the first draw of each size; the last columns of the
table have the relative differences, and the last lines are the seconds that the error of the FID
takes and `plain_s=... shared_s=... ratio=...`. `benchmarks.coverage` says how often errors cover.
"""

if not __package__:
    __import__("not_a_script")

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import scipy.linalg
from absl import flags

from launch import flag_errors, program
from thermo_ebm.errors import UserError
from thermo_ebm.metrics import arrays, extrapolate, fid, subsets
from thermo_ebm.metrics.kid import subset_distances


def random_features(seed: int, num_images: int, num_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides, float32 [num_images, num_features]."""
    rng = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(num_features) / (num_features / 7))
    mixing = rng.standard_normal((num_features, num_features)) * spectrum[:, None] / 8
    real = np.abs(rng.standard_normal((num_images, num_features)) @ mixing)
    generated = np.abs(1.1 * rng.standard_normal((num_images, num_features)) @ mixing + 0.1)
    return real.astype(np.float32), generated.astype(np.float32)


def plain_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """The FID as it is usually computed."""
    first, second = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    gap = real.mean(axis=0) - generated.mean(axis=0)
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * np.trace(root).real)


def plain_kid(real: np.ndarray, generated: np.ndarray) -> float:
    """The polynomial KID as it is usually computed."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        matrix = kernel(x, x)
        return (matrix.sum() - np.trace(matrix)) / (len(x) * (len(x) - 1))

    return float(within(real) + within(generated) - 2 * kernel(real, generated).mean())


def timed(function: Callable[..., object], *arguments: object) -> tuple[float, object]:
    """Returns the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def shared(
    real: np.ndarray, generated: np.ndarray, design: extrapolate.Design
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the FID of every draw with its replicates, and the polynomial KID of every draw.

    The errors of the intercept and of the full set are computed too, for both metrics.
    """
    features = arrays.feature_pair(real, generated)
    curves = extrapolate.fid_curves(features, design)
    extrapolate.half_sample_line(curves, design)
    distances = subset_distances(features, design.draws, ("polynomial",))["polynomial"]
    return curves.values, distances.values


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_integer("num_images", 4500, "Number of images in each set.")
    flags.DEFINE_integer("num_features", 2048, "Number of features per image.")
    flags.DEFINE_list(
        "plain_sizes",
        None,
        "Sizes timed in the plain form and extrapolated to all sizes; by default all.",
    )
    flags.DEFINE_integer("seed", 0, "Seed of features and subsets.")


def main(argv: Sequence[str]) -> None:
    """Times both forms, prints a row for each size and the ratio."""
    real, generated = random_features(
        flags.FLAGS.seed, flags.FLAGS.num_images, flags.FLAGS.num_features
    )
    sizes = subsets.extrapolation_sizes(flags.FLAGS.num_images)
    plain_sizes = flag_errors.integers("plain_sizes") or list(sizes)
    if not set(plain_sizes) <= set(sizes):
        raise UserError(f"plain_sizes: must be among {', '.join(map(str, sizes))}")
    key = jax.random.key(flags.FLAGS.seed)
    design = extrapolate.make_design(key, sizes, len(real), len(generated))
    first = design.averages.argmax(axis=1)  # the first draw of each size
    draws = [design.draws[index] for index in first]
    # The speed of a shared machine drifts: the shared form is timed before and after the plain one.
    before, (curves, kids_of_draws) = timed(shared, real, generated, design)
    fids, kids = curves[first, 0], kids_of_draws[first]
    print("size  fid plain   s      kid plain   s     fid difference  kid difference")
    plain_seconds = []
    for size, draw, shared_fid, shared_kid in zip(sizes, draws, fids, kids, strict=True):
        if size not in plain_sizes:
            continue
        x, y = real[draw.real].astype(np.float64), generated[draw.generated].astype(np.float64)
        fid_seconds, fid_value = timed(plain_fid, x, y)
        kid_seconds, kid_value = timed(plain_kid, x, y)
        plain_seconds.append(fid_seconds + kid_seconds)
        print(
            f"{size:5d} {fid_value:9.4f} {fid_seconds:6.2f} {kid_value:11.6f} {kid_seconds:6.2f}"
            f"  {shared_fid / fid_value - 1:13.1e} {shared_kid / kid_value - 1:15.1e}",
            flush=True,
        )
    after, _ = timed(shared, real, generated, design)
    plain, together = np.mean(plain_seconds) * len(sizes), (before + after) / 2
    print(f"shared form: {before:.2f} s before, {after:.2f} s after")
    seconds, _ = timed(fid.influences, arrays.feature_pair(real, generated))
    print(f"influence functions of the FID's error, once for all sizes: {seconds:.2f} s")
    print(f"plain_s={plain:.1f} shared_s={together:.2f} ratio={together / plain:.4f}")


if __name__ == "__main__":
    program.run(main, define_flags)
