"""How many images to sample at once, from the memory of the device.

The memory of the loss and its gradient grows with the number of chains that run at once. It is
estimated from the jaxpr of the gradient, before anything is compiled.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from thermo_ebm.cost.flops import batch_jaxpr, inner_jaxprs, num_bytes
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.types import Batch, Params, PRNGKey

GradientFn = Callable[[Params, Batch, PRNGKey], Any]

# The share of the device's memory that a step may take: the estimate covers a program's buffers,
# and leaves out what a compiler adds to them and what else is on the device. (The step of CelebA
# with 512 images, compiled for four v5e, takes 0.53 of its estimate.)
USABLE = {"cpu": 0.5, "default": 0.6}

# Bytes of VMEM, all cores of a chip together, by JAX's name of the chip
# (`jax/_src/pallas/mosaic/tpu_info.py`).
VMEM_BYTES = {
    "TPU v4": 32 * 2**20,
    "TPU v5 lite": 128 * 2**20,
    "TPU v5": 128 * 2**20,
    "TPU v6 lite": 128 * 2**20,
}

# Where Linux says which control group a process is in, and where the limits of groups are.
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_LOOPS = ("scan", "while")


def choose_chunk(num_images: int, fixed: int, per_image: int, available: int) -> int:
    """The number of images to sample at once, as `sampler.image_chunk` takes it.

    As few chunks as fit, all of nearly equal size. If not even one image fits, the number is 1: an
    estimate should not prevent a run from trying.

    Args:
      num_images: on one device, at least 1.
      fixed: bytes that a step takes without any image.
      per_image: further bytes for each image that is sampled at once.
      available: bytes that the step may take.

    Returns:
      0 for all at once, else a number from 1 to num_images - 1.
    """
    if num_images == 1 or fixed + per_image * num_images <= available:
        return 0
    largest = max((available - fixed) // max(per_image, 1), 1)
    num_chunks = max(-(-num_images // largest), 2)
    return -(-num_images // num_chunks)


def automatic_chunk(peak: Callable[[int], int], num_images: int, available: int) -> int:
    """Chooses the chunk of images with which a step fits, from estimates of its memory.

    Args:
      peak: chunk -> estimated bytes of a step that samples so many images at once (0: all).
      num_images: examples on one device, times the repetitions that train together.
      available: bytes that the step may take; see `usable_bytes`.

    Returns:
      As `choose_chunk`, but a divisor of half the batch if that takes at most twice as many chunks.
    """
    if peak(0) <= available or num_images == 1:
        return 0
    # Peak memory is convex in the chunk, so a line between chunk 1 and half a batch is an upper
    # bound (except for chains, which grow only up to `chain_chunk`; the loss takes more memory than
    # they do). No chunk is larger than half a batch, whose gradient is computed at once anyway.
    single, half = peak(1), -(-num_images // 2)
    per_image = -(-max(peak(half) - single, 0) // max(half - 1, 1))
    return even_chunk(half, choose_chunk(num_images, single - per_image, per_image, available))


def even_chunk(num_images: int, chunk: int) -> int:
    """The largest divisor of num_images from a chunk down to half of it, or else the chunk.

    The images left over by a chunk that does not divide are a computation of their own, whose
    memory a compiler may hold beside that of the chunks: the step of CelebA with 128 images a chip,
    compiled for v5e with the gradients of both halves at once, takes 14,437 MiB in chunks of 43 and
    10,462 MiB in chunks of 64.
    """
    return next((n for n in range(chunk, chunk // 2, -1) if num_images % n == 0), chunk)


def step_bytes(
    gradient: GradientFn, model: LatentEBM, batch_size: int, image_shape: tuple[int, ...]
) -> int:
    """Estimates the memory of a step, in bytes: loss, gradient and both optimisers.

    Args:
      gradient: the gradient of a batch, without a device axis.
      model: the model.
      batch_size: examples on one device, times the repetitions that train together.
      image_shape: [height, width, channels].
    """
    # Adam's two moments, and what replaces them and the parameters.
    shapes = jax.tree.leaves(jax.eval_shape(lambda: model.init(jax.random.key(0))))
    optimisers = 5 * sum(leaf.size * leaf.dtype.itemsize for leaf in shapes)
    return peak_bytes(batch_jaxpr(gradient, model, batch_size, image_shape)) + optimisers


def peak_bytes(jaxpr: Jaxpr) -> int:
    """Bytes alive at once, at most, when a jaxpr's equations run in their order.

    Nothing is fused and nothing reused in place, so that a compiled program usually takes less.
    """
    return sum(map(num_bytes, [*jaxpr.constvars, *jaxpr.invars])) + _peak_inside(jaxpr)


def _peak_inside(jaxpr: Jaxpr) -> int:
    """As `peak_bytes`, without the inputs of the jaxpr, which its caller holds."""
    last_use = {
        variable: i
        for i, eqn in enumerate(jaxpr.eqns)
        for variable in eqn.invars
        if not isinstance(variable, Literal)
    }
    persistent = {  # alive until the end
        *jaxpr.constvars,
        *jaxpr.invars,
        *(v for v in jaxpr.outvars if not isinstance(v, Literal)),
    }
    live = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        results = sum(map(num_bytes, eqn.outvars))
        peak = max(peak, live + _running_bytes(eqn, results))
        live += results
        for variable in {v for v in eqn.invars if not isinstance(v, Literal)}:
            if last_use[variable] == i and variable not in persistent:
                live -= num_bytes(variable)
        live -= sum(num_bytes(v) for v in eqn.outvars if v not in last_use and v not in persistent)
    return peak


def _running_bytes(eqn: JaxprEqn, results: int) -> int:
    """Bytes that an equation needs while it runs, beside what is alive already."""
    inside = max((_peak_inside(jaxpr) for jaxpr in inner_jaxprs(eqn)), default=0)
    # The results of a call are those of its jaxpr; a loop has its results beside those of its body.
    return results + inside if eqn.primitive.name in _LOOPS else max(results, inside)


def usable_bytes(device: jax.Device) -> int:
    """Bytes of a device's memory that a step may take, the same at every start on one machine.

    Every CPU device has an equal share of the CPU's memory, or of the limit of this process. The
    memory that happens to be free is not considered: a resumed run must choose the same
    chunk as the interrupted run.
    """
    return usable_of(device.platform, device_bytes(device))


def usable_of(platform: str, total: int) -> int:
    """The bytes that a step's estimate may reach on a device with `total` bytes of memory."""
    return int(USABLE.get(platform, USABLE["default"]) * total)


