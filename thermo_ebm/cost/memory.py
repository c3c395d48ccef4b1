"""How many images to sample at once, from the memory of the device.

The loss and its gradient need memory in proportion to the chains that run at once. Both ends of
this line are computed from the jaxpr of the gradient, before anything is compiled.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from thermo_ebm.cost.jaxprs import batch_jaxpr, inner_jaxprs, num_bytes
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.types import Batch, Params, PRNGKey

GradientFn = Callable[[Params, Batch, PRNGKey], Any]

# The share of the device's memory that a step may take: the estimate is of a program's buffers,
# and leaves out what a compiler adds to them and what else is on the device. (The step of CelebA
# with 512 images, compiled for four v5e, takes 0.53 of its estimate.)
USABLE = {"cpu": 0.5, "default": 0.6}

# Where Linux says which control groups a process is in, and where their limits are.
_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_LOOPS = ("scan", "while")


class StepBytes(NamedTuple):
    """Memory of a step as a line in the number of images that are sampled at once."""

    fixed: int
    per_image: int


def choose_chunk(num_images: int, step: StepBytes, available: int) -> int:
    """The number of images to sample at once, as `sampler.image_chunk` takes it.

    As few chunks as fit, all of nearly equal size. If not even one image fits, the number is 1: an
    estimate should not prevent a run from trying.

    Args:
      num_images: on one device, at least 1.
      step: the memory of a step.
      available: bytes that the step may take.

    Returns:
      0 for all at once, else a number from 1 to num_images - 1.
    """
    if num_images == 1 or step.fixed + step.per_image * num_images <= available:
        return 0
    most = max((available - step.fixed) // max(step.per_image, 1), 1)
    num_chunks = max(-(-num_images // most), 2)
    return -(-num_images // num_chunks)


def automatic_chunk(
    gradient: Callable[[int], GradientFn],
    model: LatentEBM,
    batch_size: int,
    image_shape: tuple[int, ...],
    available: int,
) -> int:
    """Estimates the memory of a step, and chooses the chunk that fits.

    Args:
      gradient: chunk -> the gradient of a batch, so many images at once, without a device axis.
      model: the model.
      batch_size: examples on one device, times the repetitions that train together.
      image_shape: [height, width, channels].
      available: bytes that the step may take; see `usable_bytes`.

    Returns:
      As `choose_chunk`, but without a rest of a half of the batch if that is possible with at most
      twice as many chunks.
    """

    def peak(chunk: int) -> int:
        return step_bytes(gradient(chunk), model, batch_size, image_shape)

    if peak(0) <= available or batch_size == 1:
        return 0
    # A peak is the largest of several sums, so that the line through the ends is not below it (but
    # for chains, which grow only up to `chain_chunk`; the loss takes more). No chunk is larger than
    # a half, of which the gradient is computed at once in any case.
    alone, half = peak(1), -(-batch_size // 2)
    per_image = -(-max(peak(half) - alone, 0) // max(half - 1, 1))
    line = StepBytes(alone - per_image, per_image)
    return _even(half, choose_chunk(batch_size, line, available))


def _even(num_images: int, chunk: int) -> int:
    """The largest divisor of num_images from a chunk down to its half, or else the chunk.

    A rest is a computation of its own, whose memory a compiler may hold beside the chunks':
    the step of CelebA with 128 images a chip, compiled for v5e with the gradients of both halves at
    once, takes 14,437 MiB in chunks of 43 and 10,462 MiB in chunks of 64.
    """
    return next((n for n in range(chunk, chunk // 2, -1) if num_images % n == 0), chunk)


def step_bytes(
    gradient: GradientFn, model: LatentEBM, batch_size: int, image_shape: tuple[int, ...]
) -> int:
    """Estimates the memory of a step, in bytes: loss, gradient and both optimisers.

    Arguments as of `automatic_chunk`, but for the gradient, whose chunk is chosen.
    """
    # Adam's two moments, and what replaces them and the parameters.
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    optimisers = 5 * sum(map(_leaf_bytes, jax.tree.leaves(shapes)))
    return peak_bytes(batch_jaxpr(gradient, model, batch_size, image_shape)) + optimisers


def _leaf_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return leaf.size * leaf.dtype.itemsize


def peak_bytes(jaxpr: Jaxpr) -> int:
    """Bytes alive at once, at most, when a jaxpr's equations run in their order.

    Nothing is fused and nothing reused in place, so that a compiled program usually takes less.
    """
    return sum(map(num_bytes, [*jaxpr.constvars, *jaxpr.invars])) + _peak_inside(jaxpr)


def _peak_inside(jaxpr: Jaxpr) -> int:
    """The same without the jaxpr's own inputs, which its caller holds."""
    last_use = {
        variable: i
        for i, eqn in enumerate(jaxpr.eqns)
        for variable in eqn.invars
        if not isinstance(variable, Literal)
    }
    held = {
        *jaxpr.constvars,
        *jaxpr.invars,
        *(v for v in jaxpr.outvars if not isinstance(v, Literal)),
    }
    live = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        made = sum(map(num_bytes, eqn.outvars))
        peak = max(peak, live + _while_it_runs(eqn, made))
        live += made
        for variable in {v for v in eqn.invars if not isinstance(v, Literal)}:
            if last_use[variable] == i and variable not in held:
                live -= num_bytes(variable)
        live -= sum(num_bytes(v) for v in eqn.outvars if v not in last_use and v not in held)
    return peak


