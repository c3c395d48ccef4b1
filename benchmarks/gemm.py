"""The machine's peak speed of matrix multiplication, measured with JAX's product of square
matrices.

  python -m benchmarks.gemm --dtype=bfloat16

The peak is that of the fastest of a few sizes. A benchmark that reports a fraction of the peak
measures the peak again beside each of its own measurements (`Gemm.rate`), since the speed of shared
machines drifts.
"""

if not __package__:
    __import__("not_a_script")

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from launch import program

# Large enough for the peak, small enough to be done in a fraction of a second.
_SIZES = {"cpu": (1024, 1536, 2048), "default": (4096, 8192, 12288)}
_PRODUCTS = {
    "cpu": 1,
    "default": 8,
}  # products per dispatch, so that the cost of a dispatch is negligible


class Gemm(NamedTuple):
    """A compiled product of two square matrices."""

    size: int
    flops: int  # of one call
    call: Callable[[], jax.Array]

    def rate(self, seconds: float) -> float:
        """FLOP/s over about `seconds`, at least one call."""
        calls, start = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - start < seconds:
            jax.block_until_ready(self.call())
            calls += 1
        return calls * self.flops / (time.perf_counter() - start)


def make_gemm(size: int, dtype: str) -> Gemm:
    """Compiles the product of matrices [size, size], and runs it once."""
    products = _PRODUCTS.get(jax.default_backend(), _PRODUCTS["default"])
    keys = jax.random.split(jax.random.key(0))
    # Of orthonormal scale, so that repeated products neither grow nor vanish.
    left, right = (jax.random.normal(key, (size, size)) / size**0.5 for key in keys)

    @jax.jit
    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, products, lambda _, z: z @ y, x) if products > 1 else x @ y

    call = partial(product, left.astype(dtype), right.astype(dtype))
    jax.block_until_ready(call())
    return Gemm(size, 2 * products * size**3, call)


def fastest(dtype: str, seconds: float = 0.5) -> Gemm:
    """The product of the size that runs fastest here, by its median of three."""
    sizes = _SIZES.get(jax.default_backend(), _SIZES["default"])
    gemms = [make_gemm(size, dtype) for size in sizes]
    # Sizes in turn, so that a burst of other work on the machine affects all of them.
    rates = np.median([[gemm.rate(seconds / 3) for gemm in gemms] for _ in range(3)], axis=0)
    return gemms[int(np.argmax(rates))]


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Type of the matrices.")
    flags.DEFINE_float("seconds", 1.0, "Seconds for which each size is measured.")


def main(argv: Sequence[str]) -> None:
    del argv
    device = jax.devices()[0]
    print(f"{device.platform} ({device.device_kind}), jax {jax.__version__}, {flags.FLAGS.dtype}")
    sizes = _SIZES.get(jax.default_backend(), _SIZES["default"])
    for size in sizes:
        rate = make_gemm(size, flags.FLAGS.dtype).rate(flags.FLAGS.seconds)
        print(f"{size:>6} x {size}: {rate / 1e9:,.1f} GFLOP/s")


if __name__ == "__main__":
    program.run(main, define_flags)