def data_bytes(device: jax.Device) -> int:
    """Bytes of a device's memory that images may take: what a step leaves."""
    return device_bytes(device) - usable_bytes(device)


def device_bytes(device: jax.Device) -> int:
    """Bytes of a device's memory; of a CPU device, its share of this process's."""
    if device.platform == "cpu":
        return host_bytes() // jax.local_device_count("cpu")
    statistics = device.memory_stats() or {}
    # For a device that does not report its memory: small for any recent device.
    return statistics.get("bytes_limit", 8 * 2**30)


def peak_mib(devices: Sequence[jax.Device]) -> float | None:
    """The most memory that has been in use so far on one of the devices, in MiB.

    None if no device reports it, as on a CPU.
    """
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    reported = [peak for peak in peaks if peak is not None]
    return max(reported) / 2**20 if reported else None


def host_bytes() -> int:
    """Bytes of memory that this process may have."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *cgroup_limits(_MEMBERSHIP, _CGROUPS)])


def cgroup_limits(membership: Path, cgroups: Path) -> list[int]:
    """Memory limits, in bytes, of a process's control group (version 2) and of those around it.

    A job of SLURM runs in a group within the groups of its job and its user, each of which may have
    the limit. Files that do not exist have no limit.

    Args:
      membership: `/proc/self/cgroup`, with the line `0::/path`.
      cgroups: `/sys/fs/cgroup`.
    """
    lines = membership.read_text().splitlines() if membership.is_file() else []
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = cgroups / path.strip("/")
    limits = []
    for folder in {cgroups, group, *group.parents}:
        # ValueError: "max", or a path outside what a container sees
        with contextlib.suppress(OSError, ValueError):
            folder.relative_to(cgroups)
            limits.append(int((folder / "memory.max").read_text()))
    return limits