def _while_it_runs(eqn: JaxprEqn, made: int) -> int:
    """Bytes an equation needs beside what is alive already: results and what is inside of it."""
    inside = max((_peak_inside(jaxpr) for jaxpr in inner_jaxprs(eqn)), default=0)
    # A loop's results are not its body's; a call's are.
    return made + inside if eqn.primitive.name in _LOOPS else max(made, inside)


def usable_bytes(device: jax.Device) -> int:
    """Bytes of a device's memory that a step may take, the same at every start on one machine.

    Every CPU device has an equal share of the CPU's memory, or of the limit of this process. The
    memory that happens to be free is not considered: a resumed run must choose as the interrupted
    one did.
    """
    return usable_of(device.platform, device_bytes(device))


def usable_of(platform: str, total: int) -> int:
    """Of so many bytes of a device's memory, those that a step may take by its estimate."""
    return int(_usable_share(platform) * total)


def data_bytes(device: jax.Device) -> int:
    """Bytes of a device's memory that images may take: what a step leaves."""
    total = device_bytes(device)
    return total - int(_usable_share(device.platform) * total)


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
    known = [peak for peak in peaks if peak is not None]
    return max(known) / 2**20 if known else None


def _usable_share(platform: str) -> float:
    return USABLE.get(platform, USABLE["default"])


def host_bytes() -> int:
    """Bytes of memory that this process may have."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *cgroup_limits(_MEMBERSHIP, _CGROUPS)])


def cgroup_limits(membership: Path, cgroups: Path) -> list[int]:
    """Memory limits, in bytes, of the control groups that a process is in, and of those around.

    A job of SLURM runs in a group within its user's and its job's groups, any of which may have the
    limit. Groups of version 2 and of version 1 are read; files that are not there have no limit.

    Args:
      membership: `/proc/self/cgroup`: a line for each hierarchy, `number:controllers:/path`.
      cgroups: `/sys/fs/cgroup`.
    """
    lines = membership.read_text().splitlines() if membership.is_file() else []
    entries = [tuple(line.split(":", 2)) for line in lines if line.count(":") >= 2]
    found = []
    for controllers, root, name in (
        ("", cgroups, "memory.max"),
        ("memory", cgroups / "memory", "memory.limit_in_bytes"),
    ):
        inner = [path for _, mine, path in entries if controllers in mine.split(",")]
        for path in inner or ["/"]:
            inside = root / path.strip("/")
            within = [one for one in (inside, *inside.parents) if one.is_relative_to(root)]
            found += [_limit(one / name) for one in {root, *within}]
    return [limit for limit in found if limit is not None]


def _limit(path: Path) -> int | None:
    """The limit in a file; None where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # ValueError: "max"
        return None
